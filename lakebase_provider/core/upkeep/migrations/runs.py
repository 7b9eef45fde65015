"""Runs files, each once: in one transaction where it can be, else statement by statement."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from lakebase_provider.core.base.clock import Clock, Deadline
from lakebase_provider.core.base.threads import glance
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.database.blockers import Connect, StatementDeadline, naming_blockers
from lakebase_provider.core.database.conflicts import again_without_lock
from lakebase_provider.core.database.fence import holders, lock_number, try_lock
from lakebase_provider.core.database.refusals import connection_lost
from lakebase_provider.core.errors import (
    LakebaseError,
    MigrationError,
    TransactionConflictError,
)
from lakebase_provider.core.errors.sqlstates import meaning
from lakebase_provider.core.upkeep.migrations.leftovers import Next, put_right
from lakebase_provider.core.upkeep.migrations.migration_ledger import Entry, MigrationLedger
from lakebase_provider.core.upkeep.migrations.sql_folder import SqlFile, about_file
from lakebase_provider.core.upkeep.migrations.statement_kinds import Statement

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")

#: Seconds between two looks whether another run has ended.
_PAUSE = 0.25
#: All of DISCARD ALL but its end of the lock that keeps other runs out.
_FRESH = (
    b"SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *; DISCARD TEMP; DISCARD SEQUENCES"
)


@dataclass(frozen=True)
class RunOptions:
    """How statements are run.

    Attributes:
        lock_timeout: Seconds that a statement waits for a lock. A change that is made concurrently waits for
            as long as the run may take: it holds up nobody meanwhile, and would begin anew.
        statement_timeout: Seconds that a statement may take; the configuration's if None.
        attempts: How many times a transaction is tried that gets no lock, or is undone for another one.
    """

    lock_timeout: float
    statement_timeout: float | None
    attempts: int


def keep_others_out(
    connection: LakebaseConnection, ledger: MigrationLedger, deadline: Deadline, clock: Clock
) -> None:
    """Wait until no other run of these migrations is under way; none begins until the session ends.

    The lock is asked for again and again: a statement that waited for it would hold up what the other run
    builds concurrently.

    Raises:
        MigrationError: Another one still was at the deadline.
    """
    number, told = lock_number(str(ledger.name), "lakebase-migration"), {0}
    while not try_lock(connection, number):
        sessions = [session for session, _ in holders(connection, number)]
        who = ", ".join(map(str, sessions)) or "a session that is not visible"
        pids = {session.pid for session in sessions}
        if pids != told:
            logger.info("Waiting for another run of the migrations: %s", who)
            told = pids
        if deadline.remaining() <= 0:
            raise MigrationError(
                f"Another run of the migrations was under way for all of {deadline.seconds:g} s: {who}.",
                remedy="Run again when it is done; if it hangs, end the session that the message names.",
                retryable=True,
            )
        clock.sleep(_PAUSE)


class MigrationRun:
    """Runs files on one connection.

    Args:
        connection: A connection that commits by itself, and that nobody else uses.
        ledger: The ledger on it.
        options: How to run.
        connect: Opens another connection, to ask who holds a lock.
        deadline: When all of it has to be done.
        clock: Where the time comes from.
    """

    def __init__(
        self,
        connection: LakebaseConnection,
        ledger: MigrationLedger,
        options: RunOptions,
        connect: Connect,
        deadline: Deadline,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._ledger = ledger
        self._options = options
        self._connect = connect
        self._deadline = deadline
        self._clock = clock
        self._limit = StatementDeadline(connection, connect, deadline)
        # What one file prepares would not outlive what the next one alters.
        connection.prepare_threshold = None

    def apply(self, file: SqlFile, entry: Entry | None) -> float:
        """Run a file, or what is left of it, and enter it in the ledger.

        Args:
            file: The file.
            entry: What the ledger says about it, if it ran in part.

        Returns:
            Seconds that it took.

        Raises:
            MigrationError: A statement failed, or the deadline has passed; in a transaction nothing of the
                file has happened, else what the ledger says.
            LockTimeoutError: A lock was not acquired in any of the attempts; names its holder.
            LakebaseError: The session ended, or a statement took longer than `statement_timeout`.
        """
        began = self._clock.elapsed()
        logger.info("%s: %d statements", file.name, len(file.statements))
        if file.in_transaction and entry is None:
            self._again(lambda: self._whole(file))
        else:
            self._stepwise(file, entry)
        # Whatever role it has set.
        self._connection.execute(_FRESH)
        seconds = self._clock.elapsed() - began
        logger.info("%s: applied in %.3f s", file.name, seconds)
        return seconds

    def _whole(self, file: SqlFile) -> None:
        self._begin_afresh()
        began = self._clock.elapsed()
        with self._at_commit(file), self._connection.transaction():
            self._ledger.enter(file)
            for statement in file.statements:
                self._execute(file, statement)
                self._require_transaction(file, statement)
            self._as_ourselves()
            self._ledger.took(file, self._clock.elapsed() - began)

    def _stepwise(self, file: SqlFile, entry: Entry | None) -> None:
        done, begun = (0, False) if entry is None else (entry.statement, entry.begun)
        self._begin_afresh()
        if done or begun:
            logger.info("%s: going on after statement %d of %d", file.name, done, len(file.statements))
        for statement in file.statements[:done]:
            # What it set was the session's, which has ended.
            if statement.title.partition(" ")[0] in ("SET", "RESET"):
                self._execute(file, statement)
        if done == len(file.statements):
            # The statement that failed was removed.
            self._note(file, done)
        for statement in file.statements[done:]:
            self._again(partial(self._step, file, statement, begun))
            begun = False

    def _step(self, file: SqlFile, statement: Statement, begun: bool) -> None:
        before = statement.number - 1
        if not statement.outside:
            with self._at_commit(file), self._connection.transaction():
                seconds = self._execute(file, statement)
                self._note(file, statement.number, seconds=seconds)
            return
        self._note(file, before, begun=True)
        try:
            with self._patience(statement):
                todo = self._left_over(file, statement, begun)
                # From here on it is known how it stands.
                begun = False
                seconds = self._outside(file, statement, todo)
        except (LakebaseError, psycopg.Error):
            # It ended, and not well: the next attempt may be at another text.
            with suppress(LakebaseError, psycopg.Error):
                self._note(file, before, begun=begun)
                if statement.concurrent is not None and statement.concurrent.action == "build":
                    # An invalid index that is unique goes on refusing what is written.
                    self._left_over(file, statement, False)
            raise
        self._note(file, statement.number, seconds=seconds)

    def _left_over(self, file: SqlFile, statement: Statement, begun: bool) -> Next:
        """What is to be done about a change, after what an earlier attempt left has been removed."""
        if statement.concurrent is None:
            return Next.MAKE
        with self._placed(file, statement), self._limit.kept(self._not_begun):
            return put_right(self._connection, statement.concurrent, begun=begun)

    def _outside(self, file: SqlFile, statement: Statement, todo: Next) -> float:
        change = statement.concurrent
        if change is None:
            return self._execute(file, statement)
        if todo is Next.NOTHING:
            logger.info("%s:%d: %s was done already", file.name, statement.line, statement.title)
            return 0.0
        if todo is Next.FINALIZE:
            text = f"ALTER TABLE {change.target} DETACH PARTITION {change.part} FINALIZE"
            return self._execute(file, statement, text)
        return self._execute(file, statement)

    def _note(self, file: SqlFile, statement: int, *, begun: bool = False, seconds: float = 0.0) -> None:
        with self._connection.transaction():
            self._as_ourselves()
            self._ledger.reached(file, statement, begun=begun, seconds=seconds)

    def _execute(self, file: SqlFile, statement: Statement, text: str | None = None) -> float:
        """Run a statement, and return how many seconds it took."""
        where = f"{file.name}:{statement.line}: statement {statement.number} of {len(file.statements)}"
        logger.info("%s, %s", where, statement.title)
        began = self._clock.elapsed()
        # Who is cancelled in asyncio ends here, and undoes the transaction.
        glance(0)
        with self._placed(file, statement), self._limit.kept(self._not_begun):
            self._connection.execute((text or statement.text).encode(), prepare=False)
        seconds = self._clock.elapsed() - began
        logger.info("%s: %.3f s", where, seconds)
        return seconds

    def _begin_afresh(self) -> None:
        self._connection.execute(_FRESH)
        wanted = {"lock_timeout": self._options.lock_timeout}
        if self._options.statement_timeout is not None:
            wanted["statement_timeout"] = self._options.statement_timeout
        for name, seconds in wanted.items():
            self._set(name, str(max(1, round(seconds * 1000))))

    @contextmanager
    def _patience(self, statement: Statement) -> Iterator[None]:
        """No limit but the deadline for the locks of what is made concurrently."""
        if statement.concurrent is None:
            yield
            return
        row = self._connection.execute("SELECT pg_catalog.current_setting('lock_timeout')").fetchone()
        assert row is not None
        self._set("lock_timeout", "0")
        try:
            yield
        finally:
            with suppress(psycopg.Error):
                self._set("lock_timeout", row[0])

    def _set(self, name: str, value: str) -> None:
        self._connection.execute("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))

    def _as_ourselves(self) -> None:
        # The file may have set another role, which need not have a right to the ledger.
        self._connection.execute("SET LOCAL ROLE NONE")

    def _require_transaction(self, file: SqlFile, statement: Statement) -> None:
        if self._connection.info.transaction_status != TransactionStatus.INTRANS:
            raise about_file(file.name, statement.line, "this statement ended the transaction")

    # Failures.

    @contextmanager
    def _placed(self, file: SqlFile, statement: Statement) -> Iterator[None]:
        """Have errors say at which statement, and who held the lock that it wanted."""
        where = f"statement {statement.number} of {len(file.statements)} ({statement.title})"
        pid = self._connection.info.backend_pid
        try:
            with naming_blockers(self._connect, self._options.lock_timeout, lambda: [pid]):
                yield
        except (LakebaseError, psycopg.Error) as error:
            # The server's own text quotes the line, in which a password may stand.
            raise self._told(error, file, statement.line, where) from (
                error if isinstance(error, LakebaseError) else None
            )

    @contextmanager
    def _at_commit(self, file: SqlFile) -> Iterator[None]:
        try:
            yield
        except LakebaseError as error:
            if isinstance(error, MigrationError) or str(error.message).startswith(file.name):
                raise
            raise self._told(error, file, None, "the transaction") from error
        except psycopg.Error as error:
            raise self._told(error, file, None, "the transaction") from None

    def _told(self, error: Exception, file: SqlFile, line: int | None, where: str) -> LakebaseError:
        place = f"{file.name}: {where}" if line is None else f"{file.name}:{line}: {where}"
        if (missed := self._limit.missed()) is not None:
            return _too_late(f"{place} {missed}")
        if isinstance(error, LakebaseError):
            copy = error.again()
            copy.message = f"{place}: {error.message}"
            return copy
        assert isinstance(error, psycopg.Error)
        said = (error.diag.message_primary or str(error)).strip().rstrip(".")
        if (error.sqlstate or "").startswith("22"):
            # It quotes the value.
            said = type(error).__name__
        if meaning(error.sqlstate).is_conflict:
            return TransactionConflictError(f"{place} was undone by another transaction: {said}.")
        lost = connection_lost(error)
        found = MigrationError(
            f"{place} failed: {said}.",
            remedy="Run again: what is applied is skipped." if lost else None,
            retryable=lost,
        )
        found.file, found.line, found.sqlstate = file.name, line, error.sqlstate
        return found

    def _not_begun(self) -> MigrationError:
        return _too_late(f"The migrations were not done within {self._deadline.seconds:g} s.")

    def _again(self, work: Callable[[], _Result]) -> _Result:
        return again_without_lock(work, self._options.attempts, self._deadline, self._clock)


def _too_late(message: str) -> MigrationError:
    return MigrationError(
        message, remedy="Raise timeout, or end what it waited for, and run again.", retryable=True
    )
