"""What depends on a table and does not come with another one in its place: indexes and grants."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from lakebase_provider.core.database.catalog import TableName

_OWNER = """
SELECT pg_catalog.pg_get_userbyid(relowner) FROM pg_catalog.pg_class
WHERE oid = pg_catalog.to_regclass(%s) AND relkind = 'r'
"""
#: But those of constraints, which the synced table's key makes.
_INDEXES = """
SELECT i.indisunique, pg_catalog.pg_get_indexdef(i.indexrelid) FROM pg_catalog.pg_index i
WHERE i.indrelid = pg_catalog.to_regclass(%s)
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint c WHERE c.conindid = i.indexrelid)
ORDER BY 2
"""
_GRANTS = """
SELECT CASE WHEN a.grantee = 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(a.grantee) END, a.privilege_type,
    a.is_grantable
FROM pg_catalog.pg_class c, LATERAL pg_catalog.aclexplode(c.relacl) a
WHERE c.oid = pg_catalog.to_regclass(%s) AND a.grantee <> c.relowner
ORDER BY 1, 2
"""
_SUPERUSER = "databricks_superuser"
_MAY_BE_SUPERUSER = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_roles
    WHERE rolname = %s AND pg_catalog.pg_has_role(current_user, oid, 'MEMBER'))
"""
#: How the roles begin that own synced tables.
WRITER = "databricks_writer_"

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class TableGrant:
    """A privilege on a table.

    Attributes:
        role: Whose it is; None for everybody's.
        privilege: Such as ``"SELECT"``.
        is_grantable: Whether the role may pass it on.
    """

    role: str | None
    privilege: str
    is_grantable: bool


def owner_of(connection: Connection, table: TableName) -> str | None:
    """The role that owns a table; None if there is none."""
    found = connection.execute(_OWNER, [_quoted(connection, table)]).fetchone()
    return None if found is None else str(found[0])


def grants_on(connection: Connection, table: TableName) -> tuple[TableGrant, ...]:
    """The privileges that others than its owner have on a table."""
    rows = connection.execute(_GRANTS, [_quoted(connection, table)]).fetchall()
    return tuple(TableGrant(*row) for row in rows)


def put_indexes(connection: Connection, former: TableName, table: TableName) -> int:
    """Give a table the indexes that another one has, and it has not; their number. The caller commits."""

    def kinds(of: TableName) -> dict[str, bool]:
        rows = connection.execute(_INDEXES, [_quoted(connection, of)]).fetchall()
        # Without its name and its table's.
        return {str(definition).split(" USING ", 1)[1]: unique for unique, definition in rows}

    there = kinds(table)
    missing = {what: unique for what, unique in kinds(former).items() if what not in there}
    for what, unique in missing.items():
        statement = sql.SQL("CREATE {unique}INDEX ON {table} USING {what}").format(
            unique=sql.SQL("UNIQUE " if unique else ""),
            table=_identifier(table),
            # Postgres' own words.
            what=sql.SQL(what),
        )
        connection.execute(statement)
    return len(missing)


def put_grants(
    connection: Connection, grants: tuple[TableGrant, ...], table: TableName
) -> tuple[TableGrant, ...]:
    """Grant privileges on a table, and return those that it did not get. The caller commits.

    A role that is not the owner grants nothing, and Lakebase does not say so: it is read afterwards.
    """
    _grant(connection, grants, table)
    lost = _missing(connection, grants, table)
    ((may_be_superuser,),) = connection.execute(_MAY_BE_SUPERUSER, [_SUPERUSER]).fetchall()
    if lost and may_be_superuser:
        with contextlib.suppress(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(_SUPERUSER)))
            _grant(connection, lost, table)
            connection.execute("RESET ROLE")
        lost = _missing(connection, grants, table)
    return lost


def _grant(connection: Connection, grants: tuple[TableGrant, ...], table: TableName) -> None:
    for one in grants:
        statement = sql.SQL("GRANT {privilege} ON {table} TO {role}{more}").format(
            # Postgres' own words.
            privilege=sql.SQL(one.privilege),
            table=_identifier(table),
            role=sql.SQL("PUBLIC") if one.role is None else sql.Identifier(one.role),
            more=sql.SQL(" WITH GRANT OPTION" if one.is_grantable else ""),
        )
        with contextlib.suppress(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute(statement)


def _missing(
    connection: Connection, grants: tuple[TableGrant, ...], table: TableName
) -> tuple[TableGrant, ...]:
    there = grants_on(connection, table)
    return tuple(one for one in grants if one not in there)


def drop_table(connection: Connection, table: TableName) -> None:
    """Drop a table; what depends on it is in the way. The caller commits."""
    connection.execute(sql.SQL("DROP TABLE {}").format(_identifier(table)))


def show_through(connection: Connection, view: TableName, table: TableName) -> None:
    """Let a view show a table, and nothing else. The caller commits.

    Raises:
        psycopg.Error: The view shows other columns, or others depend on them.
    """
    statement = sql.SQL("CREATE OR REPLACE VIEW {} AS SELECT * FROM {}")
    connection.execute(statement.format(_identifier(view), _identifier(table)))


def _identifier(table: TableName) -> sql.Identifier:
    return sql.Identifier(*filter(None, (table.schema, table.table)))


def _quoted(connection: Connection, table: TableName) -> str:
    return _identifier(table).as_string(connection)
