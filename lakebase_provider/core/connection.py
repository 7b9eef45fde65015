"""The connections that users hold: psycopg's own, which remember a little more."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar
from typing import Any

import psycopg
from psycopg import generators
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.rows import TupleRow, tuple_row

#: What a borrower may have left behind in the session, undone in one round trip. DISCARD ALL would do it
#: too, but does not run beside a ROLLBACK, and would throw away the statements that psycopg has prepared.
_RESET_SESSION = (
    b"SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *;"
    b" SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES"
)

#: What a borrower may have set on the object, and what it was before.
_TRANSACTION_DEFAULTS = {"autocommit": False, "isolation_level": None, "read_only": None, "deferrable": None}
#: psycopg's default: a statement is prepared when it is executed more often than this.
_PREPARE_THRESHOLD = 5
#: Seconds for the server to answer; after them the connection is not worth keeping.
_RESET_TIMEOUT = 5.0
#: Seconds; Airflow kills a task for good 5 seconds after it asked it to end.
_CANCEL_TIMEOUT = 3.0
#: Until when the connect under way in this thread may take, on the monotonic clock.
_connect_end: ContextVar[float] = ContextVar("_connect_end", default=math.inf)


class LakebaseConnection(psycopg.Connection[TupleRow]):
    """A psycopg connection that knows whether its session was used since it was lent.

    Attributes:
        last_used: When it was handed back, on the monotonic clock, in seconds.
    """

    last_used: float = 0.0
    #: Seconds to wait at most for any answer of the server; None for as long as it takes.
    answer_timeout: float | None = None
    _used = False

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> LakebaseConnection:
        """psycopg's ``connect``; given an `opener`, the connection that it opens.

        `within` limits it, in seconds, for all addresses of the host together.
        """
        opener: Callable[[], LakebaseConnection] | None = kwargs.pop("opener", None)
        if opener is not None:
            return opener()
        reset = _connect_end.set(time.monotonic() + kwargs.pop("within", math.inf))
        try:
            connection = super().connect(conninfo, **kwargs)
        finally:
            _connect_end.reset(reset)
        assert isinstance(connection, cls)
        return connection

    @classmethod
    def _connect_gen(cls, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        # psycopg's own limit is in whole seconds, two at least, and for each address anew. It sends a step
        # every tenth of a second, whether or not the server has answered.
        steps: Generator[Any, Any, Any] = super()._connect_gen(*args, **kwargs)
        answer = None
        while time.monotonic() < _connect_end.get():
            try:
                awaited = steps.send(answer)
            except StopIteration as done:
                return done.value
            answer = yield awaited
        steps.close()
        raise psycopg.errors.ConnectionTimeout("connection timeout expired")

    def wait(self, *args: Any, **kwargs: Any) -> Any:
        """psycopg's ``wait``, by which everything goes that talks to the server."""
        self._used = True
        if self.answer_timeout is not None:
            kwargs.setdefault("timeout", self.answer_timeout)
        return super().wait(*args, **kwargs)

    def check(self, timeout: float) -> None:
        """Ask the server for a sign of life; nothing of it stays in the session.

        Args:
            timeout: Seconds to wait at most, which a silent link would otherwise make forever.

        Raises:
            psycopg.OperationalError: The connection is broken, or the server did not answer in time.
        """
        used = self._used
        self.wait(_exchange(self, b""), timeout=timeout)
        self._used = used

    def reset_session(self) -> None:
        """Undo what a borrower did to the session and to this object, in one round trip, if anything.

        Raises:
            psycopg.OperationalError: The connection is broken.
        """
        status = self.pgconn.transaction_status
        if status == TransactionStatus.UNKNOWN:
            return
        if status == TransactionStatus.ACTIVE:
            # psycopg cancels the statement for Ctrl-C, not for what else a signal handler raises, such as
            # Airflow's task timeout; waiting for the statement's end here could take hours.
            self.cancel_safe(timeout=_CANCEL_TIMEOUT)
            raise _interrupted()
        if self._used:
            self.wait(_exchange(self, _reset_statements(status)), timeout=_RESET_TIMEOUT)
            for name, value in _changed(self):
                setattr(self, name, value)
            # Last, for setting one of these goes through wait(), even when nothing is sent.
            self._used = False
        self.cursor_factory = psycopg.Cursor
        self.server_cursor_factory = psycopg.ServerCursor
        _forget_borrower(self)


class AsyncLakebaseConnection(psycopg.AsyncConnection[TupleRow]):
    """A psycopg connection for asyncio that knows whether its session was used since it was lent.

    Attributes:
        last_used: When it was handed back, on the monotonic clock, in seconds.
    """

    last_used: float = 0.0
    #: Seconds to wait at most for any answer of the server; None for as long as it takes.
    answer_timeout: float | None = None
    _used = False

    @classmethod
    async def connect(cls, conninfo: str = "", **kwargs: Any) -> AsyncLakebaseConnection:
        """psycopg's ``connect``; given an `opener`, the connection that it opens."""
        opener: Callable[[], Awaitable[AsyncLakebaseConnection]] | None = kwargs.pop("opener", None)
        if opener is not None:
            return await opener()
        connection = await super().connect(conninfo, **kwargs)
        assert isinstance(connection, cls)
        return connection

    async def wait(self, *args: Any, **kwargs: Any) -> Any:
        """psycopg's ``wait``, by which everything goes that talks to the server."""
        self._used = True
        if self.answer_timeout is not None:
            kwargs.setdefault("timeout", self.answer_timeout)
        return await super().wait(*args, **kwargs)

    async def check(self, timeout: float) -> None:
        """Ask the server for a sign of life; nothing of it stays in the session.

        Args:
            timeout: Seconds to wait at most, which a silent link would otherwise make forever.

        Raises:
            psycopg.OperationalError: The connection is broken, or the server did not answer in time.
        """
        used = self._used
        await self.wait(_exchange(self, b""), timeout=timeout)
        self._used = used

    async def reset_session(self) -> None:
        """Undo what a borrower did to the session and to this object, in one round trip, if anything.

        Raises:
            psycopg.OperationalError: The connection is broken.
        """
        status = self.pgconn.transaction_status
        if status == TransactionStatus.UNKNOWN:
            return
        if status == TransactionStatus.ACTIVE:
            await self.cancel_safe(timeout=_CANCEL_TIMEOUT)
            raise _interrupted()
        if self._used:
            await self.wait(_exchange(self, _reset_statements(status)), timeout=_RESET_TIMEOUT)
            for name, value in _changed(self):
                await getattr(self, f"set_{name}")(value)
            self._used = False
        self.cursor_factory = psycopg.AsyncCursor
        self.server_cursor_factory = psycopg.AsyncServerCursor
        _forget_borrower(self)


_Connection = LakebaseConnection | AsyncLakebaseConnection


def _interrupted() -> psycopg.OperationalError:
    return psycopg.OperationalError("a statement was interrupted and is cancelled")


def _reset_statements(status: int) -> bytes:
    return (b"" if status == TransactionStatus.IDLE else b"ROLLBACK; ") + _RESET_SESSION


def _exchange(connection: _Connection, statements: bytes) -> Generator[Any, Any, None]:
    """Statements past psycopg's transaction handling, as a generator that ``wait`` of either kind drives."""
    connection.pgconn.send_query(statements)
    for result in (yield from generators.execute(connection.pgconn)):
        if result.status == ExecStatus.FATAL_ERROR:
            raise psycopg.OperationalError(result.get_error_message())


def _changed(connection: _Connection) -> list[tuple[str, Any]]:
    return [
        (name, value) for name, value in _TRANSACTION_DEFAULTS.items() if getattr(connection, name) != value
    ]


def _forget_borrower(connection: _Connection) -> None:
    connection.row_factory = tuple_row
    connection.prepare_threshold = _PREPARE_THRESHOLD
    connection.last_used = time.monotonic()
