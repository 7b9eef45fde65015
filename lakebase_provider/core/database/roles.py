"""Postgres roles for a workspace's principals, set up in SQL as in the Lakebase documentation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal, get_args

import psycopg
from psycopg import sql

from lakebase_provider.core.errors import ConfigError

logger = logging.getLogger(__name__)

IdentityType = Literal["USER", "SERVICE_PRINCIPAL", "GROUP"]
TablePrivilege = Literal["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"]

#: What the documentation grants to an application.
APPLICATION_PRIVILEGES: tuple[TablePrivilege, ...] = ("SELECT", "INSERT", "UPDATE", "DELETE")


def create_role(
    connection: psycopg.Connection[Any],
    name: str,
    identity_type: IdentityType = "SERVICE_PRINCIPAL",
    *,
    grants: Sequence[TablePrivilege] = APPLICATION_PRIVILEGES,
    schema: str = "public",
) -> bool:
    """Let a principal log in, and grant it privileges on a schema's tables, present and future.

    May be repeated: existing roles and grants stay. The caller commits.

    Args:
        connection: Connected as a role that may create roles, such as the project's owner.
        name: The service principal's client id, the user's e-mail address or the group's name;
            case-sensitive.
        identity_type: What `name` is.
        grants: Privileges on tables; none for a role that may only connect.
        schema: The schema whose tables it may use.

    Returns:
        True if the role was created, False if it existed.

    Raises:
        ConfigError: `identity_type` or a privilege is unknown.
        psycopg.Error: The caller's role may not do it.
    """
    if identity_type not in get_args(IdentityType):
        raise ConfigError(
            f"Identity type {identity_type!r} is unknown.", remedy=f"Use {', '.join(get_args(IdentityType))}."
        )
    for privilege in grants:
        if privilege not in get_args(TablePrivilege):
            raise ConfigError(
                f"Privilege {privilege!r} is unknown.", remedy=f"Use {', '.join(get_args(TablePrivilege))}."
            )
    connection.execute("CREATE EXTENSION IF NOT EXISTS databricks_auth")
    known = connection.execute("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = %s", [name]).fetchone()
    if known is None:
        connection.execute("SELECT databricks_create_role(%s, %s)", [name, identity_type])
        logger.info("Created the role %s (%s)", name, identity_type)
    _grant(connection, name, grants, schema)
    return known is None


def _grant(
    connection: psycopg.Connection[Any], name: str, grants: Sequence[TablePrivilege], schema: str
) -> None:
    names = {
        "role": sql.Identifier(name),
        "schema": sql.Identifier(schema),
        "database": sql.Identifier(connection.info.dbname),
        # Of a closed set, checked above.
        "privileges": sql.SQL(", ").join(sql.SQL(privilege) for privilege in grants),
    }
    statements = [
        "GRANT CONNECT ON DATABASE {database} TO {role}",
        "GRANT USAGE ON SCHEMA {schema} TO {role}",
    ]
    if grants:
        statements += [
            "GRANT {privileges} ON ALL TABLES IN SCHEMA {schema} TO {role}",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT {privileges} ON TABLES TO {role}",
        ]
    for statement in statements:
        connection.execute(sql.SQL(statement).format(**names))
