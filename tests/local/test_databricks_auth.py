from __future__ import annotations

import psycopg
import pytest
from databricks.sdk import WorkspaceClient

from .conftest import Lake


def test_role_set_up_of_the_documentation(lake: Lake) -> None:
    """As the documentation has it: the owner admits a second service principal."""
    other = lake.admin.add_principal(create_role=False)
    steps = [
        "CREATE EXTENSION IF NOT EXISTS databricks_auth",
        f"SELECT databricks_create_role('{other.name}', 'SERVICE_PRINCIPAL')",
        f'GRANT CONNECT ON DATABASE databricks_postgres TO "{other.name}"',
        f'GRANT USAGE ON SCHEMA public TO "{other.name}"',
        f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "{other.name}"',
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public "
        f'GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO "{other.name}"',
    ]
    with lake.connect(autocommit=True) as connection:
        for step in steps:
            connection.execute(step.encode())
        connection.execute("CREATE TABLE public.shared AS SELECT 7 AS n")
    workspace = WorkspaceClient(host=lake.url, client_id=other.client_id, client_secret=other.client_secret)
    try:
        with lake.connect(lake.mint(workspace), user=other.name) as connection:
            assert connection.execute("SELECT n FROM shared").fetchone() == (7,)
    finally:
        lake.admin.execute("DROP TABLE public.shared")


def test_user_may_set_up_roles_too(lake: Lake) -> None:
    name = lake.admin.add_principal(create_role=False).name
    workspace = WorkspaceClient(host=lake.url, token=lake.server.pat, auth_type="pat")
    with lake.connect(lake.mint(workspace), user=lake.server.developer) as connection:
        connection.execute("SELECT databricks_create_role(%s, 'GROUP')", (name,))


def test_unknown_identity_type_and_existing_role(lake: Lake) -> None:
    with lake.connect(autocommit=True) as connection:
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            connection.execute("SELECT databricks_create_role('x', 'ROBOT')")
        with pytest.raises(psycopg.errors.DuplicateObject):
            connection.execute("SELECT databricks_create_role(current_user::text, 'USER')")


def test_only_the_owner_creates_roles(lake: Lake) -> None:
    other = lake.admin.add_principal()
    workspace = WorkspaceClient(host=lake.url, client_id=other.client_id, client_secret=other.client_secret)
    with (
        lake.connect(lake.mint(workspace), user=other.name) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("SELECT databricks_create_role('friend', 'USER')")


def test_names_are_quoted(lake: Lake) -> None:
    odd = """o'brien"; DROP ROLE x; --"""
    with lake.connect() as connection:
        connection.execute("SELECT databricks_create_role(%s, 'USER')", (odd,))
        assert connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (odd,)).fetchone()
        connection.rollback()


def test_a_new_database_has_the_extension(lake: Lake) -> None:
    with lake.connect(autocommit=True) as connection:
        connection.execute("CREATE DATABASE another")
    try:
        with lake.connect(dbname="another", autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS databricks_auth")
    finally:
        lake.admin.execute("DROP DATABASE another")
