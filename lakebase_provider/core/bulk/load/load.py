"""Loading: everything in one transaction, according to the load's plan."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from lakebase_provider.core.base import telemetry
from lakebase_provider.core.base.clock import SYSTEM_CLOCK, Clock
from lakebase_provider.core.bulk.load.copy_in import CopyResult, copy_in
from lakebase_provider.core.bulk.load.ledger import Ledger
from lakebase_provider.core.bulk.load.plan import LoadOptions, LoadPlan
from lakebase_provider.core.bulk.load.progress import Progress
from lakebase_provider.core.bulk.load.rejects import Rejects
from lakebase_provider.core.bulk.load.result import LoadResult
from lakebase_provider.core.bulk.load.since.since_ledger import Increment, since_ledger
from lakebase_provider.core.bulk.load.transfer.transfer import PostgresQuery, columns_of, copy_between
from lakebase_provider.core.bulk.sources.open import open_source
from lakebase_provider.core.bulk.tables.create import columns_for, create_table
from lakebase_provider.core.bulk.tables.evolve import alter, needed_changes
from lakebase_provider.core.bulk.tables.merge import CHANGE_MARKS, Counts, Merge
from lakebase_provider.core.bulk.tables.replace import delete_rows, lock_rows
from lakebase_provider.core.bulk.tables.swap import swap_in
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.connect.session import UTF8, settings
from lakebase_provider.core.database.catalog import (
    Column,
    Table,
    TableName,
    ensure_schema,
    find_table,
    lock,
    read_table,
    resolve_name,
)
from lakebase_provider.core.database.refusals import typed_errors
from lakebase_provider.core.errors import ChangesUnavailableError, ColumnMismatchError, ConfigError, LoadError
from lakebase_provider.core.errors.remedy import without_options

if TYPE_CHECKING:
    from typing_extensions import LiteralString, Unpack

logger = logging.getLogger(__name__)

#: What to do about a value from another Postgres, which is valid there.
_IN_THE_QUERY = "Convert the value in the query to what the table's column accepts, or leave the row out."


def load(
    connection: psycopg.Connection[Any],
    source: Any,
    table: str | tuple[str, str] | TableName,
    *,
    clock: Clock = SYSTEM_CLOCK,
    **options: Unpack[LoadOptions],
) -> LoadResult:
    """Load into a table as part of the connection's transaction, which the caller commits.

    With an autocommit connection it is its own transaction. A failed load leaves nothing behind; what the
    transaction did before stays. A file of rejected rows exists when this returns: if the caller then rolls
    back, its rows belong to no load.

    Args:
        connection: The connection whose transaction it becomes part of.
        source: Rows.
        table: The table's name.
        clock: Where the time comes from.
        options: The fields of :class:`~lakebase_provider.core.bulk.load.plan.LoadPlan`.

    Raises:
        ConfigError: Options contradict each other; nothing was sent.
        LoadError: The load failed and left nothing behind.
    """
    plan = LoadPlan(**options)
    if plan.lsn:
        raise ConfigError(
            "lsn= is of a load that commits itself, and this one is part of a transaction.",
            remedy="Leave it out, and run SELECT pg_current_wal_lsn() after the commit.",
        )
    with rejects_of(plan) as rejects:
        return load_rows(connection, source, table, plan, rejects, clock=clock)


def rejects_of(plan: LoadPlan) -> AbstractContextManager[Rejects | None]:
    """The collector of rejected rows, if the plan sets them aside; exit it after the commit."""
    return nullcontext() if plan.reject_to is None else Rejects(plan.reject_to)


def load_rows(
    connection: psycopg.Connection[Any],
    source: Any,
    table: str | tuple[str, str] | TableName,
    plan: LoadPlan,
    rejects: Rejects | None,
    *,
    clock: Clock,
) -> LoadResult:
    """:func:`load` with a plan, where whoever commits holds its :func:`rejects_of`."""
    name = TableName.parse(table)
    with (
        telemetry.span("load", mode=plan.mode),
        # If rows are set aside, a row that is still refused could not be.
        without_options(*(() if rejects is None else ("on_error",))),
        typed_errors(f"Load into {name}"),
        _transaction(connection),
        settings(connection, UTF8),  # for the catalog's names, which psycopg returns as bytes in SQL_ASCII
        Progress(str(name), clock=clock) as progress,
    ):
        return _Load(connection, source, plan, rejects, progress, clock).run(name)


@contextmanager
def _transaction(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """All or nothing: not even a ledger entry may outlive a failed load, whoever commits."""
    if connection.autocommit or connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        with connection.transaction():  # a savepoint, if a transaction is under way
            yield
        return
    try:
        yield
    except BaseException:
        with suppress(psycopg.Error):  # the caller gets the first error
            connection.rollback()
        raise


def named(
    connection: psycopg.Connection[Any], table: str | tuple[str, str] | TableName, plan: LoadPlan
) -> TableName:
    """The table's name with its schema, which is created where the plan has the table created."""
    name = resolve_name(connection, TableName.parse(table))
    if plan.create and name.schema not in (None, "pg_temp"):
        ensure_schema(connection, str(name.schema))
    return name


@dataclass
class _Load:
    """One load under way."""

    connection: psycopg.Connection[Any]
    source: Any
    plan: LoadPlan
    rejects: Rejects | None
    progress: Progress
    clock: Clock
    #: Whether a source that can be read only once must have rows.
    whole: bool = False
    #: What was changed about the table.
    changes: tuple[str, ...] = ()
    #: Rows that were deleted before the table was changed; None where they are still there.
    deleted: int | None = None
    #: Rows outside of the slice.
    outside: int = 0
    #: What the stage has beside the table's columns: if the rows are changes, what became of them.
    marks: tuple[Column, ...] = ()

    def run(self, table: TableName) -> LoadResult:
        name = named(self.connection, table, self.plan)
        ledger = increment = None
        if self.plan.needs_ledger:
            ledger = Ledger.of(self.connection, name, self.plan.ledger_schema, clock=self.clock)
            ledger.ensure()
            if self.plan.since is not None:
                increment = since_ledger(self.source, self.plan, ledger, name)
                self.source, self.plan = increment.source, increment.plan
            assert self.plan.load_id is not None
            earlier = self._claimed(ledger, name, self.plan.load_id)
            if earlier is not None:
                logger.info(
                    "Skipped: load_id %r of %s was %s (%d rows).",
                    self.plan.load_id,
                    name,
                    earlier.reason,
                    earlier.rows,
                )
                return earlier
        result = self._moved(name) if increment is None else self._moved_since(increment, name)
        if ledger is not None:
            ledger.record(result, self.plan.forced_id)
        _log(result)
        return result

    def _claimed(self, ledger: Ledger, name: TableName, load_id: str) -> LoadResult | None:
        if self.plan.force:
            return ledger.claim_anew(name, load_id, self.plan.mode, self.plan.forced_id)
        return ledger.claim(name, load_id, self.plan.mode)

    def _moved_since(self, increment: Increment, name: TableName) -> LoadResult:
        if increment.fallback is None:
            return self._moved(name)
        try:
            with self.connection.transaction():
                return self._moved(name)
        except ChangesUnavailableError as error:
            # Files of the feed may be gone, which shows when they are read.
            logger.warning("Replacing all rows of %s: %s", name, error.message)
            self.source, self.plan = increment.fallback
            self.changes, self.deleted = (), None
            return self._moved(name)

    def _moved(self, name: TableName) -> LoadResult:
        # A skipped load never asks for what it would have loaded.
        resolve = getattr(self.source, "as_load_source", None)
        # What begins with the load itself was read by nobody else.
        self.whole = self.plan.removes and not self.plan.allow_empty and resolve is None
        if resolve is not None:
            self.source = resolve()
        if not isinstance(self.source, PostgresQuery):
            if not self.plan.needs_columns:
                return self._move(self._table(name))
            with open_source(self.source, self.plan.columns, self.plan, whole=self.whole) as self.source:
                return self._move(self._table(name))
        self.plan.require_unused("a query on another Postgres")
        if self.rejects is not None:
            raise ConfigError(
                "on_error='reject' works on rows that Python encodes, which rows from Postgres are not.",
                remedy="Leave out on_error, and convert bad rows in the query or leave them out.",
            )
        # Its rows are never set aside.
        with (
            closing(self.source),
            without_options("on_error"),
            typed_errors(f"Load into {name}", of_a_value=_IN_THE_QUERY),
        ):
            return self._move(self._table(name))

    def _table(self, name: TableName) -> Table:
        """The table, with the columns that the rows need as far as the plan allows."""
        policy = self.plan.schema_evolution
        table = (find_table if self.plan.create else read_table)(self.connection, name)
        if table is not None:
            if table.kind not in {"r", "p", "f"}:
                raise LoadError(f"{name} is a view.", remedy="Load into the table behind it.")
            # Of no width is what gives no row, and tells no columns.
            if policy is None or getattr(self.source, "width", 0) is None:
                return table
        wanted = self._wanted()
        if table is None:
            # Two loads into a new table often take place at the same time.
            lock(self.connection, f"table {name}")
            table = find_table(self.connection, name)
        if table is None:
            self.changes, self.deleted = ("CREATE TABLE",), 0
            return create_table(self.connection, name, wanted, self.plan.keys or ())
        changes = [] if policy is None else needed_changes(table, wanted, policy)
        if policy is None or not changes:
            return table
        if self.plan.mode == "replace":
            # First, so that what is changed holds no rows that nobody will see.
            self.deleted = delete_rows(self.connection, table, self._slice(table))
        self.changes = tuple(changes)
        logger.info("Table %s: %s", table.name, ", ".join(changes))
        return alter(self.connection, table, changes, policy)

    def _wanted(self) -> dict[str, str]:
        """The columns that the rows need, by name with their types."""
        if isinstance(self.source, PostgresQuery):
            return columns_of(self.connection, self.source, self.plan.columns)
        wanted, self.source = columns_for(self.source, self.plan.columns)
        return wanted

    def _slice(self, table: Table) -> sql.Composable | None:
        return self.plan.slice(self.connection, table)

    def _move(self, table: Table) -> LoadResult:
        if self.plan.mode == "append":
            copied, counts = self._append(table)
        elif self.plan.mode == "replace":
            copied, counts = self._replace(table)
        else:
            copied, counts = self._merge(table)
        if self.rejects is not None:
            self.rejects.write(self.connection, table.name, copied.columns, self.plan.load_id)
        return LoadResult(
            table=str(table.name),
            mode=self.plan.mode,
            load_id=self.plan.load_id,
            rows=copied.rows,
            inserted=counts.inserted,
            updated=counts.updated,
            deleted=counts.deleted,
            unchanged=copied.rows - counts.inserted - counts.updated - (counts.deleted if self.marks else 0),
            rejected=copied.rejected,
            outside=self.outside,
            changes=self.changes,
            bytes=copied.bytes,
            seconds=self.progress.seconds,
            format=copied.format,
            reason=copied.reason,
        )

    def _copy(self, table: Table, into: TableName | None) -> CopyResult:
        self.progress.phase("copy")
        if isinstance(self.source, PostgresQuery):
            copied = copy_between(
                self.connection,
                self.source,
                table,
                into=into,
                columns=self.plan.columns,
                progress=self.progress,
            )
            self.progress(copied.rows, copied.bytes)
            return copied
        copied = copy_in(
            self.connection,
            self.source,
            table,
            into=into,
            columns=self.plan.columns and [*self.plan.columns, *(one.name for one in self.marks)],
            csv=self.plan,
            whole=self.whole,
            progress=self.progress,
            reject=self.rejects,
        )
        # The format's trailer comes after the last batch.
        self.progress(copied.rows, copied.bytes)
        return copied

    def _append(self, table: Table) -> tuple[CopyResult, Counts]:
        if not self.plan.count_outside:
            copied = self._copy(table, None)
            return copied, Counts(inserted=copied.rows)
        # By way of a temporary table, for after a COPY nothing tells the rows from those beside them; and
        # RETURNING sees what the server computes, too, by which the slice may be told.
        where = self._slice(table)
        with self._staged(table) as (stage, copied):
            self.outside = self._count(
                "WITH written AS (INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE"
                " SELECT {columns} FROM {stage} RETURNING ({where}) IS TRUE AS inside)"
                " SELECT count(*) FROM written WHERE NOT inside",
                table=table.name.sql(),
                columns=_listed(copied.columns),
                stage=stage.sql(),
                where=where,
            )
        return copied, Counts(inserted=copied.rows)

    def _replace(self, table: Table) -> tuple[CopyResult, Counts]:
        where = self._slice(table)
        if where is None and self.deleted is None:
            with swap_in(self.connection, table) as new:
                if new is not None:
                    copied = self._copy(table, new.name)
                    self.progress.phase("swap")
                    return copied, Counts(copied.rows, 0, new.replaced_rows())
        if self.deleted is None:
            self.progress.phase("delete")
            self.deleted = delete_rows(self.connection, table, where)
        copied = self._copy(table, None)
        if self.plan.count_outside:
            # What was there is deleted, so that what is there now is of this load.
            query = "SELECT count(*) FROM {table} WHERE {where}"
            self.outside = copied.rows - self._count(query, table=table.name.sql(), where=where)
        return copied, Counts(copied.rows, 0, self.deleted)

    def _merge(self, table: Table) -> tuple[CopyResult, Counts]:
        keys, where = self.plan.merge_keys(table), self._slice(table)
        if marked := getattr(self.source, "marked", None):
            self.source, self.marks = marked(keys), CHANGE_MARKS
        # Of changes, the feed itself tells what is missing.
        missing = self.plan.delete == "missing" and not self.marks
        if missing:
            lock_rows(self.connection, table, where)
        with self._staged(table) as (stage, copied):
            needed = keys if self.plan.version_column is None else (*keys, self.plan.version_column)
            if absent := [name for name in needed if name not in copied.columns]:
                raise ColumnMismatchError(f"The source has no column {', '.join(map(repr, absent))}.")
            self.progress.phase("merge")
            merge = Merge(
                table,
                stage,
                copied.columns[: len(copied.columns) - len(self.marks)],
                keys,
                version_column=self.plan.version_column,
                delete_missing=missing,
                slice=where,
                of_changes=bool(self.marks),
            )
            counts = merge.run(self.connection, copied.rows)
            if self.plan.count_outside:
                # Of the table and not of the stage: the server may compute what tells the slice.
                self.outside = self._count(
                    "SELECT count(*) FROM {table} WHERE ({keys}) IN (SELECT {keys} FROM {stage})"
                    " AND ({where}) IS NOT TRUE",
                    table=table.name.sql(),
                    keys=_listed(keys),
                    stage=stage.sql(),
                    where=where,
                )
        return replace(copied, rows=copied.rows + getattr(self.source, "spared", 0)), counts

    @contextmanager
    def _staged(self, table: Table) -> Iterator[tuple[TableName, CopyResult]]:
        """The rows in a temporary table."""
        stage = TableName(f"lakebase_load_{secrets.token_hex(6)}", "pg_temp")
        marks = [sql.SQL("NULL::{} AS {}").format(sql.SQL(one.type_name), one.sql()) for one in self.marks]
        names = {one.name for one in self.marks}
        # With the table's types but without its constraints, which are checked when rows reach the table.
        self._execute(
            sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
                sql.Identifier(stage.table),
                sql.SQL(", ").join(
                    [*(column.sql() for column in table.writable if column.name not in names), *marks]
                ),
                table.name.sql(),
            )
        )
        others = tuple(column for column in table.columns if column.name not in names)
        yield stage, self._copy(replace(table, columns=(*others, *self.marks)), stage)
        self._execute(sql.SQL("DROP TABLE {}").format(stage.sql()))

    def _count(self, query: LiteralString, **parts: Any) -> int:
        row = self._execute(sql.SQL(query).format(**parts)).fetchone()
        return int(row[0]) if row else 0

    def _execute(self, query: Any) -> psycopg.Cursor[Any]:
        return plain_cursor(self.connection).execute(query)


def _listed(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _log(result: LoadResult) -> None:
    pace = result.bytes / 1e6 / result.seconds if result.seconds else 0.0
    logger.info(
        "Loaded %s (%s): %d rows, %.1f MB in %.1f s (%.1f MB/s), %s COPY: %s. Inserted %d, updated %d,"
        " deleted %d, unchanged %d, rejected %d.",
        result.table,
        result.mode,
        result.rows,
        result.bytes / 1e6,
        result.seconds,
        pace,
        result.format,
        result.reason,
        result.inserted,
        result.updated,
        result.deleted,
        result.unchanged,
        result.rejected,
    )
