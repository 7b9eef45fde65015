"""The sequences that fill columns of a table: moved on past the values that rows have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from psycopg import sql

from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.connect.cursor import PlainCursor, plain_cursor
from lakebase_provider.core.database.catalog import Table

# Those of identity columns and serials belong to the column; a default may name any other.
_SEQUENCES = """
SELECT DISTINCT a.attname, n.nspname, c.relname, s.seqincrement, s.seqcache
FROM pg_catalog.pg_attribute a
LEFT JOIN pg_catalog.pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
JOIN pg_catalog.pg_depend d
    ON d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
        AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum AND d.deptype IN ('a', 'i')
    OR d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = f.oid
        AND d.refclassid = 'pg_catalog.pg_class'::regclass
JOIN pg_catalog.pg_class c ON c.relkind = 'S'
    AND c.oid = CASE WHEN d.classid = 'pg_catalog.pg_class'::regclass THEN d.objid ELSE d.refobjid END
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
    AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
ORDER BY 1, 2, 3
"""


@dataclass(frozen=True)
class MovedSequence:
    """A sequence that would have given values that rows have.

    Attributes:
        name: Its name, with its schema.
        before: The value that it would have given next.
        after: The value that it gives next.
    """

    name: str
    before: int
    after: int


def move_on(
    connection: LakebaseConnection,
    table: Table,
    columns: tuple[str, ...],
    furthest: Callable[[str, str], sql.Composed],
    *,
    dry_run: bool,
) -> tuple[MovedSequence, ...]:
    """Have sequences give no value that rows have, in the connection's transaction.

    Args:
        connection: The session, in a transaction.
        table: The table.
        columns: The columns that are looked at.
        furthest: The query of a column's last value, of the column and ``"max"`` or ``"min"``.
        dry_run: True to change nothing, and say what would be.
    """
    cursor, moved = plain_cursor(connection), []
    for column, schema, name, step, cache in cursor.execute(_SEQUENCES, (table.oid,)).fetchall():
        if column not in columns:
            continue
        row = cursor.execute(furthest(column, "max" if step > 0 else "min")).fetchone()
        if row is None or row[0] is None:
            continue
        wanted = row[0] + step
        sequence = sql.Identifier(schema, name)
        is_behind, at = _stands(cursor, sequence, step, row[0])
        if is_behind and not dry_run:
            # It changes nothing, but waits for who has taken values, and keeps others from it until the end.
            cursor.execute(sql.SQL("ALTER SEQUENCE {} CACHE {}").format(sequence, sql.Literal(cache)))
            is_behind, at = _stands(cursor, sequence, step, row[0])
            if is_behind:
                cursor.execute(
                    sql.SQL("ALTER SEQUENCE {} RESTART WITH {}").format(sequence, sql.Literal(wanted))
                )
        if is_behind:
            moved.append(MovedSequence(f"{schema}.{name}", at, wanted))
    return tuple(moved)


def _stands(cursor: PlainCursor, sequence: sql.Identifier, step: int, furthest: int) -> tuple[bool, int]:
    """Whether a sequence will come to a value that rows have, and the value that it gives next."""
    row = cursor.execute(sql.SQL("SELECT last_value, is_called FROM {}").format(sequence)).fetchone()
    assert row is not None
    following = row[0] + step if row[1] else row[0]
    return (following <= furthest if step > 0 else following >= furthest), following
