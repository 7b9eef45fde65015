"""Finds who holds the lock that a statement waits for, while it waits: afterwards nobody knows."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import psycopg

from lakebase_provider.core.base.threads import in_this_context
from lakebase_provider.core.errors import LakebaseError, LockTimeoutError

logger = logging.getLogger(__name__)

#: The share of `lock_timeout` after which the server is asked, and at most so many seconds before its end.
_ASK_AFTER, _ASK_BEFORE_END = 0.5, 2.0
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
