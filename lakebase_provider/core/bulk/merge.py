"""Merge: staged rows change those of the same key, add the others, and may remove what is missing.

The change is one MERGE, or where rows came in the order of their key one for each part of them. Where another
session inserts one of its keys in the same moment, MERGE fails on the unique index; it is then undone to a
savepoint and done by INSERT .. ON CONFLICT, which is slower and cannot fail so. Without a unique index on the
keys nothing would tell of such a key: the table is then locked against other writers until the transaction
ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from lakebase_provider.core.bulk.key_ranges import KeyRange, key_ranges, may_have_ranges
from lakebase_provider.core.bulk.table import Column, Table, TableName
from lakebase_provider.core.errors import BadRowError

logger = logging.getLogger(__name__)

# Enough kilobytes that the hash of a million keys stays in memory. And no nested loop over rows kept aside:
# where statistics of the table are old, the few rows that they promise may be a million.
_SETTINGS = {"work_mem": "65536", "enable_material": "off"}
_DIFFERENT = """
SELECT name, setting FROM pg_catalog.pg_settings
WHERE name = 'work_mem' AND setting::bigint < %(work_mem)s::bigint
    OR name = 'enable_material' AND setting <> %(enable_material)s
"""

# The server counts for each table what a transaction has done so far. MERGE tells only the sum of inserted
# and updated rows before Postgres 17, and RETURNING a row for each costs more than reading two counters. An
# update that moves a row to another partition is a deletion and an insertion.
_INSERTED = """
SELECT coalesce(sum(pg_catalog.pg_stat_get_xact_tuples_inserted(relid)
    - pg_catalog.pg_stat_get_xact_tuples_deleted(relid)), 0)
FROM (SELECT relid FROM pg_catalog.pg_partition_tree(%(oid)s) UNION SELECT %(oid)s::regclass) AS leaf
"""

# What is done or checked at the end of a statement is to see all rows of the load at once: triggers (but not
# those before a row), rows of the table that refer to others of it, constraints that may be deferred.
_AT_ONCE = """
WITH leaf AS (SELECT relid FROM pg_catalog.pg_partition_tree(%(oid)s) UNION SELECT %(oid)s::regclass)
SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger JOIN leaf ON tgrelid = relid
        WHERE NOT tgisinternal AND tgtype & 3 <> 3)
    OR EXISTS (SELECT FROM pg_catalog.pg_constraint JOIN leaf ON conrelid = relid
        WHERE condeferrable OR confrelid IN (SELECT relid FROM leaf))
"""

_UNIQUE = """
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_index i
    WHERE i.indrelid = %s AND i.indisunique AND i.indisvalid AND i.indimmediate
        AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indnkeyatts = %s
        AND NOT EXISTS (
            SELECT FROM pg_catalog.unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) AS k(attnum)
            JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
            WHERE a.attname <> ALL (%s)))
"""


# Types whose values are equal only where their images are.
_ONE_IMAGE = frozenset(
    {"bool", "int2", "int4", "int8", "oid", "uuid", "date", "time", "timestamp", "timestamptz"}
)


@dataclass(frozen=True)
class Counts:
    """What became of the rows.

    Attributes:
        inserted: Rows that are new.
        updated: Rows that got other values.
        deleted: Rows that were removed.
    """

    inserted: int = 0
    updated: int = 0
    deleted: int = 0


@dataclass(frozen=True)
class Merge:
    """One merge of a staged relation into a table.

    Attributes:
        table: The table.
        stage: The relation that holds the rows, filled by one COPY into a table that the transaction created.
        columns: Names of the columns that the rows have.
        keys: Names of the columns that identify a row.
        version_column: Of two rows with the same key, the one with the greater value here is kept; the later
            one where they are equal. None to keep the later one always.
        delete_missing: Whether to remove the table's rows whose key was not staged.
        slice: Limits what `delete_missing` may remove; None for no limit.
    """

    table: Table
    stage: TableName
    columns: Sequence[str]
    keys: Sequence[str]
    version_column: str | None = None
    delete_missing: bool = False
    slice: sql.Composable | None = None

    def run(self, connection: psycopg.Connection[Any], rows: int, phase: Callable[[str], None]) -> Counts:
        """Merge.

        Args:
            connection: The connection whose transaction it becomes part of.
            rows: How many rows were staged.
            phase: Called with what is done from now on.

        Raises:
            BadRowError: A row's key is NULL.
        """
        cursor = psycopg.Cursor(connection)
        with _settings(cursor):
            unique = self._unique(cursor)
            ranges = self._ranges(cursor, rows) if unique else []
            if not ranges or self.delete_missing:
                # The plan depends on their number and keys; statistics of all columns take twice as long.
                cursor.execute(sql.SQL("ANALYZE {} ({})").format(self.stage.sql(), _list("{}", self.keys)))
            if not ranges and self._deduplicate(cursor, rows) and unique:
                ranges = self._ranges(cursor, rows)
            deleted = self._delete(cursor) if self.delete_missing else 0
            inserted, updated = self._change(cursor, unique, ranges, phase)
            return Counts(inserted, updated, deleted)

    @property
    def _oid(self) -> dict[str, int]:
        return {"oid": self.table.oid}

    def _unique(self, cursor: psycopg.Cursor[Any]) -> bool:
        """Whether an index tells of keys that another session inserts; else none can do so from now on."""
        if _one(cursor, _UNIQUE, (self.table.oid, len(self.keys), list(self.keys))):
            return True
        logger.info(
            "%s has no unique index on (%s): it is locked against other writers while rows are merged.",
            self.table.name,
            ", ".join(self.keys),
        )
        cursor.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(self.table.name.sql()))
        return False

    def _ranges(self, cursor: psycopg.Cursor[Any], rows: int) -> list[KeyRange]:
        """The parts to be merged one by one; nothing where it is better done at once."""
        key = _column(self.table, self.keys[0])
        if len(self.keys) > 1 or not may_have_ranges(key, rows) or _one(cursor, _AT_ONCE, self._oid):
            return []
        return key_ranges(cursor, self.stage, key, rows)

    def _deduplicate(self, cursor: psycopg.Cursor[Any], rows: int) -> bool:
        """Keep one row of each key; whether any went."""
        keys = _list("{}", self.keys)
        no_null = _list("{} IS NOT NULL", self.keys, " AND ")
        if len(self.keys) == 1:
            # A sort of bare values; a grouping of a million rows takes twice as long.
            query = sql.SQL("SELECT count({key}), count(DISTINCT {key}) FROM {stage}").format(
                key=keys, stage=self.stage.sql()
            )
        else:
            query = sql.SQL(
                "SELECT sum(n) FILTER (WHERE {no_null}), count(*) FILTER (WHERE {no_null})"
                " FROM (SELECT {keys}, count(*) AS n FROM {stage} GROUP BY {keys}) AS k"
            ).format(keys=keys, no_null=no_null, stage=self.stage.sql())
        keyed, distinct = cursor.execute(query).fetchone() or (0, 0)
        if (keyed or 0) != rows:
            raise BadRowError(
                f"{rows - (keyed or 0)} of {rows} rows have NULL in a key ({', '.join(self.keys)}).",
                column=self.keys[0] if len(self.keys) == 1 else None,
                kind="NULL",
                remedy="Give each row a key, or merge by other keys.",
            )
        if distinct == rows:
            return False
        # The stage was created in this transaction, so COPY has only appended to it: ctid is the order.
        order: sql.Composable = sql.SQL("ctid DESC")
        if self.version_column is not None:
            order = sql.SQL("{} DESC NULLS LAST, ctid DESC").format(sql.Identifier(self.version_column))
        cursor.execute(
            sql.SQL(
                "DELETE FROM {stage} AS s USING (SELECT ctid AS place, row_number() OVER"
                " (PARTITION BY {keys} ORDER BY {order}) AS n FROM {stage}) AS d"
                " WHERE s.ctid = d.place AND d.n > 1"
            ).format(stage=self.stage.sql(), keys=keys, order=order)
        )
        return True

    def _delete(self, cursor: psycopg.Cursor[Any]) -> int:
        limit = sql.SQL("") if self.slice is None else sql.SQL(" AND ({})").format(self.slice)
        query = sql.SQL("DELETE FROM {} AS t WHERE NOT EXISTS (SELECT FROM {} AS s WHERE {}){}").format(
            self.table.name.sql(), self.stage.sql(), _list("t.{0} = s.{0}", self.keys, " AND "), limit
        )
        return cursor.execute(query).rowcount

    def _change(
        self,
        cursor: psycopg.Cursor[Any],
        unique: bool,
        ranges: Sequence[KeyRange],
        phase: Callable[[str], None],
    ) -> tuple[int, int]:
        before = _one(cursor, _INSERTED, self._oid)
        try:
            with cursor.connection.transaction():
                total = 0
                for number, part in enumerate(ranges, 1):
                    phase(f"merge, part {number} of {len(ranges)}")
                    total += cursor.execute(self._merge(part)).rowcount
                if not ranges:
                    total = cursor.execute(self._merge()).rowcount
        except psycopg.errors.UniqueViolation:
            if not unique:
                raise
            logger.info("Another session inserted the same keys into %s: on by ON CONFLICT.", self.table.name)
            before = _one(cursor, _INSERTED, self._oid)
            total = cursor.execute(self._upsert()).rowcount
        inserted = min(int(_one(cursor, _INSERTED, self._oid) - before), total)
        return inserted, total - inserted

    def _merge(self, part: KeyRange | None = None) -> sql.Composed:
        rows: sql.Composable = self.stage.sql()
        on: sql.Composable = _list("t.{0} = s.{0}", self.keys, " AND ")
        if part is not None:
            rows = part.rows(self.stage)
            on = sql.SQL(" AND ").join([on, part.holds(sql.Identifier("t", self.keys[0]))])
        update = self._update("s")
        matched = sql.SQL("WHEN MATCHED AND {} THEN UPDATE SET {}").format(*update) if update else sql.SQL("")
        return sql.SQL(
            "MERGE INTO {table} AS t USING {rows} AS s ON {on} {matched}"
            " WHEN NOT MATCHED THEN INSERT ({columns}) OVERRIDING SYSTEM VALUE VALUES ({values})"
        ).format(
            table=self.table.name.sql(),
            rows=rows,
            on=on,
            matched=matched,
            columns=_list("{}", self.columns),
            values=_list("s.{}", self.columns),
        )

    def _upsert(self) -> sql.Composed:
        update = self._update("excluded")
        action: sql.Composable = sql.SQL("NOTHING")
        if update:
            action = sql.SQL("UPDATE SET {1} WHERE {0}").format(*update)
        return sql.SQL(
            "INSERT INTO {table} AS t ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {stage}"
            " ON CONFLICT ({keys}) DO {action}"
        ).format(
            table=self.table.name.sql(),
            columns=_list("{}", self.columns),
            stage=self.stage.sql(),
            keys=_list("{}", self.keys),
            action=action,
        )

    def _update(self, new: str) -> tuple[sql.Composable, sql.Composable] | None:
        """When a row of the table is changed, and to what; None where nothing but the key is loaded."""
        changed = [
            name
            for name in self.columns
            if name not in self.keys and _column(self.table, name).identity != "always"
        ]
        if not changed:
            return None
        # Images, not values: 1.0 and 1.00 differ, and types without equality, such as json, have one too.
        # Where a type has but one image of a value, its values are compared first, as that is far cheaper.
        plain = [name for name in changed if _column(self.table, name).base_name in _ONE_IMAGE]
        other = [name for name in changed if name not in plain]
        differs = [
            sql.SQL("t.{0} IS DISTINCT FROM {1}.{0}").format(sql.Identifier(name), sql.SQL(new))
            for name in plain
        ]
        if other:
            differs.append(
                sql.SQL("ROW({})::record OPERATOR(pg_catalog.*<>) ROW({})::record").format(
                    _list("t.{}", other), _list(new + ".{}", other)
                )
            )
        condition: sql.Composable = sql.SQL("({})").format(sql.SQL(" OR ").join(differs))
        if self.version_column is not None:
            condition = sql.SQL("(t.{0} IS NULL OR " + new + ".{0} >= t.{0}) AND {1}").format(
                sql.Identifier(self.version_column), condition
            )
        return condition, _list("{0} = " + new + ".{0}", changed)


def _column(table: Table, name: str) -> Column:
    column = table.column(name)
    assert column is not None
    return column


def _list(template: str, names: Sequence[str], separator: str = ", ") -> sql.Composed:
    form = sql.SQL(template)
    return sql.SQL(separator).join(form.format(sql.Identifier(name)) for name in names)


@contextmanager
def _settings(cursor: psycopg.Cursor[Any]) -> Iterator[None]:
    """Plan for many rows, and leave the transaction's settings as they were."""
    before = cursor.execute(_DIFFERENT, _SETTINGS).fetchall()
    _set(cursor, [(name, _SETTINGS[name]) for name, _ in before])
    try:
        yield
    finally:
        if not cursor.connection.broken and _usable(cursor.connection):
            _set(cursor, before)


def _set(cursor: psycopg.Cursor[Any], settings: Sequence[tuple[str, str]]) -> None:
    for name, value in settings:
        cursor.execute("SELECT pg_catalog.set_config(%s, %s, true)", (name, value))


def _one(cursor: psycopg.Cursor[Any], query: str, parameters: Any) -> Any:
    """The only value of a query that gives one row."""
    row = cursor.execute(query.encode(), parameters).fetchone()
    assert row is not None
    return row[0]


def _usable(connection: psycopg.Connection[Any]) -> bool:
    return connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
