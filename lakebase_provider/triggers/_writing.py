"""A trigger's statements, with the last one's rows written to a file, in a thread that asyncio can stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg

from lakebase_provider._airflow.rows.result_files import write_rows
from lakebase_provider._airflow.statements.cursors import require_query, single_statements
from lakebase_provider.core.base.threads import in_this_context

if TYPE_CHECKING:
    from lakebase_provider.core.client import LakebaseClient
    from lakebase_provider.core.connect.connection import LakebaseConnection

#: Seconds that the server may take to accept a request to cancel, and between two requests.
_CANCEL_TIMEOUT = 3.0


class Writing:
    """Statements in one transaction, the last one a query whose rows are written to a file.

    Args:
        client: Makes the connection, which is outside the pool: it may be needed for hours.
        sql: Texts of one statement or several.
        parameters: Values for the placeholders of each text.
        session: Settings of the session by name.
        read_only: Whether the transaction may only read.
        path: Where the rows go.
        log: Where statements are logged.
    """

    def __init__(
        self,
        client: LakebaseClient,
        sql: Sequence[str],
        parameters: Mapping[str, Any] | Sequence[Any] | None,
        *,
        session: Mapping[str, str],
        read_only: bool,
        path: str,
        log: Any,
    ) -> None:
        self._client = client
        self._sql = sql
        self._parameters = parameters
        self._session = session
        self._read_only = read_only
        self._path = path
        self._log = log
        self._connection: LakebaseConnection | None = None
        self._stopped = threading.Event()

    async def run(self) -> int:
        """Run all and return the number of rows; if cancelled, it ends once nothing is running any more.

        Raises:
            LakebaseError: No connection could be opened, or the file not be written; nothing is committed.
            psycopg.Error: The server refuses a statement, or cancels it.
            OSError: The file could not be written.
        """
        # Its own thread: the loop's few are for short work.
        threads = ThreadPoolExecutor(1, thread_name_prefix="lakebase-output")
        work = asyncio.get_running_loop().run_in_executor(threads, in_this_context(self._run))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            work.add_done_callback(asyncio.Future.exception)  # retrieved, as nobody awaits it now
            await self.cancel()
            # Without a connection there is nothing to wait for: once there is one, no statement begins.
            while self._connection is not None and not work.done():
                await asyncio.wait([work], timeout=_CANCEL_TIMEOUT)
                await self.cancel()
            raise
        finally:
            threads.shutdown(wait=False)

    async def cancel(self) -> None:
        """Cancel what is running; what has not begun never does, and nothing is committed."""
        self._stopped.set()
        connection = self._connection
        if connection is not None and not connection.closed:
            with suppress(psycopg.Error):
                await asyncio.to_thread(connection.cancel_safe, timeout=_CANCEL_TIMEOUT)

    def _run(self) -> int:
        with self._client.connect(autocommit=True) as connection:
            self._connection = connection
            for name, value in self._session.items():
                connection.execute("SELECT set_config(%s, %s, false)", (name, value))
            connection.autocommit = False
            connection.read_only = True if self._read_only else None
            *first, last = [
                one for text in self._sql for one in single_statements(connection, text, self._parameters)
            ]
            require_query(last[0])
            for statement, values in first:
                self._tell(statement)
                connection.execute(statement, values)
            self._tell(last[0])
            rows = write_rows(connection, *last, self._path, commit=lambda: self._commit(connection))
        self._log.info("Wrote %d rows to %s", rows, self._path)
        return rows

    def _tell(self, statement: str) -> None:
        self._require_going()
        self._log.info("Running statement: %s", statement)

    def _commit(self, connection: LakebaseConnection) -> None:
        self._require_going()
        connection.commit()

    def _require_going(self) -> None:
        if self._stopped.is_set():
            raise psycopg.errors.QueryCanceled("the trigger was cancelled")
