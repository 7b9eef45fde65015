"""Merge: staged rows update those with the same key, add the others, and may remove what is missing.

The change is one MERGE in key order: the index is read and written from one end to the other, which takes
half the time of no order, and two merges of the same rows usually do not deadlock (if the server plans a hash
join, the order may differ). If another session inserts one of its keys at the same moment, MERGE fails on the
unique index; it is then undone to a savepoint and done with INSERT .. ON CONFLICT, which is slower but cannot
fail like that. Without a unique index on the keys, such a key would go unnoticed: the table is then locked
against other writers until the transaction ends.

Staged changes, as a change data feed gives them, come down to what is true of each key in the end: of its
newest version counts a row that is there, and only where there is none, one that is gone. So a row whose key
changed leaves none behind under the old key, and keys that two rows swap stay. What is gone is deleted first,
for what comes may need a value that is unique.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from lakebase_provider.core.bulk.types.postgres_types import KINDS
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.connect.session import settings
from lakebase_provider.core.database.catalog import Column, Table, TableName
from lakebase_provider.core.errors import BadRowError

logger = logging.getLogger(__name__)

# With less, a long sort merges its runs in several passes. More sorts no faster, and lets the planner use a
# hash of a million keys, which does not fit the processor's cache, instead of the index.
_WORK_MEM = "16MB"

# The server counts for each table what a transaction has done so far. Before Postgres 17, MERGE returns only
# the sum of inserted and updated rows, and RETURNING a row for each costs more than reading two counters. An
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

#: Of staged changes, the columns that tell the version and whether the row is gone by then. No column of a
#: Delta table with a change data feed has these names.
CHANGE_VERSION, GONE = "_commit_version", "_change_type"
_OF_VERSION = Column(CHANGE_VERSION, "bigint", 20, "int8")
CHANGE_MARKS = (_OF_VERSION, Column(GONE, "boolean", 16, "bool"))

# Types whose values are equal only where their images are.
_ONE_IMAGE = frozenset(kind.name for kind in KINDS if kind.one_image)


@dataclass(frozen=True)
class Counts:
    """What became of the rows.

    Attributes:
        inserted: Rows that are new.
        updated: Rows whose values changed.
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
        version_column: Of two rows with the same key, the one with the greater value here is kept, or the
            later one if they are equal. None to always keep the later one.
        delete_missing: Whether to remove the table's rows whose key was not staged.
        slice: Limits what `delete_missing` may remove; None for no limit.
        of_changes: Whether the rows are changes, with the columns :data:`CHANGE_MARKS` beside `columns`.
    """

    table: Table
    stage: TableName
    columns: Sequence[str]
    keys: Sequence[str]
    version_column: str | None = None
    delete_missing: bool = False
    slice: sql.Composable | None = None
    of_changes: bool = False

    def run(self, connection: psycopg.Connection[Any], rows: int) -> Counts:
        """Merge.

        Args:
            connection: The connection whose transaction it becomes part of.
            rows: How many rows were staged.

        Raises:
            BadRowError: A row's key is NULL.
        """
        cursor = plain_cursor(connection)
        with settings(connection, {"work_mem": _WORK_MEM}):
            # The plan depends on the row count and the keys; statistics of all columns take twice as long.
            cursor.execute(sql.SQL("ANALYZE {} ({})").format(self.stage.sql(), _list("{}", self.keys)))
            self._refuse_null(cursor, rows)
            deleted = self._delete(cursor) if self.delete_missing else 0
            deleted += self._delete_gone(cursor) if self.of_changes else 0
            inserted, updated = self._change(cursor)
            return Counts(inserted, updated, deleted)

    def _refuse_null(self, cursor: psycopg.Cursor[Any], rows: int) -> None:
        query = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(
            self.stage.sql(), _list("{} IS NULL", self.keys, " OR ")
        )
        if without := _one(cursor, query):
            raise BadRowError(
                f"{without} of {rows} rows have NULL in a key ({', '.join(self.keys)}).",
                column=self.keys[0] if len(self.keys) == 1 else None,
                kind="NULL",
                remedy="Give each row a key, or merge on other keys.",
            )

    def _delete(self, cursor: psycopg.Cursor[Any]) -> int:
        limit = sql.SQL("") if self.slice is None else sql.SQL(" AND ({})").format(self.slice)
        query = sql.SQL("DELETE FROM {} AS t WHERE NOT EXISTS (SELECT FROM {} AS s WHERE {}){}").format(
            self.table.name.sql(), self.stage.sql(), _list("t.{0} = s.{0}", self.keys, " AND "), limit
        )
        return cursor.execute(query).rowcount

    def _delete_gone(self, cursor: psycopg.Cursor[Any]) -> int:
        query = sql.SQL("DELETE FROM {} AS t USING {} AS s WHERE s.{} AND {}").format(
            self.table.name.sql(),
            self._newest([*self.keys, GONE]),
            sql.Identifier(GONE),
            _list("t.{0} = s.{0}", self.keys, " AND "),
        )
        return cursor.execute(query).rowcount

    def _change(self, cursor: psycopg.Cursor[Any]) -> tuple[int, int]:
        oid = {"oid": self.table.oid}
        unique = _one(cursor, _UNIQUE, (self.table.oid, len(self.keys), list(self.keys)))
        if not unique:
            logger.info(
                "%s has no unique index on (%s): locking it against other writers while rows are merged.",
                self.table.name,
                ", ".join(self.keys),
            )
            cursor.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(self.table.name.sql()))
        before = _one(cursor, _INSERTED, oid)
        try:
            with cursor.connection.transaction():
                total = cursor.execute(self._merge()).rowcount
        except psycopg.errors.UniqueViolation:
            if not unique:
                raise
            logger.info(
                "Another session inserted the same keys into %s: using ON CONFLICT.",
                self.table.name,
            )
            before = _one(cursor, _INSERTED, oid)
            total = cursor.execute(self._upsert()).rowcount
        inserted = min(int(_one(cursor, _INSERTED, oid) - before), total)
        return inserted, total - inserted

    def _rows(self) -> sql.Composed:
        """The effective row of each key that is there, in key order."""
        if not self.of_changes:
            return self._newest(self.columns)
        return sql.SQL("(SELECT {} FROM {} AS newest WHERE NOT {})").format(
            _list("{}", self.columns), self._newest([*self.columns, GONE]), sql.Identifier(GONE)
        )

    def _newest(self, columns: Sequence[str]) -> sql.Composed:
        """The newest row of each key, in key order."""
        keys = _list("{}", self.keys)
        version: sql.Composable = sql.SQL("")
        if self.of_changes:
            version = sql.SQL("{} DESC, {}, ").format(sql.Identifier(CHANGE_VERSION), sql.Identifier(GONE))
        elif self.version_column is not None:
            version = sql.SQL("{} DESC NULLS LAST, ").format(sql.Identifier(self.version_column))
        # The stage was created in this transaction, so COPY has only appended to it: ctid is the order.
        return sql.SQL(
            "(SELECT DISTINCT ON ({keys}) {columns} FROM {stage} ORDER BY {keys}, {version}ctid DESC)"
        ).format(keys=keys, columns=_list("{}", columns), stage=self.stage.sql(), version=version)

    def _merge(self) -> sql.Composed:
        update = self._update("s")
        matched = sql.SQL("WHEN MATCHED AND {} THEN UPDATE SET {}").format(*update) if update else sql.SQL("")
        return sql.SQL(
            "MERGE INTO {table} AS t USING {rows} AS s ON {on} {matched}"
            " WHEN NOT MATCHED THEN INSERT ({columns}) OVERRIDING SYSTEM VALUE VALUES ({values})"
        ).format(
            table=self.table.name.sql(),
            rows=self._rows(),
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
            "INSERT INTO {table} AS t ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {rows} AS s"
            " ON CONFLICT ({keys}) DO {action}"
        ).format(
            table=self.table.name.sql(),
            columns=_list("{}", self.columns),
            rows=self._rows(),
            keys=_list("{}", self.keys),
            action=action,
        )

    def _update(self, new: str) -> tuple[sql.Composable, sql.Composable] | None:
        """When and how a row of the table is updated; None if only the key is loaded."""
        changed = [
            name
            for name in self.columns
            if name not in self.keys and _column(self.table, name).identity != "always"
        ]
        if not changed:
            return None
        # Images, not values: 1.0 and 1.00 differ, and types without equality, such as json, have one too. If
        # a type has only one image of a value, its values are compared first, which is far cheaper.
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


def _one(cursor: psycopg.Cursor[Any], query: Any, parameters: Any = None) -> Any:
    """The only value of a query that returns one row."""
    row = cursor.execute(query, parameters).fetchone()
    assert row is not None
    return row[0]
