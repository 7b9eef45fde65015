"""The I/O manager: turns what assets return into rows, and rows into what assets take."""

# No "from __future__ import annotations": Dagster reads the annotation of a nested resource as an object.

from typing import TYPE_CHECKING, cast

import dagster as dg
from pydantic import ConfigDict, Field, PrivateAttr, ValidationInfo, field_validator

from dagster_lakebase.io_manager.write_options import LOAD_TYPES, WriteOptions
from dagster_lakebase.resource.resource import LakebaseResource
from dagster_lakebase.tables.owners import StoresTables, require_owners
from lakebase_provider.core.base.choices import require_choice
from lakebase_provider.core.bulk.load.result import Mode
from lakebase_provider.core.bulk.tables.schema_evolution import SCHEMA_EVOLUTIONS, SchemaEvolution
from lakebase_provider.core.errors import ConfigError

if TYPE_CHECKING:
    from dagster import ComponentTree
    from dagster._config.pythonic_config.io_manager import ConfigurableIOManagerFactoryResourceDefinition

    from dagster_lakebase.io_manager.db_io_manager import LakebaseDbIOManager

#: The values of each default; `merge` is only for an asset, whose metadata names the keys.
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "mode": ("replace", "append"),
    "schema_evolution": SCHEMA_EVOLUTIONS,
    "default_load_type": (None, *LOAD_TYPES),
}


class LakebaseIOManager(StoresTables, dg.ConfigurableIOManagerFactory["LakebaseDbIOManager"]):
    """Stores the outputs of assets as tables in Lakebase, and loads tables as their inputs.

    Assets and ops return and take pandas data frames, Polars data and lazy frames, and Arrow tables; they
    may also return and take a ``pyarrow.RecordBatchReader``, or return an iterator of record batches, which
    moves a table of any size in constant memory.

    The asset's key names the table, its prefix the schema; two assets that would share a table are refused at
    the first use of either, and when definitions are loaded by :func:`validate_table_owners`. One transaction
    removes the old rows and loads the new ones with COPY: a failed write changes nothing. Exactly the run's
    partitions are replaced. An output without rows creates its table too.

    Metadata of an asset (or of an op's output) changes these defaults:

    * ``dagster/table_name``: the table, ``[database.][schema.]table``, as everywhere in this package; a
      database named there must be the one that `lakebase` leads to.
    * ``schema``: the schema. It takes precedence over the I/O manager's, and that over the key's prefix;
      without any, it is ``public``. For an op's output, ``table`` is the table's name; by default it is the
      output's.
    * ``partition_expr``: the column (or SQL expression) that gives a row's partition; for a multi-partitioned
      asset, one for each dimension. In every mode, rows of other partitions fail the write.
    * ``lakebase/mode``: ``replace`` (default), ``append``, or ``merge`` on the columns in ``lakebase/keys``.
    * ``lakebase/delete``: for ``merge``, ``missing`` removes rows whose key is not in the output, within the
      run's partitions.
    * ``lakebase/schema_evolution``: ``error`` (default), ``add``, ``widen`` or ``recreate``: what happens if
      the output's columns do not match the table's.
    * ``lakebase/restore_point``: ``True`` notes in the output's metadata, before anything is written, the
      moment as of which rows can be put back (``lakebase/restore_lsn``, ``lakebase/restore_time``).
    * ``columns``, of an input: the columns to load, one as text or several as a list.

    An input annotated as ``DataFrame | None`` is None if its table does not exist yet.

    Raises:
        ConfigError: A default is unknown: raised where it is given, or at set-up if it comes from the
            environment or a run's configuration. Also as for :class:`LakebaseResource`.

    Example:
        .. code-block:: python

            import dagster as dg
            import pandas as pd
            from dagster_lakebase import LakebaseIOManager, LakebaseResource, validate_table_owners


            @dg.asset(key_prefix="shop")
            def orders() -> pd.DataFrame:
                return pd.DataFrame({"id": [1, 2], "amount": [9.5, 3.0]})


            defs = validate_table_owners(
                dg.Definitions(
                    assets=[orders],
                    resources={"io_manager": LakebaseIOManager(lakebase=LakebaseResource())},
                )
            )
    """

    # A misspelt field must not pass as left out.
    model_config = ConfigDict(extra="forbid")

    lakebase: dg.ResourceDependency[LakebaseResource]
    schema_: str | None = Field(
        default=None, alias="schema", description="Schema of assets whose metadata names none."
    )
    mode: str = Field(default="replace", description="How outputs are written by default: replace or append.")
    schema_evolution: str = Field(
        default="error",
        description="What happens by default if an output's columns do not match the table's: "
        "error, add, widen or recreate.",
    )
    default_load_type: str | None = Field(
        default=None,
        description="What inputs without a type annotation are loaded as: pandas, polars or arrow.",
    )
    restore_point: bool = Field(
        default=False,
        description="Whether to note in each output's metadata, before it is written, the moment as of which "
        "rows can be put back.",
    )

    _tree: "ComponentTree | None" = PrivateAttr(default=None)

    @field_validator("mode", "schema_evolution", "default_load_type", mode="before")
    @classmethod
    def _known(cls, value: object, info: ValidationInfo) -> object:
        """Check a default where it is given, when definitions load."""
        if info.field_name in _CHOICES and not isinstance(value, dg.EnvVar):
            require_choice(info.field_name, value, _CHOICES[info.field_name])
        return value

    @classmethod
    def _is_dagster_maintained(cls) -> bool:
        return False

    def validate_in(self, tree: "ComponentTree") -> "LakebaseIOManager":
        """Have the assets of a project validated, too, whenever Dagster binds this I/O manager to them.

        Args:
            tree: The project's components.
        """
        self._tree = tree
        return self

    def get_resource_definition(  # type: ignore[override] # as in Dagster's class
        self,
    ) -> "ConfigurableIOManagerFactoryResourceDefinition":
        """What Dagster binds to assets, as it does when it loads definitions.

        Raises:
            DagsterInvalidDefinitionError: A component has made this I/O manager, and two assets of the
                project would share a table.
        """
        # Before the whole project is built, some of its assets are missing, and others lack their last names.
        if self._tree is not None and self._tree.has_built_all_defs():
            defs = self._tree.build_defs_at_path(self._tree.defs_module_path)
            require_owners(
                [one for one in defs.assets or () if isinstance(one, dg.AssetsDefinition)],
                {
                    # Not by the method of this class, which would come by here again.
                    key: super(LakebaseIOManager, one).get_resource_definition()
                    for key, one in (defs.resources or {}).items()
                    if isinstance(one, LakebaseIOManager)
                },
            )
        return super().get_resource_definition()

    def create_io_manager(self, context: dg.InitResourceContext) -> "LakebaseDbIOManager":
        """The I/O manager of a run, on the connections of `lakebase`.

        Raises:
            ConfigError: A default is unknown, or `lakebase` was not given.
        """
        # It holds the configuration with its secrets, and a traceback may show this frame.
        del context
        # Imported late: loading a code location must not cost the driver.
        from dagster_lakebase.io_manager.db_client import LakebaseDbClient
        from dagster_lakebase.io_manager.db_io_manager import LakebaseDbIOManager

        # Values from the environment have not been checked yet.
        for name, allowed in _CHOICES.items():
            require_choice(name, getattr(self, name), allowed)
        defaults = WriteOptions(
            mode=cast(Mode, self.mode),
            schema_evolution=cast(SchemaEvolution, self.schema_evolution),
            restore_point=self.restore_point,
        )
        lakebase: LakebaseResource | None = self.lakebase  # Dagster lets it be left out
        if lakebase is None:
            raise ConfigError(
                "LakebaseIOManager has no connection.",
                remedy="Give it one: LakebaseIOManager(lakebase=LakebaseResource()).",
            )
        return LakebaseDbIOManager(
            LakebaseDbClient(lakebase, defaults),
            database=lakebase.client_for_branches.config.database,
            schema=self.schema_,
            default_load_type=self.default_load_type,
        )
