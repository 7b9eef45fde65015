"""One session at a time for a piece of work: a retry ends the session of an earlier attempt.

A task that has lost its heartbeat may still be running when its retry starts. A load's ledger
(:mod:`lakebase_provider.core.bulk`), which survives everything, makes sure that it happens once; this lock
only saves the time and the locks of the late attempt, and is gone when the compute is suspended.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass

from lakebase_provider.core.base.clock import SYSTEM_CLOCK, Clock, Deadline
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.errors import FenceError

logger = logging.getLogger(__name__)

#: Seconds between two checks whether the lock is free.
_PAUSE = 0.1
_HOLDERS = """
    SELECT a.pid, a.application_name, extract(epoch FROM now() - a.backend_start)::float8,
           a.usename = current_user
    FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
      AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
      AND (l.classid::int8 << 32) | l.objid::int8 = %s
"""


@dataclass(frozen=True)
class Fenced:
    """A session that was ended.

    Attributes:
        pid: Its backend on the server.
        application_name: What it called itself, such as ``dag.task``.
        age: Seconds since it connected; None if only its own role may know.
    """

    pid: int
    application_name: str
    age: float | None

    def __str__(self) -> str:
        age = "" if self.age is None else f", {self.age:.0f} s old"
        return f"pid {self.pid} ({self.application_name or 'unnamed'}{age})"


def fence(
    connection: LakebaseConnection, key: str, *, timeout: float = 10.0, clock: Clock = SYSTEM_CLOCK
) -> list[Fenced]:
    """Make a connection the only one that works under a key, by ending any other that does.

    An earlier session of the same role is terminated: its transaction is rolled back, and its next statement
    fails. The lock lasts until the connection is returned or closed, whatever is committed or rolled back
    meanwhile.

    Args:
        connection: The connection that will do the work, outside a transaction.
        key: What the work is, the same for each attempt, such as ``"dag/task/run/-1"``.
        timeout: Seconds within which to get the lock.
        clock: Where the time comes from.

    Returns:
        The sessions that were ended; none in the common case, which takes one round trip.

    Raises:
        FenceError: Another role holds the lock, or its holder did not end in time.
    """
    number, deadline, fenced = lock_number(key), Deadline(timeout, clock), dict[int, Fenced]()
    while not try_lock(connection, number):
        for session, ours in holders(connection, number):
            if not ours:
                raise FenceError(f"A session of another role is working on '{key}': {session}.")
            if session.pid not in fenced:
                logger.warning("Ending an earlier session that is working on '%s': %s", key, session)
                fenced[session.pid] = session
            connection.execute("SELECT pg_catalog.pg_terminate_backend(%s)", (session.pid,))
            connection.commit()
        if deadline.remaining() <= 0:
            held = ", ".join(map(str, fenced.values())) or "a session that is not visible"
            raise FenceError(f"After {timeout:.1f} s '{key}' is still held by {held}.")
        clock.sleep(_PAUSE)
    return list(fenced.values())


def holders(connection: LakebaseConnection, number: int) -> list[tuple[Fenced, bool]]:
    """The sessions that hold a session's advisory lock, each with whether it is this session's role's."""
    found = connection.execute(_HOLDERS, (number,)).fetchall()
    connection.commit()
    return [(Fenced(pid, name or "", age), ours) for pid, name, age, ours in found]


def try_lock(connection: LakebaseConnection, number: int) -> bool:
    """Take an advisory lock for the session, if nobody has it."""
    row = connection.execute("SELECT pg_catalog.pg_try_advisory_lock(%s)", (number,)).fetchone()
    # A lock of the session, which a rollback does not undo.
    connection.commit()
    assert row is not None
    return bool(row[0])


def lock_number(key: str, purpose: str = "lakebase-fence") -> int:
    """A key in Postgres' form: a signed 64-bit integer, another one for each purpose."""
    digest = hashlib.sha256(f"{purpose}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
