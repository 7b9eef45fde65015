"""The rows of a COPY TO STDOUT, in batches, as the server sends them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import generators, waiting
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn

from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.refusals import interrupted_reads

#: Bytes after which a batch ends before it has its rows.
BATCH_BYTES = 8 << 20
#: Seconds to wait for the server to end a query that nobody reads on.
_CANCEL_TIMEOUT = 5.0


@contextmanager
def copy_out(connection: psycopg.Connection[Any], statement: bytes) -> Iterator[CopyOut]:
    """Start a COPY TO STDOUT.

    Leaving the context before the last row cancels the query, and the transaction can only be rolled back.

    Raises:
        psycopg.Error: The server refuses the statement.
    """
    with plain_cursor(connection) as cursor, cursor.copy(statement):
        copy = CopyOut(connection)
        yield copy
        if not copy.ended:
            copy.cancel()


class CopyOut:
    """A COPY TO STDOUT under way.

    Attributes:
        ended: Whether all of it has been read.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self.ended = False

    def batches(self, rows: int) -> Iterator[tuple[bytearray, list[int]]]:
        """The messages, one after another, with the size of each.

        At least one message is kept back until the end, so that the last batch is known to be the last.

        Args:
            rows: Messages in a batch at most; there are fewer where they are big.

        Raises:
            LoadInterruptedError: The connection was lost.
            psycopg.Error: The server ended the query.
        """
        data, sizes = bytearray(), list[int]()
        while not self.ended:
            with interrupted_reads():
                self.ended = self._connection.wait(_receive(self._connection.pgconn, data, sizes))
            while len(sizes) > rows or (len(data) >= BATCH_BYTES and len(sizes) > 1):
                count = min(rows, len(sizes) - 1)
                end = sum(sizes[:count])
                rest = data[end:]
                del data[end:]
                yield data, sizes[:count]
                data, sizes = rest, sizes[count:]
        yield data, sizes

    def blocks(self, size: int) -> Iterator[tuple[bytearray, int]]:
        """The data as it comes, with the number of messages in it; a block has `size` bytes, or is the last.

        Args:
            size: Bytes of a block, at least.

        Raises:
            LoadInterruptedError: The connection was lost.
            psycopg.Error: The server ended the query; what it had sent before has been given.
        """
        data, sizes = bytearray(), list[int]()
        while not self.ended:
            try:
                with interrupted_reads():
                    self.ended = self._connection.wait(_receive(self._connection.pgconn, data, sizes))
            except Exception:  # whichever it is, it is raised again, after what came before it
                if sizes:
                    yield data, len(sizes)
                raise
            if sizes and (self.ended or len(data) >= size):
                yield data, len(sizes)
                data, sizes = bytearray(), []

    def cancel(self) -> None:
        """Have the server end the query, and read what it had sent."""
        self._connection.cancel_safe(timeout=_CANCEL_TIMEOUT)
        try:
            while not self.ended:
                self.ended = self._connection.wait(_receive(self._connection.pgconn, bytearray(), []))
        except psycopg.errors.QueryCanceled:
            self.ended = True


def _receive(
    pgconn: PGconn, data: bytearray, sizes: list[int]
) -> Generator[waiting.Wait, waiting.Ready | int, bool]:
    """Take the messages that have come, or wait for some; return whether there are no more.

    psycopg's own way takes them one by one, and each goes through the connection's ``wait``. Copied at once
    they cost a fifth of what as many objects that are kept do.
    """
    take = pgconn.get_copy_data
    size, message = take(1)
    while size == 0:
        while not (yield waiting.Wait.R):
            pass
        pgconn.consume_input()
        size, message = take(1)
    while size > 0:
        data += message
        sizes.append(size)
        size, message = take(1)
    if size == 0:
        return False
    for result in (yield from generators.fetch_many(pgconn)):
        if result.status != ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result)
    return True
