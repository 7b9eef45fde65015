"""Counting a statement's rows without keeping them."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import generators
from psycopg.pq import ExecStatus
from psycopg.rows import TupleRow

from lakebase_provider.core.connect.cursor import InertComments

#: Rows that libpq holds at a time.
_CHUNK_ROWS = 1000


class CountingCursor(InertComments, psycopg.AsyncCursor[TupleRow]):
    """A cursor for statements of which only the number of rows is needed.

    psycopg's ``execute`` keeps all rows in memory, and its ``stream`` accepts only queries.
    """

    async def count(self, statement: str, parameters: Any = None) -> int:
        """Run one statement, whatever it is.

        Args:
            statement: Written by the caller; values belong in the parameters.
            parameters: Values by position or by name, or None.

        Returns:
            How many rows it returned or changed; 0 if it does neither.

        Raises:
            psycopg.Error: The server refuses the statement, or the connection is broken.
        """
        rows = 0
        async with self._conn.lock:
            await self._conn.wait(self._stream_send_gen(statement.encode(), parameters, size=_CHUNK_ROWS))
            failed = None
            while result := await self._conn.wait(generators.fetch(self._pgconn)):
                if result.status in (ExecStatus.SINGLE_TUPLE, ExecStatus.TUPLES_CHUNK):
                    rows += result.ntuples
                elif result.status == ExecStatus.COMMAND_OK:
                    rows += result.command_tuples or 0
                elif result.status in (ExecStatus.COPY_IN, ExecStatus.COPY_OUT):
                    raise psycopg.NotSupportedError("COPY from or to the client cannot run in a trigger")
                elif result.status != ExecStatus.TUPLES_OK:
                    failed = result
        if failed is not None:
            raise psycopg.errors.error_from_result(failed, encoding=self._encoding)
        return rows
