"""What Lakebase has in SQL beyond Postgres: the extension `databricks_auth` and its function."""

from __future__ import annotations

from lakebase_provider.local.contract.options import DATABASE
from lakebase_provider.local.postgres.postgres import SUPERUSER, Postgres

IDENTITY_TYPES = ("USER", "SERVICE_PRINCIPAL", "GROUP")

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


def create_role(postgres: Postgres, name: str, identity_type: str, *, database: str = DATABASE) -> None:
    """Create a role that logs in with tokens of the principal of the same name."""
    postgres.execute("SELECT public.databricks_create_role(%s, %s)", (name, identity_type), database=database)


def ensure_native_role(postgres: Postgres, name: str) -> None:
    """Create a role that no principal stands behind, unless a role of that name exists."""
    if not postgres.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)):
        postgres.execute(f"CREATE ROLE {quote(name)} LOGIN")


def list_roles(postgres: Postgres) -> list[tuple[str, str | None, bool]]:
    """Name, identity type (None for native roles) and the right to log in, of each role but Postgres' own."""
    rows = postgres.execute(
        "SELECT rolname, shobj_description(oid, 'pg_authid'), rolcanlogin FROM pg_roles "
        "WHERE rolname !~ '^pg_' AND rolname <> %s ORDER BY rolname",
        (SUPERUSER,),
    )
    return [(name, note if note in IDENTITY_TYPES else None, login) for name, note, login in rows]


def list_databases(postgres: Postgres) -> list[tuple[str, str]]:
    """Name and owner of each database that takes connections, templates and Postgres' own left out."""
    rows = postgres.execute(
        "SELECT datname, pg_get_userbyid(datdba) FROM pg_database "
        "WHERE NOT datistemplate AND datname <> %s ORDER BY datname",
        (SUPERUSER,),
    )
    return [(name, owner) for name, owner in rows]


def quote(name: str) -> str:
    """Quote an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
