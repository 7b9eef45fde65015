"""Puts rows of a table back from an earlier moment: what was deleted since, and what was changed."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypedDict

import psycopg
from psycopg import sql

from lakebase_provider.core.base.clock import Clock, Deadline
from lakebase_provider.core.config import arguments
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.blockers import naming_blockers
from lakebase_provider.core.database.catalog import Table, TableName, find_table, read_table
from lakebase_provider.core.database.conflicts import again_without_lock
from lakebase_provider.core.database.refusals import typed_errors
from lakebase_provider.core.database.rows.kept_rows import (
    Differences,
    KeptRows,
    Selection,
    as_text,
    compare,
    differing_parts,
    fetch,
    key_columns,
)
from lakebase_provider.core.database.rows.owned_sequences import MovedSequence, move_on
from lakebase_provider.core.database.rows.row_diff import MOST_EXAMPLES
from lakebase_provider.core.errors import ConfigError, ObjectStateError, TransactionConflictError
from lakebase_provider.core.errors.sqlstates import meaning
from lakebase_provider.core.upkeep.branches.branch_upkeep import BranchUpkeep
from lakebase_provider.core.upkeep.branches.lease_options import LeaseOptions, LeasePlan
from lakebase_provider.core.upkeep.branches.restore_point import RestorePoint
from lakebase_provider.core.upkeep.restoring.restore_report import RestoreReport
from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects

# Without what it was declared with: a cast to that would cut a value off, where an assignment refuses it.
_TYPES = """
SELECT a.attname, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(t.typname)
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
"""


class Client(Protocol):
    """What putting rows back needs of a client."""

    @property
    def branches(self) -> BranchUpkeep[Any]:
        """What it does with branches."""

    @property
    def workspace(self) -> WorkspaceObjects:
        """The workspace's objects."""

    def connect(self, timeout: float | None = None, **parameters: Any) -> LakebaseConnection:
        """One connection outside the pool."""


class RestoreOptions(TypedDict, total=False):
    """How rows are put back.

    Attributes:
        keys: Columns by which a row is the same one; the primary key by default.
        where: Condition of the rows that are looked at, in SQL; all by default.
        dry_run: True, the default, to change nothing and say what would be.
        overwrite: True to give rows that have changed since their former values, too; False, the default,
            lists them.
        examples: How many rows of each kind are shown, 5 by default, at most 100; 0 shows no values.
        run_id: Id of the run, from which the branch's follows, so that a retry meets its own; by default each
            call has another one.
        lock_timeout: Seconds that a statement waits for a lock; 5 by default.
        attempts: How many times the transaction is tried that gets no lock, or is undone for another one; 5
            by default.
        timeout: Seconds that no attempt begins after; 3600 by default.
        lease: Options of the branch's lease, such as ``{"max_cu": 4}``; see :class:`LeaseOptions`.
    """

    keys: Sequence[str]
    where: str | None
    dry_run: bool
    overwrite: bool
    examples: int
    run_id: str | None
    lock_timeout: float
    attempts: int
    timeout: float
    lease: LeaseOptions


@dataclass(frozen=True)
class _Plan:
    """The options, checked, each with its default."""

    keys: Sequence[str] = ()
    where: str | None = None
    dry_run: bool = True
    overwrite: bool = False
    examples: int = 5
    run_id: str | None = None
    lock_timeout: float = 5.0
    attempts: int = 5
    timeout: float = 3600.0
    lease: LeaseOptions | None = None

    @classmethod
    def of(cls, options: RestoreOptions) -> _Plan:
        arguments.known_options("Putting rows back", options, cls)
        plan = cls(**options)
        if isinstance(plan.keys, str) or not isinstance(plan.keys, Sequence):
            raise arguments.wrong("'keys'", plan.keys, "be a list", 'Give a list of columns, such as ["id"].')
        if plan.where is not None:
            arguments.text("'where'", plan.where, "Give a condition in SQL, such as \"day = '2027-01-31'\".")
        arguments.count("'examples'", plan.examples, most=MOST_EXAMPLES)
        arguments.count("'attempts'", plan.attempts, least=1)
        arguments.timeout(plan.lock_timeout, "lock_timeout")
        arguments.timeout(plan.timeout)
        LeasePlan.of(plan.lease or {})
        return plan


def restore_rows(
    client: Client,
    table: str | tuple[str, str] | TableName,
    at: RestorePoint | Mapping[str, Any] | datetime | str,
    options: RestoreOptions,
    clock: Clock,
) -> RestoreReport:
    """Put rows back; see ``client.restore_rows``.

    Args:
        client: The client of the branch that gets them.
        table: The table.
        at: The moment.
        options: How.
        clock: Where the time comes from.
    """
    name, point, plan = TableName.parse(table), RestorePoint.of(at), _Plan.of(options)
    parent = client.branches.own_branch()
    _require_of(point, parent, client.workspace)
    deadline = Deadline(plan.timeout, clock)
    lease: LeaseOptions = {**(plan.lease or {}), "source": parent}
    if point.lsn is not None:
        lease["at_lsn"] = point.lsn
    else:
        lease["at_time"] = point.time
    with client.connect(autocommit=True) as now:
        found = read_table(now, name)
        _require_a_table(found)
        key_columns(found, plan.keys)
        run_id = plan.run_id or f"restore-{uuid.uuid4()}"
        with client.branches.lease(run_id, **lease) as held, held.client.connect(autocommit=True) as then:
            held.client.branches.require(held.uid, then)
            with typed_errors(f"Reading {found.name} as of {point}"):
                kept, wanted = _fetched(now, then, found, point, plan)
        return _PutBack(client, now, kept, wanted, point, plan).run(deadline, clock)


def _require_of(point: RestorePoint, parent: str, workspace: WorkspaceObjects) -> None:
    if point.branch is None:
        return
    if point.branch != parent:
        raise ConfigError(
            f"The point is of {point.branch}, and the client is on {parent}.",
            remedy="Use a client on the branch that the point is of.",
        )
    made = workspace.branches.get(parent).create_time
    if made is not None and point.time is not None and point.time < made:
        # A position in the log of a former branch of that name may be one of this one's, too.
        raise ObjectStateError(
            f"{parent} was made at {made.isoformat()}, after the point ({point}).",
            remedy="Give a point that was noted since.",
        )


def _require_a_table(table: Table) -> None:
    if table.kind not in ("r", "p"):
        raise ConfigError(f"{table.name} is no table.", remedy="Name a table, or those that a view reads.")


def _fetched(
    now: LakebaseConnection, then: LakebaseConnection, table: Table, point: RestorePoint, plan: _Plan
) -> tuple[KeptRows, Selection]:
    """The rows of the parts in which the two differ, and which those are now."""
    former = find_table(then, table.name)
    if former is None:
        raise ConfigError(f"There was no table {table.name} as of {point}.", remedy="Give another moment.")
    keys = key_columns(table, plan.keys)
    key_columns(former, keys)
    columns = tuple(column.name for column in table.writable if former.column(column.name) is not None)
    if plan.keys and not {*keys} <= {*columns}:
        raise ConfigError("A key column is generated.", remedy="Name columns that hold values of their own.")
    then.isolation_level = now.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    then_all, now_all = (Selection(one, keys, columns, plan.where) for one in (former, table))
    with as_text(then):
        then_all.require_unique(then)
        with as_text(now):
            parts = differing_parts((then, then_all), (now, now_all))
        kept = fetch(now, Selection(former, keys, columns, plan.where, parts), then)
    return kept, Selection(table, keys, columns, plan.where, parts)


class _PutBack:
    """Puts the rows back that were fetched, in one transaction."""

    def __init__(
        self,
        client: Client,
        connection: LakebaseConnection,
        kept: KeptRows,
        now: Selection,
        point: RestorePoint,
        plan: _Plan,
    ) -> None:
        self._client, self._connection, self._kept, self._now = client, connection, kept, now
        self._point, self._plan = point, plan

    def run(self, deadline: Deadline, clock: Clock) -> RestoreReport:
        limit = str(max(1, round(self._plan.lock_timeout * 1000)))
        plain_cursor(self._connection).execute(
            "SELECT pg_catalog.set_config('lock_timeout', %s, false)", (limit,)
        )
        return again_without_lock(self._attempt, self._plan.attempts, deadline, clock)

    def _attempt(self) -> RestoreReport:
        pid = self._connection.info.backend_pid
        what = f"Putting rows back into {self._now.table.name}"
        try:
            with naming_blockers(self._client.connect, self._plan.lock_timeout, lambda: [pid]):
                return self._transaction()
        except psycopg.Error as error:
            if meaning(error.sqlstate).is_conflict:
                raise TransactionConflictError(f"{what} was undone by another transaction.") from error
            with typed_errors(what):
                raise

    def _transaction(self) -> RestoreReport:
        plan, table = self._plan, self._now.table
        lock = None
        if not plan.dry_run and self._now.keys != table.primary_key:
            # Nothing else may keep another session from writing rows with the same keys.
            lock = sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(table.name.sql())
        with as_text(self._connection, first=lock):
            found = compare(self._connection, self._kept, self._now, examples=plan.examples)
            put_back, overwritten = found.diff.removed, found.diff.changed if plan.overwrite else 0
            if not plan.dry_run:
                types = dict(self._execute(_TYPES, (table.oid,)).fetchall())
                put_back = self._insert(found, types)
                overwritten = self._update(found, types) if plan.overwrite else 0
            moved = self._move_sequences(found)
        return RestoreReport(
            str(table.name),
            str(self._point),
            plan.dry_run,
            plan.overwrite,
            found.diff,
            put_back,
            overwritten,
            moved,
        )

    def _insert(self, found: Differences, types: Mapping[str, str]) -> int:
        query = sql.SQL(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} WHERE after IS NULL ORDER BY key"
        ).format(
            self._now.table.name.sql(),
            sql.SQL(", ").join(map(sql.Identifier, found.columns)),
            sql.SQL(", ").join(_value(found, column, types) for column in found.columns),
            found.name,
        )
        return self._execute(query).rowcount

    def _update(self, found: Differences, types: Mapping[str, str]) -> int:
        table = self._now.table
        fixed = {*self._now.keys, *(c.name for c in table.columns if c.identity == "always")}
        changed = [column for column in found.columns if column not in fixed]
        if not changed:
            return 0

        def set_to(column: str) -> sql.Composed:
            return sql.SQL("{} = {}").format(sql.Identifier(column), _value(found, column, types))

        query = sql.SQL(
            "UPDATE {} AS t SET {} FROM {} AS d WHERE before IS NOT NULL AND after IS NOT NULL AND {}"
        ).format(
            table.name.sql(),
            sql.SQL(", ").join(map(set_to, changed)),
            found.name,
            sql.SQL(" AND ").join(
                sql.SQL("t.{} = {}").format(sql.Identifier(key), _value(found, key, types))
                for key in self._now.keys
            ),
        )
        return self._execute(query).rowcount

    def _move_sequences(self, found: Differences) -> tuple[MovedSequence, ...]:
        written = sql.SQL("before IS NOT NULL") if self._plan.overwrite else sql.SQL("after IS NULL")
        rows = sql.SQL("{} WHERE {}").format(found.name, written)

        def furthest(column: str, which: str) -> sql.Composed:
            place = sql.Literal(found.columns.index(column) + 1)
            return sql.SQL("SELECT {}((before[{}])::bigint) FROM {}").format(sql.SQL(which), place, rows)

        return move_on(self._connection, self._now.table, found.columns, furthest, dry_run=self._plan.dry_run)

    def _execute(self, query: Any, parameters: tuple[Any, ...] | None = None) -> psycopg.Cursor[Any]:
        return plain_cursor(self._connection).execute(query, parameters)


def _value(found: Differences, column: str, types: Mapping[str, str]) -> sql.Composed:
    """A value of the former row, as one of its column's type."""
    place = sql.Literal(found.columns.index(column) + 1)
    return sql.SQL("(before[{}])::{}").format(place, sql.SQL(types[column]))
