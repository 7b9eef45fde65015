"""The I/O manager as a component."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import dagster as dg
from pydantic import BaseModel

from dagster_lakebase.components.connection import LakebaseConnectionComponent
from dagster_lakebase.components.scaffolding import IOManagerScaffolder
from dagster_lakebase.io_manager.io_manager import LakebaseIOManager
from dagster_lakebase.resource.hidden_inputs import HiddenInputs

#: A key to which a component binds a connection, or the component itself.
_Connection = str | LakebaseConnectionComponent


def _connection(context: dg.ResolutionContext, value: Any) -> _Connection:
    value = context.resolve_value(value)
    if isinstance(value, (str, LakebaseConnectionComponent)):
        return value
    raise dg.DagsterInvalidDefinitionError(
        f"connection is a {type(value).__name__}. Give the resource_key of a LakebaseConnectionComponent, or "
        "its \"{{ context.load_component('…') }}\"."
    )


@contextmanager
def _a_field_named_schema() -> Iterator[None]:
    """pydantic has a deprecated method of that name, which nobody calls here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message='Field name "schema"', category=UserWarning)
        yield


with _a_field_named_schema():

    @dg.scaffold_with(IOManagerScaffolder)
    class LakebaseIOManagerComponent(dg.Component, HiddenInputs):
        """Stores the outputs of assets as tables in Lakebase, and loads tables as their inputs.

        Its fields are those of :class:`dagster_lakebase.LakebaseIOManager`; the connection is that of a
        :class:`dagster_lakebase.LakebaseConnectionComponent` of the same project. Two assets of the project
        that would share a table are refused when its definitions are loaded.
        """

        connection: Annotated[
            _Connection,
            dg.Resolver(
                _connection,
                model_field_type=str,
                inject_before_resolve=False,
                description="resource_key of a LakebaseConnectionComponent, or its "
                "{{ context.load_component('…') }}.",
            ),
        ] = "lakebase"
        resource_key: Annotated[
            str, dg.Resolver.default(description="The key under which the I/O manager is bound.")
        ] = "io_manager"
        schema: Annotated[
            str | None, dg.Resolver.default(description="Schema of assets whose metadata names none.")
        ] = None  # type: ignore[assignment] # see above
        mode: Annotated[
            Literal["replace", "append"],
            dg.Resolver.default(description="How outputs are written by default."),
        ] = "replace"
        schema_evolution: Annotated[
            Literal["error", "add", "widen", "recreate"],
            dg.Resolver.default(
                description="What happens by default if an output's columns do not match the table's."
            ),
        ] = "error"
        default_load_type: Annotated[
            Literal["pandas", "polars", "arrow"] | None,
            dg.Resolver.default(description="What inputs without a type annotation are loaded as."),
        ] = None
        restore_point: Annotated[
            bool,
            dg.Resolver.default(
                description="Whether to note in each output's metadata, before it is written, the moment as "
                "of which rows can be put back."
            ),
        ] = False

        @classmethod
        def model(cls) -> type[BaseModel]:
            """The schema that validates the YAML."""
            with _a_field_named_schema():
                return super().model()

        def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
            """The I/O manager, under its key.

            Raises:
                DagsterInvalidDefinitionError: No component binds the connection.
            """
            connection = self._bound(context)
            manager = LakebaseIOManager(
                lakebase=connection.resource(),
                schema=self.schema,
                mode=self.mode,
                schema_evolution=self.schema_evolution,
                default_load_type=self.default_load_type,
                restore_point=self.restore_point,
            )
            return dg.Definitions(resources={self.resource_key: manager.validate_in(context.component_tree)})

        def _bound(self, context: dg.ComponentLoadContext) -> LakebaseConnectionComponent:
            if isinstance(self.connection, LakebaseConnectionComponent):
                return self.connection
            # Not through the resource behind the key: Dagster nests resources, not their keys. Resources with
            # the same settings share one pool.
            found = context.component_tree.get_all_components(of_type=LakebaseConnectionComponent)
            named = [one for one in found if one.resource_key == self.connection]
            if len(named) == 1:
                return named[0]
            keys = ", ".join(sorted(repr(one.resource_key) for one in found)) or "none"
            raise dg.DagsterInvalidDefinitionError(
                f"connection is {self.connection!r}, which {len(named)} LakebaseConnectionComponents bind; "
                f"there are: {keys}. Add one with 'dg scaffold defs "
                "dagster_lakebase.LakebaseConnectionComponent lakebase', or bind LakebaseIOManager to a "
                "LakebaseResource in Python."
            )
