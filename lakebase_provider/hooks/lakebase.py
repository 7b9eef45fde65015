"""The hook: everything Airflow's SQL operators need, on pooled connections with a self-renewing password."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.sql.hooks import handlers
from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage

from lakebase_provider._airflow.connection.connected_hook import ConnectedHook
from lakebase_provider._airflow.statements.batch import Parameters, StatementBatch, Statements
from lakebase_provider._airflow.statements.cursors import AsyncHookCursor, HookCursor
from lakebase_provider._airflow.statements.dialect import LakebaseDialect
from lakebase_provider._airflow.statements.row_kinds import row_factory, rows_as_taken_by
from lakebase_provider.core.base.sql.sql_text import statements
from lakebase_provider.core.connect.pools.engine import sqlalchemy_url
from lakebase_provider.core.errors import TableNotFoundError

if TYPE_CHECKING:
    from airflow.providers.openlineage.sqlparser import DatabaseInfo
    from airflow.sdk import Asset
    from sqlalchemy.engine import URL, Engine, Inspector

    from lakebase_provider.core.connect.connection import LakebaseConnection

Handler = Callable[[Any], Any]


def _caller() -> str:
    """Name of the module that called this function's caller."""
    return str(sys._getframe(2).f_globals.get("__name__", ""))


class LakebaseHook(ConnectedHook):
    """Talks to a Lakebase database through this process's pool.

    Every SQL operator of ``common-sql`` works on a connection of type ``lakebase``. All calls in a task
    share one pool and one token; a connection that is closed goes back to the pool, rolled back and reset.
    The pool is closed when the task ends.

    A statement's errors are psycopg's own; an error of a connection or a setting is a
    :class:`~lakebase_provider.core.errors.LakebaseError`.

    Args:
        lakebase_conn_id: Id of the Airflow connection; the class's `default_conn_name` by default. It may
            also be given as `conn_id`, the operators' name for it, or under a subclass's own
            `conn_name_attr`.
        schema: Name of the database, instead of the connection's (Airflow calls it `schema`).
        log_sql: Whether statements and their parameters are logged.
        read_only: Whether transactions may only read.
        enable_log_db_messages: Whether the server's notices are logged, at INFO.
        overrides: Settings by name that take precedence over the connection's, such as
            ``statement_timeout=30`` (seconds), ``database="sales"``, ``cursor="dictcursor"``, or
            ``branch="run-1"``: the same connection on that branch. A branch, endpoint, project, instance,
            host or database that is None or empty is refused, since the connection's own may be production.
            Airflow's SQL operators also pass the connection's own extras here.

    Raises:
        ConfigError: Two connections are named. An invalid setting is reported at the first use, with the
            names of the connection and the setting.

    Example:
        >>> hook = LakebaseHook("lakebase_default")
        >>> hook.get_first("select current_user")
    """

    # Airflow 3.1 looks for these two in the hook's own class alone.

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Which of the connection form's own fields are hidden or renamed; only Airflow 3.1 calls this."""
        from lakebase_provider._airflow.connection.form import field_behaviour

        return field_behaviour()

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """The connection form's further fields; only Airflow 3.1 calls this."""
        from lakebase_provider._airflow.connection.form import widgets

        return widgets()

    def get_records(self, sql: str | list[str], parameters: Parameters | None = None) -> Any:
        """All rows of a query, in the form that `cursor` sets; common-sql's own operators get tuples.

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

        A single statement that only reads (:func:`.leaves_no_trace`) takes one round trip: no transaction is
        begun for it. For placeholders and ``%`` see
        :mod:`lakebase_provider.core.connect.parameters.placeholders`.

        Args:
            sql: Text with one or more statements, or an iterable of such texts.
            autocommit: Whether each statement is its own transaction.
            parameters: Values for the placeholders of each text.
            handler: Called with the cursor after each text; its result is returned.
            split_statements: Whether to split a text into its statements and run them one by one.
            return_last: Whether to return only the last statement's result of a split text.

        Returns:
            None without `handler`; its result for a single text, as `return_last` says; else a list.

        Raises:
            ValueError: There is no statement.
            psycopg.Error: The server refused a statement.
            LakebaseError: No connection could be opened.
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
            # Any other reference to a session delays its return to the pool.
            del cursor
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
            handler: As for :meth:`run`, with an async cursor; its result is awaited if it is awaitable, so
                common-sql's own handlers work too.
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
        """The statements of a text, each with the comments in and before it.

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
        """Insert rows in batches; batches of 700 rows or more use COPY where the result is the same.

        A process that has not imported Arrow, which encodes for COPY, does so after 50,000 rows; until then
        psycopg encodes.

        Args:
            table: Name of the table, quoted where SQL needs it.
            rows: Consumed as needed: a generator of any length takes the memory of one batch. Each row is a
                list or tuple of values in column order, or a mapping with exactly the columns' names as keys,
                None for NULL included.
            target_fields: Names of the columns; for mappings the keys of the first one by default, otherwise
                all of the table's, in order.
            commit_every: Rows per transaction; 0 for all in one.
            replace: Whether a row replaces an existing one with its key (see :meth:`upsert_rows`).
            executemany: Has no effect: rows always go in batches.
            fast_executemany: Has no effect, for the same reason.
            autocommit: Whether each batch commits by itself.
            kwargs: With `replace`, ``replace_index``: the unique column or columns, the primary key by
                default; and ``replace_target``: the columns to update, all others by default, none if empty.

        Raises:
            ConfigError: A setting is wrong, the table has no key by which to replace, or `rows` is not an
                iterable of rows, or an earlier attempt consumed it.
            BadRowError: One is not a row, such as a string, or does not have the first mapping's columns.
            psycopg.Error: The server refused a row. Rows of earlier transactions stay; the only values that
                log and error show are those that Postgres quotes.
        """
        from lakebase_provider._airflow.rows.insert import insert_rows

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
        """Insert rows, or update those whose key exists.

        Args:
            table: Name of the table, quoted where SQL needs it.
            rows: As for :meth:`insert_rows`.
            target_fields: Names of the columns.
            conflict_fields: The unique columns.
            update_fields: Columns to update; all others by default. If empty, existing rows stay unchanged.
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
        """Run a COPY between the server and a local file, in its own transaction.

        Args:
            sql: ``COPY … FROM STDIN``, which reads the file, or ``COPY … TO STDOUT``, which writes it.
            filename: The file; an output file appears only once it is complete.

        Raises:
            ConfigError: The statement is neither, or the path is not a regular file, such as a pipe or a
                symbolic link to write through.
            FileNotFoundError: There is no file to read.
        """
        from lakebase_provider._airflow.rows.copy_file import copy_between

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
            table: Name of the table, with its schema or found in the search path; always taken as a name,
                never as SQL.
            tmp_file: The file.

        Raises:
            ConfigError: It is not a table name, or not a local file.
            FileNotFoundError: There is no file to read.
        """
        self.copy_expert(f"COPY {self._table_in_sql(table)} FROM STDIN", tmp_file)

    def bulk_dump(self, table: str, tmp_file: str | os.PathLike[str]) -> None:
        """Write a table into a file in COPY's text format (tabs, ``\\N`` for NULL).

        Args:
            table: Name of the table, with its schema or found in the search path; always taken as a name,
                never as SQL.
            tmp_file: The file; it appears only once it is complete.

        Raises:
            ConfigError: It is not a table name, or the path is not a regular local file.
        """
        self.copy_expert(f"COPY {self._table_in_sql(table)} TO STDOUT", tmp_file)

    def _table_in_sql(self, table: str) -> str:
        return self.dialect.table_name(table).sql().as_string()

    @property
    def sqlalchemy_url(self) -> URL:
        """Where and as whom an engine connects, without a password."""
        return sqlalchemy_url(self.client.target())

    def get_uri(self) -> str:
        """:attr:`sqlalchemy_url` as text."""
        return self.sqlalchemy_url.render_as_string()

    def get_sqlalchemy_engine(self, engine_kwargs: dict[str, Any] | None = None) -> Engine:
        """A new engine that gets a valid token for each physical connection; the caller disposes of it.

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
        """SQLAlchemy's inspector of the database, on connections from this process's pool."""
        from sqlalchemy import create_engine, inspect
        from sqlalchemy.pool import NullPool

        def borrow() -> LakebaseConnection:
            # Not through get_conn: SQLAlchemy accepts only tuples as rows.
            return self.client.pool.getconn()

        # An engine with its own pool would keep a connection that nobody closes.
        return inspect(create_engine(self.sqlalchemy_url, creator=borrow, poolclass=NullPool))

    def get_table_primary_key(self, table: str, schema: str | None = None) -> list[str] | None:
        """Columns of the primary key, in its order; None without one, or without such a table.

        Args:
            table: Name of the table, with its schema or found by the search path.
            schema: Name of the schema, if the table's name has none.

        Raises:
            LakebaseError: It is not a table name, such as one with a semicolon outside quotes.
        """
        try:
            return self.dialect.get_primary_keys(table=table, schema=schema)
        except TableNotFoundError:
            if self.dialect.is_table_name(table):
                return None
            raise

    def _get_pandas_df(self, sql: str | list[str], parameters: Any = None, **kwargs: Any) -> Any:
        from lakebase_provider._airflow.rows import frames

        with closing(self.get_conn()) as connection:
            frames.as_pandas_takes_them(connection)
            frame = frames.to_pandas(connection, frames.executed(connection, sql, parameters), **kwargs)
            connection.commit()
        return frame

    def _get_pandas_df_by_chunks(
        self, sql: str | list[str], parameters: Any = None, *, chunksize: int, **kwargs: Any
    ) -> Generator[Any, None, None]:
        from lakebase_provider._airflow.rows import frames

        frames.require_chunksize(chunksize)
        with closing(self.get_conn()) as connection:
            frames.as_pandas_takes_them(connection)
            with frames.streaming(connection, sql, parameters) as cursor:
                yield from frames.to_pandas(connection, cursor, chunksize=chunksize, **kwargs)
            connection.commit()

    def _get_polars_df(self, sql: str | list[str], parameters: Any = None, **kwargs: Any) -> Any:
        from lakebase_provider._airflow.rows import frames, polars_frames

        with closing(self.get_conn()) as connection:
            polars_frames.as_polars_takes_them(connection)
            frame = polars_frames.to_polars(frames.executed(connection, sql, parameters), **kwargs)
            connection.commit()
        return frame

    def _get_polars_df_by_chunks(
        self, sql: str | list[str], parameters: Any = None, *, chunksize: int, **kwargs: Any
    ) -> Generator[Any, None, None]:
        from lakebase_provider._airflow.rows import frames, polars_frames

        frames.require_chunksize(chunksize)
        with closing(self.get_conn()) as connection:
            polars_frames.as_polars_takes_them(connection)
            with frames.streaming(connection, sql, parameters) as cursor:
                yield from polars_frames.to_polars_by_chunks(cursor, chunksize, **kwargs)
            connection.commit()

    @staticmethod
    def _serialize_cell(cell: Any, conn: Any = None) -> Any:
        """The cell as it is: psycopg knows dates, numbers, arrays and bytes. A mapping becomes JSON."""
        if isinstance(cell, dict):
            from psycopg.types.json import Json

            return Json(cell)
        return cell

    def asset(self, table: str) -> Asset:
        """A table as an asset, by the host that this hook connects to: on a branch that is the branch's.

        Args:
            table: ``"table"`` or ``"schema.table"``.

        Raises:
            LakebaseError: The host or the schema could not be asked for.

        Example:
            >>> outlet_events[alias].add(LakebaseHook(branch=branch).asset("orders"))
        """
        from lakebase_provider.assets import create_asset
        from lakebase_provider.core.database.catalog import TableName

        target, name = self.client.target(), TableName.parse(table)
        schema = name.schema or self.get_openlineage_default_schema() or "public"
        return create_asset(
            host=target.host, port=target.port, database=target.database, schema=schema, table=name.table
        )

    def get_openlineage_database_info(self, connection: Any) -> DatabaseInfo:
        """The database for lineage, with its resolved host."""
        from airflow.providers.openlineage.sqlparser import DatabaseInfo

        target = self.client.target()
        return DatabaseInfo(
            scheme="postgres", authority=f"{target.host}:{target.port}", database=target.database
        )

    def get_openlineage_database_dialect(self, connection: Any) -> str:
        """The dialect with which OpenLineage parses statements."""
        return "postgres"

    def get_openlineage_default_schema(self) -> str | None:
        """The schema in which the server looks up names first."""
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
