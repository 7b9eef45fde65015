"""What the operators share that move rows at the speed of COPY and load each piece exactly once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from lakebase_provider._airflow.task.arguments import LakebaseArguments, conn_id_of, require_hook_params
from lakebase_provider.core.base.sql.names import split_name
from lakebase_provider.core.bulk.files.csv_format import CSV_OPTIONS
from lakebase_provider.core.bulk.load.plan import LOAD_OPTIONS, check_load_options
from lakebase_provider.links import LakebaseConsoleLink

if TYPE_CHECKING:
    from os import PathLike

    from airflow.providers.common.compat.openlineage.facet import OutputDataset
    from airflow.sdk import Context

    from lakebase_provider.core.bulk.load.result import Delete, Fallback, LoadResult, Mode, OnError, Since
    from lakebase_provider.core.bulk.tables.schema_evolution import SchemaEvolution
    from lakebase_provider.core.connect.connection import LakebaseConnection
    from lakebase_provider.hooks.lakebase import LakebaseHook

#: The same for each try of a task instance that Airflow makes by itself, and unique to it. A user who clears
#: the task wants a new load: later tries carry the number of the first of them in their id. Airflow adds the
#: tries made to those allowed, unless the task was running when it was cleared: then there is one try more
#: than allowed. A template, so that Airflow shows its value.
LOAD_ID = (
    "{{ ti.dag_id }}/{{ ti.task_id }}/{{ ti.run_id }}/{{ ti.map_index }}"
    "{% if ti.try_number > ti.max_tries + 1 %}/from-try-{{ ti.try_number }}"
    "{% elif ti.max_tries != (task.retries or 0) %}/from-try-{{ ti.max_tries - (task.retries or 0) + 1 }}"
    "{% endif %}"
)

#: How templates render conditions, in lower case.
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no", "none", "")

#: Options that operators work out or do not have.
_OTHERS = (*CSV_OPTIONS, "force", "forced_by", "count_outside")
#: The options of any load that are handed to it as they are.
_OPTIONS = tuple(name for name in LOAD_OPTIONS if name not in _OTHERS)


class BulkOperator(LakebaseArguments, BaseOperator):
    """Moves rows on the hook's connection, which is cancelled when the task is killed.

    Args:
        conn_id: Id of the Airflow connection (templated); ``lakebase_default`` by default.
        lakebase_conn_id: An alias of `conn_id`.
        branch: Name or id of a branch on which to work, instead of the connection's own (templated).
        hook_params: Settings that take precedence over the connection's, such as ``{"lock_timeout": 30}``
            (seconds).
        kwargs: Arguments of ``BaseOperator``.

    Raises:
        ConfigError: An argument has an unknown value or contradicts another; raised when the DAG is parsed,
            or when the task runs if the value is a template's.
    """

    template_fields: Sequence[str] = ("conn_id", "branch")
    operator_extra_links = (LakebaseConsoleLink(),)

    def __init__(
        self,
        *,
        conn_id: str | None = None,
        lakebase_conn_id: str | None = None,
        branch: str | None = None,
        hook_params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        # What it returns is a dict, of which another task may want one entry: operator.output["path"].
        super().__init__(**{"multiple_outputs": True, **kwargs})
        self.conn_id = conn_id_of(conn_id, lakebase_conn_id, kwargs.get("default_args"))
        self._take_branch(branch)
        self.hook_params = hook_params
        self._check_own_arguments(("hook_params",))

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        require_hook_params(given.get("hook_params"))

    @cached_property
    def _lakebase_hook(self) -> LakebaseHook:
        # The hook brings the driver; parsing a DAG must not.
        from lakebase_provider.hooks.lakebase import LakebaseHook

        return LakebaseHook(self.conn_id, **{**(self.hook_params or {}), **self._branch_setting})

    def get_db_hook(self) -> LakebaseHook:
        """The hook for the target table's connection."""
        return self._lakebase_hook

    def on_kill(self) -> None:
        """Cancel what is still running on the server when the task is killed or times out."""
        # Without a hook nothing is running, and making one now would use up the remaining time.
        hook: LakebaseHook | None = self.__dict__.get("_lakebase_hook")
        if hook is not None:
            hook.cancel()

    @contextmanager
    def _connection(self) -> Iterator[LakebaseConnection]:
        """The hook's own connection instead of the client's: it is fenced and can be cancelled."""
        from psycopg.rows import tuple_row

        with closing(self.get_db_hook().get_conn()) as connection:
            connection.row_factory = tuple_row
            yield connection


class LoadingOperator(BulkOperator):
    """Loads rows into a table in one transaction: all or none of them, and only once per `load_id`.

    Args:
        table: ``"table"`` or ``"schema.table"``, case-sensitive (templated).
        mode: ``"append"`` adds the rows; ``"merge"`` updates rows with the same key and adds the others;
            ``"replace"`` removes all other rows, in the whole table or where `where` holds.
        keys: For merge: names of the columns that identify a row; the primary key by default (templated).
        columns: The table's columns that take the source's columns; matched by name by default (templated).
        version_column: For merge: the column that versions a row; a row with a smaller value does not update
            it.
        delete: For merge: ``"missing"`` removes rows whose key is not in the source.
        where: The slice that is replaced, or in which rows may be removed: columns with their values, SQL, or
            ``(SQL, parameters)`` (templated).
        load_id: A load with the same id and table happens once: a retry after success is skipped, and so is a
            cleared task if the id is your own. By default dag, task, run and map index, renewed when a user
            clears the task (templated). None to load at each try.
        since: For merge from a Delta table: ``"ledger"`` loads what has changed since the version that the
            ledger holds, deletions included; its version then takes the place of `load_id`.
        fallback: With `since`: ``"replace"`` replaces all rows where nothing tells what has changed.
        force: Whether to load even if a load with that id took place, such as ``"{{ params.reload }}"``
            (templated). A retry after success is still skipped.
        create: Whether to create a missing table, and its schema, with the types of the source's columns.
        schema_evolution: What may happen to a table whose columns are not the source's: ``"error"`` refuses
            them, ``"add"`` adds columns, ``"widen"`` also makes types wider, ``"recreate"`` gives a table
            whose rows are all replaced the source's columns. By default the table stays as it is.
        allow_empty: If rows are removed, whether an iterator or a stream that a subclass loads may have no
            rows; files always may, and so may the query of a transfer.
        on_error: ``"reject"`` sets aside rows that cannot be encoded, and loads the others.
        reject_to: Where they go: a table, created if missing, or a file as a ``Path``.
        ledger_schema: Schema of the table ``lakebase_load``, which keeps the ids; the schema of `table` by
            default.
        lsn: Whether the result is to hold the position of the server's log after the commit, up to which
            Lakehouse sync has to write: XCom's ``lsn``.
        fence: Whether a retry ends the session of an earlier try that is still running, instead of waiting
            for it and being skipped if it succeeds.
        restore_point: Whether to note, before anything is changed, the moment to come back to, which costs
            nothing: XCom's ``restore_point``, the `at` of ``LakebaseRestoreRowsOperator``; None after a
            load that was skipped, which took place before.
        kwargs: ``conn_id``, ``branch``, ``hook_params`` as for :class:`BulkOperator`, and arguments of
            ``BaseOperator``.
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
        delete: Delete = "none",
        where: str | tuple[str, Any] | Mapping[str, Any] | None = None,
        load_id: str | None = LOAD_ID,
        since: Since | None = None,
        fallback: Fallback | None = None,
        force: bool | str = False,
        create: bool = False,
        allow_empty: bool = False,
        schema_evolution: SchemaEvolution | None = None,
        on_error: OnError = "fail",
        reject_to: str | PathLike[str] | None = None,
        ledger_schema: str | None = None,
        lsn: bool = False,
        fence: bool = False,
        restore_point: bool = False,
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
        # The ledger holds the version instead, which a retry finds too.
        self.load_id = None if since is not None and load_id == LOAD_ID else load_id
        self._has_own_id = load_id != LOAD_ID
        self.since = since
        self.fallback = fallback
        self.force = force
        self.create = create
        self.allow_empty = allow_empty
        self.schema_evolution = schema_evolution
        self.on_error = on_error
        self.reject_to = reject_to
        self.ledger_schema = ledger_schema
        self.lsn = lsn
        self.fence = fence
        self.restore_point = restore_point
        self._result: LoadResult | None = None
        self._check_own_arguments((*_OPTIONS, "table", "force"))

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        super()._check_arguments(given)
        if isinstance(given.get("table", ()), str):
            split_name(given["table"])
        # `force` may be text here, which the load itself does not accept.
        check_load_options({name: value for name, value in given.items() if name in _OPTIONS})
        _truth(given.get("force"))

    def _load(self, source: Any, context: Context, **more: Any) -> dict[str, Any]:
        """Load a source and return the :class:`.LoadResult` as a dict.

        Args:
            source: The source.
            context: Of the task that runs.
            more: Further load options for this kind of source.
        """
        from dataclasses import asdict

        from lakebase_provider.core.bulk.load.commit import load_and_commit
        from lakebase_provider.core.bulk.sources.delta.delta import with_catalog

        if self.fence:
            ti = context["ti"]
            self.get_db_hook().fence_key = f"{ti.dag_id}/{ti.task_id}/{ti.run_id}/{ti.map_index}"
        options: Any = {name: getattr(self, name) for name in _OPTIONS} | more
        if _truth(self.force):
            options.update(force=True, forced_by=self.render_template(LOAD_ID, context))
        self._note_restore_point(context, lambda: self.get_db_hook().client)
        source = with_catalog(source, lambda: self.get_db_hook().client.workspace.catalog_tables)
        result = self._result = load_and_commit(self._connection, source, self.table, **options)
        if result.skipped:
            if self.restore_point:
                # It is of after the load. The try that loaded has the right one in its log.
                context["ti"].xcom_push(key="restore_point", value=None)
            if self.since is not None:
                self.log.info("%s has the newest version already: %s.", result.table, result.load_id)
                return asdict(result)
            self.log.warning(
                "Skipped, nothing was loaded: load_id %r was already loaded into %s (%s). To load again, %s.",
                result.load_id,
                result.table,
                result.reason,
                "set force=True, or give another load_id" if self._has_own_id else "clear the task",
            )
        return asdict(result)

    def _table_dataset(self) -> OutputDataset:
        """The table that is written, for OpenLineage."""
        from lakebase_provider._airflow.task.lineage import table_dataset

        hook = self.get_db_hook()
        return table_dataset(
            hook.client.target(), hook.get_openlineage_default_schema, self.table, self._result
        )


def _truth(force: bool | str | None) -> bool:
    """Whether a load is forced, from what a template rendered."""
    text = str(force).strip().lower()
    if text not in _TRUE + _FALSE:
        from lakebase_provider.core.errors import ConfigError

        raise ConfigError(f"force is {force!r}."[:200], remedy="Set it to 'true' or 'false'.")
    return text in _TRUE
