"""What Postgres' catalog knows of tables, asked in one query for all of them; imported without the driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql

#: Larger tables are not counted unasked: it would cost more than the load. Bytes decide where a table was
#: never analyzed, and has no estimate.
COUNTED_ROWS = 1_000_000
COUNTED_BYTES = 128 * 1024**2

# A partitioned table holds nothing itself: what its leaves hold is added up. The tree of a table that is
# not partitioned is empty, hence the union. A leaf that was never analyzed has -1 rows, and so no estimate.
_QUERY = """
    SELECT wanted.schema, wanted.name, c.oid IS NOT NULL,
        (SELECT json_agg(json_build_array(a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
                a.attnotnull, pg_catalog.col_description(a.attrelid, a.attnum),
                EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = a.attrelid AND i.indisunique
                    AND i.indisvalid AND i.indpred IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum)
            ) ORDER BY a.attnum)
            FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
        leaves.rows, leaves.bytes, leaves.inserted, leaves.updated, leaves.deleted,
        leaves.last_analyze, leaves.last_vacuum,
        -- A replica has statistics of its own, which count nothing that it replays.
        CASE WHEN leaves.counters IS NOT NULL AND NOT pg_catalog.pg_is_in_recovery() THEN
            -- The first is set by a crash, the second by pg_stat_reset, the third by whatever kept statistics
            -- of an earlier time.
            pg_catalog.concat_ws(' ',
                (SELECT extract(epoch FROM stats_reset) FROM pg_catalog.pg_stat_archiver),
                (SELECT extract(epoch FROM stats_reset) FROM pg_catalog.pg_stat_database
                    WHERE datname = pg_catalog.current_database()),
                extract(epoch FROM pg_catalog.pg_postmaster_start_time())) END,
        leaves.counters, leaves.files, c.relkind IN ('r', 'p', 'm') AND leaves.kept_here
    FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS wanted (schema, name, position)
    LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema
    LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name
        AND c.relkind IN ('r', 'p', 'm', 'v', 'f')
    LEFT JOIN LATERAL (
        SELECT CASE WHEN min(leaf.reltuples) >= 0 THEN sum(leaf.reltuples)::bigint END AS rows,
            sum(pg_catalog.pg_total_relation_size(leaf.oid))::bigint AS bytes,
            sum(s.inserted)::bigint AS inserted, sum(s.updated)::bigint AS updated,
            sum(s.deleted)::bigint AS deleted,
            max(greatest(pg_catalog.pg_stat_get_last_analyze_time(leaf.oid),
                pg_catalog.pg_stat_get_last_autoanalyze_time(leaf.oid))) AS last_analyze,
            max(greatest(pg_catalog.pg_stat_get_last_vacuum_time(leaf.oid),
                pg_catalog.pg_stat_get_last_autovacuum_time(leaf.oid))) AS last_vacuum,
            -- TRUNCATE counts no rows, but gives a table new files.
            pg_catalog.md5(pg_catalog.string_agg(
                pg_catalog.concat_ws(',', leaf.oid, leaf.relfilenode), ';' ORDER BY leaf.oid)) AS files,
            CASE WHEN bool_and(leaf.relkind <> 'f') THEN pg_catalog.md5(pg_catalog.string_agg(
                pg_catalog.concat_ws(',', leaf.oid, s.inserted, s.updated, s.deleted), ';' ORDER BY leaf.oid))
            END AS counters,
            coalesce(bool_and(leaf.relkind <> 'f'), true) AS kept_here
        FROM (SELECT c.oid AS oid UNION SELECT relid FROM pg_catalog.pg_partition_tree(c.oid)) AS tree
        JOIN pg_catalog.pg_class leaf ON leaf.oid = tree.oid AND leaf.relkind IN ('r', 'm', 'f')
        -- Not from pg_stat_user_tables, which knows nothing of the catalog's own tables. Nothing counts what
        -- is written behind a foreign table.
        LEFT JOIN LATERAL (
            SELECT pg_catalog.pg_stat_get_tuples_inserted(leaf.oid) AS inserted,
                pg_catalog.pg_stat_get_tuples_updated(leaf.oid) AS updated,
                pg_catalog.pg_stat_get_tuples_deleted(leaf.oid) AS deleted
        ) AS s ON leaf.relkind <> 'f'
    ) AS leaves ON true
    ORDER BY wanted.position
"""


class TableRef(NamedTuple):
    """Where a table is, as the catalog spells it.

    Not a TableName, which would cost each code location of Dagster the driver.
    """

    schema: str
    name: str

    def __str__(self) -> str:
        return ".".join(
            part if part.isidentifier() and part == part.lower() else '"' + part.replace('"', '""') + '"'
            for part in self
        )


class ColumnFacts(NamedTuple):
    """What the catalog knows of one column, in the query's order."""

    name: str
    type_name: str
    not_null: bool
    comment: str | None
    unique: bool


@dataclass(frozen=True)
class TableFacts:
    """What the catalog knows of one table; with partitions, of all of them together.

    Attributes:
        columns: The columns in their order.
        estimated_rows: Rows as of the last VACUUM or ANALYZE; None if there was none.
        size_bytes: Bytes on disk, with indexes and TOAST; None for what stores nothing, such as a view.
        rows_inserted: Since the statistics were last reset; None for what has no statistics, such as a view.
        rows_updated: As `rows_inserted`.
        rows_deleted: As `rows_inserted`.
        last_analyze: When, by hand or automatically.
        last_vacuum: When, by hand or automatically.
        statistics: Since when the server has counted what is written: another text after each loss of its
            statistics. None for what it does not count: on a replica, views and foreign tables.
        counters: A text that is another one after each insert, update or delete that the statistics know.
        files: A text that is another one after TRUNCATE, or for another table of the same name.
        has_row_versions: Whether its rows can tell which transaction wrote them.
    """

    columns: Sequence[ColumnFacts]
    estimated_rows: int | None
    size_bytes: int | None
    rows_inserted: int | None
    rows_updated: int | None
    rows_deleted: int | None
    last_analyze: datetime | None
    last_vacuum: datetime | None
    statistics: str | None
    counters: str | None
    files: str | None
    has_row_versions: bool

    def is_soon_counted(self) -> bool:
        """Whether counting the rows costs little: by the estimate or, without one, by the size."""
        if self.estimated_rows is not None:
            return self.estimated_rows < COUNTED_ROWS
        return (self.size_bytes or 0) < COUNTED_BYTES


def fetch_table_facts(
    connection: psycopg.Connection[Any], tables: Sequence[TableRef]
) -> dict[TableRef, TableFacts]:
    """What the catalog knows of the tables, by table; those that do not exist are left out.

    Raises:
        psycopg.Error: The connection is broken.
    """
    schemas, names = [table.schema for table in tables], [table.name for table in tables]
    rows = connection.execute(_QUERY, [schemas, names]).fetchall()
    return {
        TableRef(schema, name): TableFacts([ColumnFacts(*column) for column in columns or ()], *facts)
        for schema, name, exists, columns, *facts in rows
        if exists
    }


def count_rows(
    connection: psycopg.Connection[Any], tables: Sequence[TableRef], where: sql.Composable | None = None
) -> dict[TableRef, int]:
    """The exact rows of each table, by reading them all in one query.

    Args:
        connection: Reads only.
        tables: The tables.
        where: The rows that are counted; None for all.

    Raises:
        psycopg.Error: A table does not exist, or the role may not read it.
    """
    from psycopg import sql

    if not tables:
        return {}
    condition = sql.SQL("true") if where is None else where
    each = [
        sql.SQL("(SELECT count(*) FROM {} WHERE {})").format(sql.Identifier(*table), condition)
        for table in tables
    ]
    row = connection.execute(sql.SQL("SELECT {}").format(sql.SQL(", ").join(each))).fetchone()
    return dict(zip(tables, row or (), strict=True))


class RowsRead(NamedTuple):
    """What reading all rows of a table tells."""

    total: int
    #: Another text after each write; None where rows do not tell who wrote them.
    version: str | None


def read_rows(
    connection: psycopg.Connection[Any], tables: Mapping[TableRef, TableFacts]
) -> dict[TableRef, RowsRead]:
    """The exact rows of each table with a text that is another one after each write, in one query for all.

    Raises:
        psycopg.Error: A table does not exist any more, or the role may not read it.
    """
    from psycopg import sql

    if not tables:
        return {}
    # Every write gives a row another xmin, or takes a row away; VACUUM leaves both as they are.
    of_versions = sql.SQL("count(*), sum(pg_catalog.hashint8(xmin::text::bigint)::bigint)::text")
    of_others = sql.SQL("count(*), NULL::text")
    each = [
        sql.SQL("(SELECT row_to_json(t) FROM (SELECT {} FROM {}) AS t (n, x))").format(
            of_versions if facts.has_row_versions else of_others, sql.Identifier(*table)
        )
        for table, facts in tables.items()
    ]
    row = connection.execute(sql.SQL("SELECT {}").format(sql.SQL(", ").join(each))).fetchone()
    return {
        table: RowsRead(found["n"], f"{found['n']} {found['x']}" if facts.has_row_versions else None)
        for (table, facts), found in zip(tables.items(), row or (), strict=True)
    }
