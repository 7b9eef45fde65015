"""The rows of a COPY TO STDOUT, in batches, as the server sends them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import generators, waiting
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn

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
    with psycopg.Cursor(connection) as cursor, cursor.copy(statement):
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

    def batches(self, rows: int) -> Iterator[list[Any]]:
        """Lists of messages: `rows` each, fewer where they are big, and what remains at the end.

        Raises:
            psycopg.Error: The server ended the query.
        """
        messages: list[Any] = []
        size = 0
        while not self.ended:
            began = len(messages)
            self.ended = self._connection.wait(_receive(self._connection.pgconn, messages.append))
            size += sum(map(len, messages[began:]))
            while len(messages) >= rows or (size >= BATCH_BYTES and messages):
                yield messages[:rows]
                messages = messages[rows:]
                size = sum(map(len, messages))
        if messages:
            yield messages

    def cancel(self) -> None:
        """Have the server end the query, and read what it had sent."""
        self._connection.cancel_safe(timeout=_CANCEL_TIMEOUT)
        try:
            while not self.ended:
                self.ended = self._connection.wait(_receive(self._connection.pgconn, lambda _: None))
        except psycopg.errors.QueryCanceled:
            self.ended = True


def _receive(pgconn: PGconn, add: Callable[[Any], None]) -> Generator[waiting.Wait, waiting.Ready, bool]:
    """Take the messages that have come, or wait for some; return whether there are no more.

    psycopg's own way takes them one by one, and each goes through the connection's ``wait``.
    """
    take = pgconn.get_copy_data
    size, data = take(1)
    while size == 0:
        while not (yield waiting.Wait.R):
            pass
        pgconn.consume_input()
        size, data = take(1)
    while size > 0:
        add(data)
        size, data = take(1)
    if size == 0:
        return False
    for result in (yield from generators.fetch_many(pgconn)):
        if result.status != ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result)
    return True
