"""What Lakebase has in SQL beyond Postgres: the extension `databricks_auth` and its function."""

from __future__ import annotations

from dataclasses import dataclass

from lakebase_provider.local.contract.options import DATABASE
from lakebase_provider.local.postgres.postgres import SUPERUSER, Postgres

IDENTITY_TYPES = ("USER", "SERVICE_PRINCIPAL", "GROUP")
#: The role whose members may nearly everything.
SUPERUSERS = "databricks_superuser"

#: A row in pg_extension is all that `CREATE EXTENSION IF NOT EXISTS` looks for; there is no control file.
#: The role's identity type is kept as its comment, where the list of roles finds it. `pg_database_owner`
#: has one member, the owner of the current database: in a copy of template1 too, nobody else may create
#: roles with the function.
_TEMPLATE = """
INSERT INTO pg_catalog.pg_extension
    (oid, extname, extowner, extnamespace, extrelocatable, extversion)
SELECT pg_catalog.pg_nextoid('pg_catalog.pg_extension', 'oid', 'pg_catalog.pg_extension_oid_index'),
       'databricks_auth', 10, 'public'::regnamespace, false, '1.0';

CREATE FUNCTION public.databricks_create_role(name text, type text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    IF type IS NULL OR type NOT IN ('USER', 'SERVICE_PRINCIPAL', 'GROUP') THEN
        RAISE invalid_parameter_value USING MESSAGE = format(
            'unsupported identity type "%s": use USER, SERVICE_PRINCIPAL or GROUP', type);
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
        RAISE duplicate_object USING MESSAGE = format('role "%s" already exists', name);
    END IF;
    EXECUTE format('CREATE ROLE %I LOGIN', name);
    EXECUTE format('COMMENT ON ROLE %I IS %L', name, type);
END
$body$;

REVOKE EXECUTE ON FUNCTION public.databricks_create_role(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.databricks_create_role(text, text) TO pg_database_owner;
"""


def install(postgres: Postgres, *, owner: str, developer: str) -> None:
    """Prepare a fresh cluster: the extension everywhere, the first two roles, and their database.

    Args:
        postgres: A started, empty cluster.
        owner: Role of the first service principal; owns the database.
        developer: Role of the first user; acts for the owner, so the documentation's set-up SQL runs as it.
    """
    postgres.execute(_TEMPLATE, database="template1")
    create_role(postgres, owner, "SERVICE_PRINCIPAL", database="template1")
    create_role(postgres, developer, "USER", database="template1")
    postgres.execute(
        f"ALTER ROLE {quote(owner)} CREATEDB CREATEROLE; GRANT {quote(owner)} TO {quote(developer)}"
    )
    postgres.execute(f"CREATE DATABASE {quote(DATABASE)} OWNER {quote(owner)}")


def create_role(
    postgres: Postgres, name: str, identity_type: str, *, database: str = DATABASE, login: bool = True
) -> None:
    """Create a role that logs in with tokens of the principal of the same name."""
    postgres.execute("SELECT public.databricks_create_role(%s, %s)", (name, identity_type), database=database)
    if not login:
        postgres.execute(f"ALTER ROLE {quote(name)} NOLOGIN")


def ensure_native_role(postgres: Postgres, name: str) -> None:
    """Create a role that no principal stands behind, unless a role of that name exists."""
    if not postgres.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)):
        postgres.execute(f"CREATE ROLE {quote(name)} LOGIN")


@dataclass(frozen=True)
class RoleRow:
    """A role of a cluster.

    Attributes:
        name: In Postgres.
        identity_type: None for a native role.
        login: Whether it may log in.
        attributes: Those that the control plane can change.
        superuser: Whether it is a member of `databricks_superuser`.
    """

    name: str
    identity_type: str | None
    login: bool
    attributes: dict[str, bool]
    superuser: bool


def list_roles(postgres: Postgres) -> list[RoleRow]:
    """Each role but Postgres' own and Lakebase's."""
    rows = postgres.execute(
        "SELECT rolname, shobj_description(oid, 'pg_authid'), rolcanlogin, rolcreatedb, rolcreaterole, "
        "rolbypassrls, EXISTS (SELECT FROM pg_auth_members JOIN pg_roles AS up ON up.oid = roleid "
        "WHERE member = pg_roles.oid AND up.rolname = %s) FROM pg_roles "
        "WHERE rolname !~ '^pg_' AND rolname NOT IN (%s, %s) ORDER BY rolname",
        (SUPERUSERS, SUPERUSER, SUPERUSERS),
    )
    return [
        RoleRow(
            name,
            note if note in IDENTITY_TYPES else None,
            login,
            {"createdb": createdb, "createrole": createrole, "bypassrls": bypassrls},
            superuser,
        )
        for name, note, login, createdb, createrole, bypassrls, superuser in rows
    ]


def create_native_role(postgres: Postgres, name: str, *, login: bool) -> None:
    """Create a role that no principal stands behind."""
    postgres.execute(f"CREATE ROLE {quote(name)} {'LOGIN' if login else 'NOLOGIN'}")


def change_role(postgres: Postgres, name: str, attributes: dict[str, bool], superuser: bool | None) -> None:
    """Give a role attributes and take them away.

    Args:
        postgres: Where.
        name: The role's.
        attributes: Those that change: createdb, createrole, bypassrls.
        superuser: Whether it shall be a member of `databricks_superuser`; None to leave that.
    """
    words = " ".join(key.upper() if value else f"NO{key.upper()}" for key, value in attributes.items())
    if words:
        postgres.execute(f"ALTER ROLE {quote(name)} {words}")
    if superuser is not None:
        if not postgres.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (SUPERUSERS,)):
            postgres.execute(f"CREATE ROLE {SUPERUSERS} NOLOGIN")
        verb, word = ("GRANT", "TO") if superuser else ("REVOKE", "FROM")
        postgres.execute(f"{verb} {SUPERUSERS} {word} {quote(name)}")


def drop_role(postgres: Postgres, name: str, heir: str | None) -> None:
    """Drop a role.

    Args:
        postgres: Where.
        name: The role's.
        heir: Role that gets what it owns; None where it owns nothing.
    """
    databases = [database for database, _ in list_databases(postgres)]
    for database in databases if heir else ():
        owned = f"REASSIGN OWNED BY {quote(name)} TO {quote(heir or '')}; DROP OWNED BY {quote(name)}"
        postgres.execute(owned, database=database)
    postgres.execute(f"DROP ROLE {quote(name)}")


def create_database(postgres: Postgres, name: str, owner: str | None) -> None:
    """Create a database; without an owner it is the superuser's."""
    postgres.execute(f"CREATE DATABASE {quote(name)}{f' OWNER {quote(owner)}' if owner else ''}")


def change_database(postgres: Postgres, name: str, *, new_name: str, owner: str) -> None:
    """Rename a database, and give it another owner."""
    postgres.execute(f"ALTER DATABASE {quote(name)} OWNER TO {quote(owner)}")
    if new_name != name:
        postgres.execute(f"ALTER DATABASE {quote(name)} RENAME TO {quote(new_name)}")


def drop_database(postgres: Postgres, name: str) -> None:
    """Drop a database; its sessions are closed."""
    postgres.execute(f"DROP DATABASE {quote(name)} WITH (FORCE)")


def list_databases(postgres: Postgres) -> list[tuple[str, str]]:
    """Name and owner of each database that takes connections, templates and Postgres' own left out."""
    rows = postgres.execute(
        "SELECT datname, pg_get_userbyid(datdba) FROM pg_database "
        "WHERE NOT datistemplate AND datname <> %s ORDER BY datname",
        (SUPERUSER,),
    )
    return [(name, owner) for name, owner in rows]


def list_schemas(postgres: Postgres, database: str) -> list[str]:
    """The schemas of a database, Postgres' own left out."""
    rows = postgres.execute(
        r"SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema$)' ORDER BY nspname",
        database=database,
    )
    return [name for (name,) in rows]


def quote(name: str) -> str:
    """Quote an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
