"""Merge: staged rows change those of the same key, add the others, and may remove what is missing.

The change is one MERGE. Where another session inserts one of its keys in the same moment, MERGE fails on the
unique index; it is then undone to a savepoint and done by INSERT .. ON CONFLICT, which is slower and cannot
fail so. Without a unique index on the keys nothing would tell of such a key: the table is then locked against
other writers until the transaction ends.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from lakebase_provider.core.bulk.table import Column, Table, TableName
from lakebase_provider.core.errors import BadRowError

logger = logging.getLogger(__name__)

#: Kilobytes: enough that the hash of a million keys stays in memory.
_WORK_MEM = 65536

# The server counts for each table what a transaction has done so far. MERGE tells only the sum of inserted
# and updated rows before Postgres 17, and RETURNING a row for each costs more than reading two counters. An
# update that moves a row to another partition is a deletion and an insertion.
_INSERTED = """
SELECT coalesce(sum(pg_catalog.pg_stat_get_xact_tuples_inserted(relid)
    - pg_catalog.pg_stat_get_xact_tuples_deleted(relid)), 0)
FROM (SELECT relid FROM pg_catalog.pg_partition_tree(%(oid)s) UNION SELECT %(oid)s::regclass) AS leaf
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

    def run(self, connection: psycopg.Connection[Any], rows: int) -> Counts:
        """Merge.

        Args:
            connection: The connection whose transaction it becomes part of.
            rows: How many rows were staged.

        Raises:
            BadRowError: A row's key is NULL.
        """
        cursor = psycopg.Cursor(connection)
        before = cursor.execute(
            "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'work_mem' AND setting::bigint < %s",
            (_WORK_MEM,),
        ).fetchone()
        if before is not None:
            cursor.execute("SELECT pg_catalog.set_config('work_mem', %s, true)", (f"{_WORK_MEM}kB",))
        try:
            # The plan depends on their number and on the keys; statistics of all columns take twice as long.
            keys = _list("{}", self.keys)
            cursor.execute(sql.SQL("ANALYZE {} ({})").format(self.stage.sql(), keys))
            self._deduplicate(cursor, rows)
            deleted = self._delete(cursor) if self.delete_missing else 0
            inserted, updated = self._change(connection, cursor)
            return Counts(inserted, updated, deleted)
        finally:
            if before is not None and not connection.broken and _usable(connection):
                cursor.execute("SELECT pg_catalog.set_config('work_mem', %s, true)", (f"{before[0]}kB",))

    def _deduplicate(self, cursor: psycopg.Cursor[Any], rows: int) -> None:
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
            return
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

    def _delete(self, cursor: psycopg.Cursor[Any]) -> int:
        limit = sql.SQL("") if self.slice is None else sql.SQL(" AND ({})").format(self.slice)
        query = sql.SQL("DELETE FROM {} AS t WHERE NOT EXISTS (SELECT FROM {} AS s WHERE {}){}").format(
            self.table.name.sql(), self.stage.sql(), _list("t.{0} = s.{0}", self.keys, " AND "), limit
        )
        return cursor.execute(query).rowcount

    def _change(self, connection: psycopg.Connection[Any], cursor: psycopg.Cursor[Any]) -> tuple[int, int]:
        oid = {"oid": self.table.oid}
        unique = (cursor.execute(_UNIQUE, (self.table.oid, len(self.keys), list(self.keys))).fetchone())[0]  # type: ignore[index] # EXISTS is one row
        if not unique:
            logger.info(
                "%s has no unique index on (%s): it is locked against other writers while rows are merged.",
                self.table.name,
                ", ".join(self.keys),
            )
            cursor.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(self.table.name.sql()))
        before: int = cursor.execute(_INSERTED, oid).fetchone()[0]  # type: ignore[index] # as above
        try:
            with connection.transaction():
                total = cursor.execute(self._merge()).rowcount
        except psycopg.errors.UniqueViolation:
            if not unique:
                raise
            logger.info("Another session inserted the same keys into %s: on by ON CONFLICT.", self.table.name)
            before = cursor.execute(_INSERTED, oid).fetchone()[0]  # type: ignore[index] # as above
            total = cursor.execute(self._upsert()).rowcount
        after: int = cursor.execute(_INSERTED, oid).fetchone()[0]  # type: ignore[index] # as above
        inserted = min(int(after - before), total)
        return inserted, total - inserted

    def _merge(self) -> sql.Composed:
        update = self._update("s")
        matched = sql.SQL("WHEN MATCHED AND {} THEN UPDATE SET {}").format(*update) if update else sql.SQL("")
        return sql.SQL(
            "MERGE INTO {table} AS t USING {stage} AS s ON {on} {matched}"
            " WHEN NOT MATCHED THEN INSERT ({columns}) OVERRIDING SYSTEM VALUE VALUES ({values})"
        ).format(
            table=self.table.name.sql(),
            stage=self.stage.sql(),
            on=_list("t.{0} = s.{0}", self.keys, " AND "),
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
        condition: sql.Composable = sql.SQL(
            "ROW({})::record OPERATOR(pg_catalog.*<>) ROW({})::record"
        ).format(_list("t.{}", changed), _list(new + ".{}", changed))
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


def _usable(connection: psycopg.Connection[Any]) -> bool:
    return connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
