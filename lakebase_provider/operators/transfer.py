"""Rows of another database into a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lakebase_provider._airflow.task.failing_fast import failing_fast
from lakebase_provider.operators.bulk import LoadingOperator

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

_CURSOR = "lakebase_transfer"
#: Rows of psycopg2's first look at a query.
_FIRST_ROWS = 1000


class LakebaseTransferOperator(LoadingOperator):
    """Loads the rows of a query on any SQL connection into a table with COPY, in one transaction.

    From Lakebase and Postgres (psycopg 3 and psycopg2) COPY's output there is COPY's input here: no value
    becomes a Python object on the way, and each arrives unchanged. The query's server converts a column whose
    type differs from the table's; a value that this would change is an error. This works only for a query
    that changes no data, and ``on_error="reject"`` is refused.

    From other databases, rows are read while they are written, in portions of 10,000. A driver may buffer all
    rows unless its connection is set otherwise, such as MySQL's with ``{"cursor": "SSCursor"}`` in its
    extras; a task's timeout interrupts a driver that waits outside Python only when the next rows arrive:
    limit such a query on its server too. A skipped load does not run the query.

    It returns the counts of the load, a :class:`.LoadResult` as a dict.

    Args:
        source_conn_id: Id of the connection to read from, of any type whose hook is a ``DbApiHook``
            (templated).
        sql: The query (templated), or the name of a file that ends in ``.sql``.
        parameters: Values for its placeholders, in the driver's placeholder style (templated).
        source_hook_params: Arguments of the connection's hook.
        kwargs: Arguments of :class:`~lakebase_provider.operators.bulk.LoadingOperator`, of which `table`
            is needed, and of ``BaseOperator``.

    Raises:
        AirflowFailException: When the task fails in a way that a retry cannot help; nothing was written.
        LakebaseError: When the task fails and a retry may help.

    Example:
        >>> LakebaseTransferOperator(
        ...     task_id="transfer", source_conn_id="mysql_shop", sql="SELECT * FROM orders", table="orders"
        ... )
    """

    template_fields: Sequence[str] = ("source_conn_id", "sql", "parameters", *LoadingOperator.template_fields)
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {"sql": "sql", "parameters": "json"}  # noqa: RUF012 # as Airflow has it

    def __init__(
        self,
        *,
        source_conn_id: str,
        sql: str,
        parameters: Iterable[Any] | Mapping[str, Any] | None = None,
        source_hook_params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source_conn_id = source_conn_id
        self.sql = sql
        self.parameters = parameters
        self.source_hook_params = source_hook_params
        self._rows: SourceCursor | None = None

    @cached_property
    def _source_hook(self) -> DbApiHook:
        from airflow.providers.common.compat.sdk import BaseHook
        from airflow.providers.common.sql.hooks.sql import DbApiHook

        from lakebase_provider.core.errors import ConfigError

        connection = BaseHook.get_connection(self.source_conn_id)
        params = None if self.source_hook_params is None else dict(self.source_hook_params)
        hook = connection.get_hook(hook_params=params)  # type: ignore[no-untyped-call] # Airflow annotates it not
        if not isinstance(hook, DbApiHook):
            raise ConfigError(
                f"Connection '{self.source_conn_id}' is of type {connection.conn_type}, which cannot run "
                "SQL.",
                remedy="Set source_conn_id to a database connection.",
            )
        return hook

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the query, load its rows and return the result."""
        with (
            failing_fast(),
            SourceCursor(self._source_hook, self.source_conn_id, self.sql, self.parameters) as rows,
        ):
            self._rows = rows
            return self._load(rows, context)

    def on_kill(self) -> None:
        """Cancel what is still running on the server, and on the other one if it is Postgres or Lakebase."""
        super().on_kill()
        if self._rows is not None:
            self._rows.cancel()

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """What the query reads is read, the table written."""
        from lakebase_provider._airflow.task.lineage import query_lineage

        lineage = query_lineage(self._source_hook, self.source_conn_id, self.sql)
        lineage.outputs = [self._table_dataset()]
        return lineage


class SourceCursor:
    """A DB-API cursor that runs its query only when it is first used.

    Args:
        hook: The hook of the connection to read from.
        conn_id: Id of that connection, for errors.
        sql: The query.
        parameters: Values for its placeholders.
    """

    def __init__(
        self,
        hook: DbApiHook,
        conn_id: str,
        sql: str,
        parameters: Iterable[Any] | Mapping[str, Any] | None = None,
    ) -> None:
        self._hook = hook
        self._conn_id = conn_id
        self._sql = sql
        self._parameters = parameters
        self._opened = ExitStack()
        self._connection: Any = None
        self._first: Sequence[Any] | None = None

    def __enter__(self) -> SourceCursor:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        # From here on it may be another one's.
        self._connection = None
        self._opened.close()

    def as_load_source(self) -> Any:
        """What is loaded: the query itself if it runs on Postgres, where COPY reads it; else this cursor.

        A load calls this once it is known to take place.
        """
        from lakebase_provider.core.bulk.load.transfer.servers import gives_copy
        from lakebase_provider.core.bulk.load.transfer.transfer import PostgresQuery

        with self._named_errors():
            connection = self._connect()
        if not gives_copy(connection):
            return self
        sql: Any = self._sql
        parameters: Any = self._parameters or None
        if parameters is not None and not isinstance(parameters, Mapping):
            parameters = list(parameters)
        if type(connection).__module__.partition(".")[0] == "lakebase_provider":
            from lakebase_provider._airflow.statements.cursors import bound

            with self._named_errors():
                sql, parameters = bound(connection, sql, parameters)
        self._hook.log.info("Running statement: %s", self._sql)
        return PostgresQuery(connection, sql, parameters, name=f"Query on '{self._conn_id}'")

    def cancel(self) -> None:
        """Cancel what the server runs, where its driver can; safe in a signal handler."""
        from lakebase_provider.core.bulk.load.transfer.servers import cancel

        if self._connection is not None:
            cancel(self._connection)

    @property
    def description(self) -> Any:
        """The query's columns, as DB-API describes them; None for a statement that returns no rows."""
        return self._cursor.description

    def fetchmany(self, size: int) -> Sequence[Any]:
        """The next rows, at most `size` of them.

        Args:
            size: How many.
        """
        cursor, (first, self._first) = self._cursor, (self._first, None)
        if first:
            return first
        with self._named_errors():
            rows: Sequence[Any] = cursor.fetchmany(size)
        return rows

    def __getattr__(self, name: str) -> Any:
        if name == "fetchmany_arrow":
            # That of a driver that has it, such as that of SQL warehouses: no value becomes a Python object.
            return getattr(self._cursor, name)
        raise AttributeError(name)

    def _named_errors(self) -> AbstractContextManager[None]:
        """Keeps a psycopg source's error apart from the target's; other drivers' errors differ by type."""
        from lakebase_provider.core.database.refusals import typed_errors

        return typed_errors(f"Query on '{self._conn_id}'")

    @cached_property
    def _cursor(self) -> Any:
        with self._named_errors():
            return self._executed()

    def _connect(self) -> Any:
        if self._connection is None:
            self._connection = self._opened.enter_context(closing(self._hook.get_conn()))
        return self._connection

    def _executed(self) -> Any:
        connection = self._connect()
        cursor = self._opened.enter_context(closing(_new_cursor(connection)))
        self._hook.log.info("Running statement: %s", self._sql)
        if self._parameters:
            cursor.execute(self._sql, self._parameters)
        else:
            cursor.execute(self._sql)
        if cursor.description is None and type(cursor).__module__.startswith("psycopg2"):
            # psycopg2 learns a server-side cursor's columns from its first rows.
            self._first = cursor.fetchmany(_FIRST_ROWS)
        return cursor


def _new_cursor(connection: Any) -> Any:
    """A server-side cursor, if the driver has one."""
    module = type(connection).__module__.partition(".")[0]
    if module == "lakebase_provider":
        from lakebase_provider._airflow.statements.cursors import HookServerCursor

        return HookServerCursor(connection, _CURSOR)
    if module in ("psycopg", "psycopg2"):
        return connection.cursor(_CURSOR)
    return connection.cursor()
