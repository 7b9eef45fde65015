"""The session that maintenance works in: its own, in which nothing waits unseen."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from lakebase_provider.core.base.clock import Clock, Deadline
from lakebase_provider.core.base.threads import glance, in_this_context
from lakebase_provider.core.base.waiting_log import QUIET
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.blockers import Connect, StatementDeadline, blockers, naming_blockers
from lakebase_provider.core.database.conflicts import again_without_lock
from lakebase_provider.core.database.fence import holders, lock_number, try_lock
from lakebase_provider.core.database.refusals import connection_lost
from lakebase_provider.core.errors import (
    LakebaseError,
    LockTimeoutError,
    StatementError,
    StatementTimeoutError,
    TransactionConflictError,
)
from lakebase_provider.core.errors.sqlstates import meaning
from lakebase_provider.core.upkeep.maintenance.maintenance_report import (
    MaintenanceReport,
    MaintenanceStep,
    SkippedTarget,
)

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")

#: Seconds between two lines about the progress of one statement.
_EVERY = QUIET
#: Seconds between two looks whether other maintenance of the same table has ended.
_PAUSE = 0.25
#: Seconds to see how far a statement is.
_GRACE = 5.0
#: Bounds of partitions are read and written in one zone and one style.
_SETTINGS = {
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
}
_OWNER = "Run as the owner of what the message names, or have its owner grant MAINTAIN (from Postgres 17 on)."
_PROGRESS = """
SELECT phase, heap_blks_scanned, heap_blks_total, 'blocks'
    FROM pg_catalog.pg_stat_progress_vacuum WHERE pid = %(pid)s
UNION ALL SELECT phase, sample_blks_scanned, sample_blks_total, 'blocks'
    FROM pg_catalog.pg_stat_progress_analyze WHERE pid = %(pid)s
UNION ALL SELECT phase, CASE WHEN lockers_total > 0 THEN lockers_done WHEN tuples_total > 0 THEN tuples_done
        ELSE blocks_done END,
    CASE WHEN lockers_total > 0 THEN lockers_total WHEN tuples_total > 0 THEN tuples_total
        ELSE blocks_total END,
    CASE WHEN lockers_total > 0 THEN 'sessions' WHEN tuples_total > 0 THEN 'rows' ELSE 'blocks' END
    FROM pg_catalog.pg_stat_progress_create_index WHERE pid = %(pid)s
"""


@dataclass(frozen=True)
class Patience:
    """How long maintenance waits.

    Attributes:
        lock_timeout: Seconds that a statement waits for a lock for which others would queue behind it.
        attempts: How many times a statement is tried that gets no lock.
        timeout: Seconds that all of it may take.
    """

    lock_timeout: float
    attempts: int
    timeout: float


class OwnSession:
    """Runs statements of maintenance, and keeps the list of what was done.

    Args:
        action: What is done, for the report.
        connection: A connection that commits by itself, and that nobody else uses.
        connect: Opens another connection, to see who holds a lock, and how far a statement is.
        patience: How long to wait.
        deadline: When all of it has to be done.
        clock: Where the time comes from.
    """

    def __init__(
        self,
        action: str,
        connection: LakebaseConnection,
        connect: Connect,
        patience: Patience,
        deadline: Deadline,
        clock: Clock,
    ) -> None:
        self.connection = connection
        self.patience = patience
        self._action = action
        self._connect = connect
        self._deadline = deadline
        self._clock = clock
        self._began = clock.elapsed()
        self._steps: list[MaintenanceStep] = []
        self._skipped: list[SkippedTarget] = []
        self._failures: list[LakebaseError] = []
        self._limit = StatementDeadline(connection, connect, deadline)
        connection.prepare_threshold = None

    # What was done.

    def did(self, target: str, what: str, seconds: float = 0.0) -> None:
        """Note what was done to a target."""
        logger.info("%s: %s in %.3f s", target, what, seconds)
        self._steps.append(MaintenanceStep(target, what, seconds))

    def skip(self, target: str, reason: str) -> None:
        """Note why a target was left alone."""
        logger.warning("%s is left alone: %s", target, reason)
        self._skipped.append(SkippedTarget(target, reason))

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Keep an error of one target until the others are done; not if the session or the time is over."""
        try:
            yield
        except (LockTimeoutError, StatementError) as error:
            if self._deadline.remaining() <= 0 or self.connection.closed:
                raise
            logger.warning("%s", error)
            self._failures.append(error)

    def report(self) -> MaintenanceReport:
        """What was done in all.

        Raises:
            StatementError: What was kept meanwhile: the first one.
        """
        if self._failures:
            copy = self._failures[0].again()
            others = len(self._failures) - 1
            done = ", ".join(step.target for step in self._steps[:20]) or "nothing"
            more = f" {others} more failed." if others else ""
            copy.message = f"{copy.message}{more} Done: {done}."
            raise copy from self._failures[0]
        seconds = self._clock.elapsed() - self._began
        return MaintenanceReport(self._action, tuple(self._steps), tuple(self._skipped), seconds)

    # Statements.

    def ask(self, query: str, *parameters: Any, **named: Any) -> list[tuple[Any, ...]]:
        """The rows of a query of the catalog, with its parameters, by their places or by their names."""
        given = named or parameters or None
        with self.told(f"Reading the catalog for {self._action}"):
            return plain_cursor(self.connection).execute(query.encode(), given).fetchall()

    def run(self, what: str, statement: sql.Composed, *, gently: bool = False) -> float:
        """Run a statement that is a transaction of its own; again after a pause if it gets no lock.

        Args:
            what: What it does, as a message begins.
            statement: The statement.
            gently: True for one for whose locks nobody queues, such as what is made concurrently: it waits
                for as long as there is time.

        Returns:
            Seconds that it took.

        Raises:
            LockTimeoutError: A lock was not acquired in any of the attempts; names its holder.
            StatementError: The server refused it, or it was not done in time.
        """
        return self.attempt(what, lambda: plain_cursor(self.connection).execute(statement), gently=gently)[1]

    def transaction(self, what: str, work: Callable[[], _Result]) -> tuple[_Result, float]:
        """Do work in one transaction, all of it or nothing, with :meth:`run`'s patience."""

        def whole() -> _Result:
            with self.connection.transaction():
                return work()

        return self.attempt(what, whole)

    def attempt(
        self, what: str, work: Callable[[], _Result], *, gently: bool = False
    ) -> tuple[_Result, float]:
        """Do what may be done again, with :meth:`run`'s patience; its result, and the seconds it took."""
        began = self._clock.elapsed()
        self.set("lock_timeout", "0" if gently else _milliseconds(self.patience.lock_timeout))
        limit = None if gently else self.patience.lock_timeout

        def once() -> _Result:
            # Who is cancelled in asyncio ends here.
            glance(0)
            with self.told(what, limit), self._in_time(what), self._telling_progress(what):
                return work()

        result = again_without_lock(once, self.patience.attempts, self._deadline, self._clock)
        return result, self._clock.elapsed() - began

    def set(self, name: str, value: str, *, local: bool = False) -> None:
        """Set a setting of the session, or of its transaction."""
        query = "SELECT pg_catalog.set_config(%s, %s, %s)"
        plain_cursor(self.connection).execute(query, (name, value, local))

    @contextmanager
    def alone_with(self, table: str) -> Iterator[None]:
        """Wait until no other maintenance of the table is under way; none begins within the block.

        It is asked again and again: a statement that waited would hold up what the other one does
        concurrently. A session whose client was killed ends within seconds.

        Raises:
            LockTimeoutError: Another one still was at the deadline.
        """
        number = lock_number(table, "lakebase-maintenance")
        told = False
        while not try_lock(self.connection, number):
            who = ", ".join(str(session) for session, _ in holders(self.connection, number)) or "a session"
            if not told:
                logger.info("Waiting for other maintenance of %s: %s", table, who)
            told = True
            if self._deadline.remaining() <= 0:
                seconds = self._deadline.seconds
                raise LockTimeoutError(
                    f"Other maintenance of {table} was under way for all of {seconds:g} s: {who}."
                )
            self._clock.sleep(_PAUSE)
        try:
            yield
        finally:
            with suppress(psycopg.Error):
                self.connection.execute("SELECT pg_catalog.pg_advisory_unlock(%s)", (number,))

    # Failures.

    @contextmanager
    def told(self, what: str, lock_timeout: float | None = None) -> Iterator[None]:
        """Raise psycopg's errors as this package's, with who held the lock that was waited for.

        Args:
            what: What is done, as a message begins.
            lock_timeout: Seconds that the session waits for a lock; None if it waits for as long as it takes.
        """
        pid = self.connection.info.backend_pid
        try:
            with naming_blockers(self._connect, lock_timeout, lambda: [pid]):
                yield
        except LockTimeoutError as error:
            if lock_timeout is None:
                # It is told already.
                raise
            copy = error.again()
            copy.message = f"{what}: {error.message}"
            raise copy from error.__cause__
        except LakebaseError:
            raise
        except psycopg.Error as error:
            raise self._typed(error, what) from None

    def _typed(self, error: psycopg.Error, what: str) -> LakebaseError:
        if (missed := self._limit.missed()) is not None:
            return _too_late(f"{what} {missed}")
        state = error.sqlstate or ""
        # The text of a data exception quotes the value.
        said = type(error).__name__ if state[:2] == "22" else error.diag.message_primary or str(error)
        found = meaning(error.sqlstate)
        message = f"{what} failed: {said.strip().rstrip('.')}."
        if found.is_conflict:
            return TransactionConflictError(message)
        remedy = _OWNER if state == "42501" else None
        return StatementError(message, remedy=remedy, retryable=connection_lost(error) or bool(found.retry))

    def _in_time(self, what: str) -> AbstractContextManager[None]:
        return self._limit.kept(
            lambda: _too_late(f"{what} was not begun within {self._deadline.seconds:g} s.")
        )

    @contextmanager
    def _telling_progress(self, what: str) -> Iterator[None]:
        done = threading.Event()
        tell = partial(self._tell, what, self.connection.info.backend_pid, done)
        teller = threading.Thread(target=in_this_context(tell), name="lakebase-progress", daemon=True)
        teller.start()
        try:
            yield
        finally:
            done.set()

    def _tell(self, what: str, pid: int, done: threading.Event) -> None:
        while not done.wait(_EVERY):
            for line in (*_progress(self._connect, pid), *_waits(self._connect, pid)):
                if not done.is_set():
                    logger.info("%s: %s", what, line)


@contextmanager
def own_session(
    action: str, connect: Callable[..., LakebaseConnection], patience: Patience, clock: Clock
) -> Iterator[OwnSession]:
    """A session for maintenance, outside of any transaction of the caller's.

    Args:
        action: What is done, for the report.
        connect: Opens a session as the client does.
        patience: How long to wait.
        clock: Where the time comes from.
    """
    deadline = Deadline(patience.timeout, clock)
    with connect(autocommit=True) as connection:
        session = OwnSession(action, connection, connect, patience, deadline, clock)
        with session.told(f"Maintenance ({action})"):
            for name, value in _SETTINGS.items():
                session.set(name, value)
            yield session


def _progress(connect: Connect, pid: int) -> list[str]:
    try:
        with connect(_GRACE, autocommit=True) as connection:
            rows = connection.execute(_PROGRESS.encode(), {"pid": pid}).fetchall()
    except (LakebaseError, psycopg.Error):
        return []
    return [
        f"{phase}" + (f", {done:,} of {total:,} {unit}" if total else "") for phase, done, total, unit in rows
    ]


def _waits(connect: Connect, pid: int) -> list[str]:
    held = blockers(connect, [pid])
    return [f"it waits for a lock held by {'; '.join(held)}"] if held else []


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))


def _too_late(message: str) -> StatementTimeoutError:
    remedy = "Raise timeout, or end what it waited for, and run again: it goes on with what is left."
    return StatementTimeoutError(message, remedy=remedy, retryable=True)
