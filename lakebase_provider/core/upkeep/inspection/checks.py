"""THE table of checks: what is asked, what is too much, and what to do; imported without the driver."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from lakebase_provider.core.upkeep.inspection import check_queries as queries

#: What a value counts. A share is of 1.
Unit = Literal["share", "seconds", "days", "bytes", "bytes a day", "transactions", "found"]
#: The value of a check: that of the worst of what it looks at, high or low, or how many it finds.
Measure = Literal["highest", "lowest", "count"]
#: What has to be so that a check can judge.
Need = Literal["statistics", "primary", "earlier"]
#: Of what is found, so many are listed.
MOST_LISTED = 20
#: Sequences that are read in one transaction: each is locked for as long, and a server has few locks.
_AT_ONCE = 200
#: Tables that are looked into for bloat, the worst first.
_MOST_MEASURED = 10


class Found(NamedTuple):
    """Something that a check looks at.

    Attributes:
        name: What it is, such as ``"sales.orders"``.
        value: Its number; in the unit of the check, or of what is counted its bytes, rows or 1.
        detail: More in words; empty if there is nothing to say.
    """

    name: str
    value: float
    detail: str = ""


class Limit(NamedTuple):
    """From which value on something is not well; None for never.

    Attributes:
        warn: From here on it needs a look.
        bad: From here on it needs to be dealt with.
    """

    warn: float | None = None
    bad: float | None = None


class Asking(Protocol):
    """Asks a server, in a transaction that only reads."""

    #: What the server is, as ``SURROUNDINGS`` tells it.
    pgstattuple: str | None

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""

    def rows_or_none(self, query: str) -> list[tuple[Any, ...]] | None:
        """The rows of a query, or None if the server refuses it, or somebody has locked what it reads."""


Read = Callable[[Asking, Limit], Iterable[Found]]


@dataclass(frozen=True)
class Check:
    """Something that can be not well in a database.

    Attributes:
        name: Its name.
        about: What it looks at, as a sentence.
        query: Its query, or a function that asks several.
        unit: What its value counts.
        remedy: What to do.
        limit: From which value on it is not well, unless the caller says otherwise.
        measure: Which value is its own: that of the highest or lowest object, or their number.
        needs: What has to be so that it can judge.
        hides: Whether a role that may not read all statistics sees only its own part.
        lists_all: Whether objects are listed that are well, too.
    """

    name: str
    about: str
    query: str | Read
    unit: Unit
    remedy: str
    limit: Limit
    measure: Measure = "highest"
    needs: tuple[Need, ...] = ()
    hides: bool = False
    lists_all: bool = False

    def is_past(self, value: float, limit: float | None) -> bool:
        """Whether a value has reached a limit."""
        if limit is None:
            return False
        return value <= limit if self.measure == "lowest" else value >= limit

    def found(self, ask: Asking, limit: Limit) -> list[Found]:
        """What there is to look at now, the worst first."""
        if isinstance(self.query, str):
            rows = ask.rows(self.query)
            found: Iterable[Found] = (Found(name, float(value), told or "") for name, value, told in rows)
        else:
            found = self.query(ask, limit)
        sign = 1 if self.measure == "lowest" else -1
        return sorted(found, key=lambda one: (sign * one.value, one.name))


def _sequences(ask: Asking, _limit: Limit) -> Iterator[Found]:
    rows = ask.rows(queries.SEQUENCES)
    readable = [row for row in rows if row[-1]]
    for start in range(0, len(readable), _AT_ONCE):
        batch = readable[start : start + _AT_ONCE]
        # One that is gone or locked meanwhile costs the batch; the others are read alone.
        values = _last_values(ask, batch)
        parts = (
            [(batch, values)] if values is not None else [([row], _last_values(ask, [row])) for row in batch]
        )
        for asked, answers in parts:
            yield from (_used(row, last) for row, last in zip(asked, answers or (), strict=False))


def _last_values(ask: Asking, sequences: Sequence[tuple[Any, ...]]) -> list[int] | None:
    # The server has quoted the names.
    each = (f"SELECT {n}, last_value FROM {row[0]}" for n, row in enumerate(sequences))  # noqa: S608
    rows = ask.rows_or_none(" UNION ALL ".join(each))
    return None if rows is None else [last for _n, last in sorted(rows)]


def _used(row: tuple[Any, ...], last: int) -> Found:
    name, _rises, first, end, told, _may_read = row
    return Found(
        name, (last - first) / (end - first) if end != first else 1.0, f"{told or ''} {last} of {end}".strip()
    )


def _bloat(ask: Asking, limit: Limit) -> Iterator[Found]:
    rows = sorted(ask.rows(queries.BLOAT), key=lambda row: -row[1])
    for place, (name, share, told, oid) in enumerate(rows):
        measured = None
        if ask.pgstattuple and place < _MOST_MEASURED and share >= (limit.warn or 0):
            measured = ask.rows_or_none(queries.BLOAT_MEASURED.format(function=ask.pgstattuple, oid=oid))
        if measured:
            share, size = measured[0]
            told = f"{size}; measured"
        yield Found(name, max(0.0, float(share)), told)


_LOOK = "Look at what it does, and end it with pg_cancel_backend or pg_terminate_backend if it is stuck."
#: The checks, in the order of a report.
CHECKS: tuple[Check, ...] = (
    Check(
        "connections",
        "Share of the connections that are in use.",
        queries.CONNECTIONS,
        "share",
        "Lower max_size, run fewer tasks at once, or use a larger endpoint.",
        Limit(0.7, 0.85),
    ),
    Check(
        "blocked_statements",
        "Seconds that a statement has been waiting for a lock.",
        queries.BLOCKED_STATEMENTS,
        "seconds",
        "Let the holder finish, or end it with pg_terminate_backend; set lock_timeout for what may wait.",
        Limit(30, 120),
        hides=True,
    ),
    Check(
        "long_statements",
        "Seconds that a statement has been running.",
        queries.LONG_STATEMENTS,
        "seconds",
        f"{_LOOK} Set statement_timeout.",
        Limit(300, 3600),
        hides=True,
    ),
    Check(
        "idle_in_transaction",
        "Seconds that a session has been idle within a transaction.",
        queries.IDLE_IN_TRANSACTION,
        "seconds",
        "Commit before slow work outside of the database; set idle_in_transaction_session_timeout.",
        Limit(300, 3600),
        hides=True,
    ),
    Check(
        "xid_age",
        "Age of the oldest transaction id that a database still has; at 2.1 billion it takes no more writes.",
        queries.XID_AGE,
        "transactions",
        "End old transactions, prepared ones and unused replication slots, then VACUUM the oldest tables.",
        Limit(500_000_000, 1_000_000_000),
    ),
    Check(
        "dead_rows",
        "Share of dead rows in a table with 10,000 or more of them.",
        queries.DEAD_ROWS,
        "share",
        "VACUUM the table; if that removes nothing, an old transaction or a replication slot keeps them.",
        Limit(0.1, 0.25),
    ),
    Check(
        "bloat",
        "Share of a table of 10 MB or more that holds no rows.",
        _bloat,
        "share",
        "VACUUM more often; to make the file smaller, replace the table or VACUUM FULL it, which locks it.",
        Limit(0.4, 0.6),
    ),
    Check(
        "invalid_indexes",
        "Indexes that queries do not use, and writes still pay for: one was not built to its end.",
        queries.INVALID_INDEXES,
        "found",
        "REINDEX INDEX CONCURRENTLY, or DROP INDEX CONCURRENTLY if its name ends in _ccnew or _ccold.",
        Limit(1),
        measure="count",
    ),
    Check(
        "duplicate_indexes",
        "Indexes whose work another one of the same table does.",
        queries.DUPLICATE_INDEXES,
        "found",
        "DROP INDEX CONCURRENTLY.",
        Limit(1),
        measure="count",
    ),
    Check(
        "unused_indexes",
        "Indexes of 1 MB or more that nothing has used since the statistics began.",
        queries.UNUSED_INDEXES,
        "found",
        "DROP INDEX CONCURRENTLY, if no job that runs more rarely needs it, nor a read replica.",
        Limit(1),
        measure="count",
        needs=("statistics", "primary"),
    ),
    Check(
        "missing_indexes",
        "Share of a table's reads that read all of its rows, of 10,000 or more.",
        queries.MISSING_INDEXES,
        "share",
        "Look at the WHERE clauses of what reads it, and CREATE INDEX CONCURRENTLY.",
        Limit(0.5),
    ),
    Check(
        "unindexed_foreign_keys",
        "Foreign keys of 10,000 or more rows without an index: a delete of what they refer to reads all.",
        queries.UNINDEXED_FOREIGN_KEYS,
        "found",
        "CREATE INDEX CONCURRENTLY on the columns of the key.",
        Limit(1),
        measure="count",
    ),
    Check(
        "sequences",
        "Share of its numbers that a sequence has given.",
        _sequences,
        "share",
        "Change the column to bigint, and the sequence AS bigint, before it ends.",
        Limit(0.75, 0.9),
    ),
    Check(
        "partitions",
        "Days until the last partition by time ends.",
        queries.PARTITIONS,
        "days",
        "Create the next partitions.",
        Limit(7, 1),
        measure="lowest",
    ),
    Check(
        "stale_statistics",
        "Rows that have changed since the last ANALYZE, as a share of the table, if 10,000 or more have.",
        queries.STALE_STATISTICS,
        "share",
        "ANALYZE the table, after each large load.",
        Limit(0.5),
    ),
    Check(
        "replication_lag",
        "Bytes of the log that a slot or a replica has not taken yet.",
        queries.REPLICATION_LAG,
        "bytes",
        "See what its reader does; drop a slot that nobody reads with pg_drop_replication_slot.",
        Limit(256 * 1024**2, 4 * 1024**3),
        needs=(),
        hides=True,
    ),
    Check(
        "cache_hit_rate",
        "Share of page reads that memory has answered, of 10,000 or more.",
        queries.CACHE_HIT_RATE,
        "share",
        "Use a larger endpoint, or read fewer rows: look for missing indexes.",
        # Never bad: what Lakebase has in its file cache counts as not in memory.
        Limit(0.95),
        measure="lowest",
    ),
    Check(
        "database_size",
        "Bytes of the database, and its largest tables.",
        queries.DATABASE_SIZE,
        "bytes",
        "Remove what is not needed: look at unused indexes, bloat and the largest tables.",
        Limit(),
        lists_all=True,
    ),
    Check(
        "growth",
        "Bytes by which the database grows a day, since an earlier report.",
        lambda _ask, _limit: (),
        "bytes a day",
        "See which table grows, and how long its rows are needed.",
        Limit(),
        needs=("earlier",),
    ),
    Check(
        "roles_without_login",
        "Roles that cannot log in, and of which nobody is a member; or whose password has expired.",
        queries.ROLES_WITHOUT_LOGIN,
        "found",
        "Drop the role, or let it log in: ALTER ROLE … LOGIN, or VALID UNTIL a later time.",
        Limit(1),
        measure="count",
    ),
    Check(
        "tables_without_primary_key",
        "Tables without a primary key: their rows cannot be merged, compared, or replicated.",
        queries.TABLES_WITHOUT_PRIMARY_KEY,
        "found",
        "ALTER TABLE … ADD PRIMARY KEY.",
        Limit(1),
        measure="count",
    ),
    Check(
        "extension_versions",
        "Extensions of an older version than the server has.",
        queries.EXTENSION_VERSIONS,
        "found",
        "ALTER EXTENSION … UPDATE.",
        Limit(1),
        measure="count",
    ),
)
#: Names of the checks, which are those of the limits.
CHECK_NAMES: tuple[str, ...] = tuple(check.name for check in CHECKS)
