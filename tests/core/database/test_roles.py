from __future__ import annotations

from typing import Any

import psycopg
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.database.roles import create_role
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.local import LocalLakebase


@pytest.fixture
def newcomer(lakebase_env: LocalLakebase) -> Any:
    """A service principal of the workspace that Postgres does not know yet."""
    return lakebase_env.admin.add_principal(create_role=False)


def as_newcomer(lake: LocalLakebase, newcomer: Any) -> LakebaseClient:
    changes = {"user": newcomer.name, "client_id": newcomer.name, "client_secret": newcomer.client_secret}
    return LakebaseClient(lake.config(**changes))


def test_a_new_principal_can_use_present_and_future_tables(
    lakebase_env: LocalLakebase, newcomer: Any
) -> None:
    with LakebaseClient(lakebase_env.config()) as owner:
        with owner.connection() as connection:
            connection.execute("CREATE TABLE roles_present (i int)")
        assert [owner.create_role(newcomer.name) for _ in range(2)] == [True, False]
        with owner.connection() as connection:
            connection.execute("CREATE TABLE roles_future (i int)")
        try:
            with as_newcomer(lakebase_env, newcomer) as client, client.connection() as connection:
                connection.execute("INSERT INTO roles_present VALUES (1)")
                connection.execute("INSERT INTO roles_future VALUES (1)")
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute("TRUNCATE roles_present")
        finally:
            with owner.connection() as connection:
                connection.execute("DROP TABLE roles_present, roles_future")


def test_names_are_quoted(lakebase_env: LocalLakebase) -> None:
    name = 'o"; DROP TABLE x; --@example.com'
    with LakebaseClient(lakebase_env.config()) as owner, owner.connection() as connection:
        assert create_role(connection, name, "USER", grants=()) is True
        assert connection.execute("SELECT rolname FROM pg_roles WHERE rolname = %s", [name]).fetchone() == (
            name,
        )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"identity_type": "ROBOT"}, "ROBOT"), ({"grants": ["SELECT", "EVERYTHING; --"]}, "EVERYTHING")],
)
def test_unknown_words_are_refused_before_anything_is_sent(
    lakebase_env: LocalLakebase, arguments: dict[str, Any], named: str
) -> None:
    with LakebaseClient(lakebase_env.config()) as owner, owner.connection() as connection:
        with pytest.raises(ConfigError, match=named):
            create_role(connection, "x", **arguments)
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
