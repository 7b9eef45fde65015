"""Finds who holds the lock that a statement waits for, while it waits: afterwards nobody knows.

Also at a deadline, at which the statement is ended.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import psycopg

from lakebase_provider.core.base.clock import Deadline
from lakebase_provider.core.base.threads import in_this_context
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.errors import LakebaseError, LockTimeoutError

logger = logging.getLogger(__name__)

#: The share of `lock_timeout` after which the server is asked, and at most so many seconds before its end.
_ASK_AFTER, _ASK_BEFORE_END = 0.5, 2.0
#: Seconds for the server to end a statement that is too late.
_GRACE = 5.0
# Only the first word of what they run: the rest may hold data. Of another role Postgres does not show even
# that.
_BLOCKERS = """
    SELECT a.pid, a.usename, a.application_name, a.state,
           extract(epoch FROM now() - a.xact_start)::float8,
           upper(substring(a.query FROM '^\\s*([A-Za-z]+)'))
    FROM pg_catalog.pg_stat_activity w, unnest(pg_catalog.pg_blocking_pids(w.pid)) AS b (pid)
    JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid
    WHERE w.pid = ANY (%s)
"""


class Connect(Protocol):
    """Opens a connection that nobody else uses, as :meth:`.LakebaseClient.connect` does."""

    def __call__(self, timeout: float | None = None, /, *, autocommit: bool) -> psycopg.Connection[Any]:
        """A connection, within so many seconds."""


@contextmanager
def naming_blockers(
    connect: Connect, lock_timeout: float | None, pids: Callable[[], list[int]]
) -> Iterator[None]:
    """Turn a lock timeout within the block into an error that says who held the lock.

    A statement that ends within half of `lock_timeout` costs nothing; for a slower one a second connection is
    opened.

    Args:
        connect: Where to ask.
        lock_timeout: Seconds that the session waits for a lock; if None, nothing is done.
        pids: The backends that may be waiting, by their process ids; called while they wait.

    Raises:
        LockTimeoutError: Instead of ``psycopg.errors.LockNotAvailable``, which is its cause.
    """
    if lock_timeout is None:
        yield
        return
    found: list[str] = []
    ask = in_this_context(lambda: found.extend(blockers(connect, pids())))
    asker = threading.Timer(max(lock_timeout * _ASK_AFTER, lock_timeout - _ASK_BEFORE_END), ask)
    asker.daemon = True
    asker.start()
    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        asker.join(_ASK_BEFORE_END)
        held = f"It was held by {'; '.join(found)}." if found else "It is not known who held it."
        line = str(error).partition("\n")[0]
        message = f"The lock was not acquired within {lock_timeout:g} s: {line}. {held}"
        raise LockTimeoutError(message) from error
    finally:
        asker.cancel()


class StatementDeadline:
    """Has the server end what one session has not done by a deadline, and knows what it waited for.

    Args:
        connection: The session.
        connect: Opens another one, to ask who holds a lock.
        deadline: When all of its work has to be done.
    """

    def __init__(self, connection: LakebaseConnection, connect: Connect, deadline: Deadline) -> None:
        self._connection = connection
        self._connect = connect
        self._deadline = deadline
        self._held: list[str] | None = None

    @contextmanager
    def kept(self, not_begun: Callable[[], LakebaseError]) -> Iterator[None]:
        """Cancel what the block runs, should it not be done by the deadline.

        Args:
            not_begun: Makes the error to raise if the deadline has passed already.
        """
        left = self._deadline.remaining()
        if left <= 0:
            raise not_begun()
        # On a silent link no answer comes.
        self._connection.answer_timeout = left + 3 * _GRACE
        watch = threading.Timer(left, in_this_context(self._end))
        watch.daemon = True
        watch.start()
        try:
            yield
        finally:
            watch.cancel()
            if self._held is not None:
                # Its request to cancel must not meet the next statement.
                watch.join(2 * _GRACE)

    def _end(self) -> None:
        self._held = []
        self._held = blockers(self._connect, [self._connection.info.backend_pid])
        with suppress(psycopg.Error):
            self._connection.cancel_safe(timeout=_GRACE)

    def missed(self) -> str | None:
        """What to say of the statement that has just failed, after its name; None if it was not late."""
        if self._held is None:
            return None
        held, self._held = self._held, None
        waited = f" It waited for a lock held by {'; '.join(held)}." if held else ""
        return f"was not done within {self._deadline.seconds:g} s.{waited}"


def blockers(connect: Connect, pids: list[int]) -> list[str]:
    """Who holds what these backends wait for now, each in words; empty if nobody does, or if it is not known.

    Args:
        connect: Where to ask.
        pids: The backends that may be waiting, by their process ids.
    """
    try:
        with connect(_ASK_BEFORE_END, autocommit=True) as connection:
            rows = connection.execute(_BLOCKERS, (pids,)).fetchall()
    except (LakebaseError, psycopg.Error) as error:
        logger.info("Cannot find out who holds the lock: %s", error)
        return []
    return [_described(*row) for row in rows]


def _described(
    pid: int, user: str, name: str | None, state: str | None, age: float | None, command: str | None
) -> str:
    since = "" if age is None else f", its transaction {age:.0f} s old"
    return f"pid {pid} ({name or 'unnamed'}, role {user}, {state or 'unknown'}, {command or '?'}{since})"
