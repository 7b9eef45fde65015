"""The hook: all that Airflow's SQL operators need, on pooled connections with a password that renews."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import ref

from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.sql.hooks import handlers
from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage
from airflow.providers.common.sql.hooks.sql import DbApiHook
from airflow.sdk.log import mask_secret

from lakebase_provider.core.client import LakebaseClient
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.engine import sqlalchemy_url
from lakebase_provider.core.errors import ConfigError, LakebaseError, TableNotFoundError
from lakebase_provider.core.fence import fence
from lakebase_provider.core.redaction import redacted
from lakebase_provider.core.shared import shared_client
from lakebase_provider.core.sql_text import statements
from lakebase_provider.hooks.batch import Parameters, StatementBatch, Statements
from lakebase_provider.hooks.connection import ConnectionSettings, secrets_of, task_name
from lakebase_provider.hooks.cursor import AsyncHookCursor, HookCursor
from lakebase_provider.hooks.dialect import LakebaseDialect
from lakebase_provider.hooks.masking import amask, mask_from_loop, mask_token
from lakebase_provider.hooks.row_kinds import row_factory, row_factory_of_call, rows_as_taken_by
from lakebase_provider.hooks.sigterm import cancel_statements_on_sigterm
from lakebase_provider.hooks.stored_connection import GivenConnection, StoredConnection, with_secrets_hidden
from lakebase_provider.hooks.task_end import close_pools_when_the_task_ends

if TYPE_CHECKING:
    from airflow.providers.openlineage.sqlparser import DatabaseInfo
    from airflow.sdk import Connection
    from psycopg.errors import Diagnostic
    from sqlalchemy.engine import URL, Engine, Inspector

    from lakebase_provider.core.connection import AsyncLakebaseConnection, LakebaseConnection

#: Arguments of DbApiHook that are not settings of a connection.
_HOOK_ARGUMENTS = (
    "connection",
    "insert_statement_format",
    "replace_statement_format",
    "escape_word_format",
    "escape_column_names",
)
#: Characters of a test's answer that Airflow stores.
_ANSWER = 2000

Handler = Callable[[Any], Any]


def _caller() -> str:
    """Name of the module that called the method that calls this."""
    return str(sys._getframe(2).f_globals.get("__name__", ""))


class LakebaseHook(DbApiHook):
    """Talks to a Lakebase database through this process's pool.

    Every SQL operator of ``common-sql`` works on a connection of type ``lakebase``. All calls in a task
    share one pool and one token; a connection that is closed goes back to the pool, rolled back and reset.
    The pool is closed when the task ends.

    Errors of a statement are psycopg's own; one of a connection or a setting is a
    :class:`~lakebase_provider.core.errors.LakebaseError`.

    Args:
        lakebase_conn_id: Id of the Airflow connection; the class's `default_conn_name` by default. It may be
            called `conn_id`, as the operators call it; a subclass with a `conn_name_attr` of its own takes it
            by that name too.
        schema: Name of the database, in place of the connection's (Airflow calls it `schema`).
        log_sql: Whether statements and their parameters are logged.
        read_only: Whether transactions may only read.
        enable_log_db_messages: Whether the server's notices are logged, at INFO.
        overrides: Settings by name that go before the connection's, such as ``statement_timeout=30``
            (seconds), ``database="sales"`` or ``cursor="dictcursor"``. Airflow's SQL operators also pass the
            connection's own extras here.

    Raises:
        ConfigError: Two connections are named. What is wrong with a setting is told at the first use, with
            the connection and the setting named.

    Example:
        >>> hook = LakebaseHook("lakebase_default")
        >>> hook.get_first("select current_user")
    """

    conn_name_attr = "lakebase_conn_id"
    default_conn_name = "lakebase_default"
    conn_type = "lakebase"
    hook_name = "Databricks Lakebase"
    supports_autocommit = True
    supports_executemany = True

    def __init__(
        self,
        lakebase_conn_id: str | None = None,
        *,
        schema: str | None = None,
        log_sql: bool = True,
        read_only: bool = False,
        enable_log_db_messages: bool = False,
        **overrides: Any,
    ) -> None:
        base = {name: overrides.pop(name) for name in _HOOK_ARGUMENTS if name in overrides}
        given = base.pop("connection", None)
        self._given = None if given is None else GivenConnection.keep(given)
        super().__init__(self._conn_id(lakebase_conn_id, overrides), log_sql=log_sql, **base)
        self.enable_log_db_messages = enable_log_db_messages
        self._overrides = with_secrets_hidden(overrides)
        self._lent: ref[LakebaseConnection] | None = None
        #: What each connection works on alone: an earlier session that works on it is ended.
        self.fence_key: str | None = None
        #: Called with each connection that is borrowed, before it runs a statement.
        self.adapt: Callable[[LakebaseConnection], None] | None = None
        self.read_only = read_only
        self._client: LakebaseClient | None = None
        if schema:
            self.schema = schema

    @classmethod
    def _conn_id(cls, given: str | None, overrides: dict[str, Any]) -> str:
        """Which connection is meant, in each of the ways in which DbApiHook lets a subclass be told."""
        found: str | None = given
        # The operators' name for it, too.
        for name in (cls.conn_name_attr, "conn_id"):
            named = overrides.pop(name, None)
            if found is not None and named is not None and found != named:
                raise ConfigError(
                    f"Two connections are named: {found!r} and, by {name}, {named!r}.", remedy="Name one."
                )
            found = named if found is None else found
        return cls.default_conn_name if found is None else found

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """What becomes of the connection form's own fields; asked for by Airflow 3.1 alone."""
        from lakebase_provider.hooks.form import field_behaviour

        return field_behaviour()

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """The connection form's further fields; asked for by Airflow 3.1 alone."""
        from lakebase_provider.hooks.form import widgets

        return widgets()

    @property
    def schema(self) -> str:
        """Name of the database; setting it really changes the database, as Airflow's operators expect."""
        return self.config.database

    @schema.setter
    def schema(self, database: str) -> None:
        self._overrides["database"] = database
        self._client = None
        for name in ("config", "_settings", "inspector", "dialect", "_default_schema"):
            self.__dict__.pop(name, None)

    #: What Airflow's operators call the database where they know a hook to be of Postgres.
    database = schema

    @property  # type: ignore[misc] # nobody is to set it, and the setter of common-sql sets nothing
    def connection(self) -> Connection:  # type: ignore[override] # Airflow 3.1 has another class
        """The Airflow connection, read anew each time: kept, it would show its password with the hook."""
        return self.get_connection(self.get_conn_id()) if self._given is None else self._given.connection()

    @cached_property
    def _stored(self) -> StoredConnection:
        return StoredConnection.read(self.connection)

    @cached_property
    def _settings(self) -> ConnectionSettings:
        return ConnectionSettings(self._stored, self._overrides)

    @cached_property
    def config(self) -> LakebaseConfig:
        """The connection's settings.

        Raises:
            ConfigError: A setting is unknown, missing, malformed or contradicts another.
        """
        other = self._settings.databricks_conn_id
        config = self._configured(
            None if other is None else StoredConnection.read(self.get_connection(other))
        )
        for secret in secrets_of(config):
            mask_secret(secret.reveal())
        return config

    def _configured(self, databricks: StoredConnection | None) -> LakebaseConfig:
        row_factory(self._settings.cursor)  # an error of the connection is told before the network is asked
        # It is in pg_stat_activity that somebody looks for the task that holds a lock.
        return self._settings.config(databricks, application_name=task_name())

    @property
    def client(self) -> LakebaseClient:
        """The process's client for this connection; it masks each token in Airflow's logs when minted.

        Raises:
            ConfigError: As for `config`, or there are no workspace credentials.
        """
        if self._client is None:
            client = shared_client(self.config, self._stored.shown_name)
            client.tokens.on_mint(mask_token)
            self._client = client
        close_pools_when_the_task_ends()
        cancel_statements_on_sigterm()
        return self._client

    async def aclient(self) -> LakebaseClient:
        """:attr:`client` for an async task or a trigger, made without blocking the event loop.

        Raises:
            ConfigError: As for `client`.
        """
        mask_from_loop()
        if self._client is None:
            if self._given is None and "_stored" not in self.__dict__:
                self.__dict__["_stored"] = StoredConnection.read(
                    await get_async_connection(self.get_conn_id())
                )
            other = self._settings.databricks_conn_id
            config = self._configured(
                None if other is None else StoredConnection.read(await get_async_connection(other))
            )
            for secret in secrets_of(config):
                await amask(secret.reveal())
            self.__dict__["config"] = config
            client = shared_client(config, self._stored.shown_name)
            # In a thread, for a token that is there is masked at once, and the loop has its part in that.
            await asyncio.to_thread(client.tokens.on_mint, mask_token)
            self._client = client
        return self.client

    def get_conn(self) -> LakebaseConnection:
        """A connection of the pool, lent until the end of ``with``, or until it is closed.

        Raises:
            PoolExhaustedError: All connections stayed in use for `connect_budget` seconds.
            LakebaseError: No connection could be opened; the driver's error is its cause.
        """
        connection = self.client.pool.getconn()
        # Not a reference that would keep it lent when the borrower drops it.
        self._lent = ref(connection)
        try:
            if self.fence_key is not None:
                fence(connection, self.fence_key)
            if self.read_only:
                connection.read_only = True
            if self.adapt is not None:
                self.adapt(connection)
            connection.row_factory = row_factory_of_call(row_factory(self._settings.cursor))
        except BaseException:
            connection.close()
            raise
        if self.enable_log_db_messages:
            connection.add_notice_handler(self._log_notice)
        return connection

    def _still_lent(self) -> LakebaseConnection | None:
        lent = None if self._lent is None else self._lent()
        return None if lent is None or lent.closed else lent

    def backend_pids(self) -> list[int]:
        """The server's process that serves this hook's latest connection; none when it is handed back."""
        lent = self._still_lent()
        return [] if lent is None else [lent.info.backend_pid]

    async def aget_conn(self) -> AsyncLakebaseConnection:
        """A connection of the running event loop's pool, lent until the end of ``async with`` or ``close()``.

        Raises:
            PoolExhaustedError: All connections stayed in use for `connect_budget` seconds.
            LakebaseError: No connection could be opened; the driver's error is its cause.
        """
        connection = await (await (await self.aclient()).apool()).getconn()
        try:
            if self.read_only:
                await connection.set_read_only(True)
            connection.row_factory = row_factory(self._settings.cursor)
        except BaseException:
            await connection.close()
            raise
        if self.enable_log_db_messages:
            connection.add_notice_handler(self._log_notice)
        return connection

    def cancel(self, timeout: float = 3.0) -> None:
        """Cancel the statement that this hook's latest connection runs, if any; safe in a signal handler.

        Args:
            timeout: Seconds to wait at most for the server to take the request; Airflow kills a task for good
                5 seconds after it asked it to end.
        """
        lent = self._still_lent()
        # No lock is taken here: the statement that the signal interrupted may hold it. What has been handed
        # back reaches nothing, and somebody else's statement is none of this hook's.
        if lent is not None:
            lent.cancel_safe(timeout=timeout)

    def get_records(self, sql: str | list[str], parameters: Parameters | None = None) -> Any:
        """All rows of a query, as `cursor` says; common-sql's own operators get them as they take them.

        Args:
            sql: A statement, or several.
            parameters: Values for the placeholders of each.
        """
        with rows_as_taken_by(_caller()):
            return super().get_records(sql, parameters)

    def get_first(self, sql: str | list[str], parameters: Parameters | None = None) -> Any:
        """The first row of a query, or None; otherwise as :meth:`get_records`.

        Args:
            sql: A statement, or several.
            parameters: Values for the placeholders of each.
        """
        with rows_as_taken_by(_caller()):
            return super().get_first(sql, parameters)

    def run(
        self,
        sql: Statements,
        autocommit: bool = False,
        parameters: Parameters | None = None,
        handler: Handler | None = None,
        split_statements: bool = False,
        return_last: bool = True,
    ) -> Any:
        """Run one statement or several, in one transaction unless `autocommit`.

        A single statement that only reads (:func:`~lakebase_provider.core.statements.leaves_no_trace`) takes
        one round trip: no transaction is begun for it. What is done about placeholders and ``%`` is told in
        :mod:`lakebase_provider.core.placeholders`.

        Args:
            sql: A text, of one statement or several, or an iterable of texts.
            autocommit: Whether each statement is a transaction of its own.
            parameters: Values for the placeholders of each text.
            handler: Called with the cursor after each text; its result is returned.
            split_statements: Whether a text is split into its statements, which then run one by one.
            return_last: Whether of a text that is split only the last statement's result is returned.

        Returns:
            None without `handler`; its result for a single text, as `return_last` says; else a list.

        Raises:
            ValueError: There is no statement.
            psycopg.Error: The server refused a statement.
            LakebaseError: No connection could be had.
        """
        batch = StatementBatch(self, sql, parameters, split_statements, return_last, self.read_only)
        with closing(self.get_conn()) as connection:
            connection.autocommit = batch.autocommit(autocommit)
            with HookCursor(connection) as cursor:
                for statement in batch.statements:
                    batch.announce(statement)
                    cursor.execute(statement, batch.parameters)
                    batch.note(statement, cursor)
                    if handler is not None:
                        batch.keep(self._make_common_data_structure(handler(cursor)), cursor)
            if not connection.autocommit:
                connection.commit()
        return batch.result(handler)

    async def arun(
        self,
        sql: Statements,
        autocommit: bool = False,
        parameters: Parameters | None = None,
        handler: Callable[[Any], Any | Awaitable[Any]] | None = None,
        split_statements: bool = False,
        return_last: bool = True,
    ) -> Any:
        """:meth:`run` for an async task or a trigger.

        Args:
            sql: As for :meth:`run`.
            autocommit: As for :meth:`run`.
            parameters: As for :meth:`run`.
            handler: As for :meth:`run`, with an async cursor; what it returns is awaited if it can be, so
                that common-sql's own handlers serve.
            split_statements: As for :meth:`run`.
            return_last: As for :meth:`run`.
        """
        batch = StatementBatch(self, sql, parameters, split_statements, return_last, self.read_only)
        connection = await self.aget_conn()
        try:
            await connection.set_autocommit(batch.autocommit(autocommit))
            async with AsyncHookCursor(connection) as cursor:
                for statement in batch.statements:
                    batch.announce(statement)
                    await cursor.execute(statement, batch.parameters)
                    batch.note(statement, cursor)
                    if handler is not None:
                        found = handler(cursor)
                        found = await found if inspect.isawaitable(found) else found
                        batch.keep(self._make_common_data_structure(found), cursor)
            if not connection.autocommit:
                await connection.commit()
        finally:
            await connection.close()
        return batch.result(handler)

    async def aget_records(self, sql: str | list[str], parameters: Parameters | None = None) -> Any:
        """All rows of a query; :meth:`get_records` for an async task or a trigger."""
        return await self.arun(sql, parameters=parameters, handler=handlers.fetch_all_handler)

    async def aget_first(self, sql: str | list[str], parameters: Parameters | None = None) -> Any:
        """The first row of a query, or None; :meth:`get_first` for an async task or a trigger."""
        return await self.arun(sql, parameters=parameters, handler=handlers.fetch_one_handler)

    @staticmethod
    def split_sql_string(sql: str, strip_semicolon: bool = False) -> list[str]:
        """The statements of a text, each with the comments that stand in and before it.

        Args:
            sql: The text.
            strip_semicolon: Whether to leave out the semicolons at their ends.
        """
        return statements(sql, keep_semicolons=not strip_semicolon)

    def insert_rows(
        self,
        table: str,
        rows: Iterable[Sequence[Any] | Mapping[str, Any]],
        target_fields: Sequence[str] | None = None,
        commit_every: int = 1000,
        replace: bool = False,
        *,
        executemany: bool = False,
        fast_executemany: bool = False,
        autocommit: bool = False,
        **kwargs: Any,
    ) -> None:
        """Insert rows, in batches: of 700 rows and more by COPY, where that writes the same.

        Args:
            table: Name of the table, quoted where SQL needs it.
            rows: Consumed as they are needed: a generator of any length takes the memory of one batch. Each
                is a list or tuple of values in the columns' order, or a mapping from the columns' names,
                which each of them has, None for NULL included, and no others.
            target_fields: Names of the columns; for mappings the keys of the first one by default, else all
                of the table's in their order.
            commit_every: Rows of one transaction; 0 for all in one.
            replace: Whether a row whose key is there replaces it (see :meth:`upsert_rows`).
            executemany: Has no effect: rows always go in batches.
            fast_executemany: Has no effect, for the same reason.
            autocommit: Whether each batch commits by itself.
            kwargs: With `replace`, ``replace_index``: the unique column or columns, the primary key by
                default; and ``replace_target``: the columns that are updated, all others by default, none if
                empty.

        Raises:
            ConfigError: A setting is wrong, the table has no key to replace by, or `rows` is no iterable of
                rows, or gives them once and an earlier attempt took them.
            BadRowError: One is no row, such as a text, or not of the columns of the first mapping.
            psycopg.Error: The server refused a row. The rows of transactions before it stay; neither the log
                nor the error shows a row's values but those that Postgres itself quotes.
        """
        from lakebase_provider.hooks.rows import insert_rows

        insert_rows(self, self.dialect, table, rows, target_fields, commit_every, replace, autocommit, kwargs)

    def upsert_rows(
        self,
        table: str,
        rows: Iterable[Sequence[Any] | Mapping[str, Any]],
        target_fields: list[str],
        conflict_fields: list[str],
        update_fields: list[str] | None = None,
        commit_every: int = 1000,
        *,
        fast_executemany: bool = False,
        autocommit: bool = False,
    ) -> None:
        """Insert rows, or update those whose key is there.

        Args:
            table: Name of the table, quoted where SQL needs it.
            rows: As for :meth:`insert_rows`.
            target_fields: Names of the columns.
            conflict_fields: The unique columns.
            update_fields: Columns that are updated; all others by default. None of them, if empty: rows that
                are there stay as they are.
            commit_every: As for :meth:`insert_rows`.
            fast_executemany: Has no effect: rows always go in batches.
            autocommit: As for :meth:`insert_rows`.
        """
        self.insert_rows(
            table,
            rows,
            target_fields,
            commit_every,
            replace=True,
            autocommit=autocommit,
            replace_index=conflict_fields,
            replace_target=update_fields,
        )

    def copy_expert(self, sql: str, filename: str | os.PathLike[str]) -> None:
        """Run a COPY between the server and a file of this machine, in a transaction of its own.

        Args:
            sql: ``COPY … FROM STDIN``, which reads the file, or ``COPY … TO STDOUT``, which writes it.
            filename: The file; a file that is written appears when it is complete.

        Raises:
            ConfigError: The statement is neither, or something else than a file is there, such as a pipe or a
                symbolic link to be written through.
            FileNotFoundError: There is no file to read.
        """
        from lakebase_provider.hooks.copying import copy_between

        self.log.info("Running copy: %s, file: %s", sql, filename)
        with closing(self.get_conn()) as connection:
            with connection.cursor() as cursor:
                rows = copy_between(cursor, sql, filename)
                send_sql_hook_lineage(context=self, sql=sql, sql_parameters=(str(filename),), cur=cursor)
            connection.commit()
        self.log.info("Rows copied: %s", rows)

    def bulk_load(self, table: str, tmp_file: str | os.PathLike[str]) -> None:
        """Load a file in COPY's text format (tabs, ``\\N`` for NULL) into a table.

        Args:
            table: Name of the table, with its schema or found by the search path; a name and never SQL.
            tmp_file: The file.

        Raises:
            ConfigError: It is no table's name, or no file of this machine.
            FileNotFoundError: There is no file to read.
        """
        self.copy_expert(f"COPY {self._table_in_sql(table)} FROM STDIN", tmp_file)

    def bulk_dump(self, table: str, tmp_file: str | os.PathLike[str]) -> None:
        """Write a table into a file in COPY's text format (tabs, ``\\N`` for NULL).

        Args:
            table: Name of the table, with its schema or found by the search path; a name and never SQL.
            tmp_file: The file; it appears when it is complete.

        Raises:
            ConfigError: It is no table's name, or something else than a file of this machine is there.
        """
        self.copy_expert(f"COPY {self._table_in_sql(table)} TO STDOUT", tmp_file)

    def _table_in_sql(self, table: str) -> str:
        return self.dialect.table_name(table).sql().as_string()

    @property
    def sqlalchemy_url(self) -> URL:
        """Where an engine connects to, as whom, and without a password."""
        return sqlalchemy_url(self.client.target())

    def get_uri(self) -> str:
        """:attr:`sqlalchemy_url` as text."""
        return self.sqlalchemy_url.render_as_string()

    def get_sqlalchemy_engine(self, engine_kwargs: dict[str, Any] | None = None) -> Engine:
        """A new engine that obtains a valid token at each physical connect; the caller disposes of it.

        Args:
            engine_kwargs: Further arguments of ``sqlalchemy.create_engine``.
        """
        return self.client.engine(**(engine_kwargs or {}))

    @property
    def dialect_name(self) -> str:
        """The SQL dialect, known without a connection."""
        return "postgresql"

    @cached_property
    def dialect(self) -> LakebaseDialect:
        """How statements are written; the same whether or not the Postgres provider is installed."""
        return LakebaseDialect(self)

    @cached_property
    def inspector(self) -> Inspector:
        """What SQLAlchemy tells of the database's objects, by connections of this process's pool."""
        from sqlalchemy import create_engine, inspect
        from sqlalchemy.pool import NullPool

        def borrow() -> LakebaseConnection:
            # Not by get_conn: SQLAlchemy takes tuples alone for rows.
            return self.client.pool.getconn()

        # An engine with a pool of its own would keep a connection that nobody closes.
        return inspect(create_engine(self.sqlalchemy_url, creator=borrow, poolclass=NullPool))

    def get_table_primary_key(self, table: str, schema: str | None = None) -> list[str] | None:
        """Columns of the primary key, in its order; None without one, or without such a table.

        Args:
            table: Name of the table, with its schema or found by the search path.
            schema: Name of the schema, where the table's name has none.

        Raises:
            LakebaseError: It is no table's name, such as one with a semicolon outside of quotes.
        """
        try:
            return self.dialect.get_primary_keys(table=table, schema=schema)
        except TableNotFoundError:
            if self.dialect.is_table_name(table):
                return None
            raise

    def _get_pandas_df(self, sql: str | list[str], parameters: Any = None, **kwargs: Any) -> Any:
        from lakebase_provider.hooks import frames

        with closing(self.get_conn()) as connection:
            frame = frames.to_pandas(connection, frames.executed(connection, sql, parameters), **kwargs)
            connection.commit()
        return frame

    def _get_pandas_df_by_chunks(
        self, sql: str | list[str], parameters: Any = None, *, chunksize: int, **kwargs: Any
    ) -> Generator[Any, None, None]:
        from lakebase_provider.hooks import frames

        with closing(self.get_conn()) as connection:
            with frames.streaming(connection, sql, parameters) as cursor:
                yield from frames.to_pandas(connection, cursor, chunksize=chunksize, **kwargs)
            connection.commit()

    def _get_polars_df(self, sql: str | list[str], parameters: Any = None, **kwargs: Any) -> Any:
        from lakebase_provider.hooks import frames, polars_frames

        with closing(self.get_conn()) as connection:
            polars_frames.as_polars_takes_them(connection)
            frame = polars_frames.to_polars(frames.executed(connection, sql, parameters), **kwargs)
            connection.commit()
        return frame

    def _get_polars_df_by_chunks(
        self, sql: str | list[str], parameters: Any = None, *, chunksize: int, **kwargs: Any
    ) -> Generator[Any, None, None]:
        from lakebase_provider.hooks import frames, polars_frames

        with closing(self.get_conn()) as connection:
            polars_frames.as_polars_takes_them(connection)
            with frames.streaming(connection, sql, parameters) as cursor:
                yield from polars_frames.to_polars_by_chunks(cursor, chunksize, **kwargs)
            connection.commit()

    def get_db_log_messages(self, conn: Any) -> None:
        """Log nothing: with `enable_log_db_messages`, notices are logged when they come."""

    def _log_notice(self, notice: Diagnostic) -> None:
        self.log.info("%s: %s", notice.severity, (notice.message_primary or "").strip())

    def test_connection(self) -> tuple[bool, str]:  # type: ignore[override] # common-sql annotates it not
        """Check every stage from the name to a write; what the "Test" button of the connection shows.

        Returns:
            Whether all is well, and one line: the web interface would run the lines of a table together.
        """
        try:
            report = self.client.health()
        except LakebaseError as error:
            return False, " ".join(str(error).split())[:_ANSWER]
        except Exception as error:  # the button shows an answer, not a traceback
            return False, redacted(f"{type(error).__name__}: {error}")[:_ANSWER]
        return report.ok, report.summary()[:_ANSWER]

    @staticmethod
    def _serialize_cell(cell: Any, conn: Any = None) -> Any:
        """The cell as it is: psycopg knows dates, numbers, arrays and bytes. A mapping becomes JSON."""
        if isinstance(cell, dict):
            from psycopg.types.json import Json

            return Json(cell)
        return cell

    def get_openlineage_database_info(self, connection: Any) -> DatabaseInfo:
        """Which database lineage is about, by the resolved host."""
        from airflow.providers.openlineage.sqlparser import DatabaseInfo

        target = self.client.target()
        return DatabaseInfo(
            scheme="postgres", authority=f"{target.host}:{target.port}", database=target.database
        )

    def get_openlineage_database_dialect(self, connection: Any) -> str:
        """The dialect in which OpenLineage parses statements."""
        return "postgres"

    def get_openlineage_default_schema(self) -> str | None:
        """The schema in which the server looks for names first."""
        return self._default_schema

    @cached_property
    def _default_schema(self) -> str | None:
        with closing(self.get_conn()) as connection:
            connection.autocommit = True
            row = (
                HookCursor(connection, row_factory=row_factory(None))
                .execute("SELECT current_schema()")
                .fetchone()
            )
        return None if row is None else row[0]
