"""What each statement of a session does: its time, its rows, and the locks that it takes.

Another session watches ``pg_locks``. Within a transaction a statement's locks are held until its end, so one
look after each statement finds them all; what runs outside of one is looked at again and again.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import psycopg
from psycopg import sql
from psycopg.abc import Query
from psycopg.pq import TransactionStatus
from psycopg.rows import Row

from lakebase_provider.core.base.clock import Clock
from lakebase_provider.core.base.threads import start_for_caller
from lakebase_provider.core.connect.connection import LakebaseConnection, LakebaseCursor
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.catalog import TableName
from lakebase_provider.core.upkeep.migrations.statement_kinds import Statement

logger = logging.getLogger(__name__)

#: The weakest first, as Postgres documents what they conflict with.
_MODES = (
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
)
#: What is made concurrently holds this one, for longer than any other.
_CONCURRENT = _MODES.index("ShareUpdateExclusiveLock")
#: Seconds between two looks at a statement that runs.
_PAUSE = 0.02
#: How many statements are noted, and relations of each.
_MOST_STATEMENTS, _MOST_LOCKS = 1000, 10
# What the transaction itself has created nobody else can see, this session included. No size is asked for
# here: that would wait for the lock.
_LOCKS = """
SELECT c.oid, n.nspname, c.relname, c.relkind::text, l.mode
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_class c ON c.oid = l.relation
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE l.pid = %s AND l.locktype = 'relation' AND l.granted
    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
    AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
"""
_SIZES = """
SELECT c.oid, pg_catalog.pg_total_relation_size(c.oid)
FROM pg_catalog.pg_class c WHERE c.oid = ANY (%s) AND c.relkind IN ('r', 'm', 'i', 't', 'S')
"""
_KINDS = {"r": "table", "p": "table", "i": "index", "I": "index", "v": "view", "m": "materialized view"}

Outcome = Literal["done", "failed", "undone"]
#: A relation's oid, its name, its kind as the catalog's letter, and a mode.
_Lock = tuple[int, str, str, str]


@dataclass(frozen=True)
class TakenLock:
    """A lock that a statement took.

    Attributes:
        mode: As SQL writes it, such as ``"ACCESS EXCLUSIVE"``.
        relation: What it is on, with its schema.
        kind: What that is, such as ``"table"``.
        size: Its bytes afterwards, a table's with its indexes; None if it is gone, or stores nothing.
    """

    mode: str
    relation: str
    kind: str
    size: int | None = None


@dataclass(frozen=True)
class StatementRun:
    """A statement, and what it did.

    Attributes:
        number: Its number, from 1.
        title: Its first words, without names and values.
        seconds: How long it took.
        rows: How many rows it returned or changed, as the server says; None if it says nothing.
        place: File and line, where it comes from one.
        locks: The locks that it took and no earlier statement of its transaction, the strongest of each
            relation; the strongest first, ten at most. None if nobody watched.
        held: Seconds from its beginning to the end of its transaction, for which its locks may have been
            held.
        outcome: ``"done"``, ``"failed"``, or ``"undone"`` with a later one that failed.
        outside: Whether it runs outside of a transaction, since it cannot run in one: nothing undoes it.
    """

    number: int
    title: str
    seconds: float
    rows: int | None
    place: str = ""
    locks: tuple[TakenLock, ...] | None = None
    held: float = 0.0
    outcome: Outcome = "done"
    outside: bool = False

    @property
    def strongest(self) -> TakenLock | None:
        """The strongest lock that it took."""
        return self.locks[0] if self.locks else None


class LockWatch:
    """Watches the locks of other sessions.

    Args:
        connection: A session of its own, which commits by itself.
    """

    def __init__(self, connection: LakebaseConnection) -> None:
        self._connection = connection
        self._seen: set[_Lock] = set()
        self._pid: int | None = None
        self._lock = threading.Lock()
        self._busy, self._over = threading.Event(), threading.Event()
        # Whatever locks the catalog itself must not stop what is watched.
        connection.execute("SET statement_timeout = '2s'")
        self._thread = start_for_caller(self._poll, name="lakebase-lock-watch")

    def begin(self, pid: int) -> None:
        """Watch a session from now on."""
        with self._lock:
            self._seen, self._pid = set(), pid
        self._busy.set()

    def end(self) -> set[_Lock]:
        """The locks that it has held since; those that it holds now among them."""
        self._busy.clear()
        self._look()
        with self._lock:
            return set(self._seen)

    def close(self) -> None:
        """End the watch, and its session."""
        self._over.set()
        self._busy.set()
        self._thread.join()
        self._connection.close()

    def sizes(self, relations: Sequence[int]) -> dict[int, int]:
        """Bytes of relations, by oid, of those that are there."""
        rows = plain_cursor(self._connection).execute(_SIZES, (list(relations),)).fetchall()
        return {oid: size for oid, size in rows if size is not None}

    def _poll(self) -> None:
        while self._busy.wait() and not self._over.is_set():
            self._look()
            self._over.wait(_PAUSE)

    def _look(self) -> None:
        with self._lock:
            try:
                rows = plain_cursor(self._connection).execute(_LOCKS, (self._pid,)).fetchall()
            except psycopg.Error as error:
                logger.info("Cannot look at the locks: %s", error)
                return
            self._seen |= {
                (oid, str(TableName(name, schema)), kind, mode) for oid, schema, name, kind, mode in rows
            }


@dataclass
class _Noted:
    """A statement, as it is known while its transaction goes on."""

    run: StatementRun
    began: float
    locks: set[_Lock]
    is_over: bool = False


class Recorder:
    """Notes the statements of sessions, one after the other.

    Args:
        clock: Where the time comes from.
        watch: Watches their locks; None for none.
        places: Of statements that come from files, file and line by their text; others are not noted then.
    """

    def __init__(
        self, clock: Clock, watch: LockWatch | None = None, places: Mapping[str, str] | None = None
    ) -> None:
        self._clock, self._watch, self._places = clock, watch, places
        self._noted: list[_Noted] = []
        self._failed = False
        self._texts = hashlib.sha256()
        #: How many statements there were beyond those that are noted.
        self.left_out = 0

    @property
    def checksum(self) -> str:
        """Of the texts of the statements, without their parameters, that the last connection has executed."""
        return self._texts.hexdigest()

    def record(self, connection: LakebaseConnection) -> None:
        """Note what a connection's cursors execute from now on."""
        self._texts = hashlib.sha256()
        connection.cursor_factory = _recording(self)

    def runs(self) -> tuple[StatementRun, ...]:
        """The statements in order; what is under way counts as over."""
        self._end_transaction()
        found = {oid for noted in self._noted for oid, *_ in noted.locks}
        sizes: dict[int, int] = {}
        if self._watch is not None and found:
            with suppress(psycopg.Error):
                sizes = self._watch.sizes(sorted(found))
        return tuple(
            replace(noted.run, number=number, locks=self._strongest(noted.locks, sizes))
            for number, noted in enumerate(self._noted, 1)
        )

    def _strongest(self, locks: set[_Lock], sizes: Mapping[int, int]) -> tuple[TakenLock, ...] | None:
        if self._watch is None:
            return None
        of_each: dict[int, _Lock] = {}
        for lock in locks:
            if lock[0] not in of_each or _rank(lock) > _rank(of_each[lock[0]]):
                of_each[lock[0]] = lock
        # Of two that are equally strong a table's says more than its index'.
        ordered = sorted(of_each.values(), key=lambda lock: (-_rank(lock), lock[2] not in "rp", lock[1]))
        return tuple(
            TakenLock(_in_sql(mode), name, _KINDS.get(kind, "relation"), sizes.get(oid))
            for oid, name, kind, mode in ordered[:_MOST_LOCKS]
        )

    @contextmanager
    def statement(
        self, connection: LakebaseConnection, query: Query, rows: Callable[[], int]
    ) -> Iterator[None]:
        """Note a statement that is executed in this block.

        Args:
            connection: Its session.
            query: The statement.
            rows: How many rows it returned or changed, asked afterwards; below 0 if that is not known.
        """
        text = query.as_string(connection) if isinstance(query, sql.Composable) else query
        text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
        place = "" if self._places is None else self._places.get(text)
        if place is None:
            yield
            return
        _add(self._texts, text)
        status = connection.info.transaction_status
        if status == TransactionStatus.IDLE:
            self._end_transaction()
            # What was undone is tried again.
            self._noted = [noted for noted in self._noted if noted.run.outcome == "done"]
        # Otherwise a savepoint has saved what came before.
        self._failed = False
        if len(self._noted) >= _MOST_STATEMENTS:
            self.left_out += 1
            yield
            return
        kind = Statement.of(1, text, 1)
        if self._watch is not None:
            self._watch.begin(connection.info.backend_pid)
        began, number = self._clock.elapsed(), -1
        outcome: Outcome = "failed"
        try:
            yield
            outcome, number = "done", rows()
        finally:
            seconds = self._clock.elapsed() - began
            self._failed = outcome == "failed"
            locks = self._taken(kind)
            run = StatementRun(
                0, kind.title, seconds, None if number < 0 else number, place, outside=kind.outside
            )
            self._noted.append(_Noted(replace(run, outcome=outcome), began, locks))
            if connection.info.transaction_status == TransactionStatus.IDLE:
                self._end_transaction()

    def _taken(self, statement: Statement) -> set[_Lock]:
        if self._watch is None:
            return set()
        before = {lock for noted in self._open() for lock in noted.locks}
        found = self._watch.end() - before
        if statement.concurrent is not None and all(_rank(lock) < _CONCURRENT for lock in found):
            # It was over before anybody looked.
            found.add((0, statement.concurrent.target, "r", _MODES[_CONCURRENT]))
        return found

    def _open(self) -> list[_Noted]:
        return [noted for noted in self._noted if not noted.is_over]

    def _end_transaction(self) -> None:
        now = self._clock.elapsed()
        for noted in self._open():
            noted.is_over, noted.run = True, replace(noted.run, held=now - noted.began)
            if self._failed and noted.run.outcome == "done":
                noted.run = replace(noted.run, outcome="undone")


def checksum_of(texts: Iterable[str]) -> str:
    """Checksum of statements, as :attr:`Recorder.checksum` is.

    Args:
        texts: Their texts, in order.
    """
    digest = hashlib.sha256()
    for text in texts:
        _add(digest, text)
    return digest.hexdigest()


def _add(digest: Any, text: str) -> None:
    content = text.encode("utf-8", "surrogatepass")
    # With its length: two statements are not one.
    digest.update(b"%d:" % len(content) + content)


def _rank(lock: _Lock) -> int:
    return _MODES.index(lock[3]) if lock[3] in _MODES else -1


def _in_sql(mode: str) -> str:
    """A mode as LOCK TABLE writes it."""
    return "".join(f" {c}" if c.isupper() else c for c in mode.removesuffix("Lock")).strip().upper()


def _recording(recorder: Recorder) -> type[LakebaseCursor[Any]]:
    class Recorded(LakebaseCursor[Row]):
        """A cursor whose statements are noted."""

        __slots__ = ()

        def execute(self, query: Query, *arguments: Any, **options: Any) -> Any:
            with recorder.statement(_session(self), query, lambda: self.rowcount):
                return super().execute(query, *arguments, **options)

        def executemany(self, query: Query, *arguments: Any, **options: Any) -> None:
            with recorder.statement(_session(self), query, lambda: self.rowcount):
                super().executemany(query, *arguments, **options)

        @contextmanager
        def copy(self, statement: Query, *arguments: Any, **options: Any) -> Iterator[Any]:
            with (
                recorder.statement(_session(self), statement, lambda: self.rowcount),
                super().copy(statement, *arguments, **options) as copy,
            ):
                yield copy

    return Recorded


def _session(cursor: Any) -> LakebaseConnection:
    connection: LakebaseConnection = cursor.connection
    return connection
