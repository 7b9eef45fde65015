"""The connections that users hold: psycopg's own, which remember a little more."""

from __future__ import annotations

import time
from collections.abc import Callable
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

#: psycopg's default: a statement is prepared when it is executed more often than this.
_PREPARE_THRESHOLD = 5
#: Seconds for the server to answer; after them the connection is not worth keeping.
_RESET_TIMEOUT = 5.0
#: Seconds; Airflow kills a task for good 5 seconds after it asked it to end.
_CANCEL_TIMEOUT = 3.0


class LakebaseConnection(psycopg.Connection[TupleRow]):
    """A psycopg connection that knows whether its session was used since it was lent.

    Attributes:
        last_used: When it was handed back, on the monotonic clock, in seconds.
    """

    last_used: float = 0.0
    _used = False

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> LakebaseConnection:
        """psycopg's ``connect``; given an `opener`, the connection that it opens."""
        opener: Callable[[], LakebaseConnection] | None = kwargs.pop("opener", None)
        if opener is not None:
            return opener()
        connection = super().connect(conninfo, **kwargs)
        assert isinstance(connection, cls)
        return connection

    def wait(self, *args: Any, **kwargs: Any) -> Any:
        """psycopg's ``wait``, by which everything goes that talks to the server."""
        self._used = True
        return super().wait(*args, **kwargs)

    def check(self, timeout: float) -> None:
        """Ask the server for a sign of life; nothing of it stays in the session.

        Args:
            timeout: Seconds to wait at most, which a silent link would otherwise make forever.

        Raises:
            psycopg.OperationalError: The connection is broken, or the server did not answer in time.
        """
        used = self._used
        self._exchange(b"", timeout)
        self._used = used

    def _exchange(self, statements: bytes, timeout: float) -> None:
        """Send statements past psycopg's transaction handling, and wait for the answer."""
        self.pgconn.send_query(statements)
        for result in self.wait(generators.execute(self.pgconn), timeout=timeout):
            if result.status == ExecStatus.FATAL_ERROR:
                raise psycopg.OperationalError(result.get_error_message())

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
            raise psycopg.OperationalError("a statement was interrupted and is cancelled")
        if self._used:
            in_transaction = status != TransactionStatus.IDLE
            self._exchange((b"ROLLBACK; " if in_transaction else b"") + _RESET_SESSION, _RESET_TIMEOUT)
            # Setting one of these goes through wait(), even when nothing is sent.
            self.autocommit = False
            self.isolation_level = self.read_only = self.deferrable = None
            self._used = False
        self.row_factory = tuple_row
        self.cursor_factory = psycopg.Cursor
        self.server_cursor_factory = psycopg.ServerCursor
        self.prepare_threshold = _PREPARE_THRESHOLD
        self.last_used = time.monotonic()
