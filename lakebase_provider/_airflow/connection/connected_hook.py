"""How a hook is connected: the Airflow connection, the process's client, the pool."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import ref

from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.sql.hooks.sql import DbApiHook
from airflow.sdk.log import mask_secret

from lakebase_provider._airflow.connection.settings import ConnectionSettings, secrets_of, task_name
from lakebase_provider._airflow.connection.stored_connection import (
    GivenConnection,
    StoredConnection,
    with_secrets_hidden,
)
from lakebase_provider._airflow.statements.row_kinds import row_factory, row_factory_of_call
from lakebase_provider._airflow.task.masking import amask, mask_from_loop, mask_token
from lakebase_provider._airflow.task.sigterm import cancel_statements_on_sigterm
from lakebase_provider._airflow.task.task_end import close_pools_when_the_task_ends, is_in_task
from lakebase_provider.core.client import LakebaseClient
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.database.fence import fence
from lakebase_provider.core.errors import ConfigError, LakebaseError
from lakebase_provider.core.errors.redaction import redacted
from lakebase_provider.core.shared import shared_client

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from psycopg.errors import Diagnostic

    from lakebase_provider.core.connect.connection import AsyncLakebaseConnection, LakebaseConnection

#: Arguments of DbApiHook that are not settings of a connection.
_HOOK_ARGUMENTS = (
    "connection",
    "insert_statement_format",
    "replace_statement_format",
    "escape_word_format",
    "escape_column_names",
)
#: How many characters of a connection test's answer Airflow stores.
_ANSWER = 2000


class ConnectedHook(DbApiHook):
    """A hook of common-sql whose connections are lent by the process's pool.

    :class:`~lakebase_provider.hooks.lakebase.LakebaseHook` says what its arguments mean.
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
        #: The key that each connection fences: an earlier session that is working on it is ended.
        self.fence_key: str | None = None
        #: Called with each borrowed connection before it runs a statement.
        self.adapt: Callable[[LakebaseConnection], None] | None = None
        self.read_only = read_only
        self._client: LakebaseClient | None = None
        if schema is not None:
            self.schema = schema

    @classmethod
    def _conn_id(cls, given: str | None, overrides: dict[str, Any]) -> str:
        """Which connection is meant, in each of the ways that DbApiHook offers its subclasses."""
        found: str | None = given
        # Also the operators' name for it.
        for name in (cls.conn_name_attr, "conn_id"):
            named = overrides.pop(name, None)
            if found is not None and named is not None and found != named:
                raise ConfigError(
                    f"Two connections are named: {found!r} and, by {name}, {named!r}.", remedy="Name one."
                )
            found = named if found is None else found
        return cls.default_conn_name if found is None else found

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

    #: What Airflow's operators call the database if they know that the hook is for Postgres.
    database = schema

    @property  # type: ignore[misc] # nobody is to set it, and the setter of common-sql sets nothing
    def connection(self) -> Connection:  # type: ignore[override] # Airflow 3.1 has another class
        """The Airflow connection, read anew each time: if kept, it would show its password with the hook."""
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
        row_factory(self._settings.cursor)  # a connection's error is raised before any network call
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
        if is_in_task():
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
            # In a thread, since a token that exists is masked at once, which needs the loop.
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
        # Not a strong reference, which would keep it lent after the borrower drops it.
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
        """The server process behind this hook's latest connection; None once it is returned."""
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
            timeout: Seconds to wait at most for the server to take the request; Airflow kills a task 5
                seconds after asking it to end.
        """
        lent = self._still_lent()
        # No lock is taken here: the statement that the signal interrupted may hold it. A returned connection
        # does nothing here, and other borrowers' statements must not be cancelled.
        if lent is not None:
            lent.cancel_safe(timeout=timeout)

    def get_db_log_messages(self, conn: Any) -> None:
        """Log nothing: with `enable_log_db_messages`, notices are logged as they arrive."""

    def _log_notice(self, notice: Diagnostic) -> None:
        self.log.info("%s: %s", notice.severity, redacted(notice.message_primary or "").strip())

    def test_connection(self) -> tuple[bool, str]:  # type: ignore[override] # common-sql annotates it not
        """Check every stage from the name to a write; what the "Test" button of the connection shows.

        Returns:
            Whether all is well, and one line, because the web interface would join the lines of a table.
        """
        try:
            report = self.client.health()
        except LakebaseError as error:
            return False, " ".join(str(error).split())[:_ANSWER]
        except Exception as error:  # the button shows an answer, not a traceback
            return False, redacted(f"{type(error).__name__}: {error}")[:_ANSWER]
        return report.ok, report.summary()[:_ANSWER]
