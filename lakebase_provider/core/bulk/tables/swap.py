"""A new table in place of an old one, with everything that belonged to the old one."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.catalog import Table, TableName, read_table

logger = logging.getLogger(__name__)

# What CREATE TABLE .. LIKE leaves out, or what would be dropped with the old table or keep it.
_OBSTACLES = """
SELECT reason FROM pg_catalog.pg_class c JOIN pg_catalog.pg_am m ON m.oid = c.relam,
LATERAL (VALUES
    (c.relkind <> 'r' OR c.relispartition OR c.reloftype <> 0, 'it is not an ordinary table'),
    (c.relpersistence <> 'p' OR m.amname <> 'heap' OR c.reltablespace <> 0, 'of how it is stored'),
    (NOT pg_catalog.pg_has_role(c.relowner, 'USAGE'), 'the role does not own it'),
    (NOT pg_catalog.has_schema_privilege(c.relnamespace, 'CREATE'), 'the role may not create in its schema'),
    (EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE c.oid IN (inhrelid, inhparent)), 'of inheritance'),
    (EXISTS (SELECT FROM pg_catalog.pg_constraint
             WHERE contype = 'f' AND c.oid IN (conrelid, confrelid)), 'of foreign keys'),
    (EXISTS (SELECT FROM pg_catalog.pg_constraint
             WHERE conrelid = c.oid AND NOT convalidated), 'a constraint is not validated'),
    (EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal), 'of triggers'),
    (c.relrowsecurity OR EXISTS (SELECT FROM pg_catalog.pg_policy WHERE polrelid = c.oid), 'of row security'),
    (c.relhasrules, 'of rules'),
    (EXISTS (SELECT FROM pg_catalog.pg_publication_rel WHERE prrelid = c.oid), 'it is published'),
    (c.relreplident <> 'd' OR EXISTS (SELECT FROM pg_catalog.pg_index
             WHERE indrelid = c.oid AND (indisclustered OR indisreplident OR NOT indisvalid)),
        'of how its indexes are used'),
    (EXISTS (SELECT FROM pg_catalog.pg_statistic_ext WHERE stxrelid = c.oid)
        OR EXISTS (SELECT FROM pg_catalog.pg_attribute
                   WHERE attrelid = c.oid AND attnum > 0
                       AND (coalesce(attstattarget, -1) >= 0 OR attoptions IS NOT NULL)),
        'of statistics settings'),
    (EXISTS (SELECT FROM pg_catalog.pg_class o WHERE o.oid = c.reltoastrelid AND o.reloptions IS NOT NULL),
        'of settings of its TOAST table'),
    (EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class s ON s.oid = d.objid
             WHERE d.refobjid = c.oid AND d.classid = 'pg_catalog.pg_class'::regclass AND s.relkind = 'S'),
        'a sequence belongs to it'),
    (EXISTS (SELECT FROM pg_catalog.pg_depend d
             WHERE d.refobjid IN (c.oid, c.reltype) AND d.deptype = 'n'
                 AND NOT (d.classid = 'pg_catalog.pg_constraint'::regclass
                          AND d.objid IN (SELECT oid FROM pg_catalog.pg_constraint WHERE conrelid = c.oid))
                 AND NOT (d.classid = 'pg_catalog.pg_attrdef'::regclass
                          AND d.objid IN (SELECT oid FROM pg_catalog.pg_attrdef WHERE adrelid = c.oid))),
        'a view or another object depends on it')
) AS o(found, reason) WHERE c.oid = %s AND found
"""

_BELONGINGS = """
SELECT pg_catalog.pg_get_userbyid(relowner), pg_catalog.obj_description(oid, 'pg_class'), reloptions
FROM pg_catalog.pg_class WHERE oid = %s
"""

_GRANTS = """
SELECT NULL, acl.privilege_type, r.rolname, acl.is_grantable
FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) AS acl
LEFT JOIN pg_catalog.pg_roles r ON r.oid = acl.grantee WHERE c.oid = %(oid)s
UNION ALL
SELECT a.attname, acl.privilege_type, r.rolname, acl.is_grantable
FROM pg_catalog.pg_attribute a, pg_catalog.aclexplode(a.attacl) AS acl
LEFT JOIN pg_catalog.pg_roles r ON r.oid = acl.grantee WHERE a.attrelid = %(oid)s AND NOT a.attisdropped
"""

_INDEXES = """
SELECT c.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = %s
ORDER BY i.indisprimary, i.indisunique, i.indisexclusion,
    pg_catalog.substring(pg_catalog.pg_get_indexdef(i.indexrelid), ' USING .*$'), c.relname
"""


@dataclass(frozen=True)
class NewTable:
    """The table that is filled to replace the old one.

    Attributes:
        name: Its current name.
    """

    name: TableName
    _old: Table
    _connection: psycopg.Connection[Any]

    def replaced_rows(self) -> int:
        """How many rows the old table has."""
        query = sql.SQL("SELECT count(*) FROM {}").format(self._old.name.sql())
        return int((plain_cursor(self._connection).execute(query).fetchone() or (0,))[0])


@contextmanager
def swap_in(connection: psycopg.Connection[Any], table: Table) -> Iterator[NewTable | None]:
    """Replace the current table by the one that the block fills.

    Columns, defaults, constraints, indexes, comments, owner, grants and storage settings stay. Other sessions
    read the old table until the transaction commits; they cannot write to it from now on.

    Args:
        connection: The connection whose transaction it becomes part of.
        table: The table that is replaced.

    Yields:
        The table to fill; None if the current one has something that a new one cannot keep, which is logged.
    """
    cursor = plain_cursor(connection)
    if _has_obstacles(cursor, table):
        yield None
        return
    # What another session wrote to the old table from now on would be lost.
    cursor.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(table.name.sql()))
    # The previous lock holder may have put another table in its place.
    table = read_table(connection, table.name)
    if _has_obstacles(cursor, table):
        yield None
        return
    name = TableName(f"lakebase_load_{secrets.token_hex(6)}", table.name.schema)
    cursor.execute(sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(name.sql(), table.name.sql()))
    yield NewTable(name, table, connection)
    cursor.execute(sql.SQL("ANALYZE {}").format(name.sql()))
    oid = read_table(connection, name).oid
    _hand_over(cursor, table, name, oid)
    indexes = [[row[0] for row in cursor.execute(_INDEXES, (which,))] for which in (table.oid, oid)]
    cursor.execute(sql.SQL("DROP TABLE {}").format(table.name.sql()))
    cursor.execute(
        sql.SQL("ALTER TABLE {} RENAME TO {}").format(name.sql(), sql.Identifier(table.name.table))
    )
    for old, new in zip(*indexes, strict=True):
        if old != new:
            at = sql.Identifier(table.name.schema or "public", new)
            cursor.execute(sql.SQL("ALTER INDEX {} RENAME TO {}").format(at, sql.Identifier(old)))


def _has_obstacles(cursor: psycopg.Cursor[Any], table: Table) -> bool:
    found = [row[0] for row in cursor.execute(_OBSTACLES, (table.oid,))]
    if found:
        logger.info(
            "Not swapping %s for a new table (%s): deleting and inserting its rows.",
            table.name,
            "; ".join(found),
        )
    return bool(found)


def _hand_over(cursor: psycopg.Cursor[Any], table: Table, new: TableName, oid: int) -> None:
    """Give the new table the old one's comment, settings, grants and owner."""
    owner, comment, options = cursor.execute(_BELONGINGS, (table.oid,)).fetchone() or ("", None, None)
    if comment is not None:
        cursor.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(new.sql(), sql.Literal(comment)))
    for option in options or ():
        key, _, value = option.partition("=")
        cursor.execute(
            sql.SQL("ALTER TABLE {} SET ({} = {})").format(new.sql(), sql.Identifier(key), sql.Literal(value))
        )
    grants = cursor.execute(_GRANTS, {"oid": table.oid}).fetchall()
    # A schema may have default privileges that the old table did not have.
    for grantee in {row[2] for row in cursor.execute(_GRANTS, {"oid": oid}).fetchall()}:
        cursor.execute(sql.SQL("REVOKE ALL ON {} FROM {}").format(new.sql(), _role(grantee)))
    if not any(column is None for column, *_ in grants):
        cursor.execute(sql.SQL("GRANT ALL ON {} TO {}").format(new.sql(), _role(owner)))
    for column, privilege, grantee, grantable in grants:
        cursor.execute(
            sql.SQL("GRANT {privilege}{column} ON {table} TO {role}{option}").format(
                privilege=sql.SQL(privilege),
                column=sql.SQL("") if column is None else sql.SQL(" ({})").format(sql.Identifier(column)),
                table=new.sql(),
                role=_role(grantee),
                option=sql.SQL(" WITH GRANT OPTION" if grantable else ""),
            )
        )
    cursor.execute(sql.SQL("ALTER TABLE {} OWNER TO {}").format(new.sql(), sql.Identifier(owner)))


def _role(name: str | None) -> sql.Composable:
    return sql.SQL("PUBLIC") if name is None else sql.Identifier(name)
