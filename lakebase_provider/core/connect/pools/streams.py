"""Streams that their reader has left: between two rows, a statement is under way and holds the connection.

psycopg's own would wait for itself, forever, at the end of the connection's block or at the next statement of
the same thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from inspect import GEN_SUSPENDED, getgeneratorstate
from typing import Any
from weakref import ref

import psycopg
from psycopg.abc import Query
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from lakebase_provider.core.connect.harmless import only_reads


class Streaming(psycopg.BaseConnection[TupleRow]):
    """What connections for threads and for asyncio share: which streams are read, and by whom."""

    #: Each stream that was begun, if it is still there, and the thread or task that began it.
    _streams: tuple[tuple[ref[Any], object], ...] = ()
    #: Whether psycopg cancelled what somebody had left half-way, and with it the transaction.
    _cut = False
    _used: bool
    _harmless: Generator[Any, Any, Any] | None = None

    @property
    def lock(self) -> Any:
        """What a statement holds while it is under way.

        Raises:
            psycopg.ProgrammingError: A stream holds it that this thread or task is reading itself.
        """
        lock = vars(self).get("lock")
        if lock is None:
            raise AttributeError("lock")
        if self._streams and lock.locked():
            reader = _reader(lock)
            if any(began == reader and _is_left(rows()) for rows, began in self._streams):
                raise psycopg.ProgrammingError(
                    "the connection is busy: a stream of its rows has been read in part.\n"
                    "Remedy: read it to its end or close() it first, or use another connection."
                )
        return lock

    @lock.setter
    def lock(self, lock: Any) -> None:
        vars(self)["lock"] = lock

    def _without_trace(self, steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        self._harmless = steps
        return steps

    def _begin_stream(self, rows: Any) -> None:
        there = [stream for stream in self._streams if stream[0]() is not None]
        self._streams = (*there, (ref(rows), _reader(vars(self).get("lock"))))

    def _left_streams(self) -> list[Any]:
        """The streams that hold the connection although nobody is reading them just now."""
        if not self._streams or not vars(self)["lock"].locked():
            return []
        found = [rows() for rows, _began in self._streams]
        return [rows for rows in found if _is_left(rows)]

    def _try_cancel(self, **kwargs: Any) -> Any:
        # psycopg's, for what was left half-way; awaited where the connection is one for asyncio.
        self._cut = True
        return super()._try_cancel(**kwargs)  # type: ignore[misc]

    def _start_query(self) -> Generator[Any, Any, None]:
        if self._cut and self.pgconn.transaction_status != TransactionStatus.INERROR:
            # That transaction is over.
            self._cut = False
        return super()._start_query()

    def _exec_command(self, command: Any, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        if command == b"COMMIT" and (cut := self._cut_off(None)) is not None:
            # The server would roll back without a word.
            yield from super()._exec_command(b"ROLLBACK")
            raise cut
        return (yield from super()._exec_command(command, *args, **kwargs))

    def _cut_off(self, error: BaseException | None) -> psycopg.Error | None:
        """The error of a commit that would be none, since what it left half-way was cancelled."""
        failed = self.pgconn.transaction_status == TransactionStatus.INERROR
        if error is not None or not (self._cut and self._used and failed):
            return None
        return psycopg.ProgrammingError(
            "the transaction is rolled back: it ended with rows that had been read in part, and the "
            "statement under way was cancelled.\n"
            "Remedy: read them to their end, or commit first what is to stay."
        )


class StreamingCursor:
    """A cursor that tells its connection of the streams that it begins."""

    __slots__ = ()

    def stream(self, *args: Any, **kwargs: Any) -> Any:
        """psycopg's ``stream``; what is left of it ends with the connection's block."""
        rows = super().stream(*args, **kwargs)  # type: ignore[misc]
        connection = self._conn  # type: ignore[attr-defined]
        if isinstance(connection, Streaming):
            connection._begin_stream(rows)
        return rows

    def _stream_send_gen(self, query: Query, *args: Any, **kwargs: Any) -> Generator[Any, Any, None]:
        steps: Generator[Any, Any, None] = super()._stream_send_gen(query, *args, **kwargs)  # type: ignore[misc]
        connection = self._conn  # type: ignore[attr-defined]
        if isinstance(connection, Streaming) and not connection._used and only_reads(query, connection):
            return connection._without_trace(steps)
        return steps

    def _stream_fetchone_gen(self, first: bool) -> Generator[Any, Any, Any]:
        steps: Generator[Any, Any, Any] = super()._stream_fetchone_gen(first)  # type: ignore[misc]
        connection = self._conn  # type: ignore[attr-defined]
        return connection._without_trace(steps) if isinstance(connection, Streaming) else steps


def _is_left(rows: Any) -> bool:
    if rows is None:
        return False
    if isinstance(rows, Generator):
        return getgeneratorstate(rows) == GEN_SUSPENDED
    return rows.ag_frame is not None and not rows.ag_running


def _reader(lock: object) -> object:
    return asyncio.current_task() if isinstance(lock, asyncio.Lock) else threading.get_ident()
