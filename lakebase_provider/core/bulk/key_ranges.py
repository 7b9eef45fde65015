"""Parts of a staged relation whose rows came in the order of their key.

Merged part by part, each with a range of keys, staged rows meet no more of the table than what lies between
their keys: by the index and in its order, by a hash that fits into the processor's cache, in the partitions
of that range. A single join of all rows reads the whole table, and beyond some million rows spills to disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from lakebase_provider.core.bulk.table import Column, TableName

#: Rows of a part: few enough for the cache, so many that a round trip for each costs nothing.
ROWS = 125_000

# Types whose least value Postgres knows, by the order of their index.
_ORDERED = frozenset(
    {"int2", "int4", "int8", "numeric", "text", "varchar", "date", "timestamp", "timestamptz"}
)

# Bounds travel as text, which the server reads back as the key's type: Python has no date that is infinite.
_RANGES = """
SELECT page, page + step, lo::text, hi::text,
    unique_rows = rows AND coalesce(pg_catalog.lag(hi) OVER (ORDER BY lo) < lo, true)
FROM (
    SELECT pg_catalog.pg_relation_size({name}::regclass)
        / pg_catalog.current_setting('block_size')::int AS pages
) AS size
CROSS JOIN LATERAL (SELECT greatest(1, pages * {part} / {rows}) AS step) AS steps
CROSS JOIN LATERAL pg_catalog.generate_series(0, pages, step) AS page
CROSS JOIN LATERAL (
    SELECT pg_catalog.min({key}) AS lo, pg_catalog.max({key}) AS hi,
        pg_catalog.count(*) AS rows, pg_catalog.count(DISTINCT {key}) AS unique_rows
    FROM {stage}
    WHERE ctid >= ('(' || page || ',0)')::tid AND ctid < ('(' || page + {pages} || ',0)')::tid
) AS part
WHERE rows > 0
ORDER BY page
"""


@dataclass(frozen=True)
class KeyRange:
    """Some pages of a staged relation, and between which keys their rows lie.

    Attributes:
        first: Number of the first page.
        past: Number of the page after the last one.
        lowest: The least key, as text.
        highest: The greatest key, as text.
    """

    first: int
    past: int
    lowest: str
    highest: str

    def rows(self, stage: TableName) -> sql.Composed:
        """The rows, as what FROM takes."""
        return sql.SQL("(SELECT * FROM {} WHERE ctid >= {}::tid AND ctid < {}::tid)").format(
            stage.sql(), sql.Literal(f"({self.first},0)"), sql.Literal(f"({self.past},0)")
        )

    def holds(self, key: sql.Composable) -> sql.Composed:
        """The condition that a key lies in the range."""
        return sql.SQL("{} BETWEEN {} AND {}").format(
            key, sql.Literal(self.lowest), sql.Literal(self.highest)
        )


def may_have_ranges(key: Column, rows: int) -> bool:
    """Whether so many rows, which a key of that type identifies, are worth a look for their order."""
    return rows >= 2 * ROWS and key.base_name in _ORDERED


def key_ranges(cursor: psycopg.Cursor[Any], stage: TableName, key: Column, rows: int) -> list[KeyRange]:
    """The parts, if each row has a key of its own and no two parts share a range of keys; else nothing.

    Args:
        cursor: A cursor of the session that staged the rows.
        stage: A temporary table.
        key: The column that identifies a row.
        rows: How many rows were staged.
    """
    parts: list[Any] = []
    # The first page of each part tells whether its others are worth a look.
    for pages in ("1", "step"):
        query = sql.SQL(_RANGES).format(
            name=sql.Literal(stage.sql().as_string(cursor)),
            part=sql.Literal(ROWS),
            rows=sql.Literal(rows),
            key=key.sql(),
            stage=stage.sql(),
            pages=sql.SQL(pages),
        )
        parts = cursor.execute(query).fetchall()
        if not all(apart for *_, apart in parts):
            return []
    return [KeyRange(*part) for *part, _ in parts]
