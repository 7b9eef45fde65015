"""Partitions of time: made before they are needed, and retired when all in them is old enough.

A partition is retired in steps, each of which may be the last one before a kill: it is marked, detached,
archived, and dropped. The mark, its comment, tells the next run what it is once it is no partition any more.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Any

from psycopg import sql

from lakebase_provider.core.base.sql.names import identifier
from lakebase_provider.core.config import arguments
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.catalog import TableName
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.upkeep.maintenance.maintenance_options import PLACE, require_options
from lakebase_provider.core.upkeep.maintenance.own_session import OwnSession
from lakebase_provider.core.upkeep.maintenance.structures.periods import Every, Period
from lakebase_provider.core.upkeep.maintenance.tended_tables import TendedTable, named_table
from lakebase_provider.core.workspace.answers import moment as read_moment

#: Writes what a query returns to a file, and returns how many rows that were.
Unload = Callable[[sql.Composed, Any], int]

_KEY = """
SELECT a.attname, t.typname FROM pg_catalog.pg_partitioned_table p
JOIN pg_catalog.pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE p.partrelid = %s AND p.partstrat = 'r' AND p.partnatts = 1
    AND t.typname IN ('date', 'timestamp', 'timestamptz')
"""
_PARTITIONS = r"""
SELECT n.nspname, c.relname, c.relkind::text, h.inhdetachpending,
    pg_catalog.pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT',
    pg_catalog.regexp_match(pg_catalog.pg_get_expr(c.relpartbound, c.oid),
        '^FOR VALUES FROM \(''(\d{4}-\d\d-\d\d[^'']*)''\) TO \(''(\d{4}-\d\d-\d\d[^'']*)''\)$'),
    pg_catalog.obj_description(c.oid, 'pg_class')
FROM pg_catalog.pg_inherits h
JOIN pg_catalog.pg_class c ON c.oid = h.inhrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE h.inhparent = %s ORDER BY 2
"""
_RETIRED = """
SELECT n.nspname, c.relname, d.description FROM pg_catalog.pg_description d
JOIN pg_catalog.pg_class c ON c.oid = d.objoid AND NOT c.relispartition
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE d.classoid = 'pg_catalog.pg_class'::regclass AND d.objsubid = 0
    AND pg_catalog.starts_with(d.description, '{"lakebase_retired"')
ORDER BY 2
"""
_IS_THERE = "SELECT pg_catalog.to_regclass(%s) IS NOT NULL"


@dataclass(frozen=True)
class PartitionPlan:
    """How a table's partitions are looked after.

    Attributes:
        every: How much time a partition holds.
        premake: How many partitions are made beyond that of now.
        keep: How many whole periods before that of now are kept; None for all.
        archive: Where a partition goes before it is dropped; None to drop it at once.
        now: The moment, in UTC and without a zone.
    """

    every: Every
    premake: int
    keep: int | None
    archive: str | None
    now: datetime

    @classmethod
    def of(
        cls,
        every: Every,
        premake: int,
        keep: int | None,
        archive: str | None,
        at: datetime | str | None,
        now: float,
    ) -> PartitionPlan:
        """The arguments, checked.

        Raises:
            ConfigError: One is malformed, or they contradict each other.
        """
        options = {"every": every, "premake": premake, "keep": keep, "archive": archive}
        require_options(options)
        moment: Any = datetime.fromtimestamp(now, timezone.utc) if at is None else at
        if isinstance(moment, str):
            moment = read_moment(moment)
        if not isinstance(moment, datetime) or moment.tzinfo is None:
            raise arguments.wrong("'at'", at, "be a moment with its zone", "Give a datetime with a zone.")
        in_utc = arguments.in_utc("'at'", moment, "Give a moment of our time.")
        return cls(every, premake, keep, archive, in_utc.replace(tzinfo=None))

    @property
    def current(self) -> Period:
        """The period of now."""
        return Period.of(self.every, self.now)

    @property
    def cutoff(self) -> datetime | None:
        """What lies wholly before it is retired; None if nothing is."""
        return None if self.keep is None else self.current.earlier(self.every, self.keep).start


@dataclass(frozen=True)
class _Partition:
    """A partition as the catalog has it; one whose bounds are no two moments has no period."""

    name: TableName
    kind: str
    is_pending: bool
    is_default: bool
    period: Period | None
    comment: str | None


def look_after(session: OwnSession, name: TableName, plan: PartitionPlan, unload: Unload) -> None:
    """Make, finish and retire partitions; see ``client.maintenance.partitions``."""
    table = named_table(session, name)
    if table.kind != "p":
        raise ConfigError(
            f"{table.name} is not partitioned.", remedy="Name a table that is, by range of time."
        )
    if table.obstacle is not None:
        return session.skip(str(table.name), table.obstacle)
    found = session.ask(_KEY, table.oid)
    if not found:
        raise ConfigError(
            f"{table.name} is not partitioned by range of one date or timestamp column.",
            remedy="Look after its partitions in SQL.",
        )
    work = _Partitions(session, table, found[0][0], found[0][1] == "timestamptz", plan, unload)
    with session.alone_with(str(table.name)):
        work.finish_detaching()
        work.look_at_default()
        work.make()
        work.retire()
    return None


class _Partitions:
    def __init__(
        self,
        session: OwnSession,
        table: TendedTable,
        key: str,
        zoned: bool,
        plan: PartitionPlan,
        unload: Unload,
    ) -> None:
        self._session, self._table, self._key, self._zoned = session, table, key, zoned
        self._plan, self._unload = plan, unload
        self._default = next((one.name for one in self._there() if one.is_default), None)

    def _there(self) -> list[_Partition]:
        rows = self._session.ask(_PARTITIONS, self._table.oid)
        return [
            _Partition(TableName(name, schema), kind, pending, default, _period(bounds), comment)
            for schema, name, kind, pending, default, bounds, comment in rows
        ]

    # Before they are needed.

    def look_at_default(self) -> None:
        """Say that the default partition holds rows: a partition was missing when they came."""
        if self._default is not None and self._holds(self._default, sql.SQL("true")):
            self._session.skip(str(self._default), "it holds rows, for which there was no partition")

    def make(self) -> None:
        """Make the partition of now, and those that come."""
        there = [one.period for one in self._there() if one.period is not None]
        for period in self._plan.current.later(self._plan.every, self._plan.premake):
            if any(one.start <= period.start and period.end <= one.end for one in there):
                continue
            name = TableName(
                identifier(f"{self._table.name.table}{period.suffix(self._plan.every)}", what="partition"),
                self._table.name.schema,
            )
            reason = self._in_the_way(name, period, there)
            if reason is not None:
                self._session.skip(str(name), reason)
                continue
            with self._session.going_on():
                make = partial(self._make, name, period)
                _, seconds = self._session.transaction(f"Making {name}", make)
                self._session.did(str(name), f"made, for {period}", seconds)

    def _in_the_way(self, name: TableName, period: Period, there: list[Period]) -> str | None:
        if any(one.start < period.end and period.start < one.end for one in there):
            return f"another partition holds a part of {period}"
        text = name.sql().as_string(self._session.connection)
        if self._session.ask(_IS_THERE, text) == [(True,)]:
            return "there is something else of that name"
        if self._default is not None and self._holds(self._default, self._within(period)):
            return f"the default partition {self._default} holds rows of {period}: move them out first"
        return None

    def _make(self, name: TableName, period: Period) -> None:
        """In the session's transaction. CREATE TABLE ... PARTITION OF would lock the whole table."""
        if self._default is not None:
            # It is locked while all of it is read: no writer is to wait for longer than for a lock.
            self._session.set(
                "statement_timeout",
                str(max(1, round(self._session.patience.lock_timeout * 1000))),
                local=True,
            )
        for statement in (
            sql.SQL(
                "CREATE TABLE {} (LIKE {} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED "
                "INCLUDING STORAGE INCLUDING COMPRESSION)"
            ).format(name.sql(), self._table.name.sql()),
            sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
                self._table.name.sql(), name.sql(), self._bound(period.start), self._bound(period.end)
            ),
        ):
            plain_cursor(self._session.connection).execute(statement)

    def _within(self, period: Period) -> sql.Composed:
        return sql.SQL("{0} >= {1} AND {0} < {2}").format(
            sql.Identifier(self._key), self._bound(period.start), self._bound(period.end)
        )

    def _bound(self, moment: datetime) -> sql.Literal:
        return sql.Literal(moment.isoformat(" ") + ("+00" if self._zoned else ""))

    def _holds(self, name: TableName, condition: sql.Composable) -> bool:
        query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {})").format(name.sql(), condition)
        ((found,),) = self._session.ask(query.as_string(self._session.connection))
        return bool(found)

    # When they are old.

    def finish_detaching(self) -> None:
        """Finish what an earlier run, or somebody else, has left half-detached."""
        for one in self._there():
            if one.is_pending:
                self._detach(one.name)

    def retire(self) -> None:
        """Detach, archive and drop what lies wholly before the cutoff."""
        cutoff = self._plan.cutoff
        if cutoff is None:
            return
        for one in self._there():
            is_old = one.period is not None and one.period.end <= cutoff
            if is_old and one.kind == "f":
                self._session.skip(str(one.name), "it is a foreign table")
            elif is_old and one.period is not None:
                # One that stays half-detached keeps the others from it.
                self._comment(one.name, _mark(self._table.name, one.period))
                self._detach(one.name)
            elif _is_marked(one.comment):
                # It was to be retired, and now is to be kept.
                self._comment(one.name, None)
        for schema, name, comment in self._session.ask(_RETIRED):
            if _marked_until(comment, self._table.name, cutoff):
                with self._session.going_on():
                    self._drop(TableName(name, schema))

    def _comment(self, name: TableName, comment: str | None) -> None:
        statement = sql.SQL("COMMENT ON TABLE {} IS {}").format(name.sql(), sql.Literal(comment))
        self._session.run(f"Marking {name}", statement)

    def _detach(self, name: TableName) -> None:
        """Detach a partition. What got no lock half-way is finished by the next attempt."""
        seconds = self._session.attempt(f"Detaching {name}", lambda: self._detach_once(name))[1]
        self._session.did(str(name), "detached", seconds)

    def _detach_once(self, name: TableName) -> None:
        found = next((one for one in self._there() if one.name == name), None)
        if found is None:
            return
        # Beside a default partition Postgres detaches none concurrently; it takes no time, once it is locked.
        how = "FINALIZE" if found.is_pending else "" if self._default is not None else "CONCURRENTLY"
        statement = sql.SQL("ALTER TABLE {} DETACH PARTITION {} {}").format(
            self._table.name.sql(), name.sql(), sql.SQL(how)
        )
        plain_cursor(self._session.connection).execute(statement)

    def _drop(self, name: TableName) -> None:
        rows: int | None = None
        if self._plan.archive is not None:
            place = self._plan.archive.replace(PLACE, name.table)
            rows = self._unload(sql.SQL("SELECT * FROM {}").format(name.sql()), place)
            self._session.did(str(name), f"archived: {rows:,} rows")
        dropped, seconds = self._session.transaction(f"Dropping {name}", lambda: self._drop_once(name, rows))
        if dropped:
            self._session.did(str(name), "dropped", seconds)
        else:
            self._session.skip(str(name), "its rows were changed while they were archived: run again")

    def _drop_once(self, name: TableName, rows: int | None) -> bool:
        cursor = plain_cursor(self._session.connection)
        cursor.execute(sql.SQL("LOCK TABLE {}").format(name.sql()))
        if rows is not None:
            ((now,),) = cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(name.sql())).fetchall()
            if now != rows:
                return False
        cursor.execute(sql.SQL("DROP TABLE {}").format(name.sql()))
        return True


def _period(bounds: list[str] | None) -> Period | None:
    if bounds is None:
        return None
    try:
        # The session's zone is UTC.
        start, end = (datetime.fromisoformat(bound.removesuffix("+00")) for bound in bounds)
    except ValueError:
        return None
    return None if start.tzinfo or end.tzinfo else Period(start, end)


def _mark(table: TableName, period: Period) -> str:
    return json.dumps(
        {"lakebase_retired": {"of": [table.schema, table.table], "until": period.end.isoformat()}}
    )


def _is_marked(comment: str | None) -> bool:
    return comment is not None and comment.startswith('{"lakebase_retired"')


def _marked_until(comment: str, table: TableName, cutoff: datetime) -> bool:
    """Whether it is of that table, and old enough: a mark may be older than what is asked for now."""
    try:
        mark = json.loads(comment)["lakebase_retired"]
        return bool(mark["of"] == [table.schema, table.table]) and (
            datetime.fromisoformat(mark["until"]) <= cutoff
        )
    except (ValueError, KeyError, TypeError):
        return False
