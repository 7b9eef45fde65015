"""What the operators share that move rows at the speed of COPY, and that load each piece exactly once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import BaseOperator

from lakebase_provider._airflow.task.arguments import LakebaseArguments, conn_id_of, require_hook_params
from lakebase_provider.core.bulk.load.plan import check_load_options
from lakebase_provider.links import LakebaseConsoleLink

if TYPE_CHECKING:
    from os import PathLike

    from airflow.providers.common.compat.openlineage.facet import OutputDataset
    from airflow.sdk import Context

    from lakebase_provider.core.bulk.load.result import LoadResult, Mode
    from lakebase_provider.core.bulk.tables.schema_evolution import SchemaEvolution
    from lakebase_provider.core.connect.connection import LakebaseConnection
    from lakebase_provider.hooks.lakebase import LakebaseHook

#: The same at each try of a task instance that Airflow makes by itself, and no other's. A user who clears the
#: task wants another load: the tries from then on have the number of the first of them in their id. Airflow
#: adds the tries that were made to those that are allowed, unless the task was running when it was cleared:
#: then there is a try more than are allowed. A template, so that Airflow shows its value.
LOAD_ID = (
    "{{ ti.dag_id }}/{{ ti.task_id }}/{{ ti.run_id }}/{{ ti.map_index }}"
    "{% if ti.try_number > ti.max_tries + 1 %}/from-try-{{ ti.try_number }}"
    "{% elif ti.max_tries != (task.retries or 0) %}/from-try-{{ ti.max_tries - (task.retries or 0) + 1 }}"
    "{% endif %}"
)

#: What templates make of conditions, in lower case.
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no", "none", "")

#: The options that are handed to the load as they are.
_OPTIONS = (
    "mode",
    "keys",
    "columns",
    "version_column",
    "delete",
    "where",
    "load_id",
    "create",
    "schema_evolution",
    "on_error",
    "reject_to",
    "ledger_schema",
)


class BulkOperator(LakebaseArguments, BaseOperator):
    """Moves rows on a connection of the hook's, which is cancelled when the task is killed.

    Args:
        conn_id: Id of the Airflow connection (templated); ``lakebase_default`` by default.
        lakebase_conn_id: The same, by its other name.
        hook_params: Settings that go before the connection's, such as ``{"lock_timeout": 30}`` (seconds).
        kwargs: Arguments of ``BaseOperator``.

    Raises:
        ConfigError: An argument has a value that there is not, or contradicts another; when the DAG is
            parsed, or when the task runs where a template decides.
    """

    template_fields: Sequence[str] = ("conn_id",)
    operator_extra_links = (LakebaseConsoleLink(),)

    def __init__(
        self,
        *,
        conn_id: str | None = None,
        lakebase_conn_id: str | None = None,
        hook_params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id_of(conn_id, lakebase_conn_id, kwargs.get("default_args"))
        self.hook_params = hook_params
        self._check_own_arguments(("hook_params",))

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        require_hook_params(given.get("hook_params"))

    @cached_property
    def _lakebase_hook(self) -> LakebaseHook:
        # The hook brings the driver; parsing a DAG must not.
        from lakebase_provider.hooks.lakebase import LakebaseHook

        return LakebaseHook(self.conn_id, **(self.hook_params or {}))

    def get_db_hook(self) -> LakebaseHook:
        """The hook of the connection that leads to the table."""
        return self._lakebase_hook

    def on_kill(self) -> None:
        """Cancel what still runs on the server, when the task is killed or out of time."""
        # Without a hook nothing runs, and making one now would take the time that is left.
        hook: LakebaseHook | None = self.__dict__.get("_lakebase_hook")
        if hook is not None:
            hook.cancel()

    @contextmanager
    def _connection(self) -> Iterator[LakebaseConnection]:
        """The hook's own connection rather than the client's: it is fenced, and can be cancelled."""
        from psycopg.rows import tuple_row

        with closing(self.get_db_hook().get_conn()) as connection:
            connection.row_factory = tuple_row
            yield connection


class LoadingOperator(BulkOperator):
    """Loads rows into a table in one transaction: all of them or none, and once by its `load_id`.

    Args:
        table: ``"table"`` or ``"schema.table"`` as it stands, upper case included (templated).
        mode: ``"append"`` adds the rows; ``"merge"`` changes rows of the same key and adds the others;
            ``"replace"`` leaves no other rows than these, in the whole table or where `where` holds.
        keys: For merge: names of the columns that identify a row; the primary key by default (templated).
        columns: The table's columns that the source's columns go to; those of the source's names by default
            (templated).
        version_column: For merge: a row is only changed by one whose value here is not smaller.
        delete: For merge: ``"missing"`` removes rows whose key the source does not have.
        where: The slice that is replaced, or in which rows may be removed: columns with their values, SQL, or
            ``(SQL, parameters)`` (templated).
        load_id: A load of the same id and table takes place once: a retry after success is skipped, and of an
            id of your own so is a task that is cleared. By default dag, task, run and map index, anew when a
            user clears the task (templated). None to load at each try.
        force: Whether to load although a load of that id took place, such as ``"{{ params.reload }}"``
            (templated). A retry after success is skipped all the same.
        create: Whether to create a missing table, and its schema, with the types of the source's columns.
        schema_evolution: What may happen to a table whose columns are not the source's: ``"error"`` refuses
            them, ``"add"`` adds columns, ``"widen"`` also makes types wider, ``"recreate"`` gives a table
            whose rows are all replaced the source's columns. By default the table stays as it is.
        on_error: ``"reject"`` puts rows aside that cannot be encoded, and loads the others.
        reject_to: Where they are put: a table, created if missing, or a file as a ``Path``.
        ledger_schema: Schema of the table ``lakebase_load`` that keeps the ids; that of `table` by default.
        fence: Whether a retry ends the session of an earlier try that still runs, instead of waiting for it
            and being skipped if it succeeds.
        kwargs: ``conn_id``, ``hook_params`` as for :class:`BulkOperator`, and arguments of ``BaseOperator``.
    """

    template_fields: Sequence[str] = (
        *BulkOperator.template_fields,
        "table",
        "keys",
        "columns",
        "where",
        "load_id",
        "force",
    )

    def __init__(
        self,
        *,
        table: str,
        mode: Mode = "append",
        keys: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        version_column: str | None = None,
        delete: Literal["none", "missing"] = "none",
        where: str | tuple[str, Any] | Mapping[str, Any] | None = None,
        load_id: str | None = LOAD_ID,
        force: bool | str = False,
        create: bool = False,
        schema_evolution: SchemaEvolution | None = None,
        on_error: Literal["fail", "reject"] = "fail",
        reject_to: str | PathLike[str] | None = None,
        ledger_schema: str | None = None,
        fence: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.table = table
        self.mode = mode
        self.keys = keys
        self.columns = columns
        self.version_column = version_column
        self.delete = delete
        self.where = where
        self.load_id = load_id
        self._has_own_id = load_id != LOAD_ID
        self.force = force
        self.create = create
        self.schema_evolution = schema_evolution
        self.on_error = on_error
        self.reject_to = reject_to
        self.ledger_schema = ledger_schema
        self.fence = fence
        self._result: LoadResult | None = None
        self._check_own_arguments((*_OPTIONS, "force"))

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        super()._check_arguments(given)
        # Here it may be a text, which is not for the load itself.
        check_load_options({name: value for name, value in given.items() if name != "force"})
        _truth(given.get("force"))

    def _load(self, source: Any, context: Context, **more: Any) -> dict[str, Any]:
        """Load a source and return the :class:`.LoadResult` as a dict.

        Args:
            source: The source.
            context: Of the task that runs.
            more: Further options of the load, for this kind of source.
        """
        from dataclasses import asdict

        from lakebase_provider.core.bulk.load.commit import load_and_commit

        if self.fence:
            ti = context["ti"]
            self.get_db_hook().fence_key = f"{ti.dag_id}/{ti.task_id}/{ti.run_id}/{ti.map_index}"
        options: Any = {name: getattr(self, name) for name in _OPTIONS} | more
        if _truth(self.force):
            options.update(force=True, forced_by=self.render_template(LOAD_ID, context))
        result = self._result = load_and_commit(self._connection, source, self.table, **options)
        if result.skipped:
            self.log.warning(
                "Skipped, nothing was loaded: load_id %r had been loaded into %s already (%s)."
                " To load again, %s.",
                result.load_id,
                result.table,
                result.reason,
                "set force=True, or give another load_id" if self._has_own_id else "clear the task",
            )
        return asdict(result)

    def _table_dataset(self) -> OutputDataset:
        """The table that is written, as OpenLineage is told of it."""
        from lakebase_provider._airflow.task.lineage import table_dataset

        hook = self.get_db_hook()
        return table_dataset(
            hook.client.target(), hook.get_openlineage_default_schema, self.table, self._result
        )


def _truth(force: bool | str | None) -> bool:
    """Whether a load is forced, of what a template made of it."""
    text = str(force).strip().lower()
    if text not in _TRUE + _FALSE:
        from lakebase_provider.core.errors import ConfigError

        raise ConfigError(f"force is {force!r}."[:200], remedy="Let it be 'true' or 'false'.")
    return text in _TRUE
