"""Statements that run in the triggerer, so that no worker waits for the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger

from lakebase_provider._airflow.task.arguments import conn_id_of
from lakebase_provider._airflow.task.events import failed, succeeded
from lakebase_provider.core.errors import LakebaseError, StatementError
from lakebase_provider.triggers._clients import client_of

if TYPE_CHECKING:
    from airflow.triggers.base import TriggerEvent

    from lakebase_provider.core.connect.connection import AsyncLakebaseConnection
    from lakebase_provider.triggers._writing import Writing

#: Seconds that the server may take to accept a request to cancel.
_CANCEL_TIMEOUT = 3.0


class LakebaseSqlTrigger(BaseTrigger):
    """Runs statements one after another, in one transaction, and reports how many rows there were.

    Rows are never sent in the event. A statement's rows are counted as they arrive, a thousand at a time, or
    written to `output_path`. However the trigger ends, nothing keeps running on the server.

    Args:
        conn_id: Id of the Airflow connection; nothing else of the connection is sent.
        lakebase_conn_id: An alias of `conn_id`.
        sql: Texts with one or more statements, which are run one by one.
        parameters: Values for the placeholders of each text, of JSON types.
        settings: Settings of the connection that are replaced, without secrets.
        session: Session settings, by their Postgres names.
        autocommit: Whether each statement is its own transaction.
        read_only: Whether the transaction may only read.
        output_path: Where the last statement's rows go.
        timeout: Seconds that everything together may take; None for no limit.
    """

    def __init__(
        self,
        *,
        conn_id: str | None = None,
        lakebase_conn_id: str | None = None,
        sql: Sequence[str],
        parameters: Mapping[str, Any] | Sequence[Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        session: Mapping[str, str] | None = None,
        autocommit: bool = False,
        read_only: bool = False,
        output_path: str | None = None,
        timeout: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow annotates it not
        self.conn_id: str = conn_id_of(conn_id, lakebase_conn_id)
        self.sql = list(sql)
        self.parameters = parameters
        self.settings = dict(settings or {})
        self.session = dict(session or {})
        self.autocommit = autocommit
        self.read_only = read_only
        self.output_path = output_path
        self.timeout = timeout
        self._connection: AsyncLakebaseConnection | None = None
        self._writing: Writing | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """How Airflow recreates this trigger in the triggerer."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "conn_id": self.conn_id,
            "sql": self.sql,
            "parameters": self.parameters,
            "settings": self.settings,
            "session": self.session,
            "autocommit": self.autocommit,
            "read_only": self.read_only,
            "output_path": self.output_path,
            "timeout": self.timeout,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Run the statements; the only event says ``success`` with counts, or ``error``."""
        import psycopg

        try:
            result = await asyncio.wait_for(self._run_statements(), self.timeout)
        except asyncio.TimeoutError:
            error = StatementError(
                f"The statements did not finish within {self.timeout:g} s, the task's execution_timeout; "
                "they are cancelled and rolled back.",
                remedy="Raise execution_timeout, or do less in one task.",
                retryable=True,
            )
            yield failed(error)
        except (LakebaseError, psycopg.Error, OSError) as error:
            self.log.warning("The statements failed: %s", error)
            yield failed(error)
        else:
            yield succeeded(**result)

    async def on_kill(self) -> None:
        """Cancel what is running when a user has marked or cleared the task."""
        if self._connection is not None and not self._connection.closed:
            await self._connection.cancel_safe(timeout=_CANCEL_TIMEOUT)
        if self._writing is not None:
            await self._writing.cancel()

    async def cleanup(self) -> None:
        """Leave no connection behind, however the trigger ends."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _run_statements(self) -> dict[str, Any]:
        # This brings the driver; making a trigger must not.
        from lakebase_provider._airflow.statements.cursors import single_statements

        if self.output_path is not None:
            return await self._write(self.output_path)
        async with self._connected() as connection:
            statements = [
                one for text in self.sql for one in single_statements(connection, text, self.parameters)
            ]
            counts = [await self._count(connection, *one) for one in statements]
            await self._commit(connection)
            return {"rows": counts}

    async def _write(self, path: str) -> dict[str, Any]:
        from lakebase_provider._airflow.rows.result_files import check_path
        from lakebase_provider.triggers._writing import Writing

        check_path(path)
        self._writing = Writing(
            await client_of(self.conn_id, self.settings),
            self.sql,
            self.parameters,
            session=self.session,
            read_only=self.read_only,
            path=path,
            log=self.log,
        )
        return {"path": path, "rows": await self._writing.run()}

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncLakebaseConnection]:
        client = await client_of(self.conn_id, self.settings)
        # Not from the pool: a statement may take hours, and there may be as many as deferred tasks.
        self._connection = await client.aconnect(autocommit=True)
        try:
            for name, value in self.session.items():
                await self._connection.execute("SELECT set_config(%s, %s, false)", (name, value))
            await self._connection.set_autocommit(self.autocommit)
            if self.read_only:
                await self._connection.set_read_only(True)
            yield self._connection
        finally:
            await self.cleanup()

    async def _count(self, connection: AsyncLakebaseConnection, statement: str, values: Any) -> int:
        from lakebase_provider.triggers._counting import CountingCursor

        self.log.info("Running statement: %s", statement)
        async with CountingCursor(connection) as cursor:
            rows = await cursor.count(statement, values)
        self.log.info("Rows: %d", rows)
        return rows

    async def _commit(self, connection: AsyncLakebaseConnection) -> None:
        if not self.autocommit:
            await connection.commit()
