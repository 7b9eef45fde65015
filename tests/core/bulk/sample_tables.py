"""What the tests of loads ask a database for."""

from __future__ import annotations

from typing import Any

from psycopg import sql

from lakebase_provider.core import LakebaseClient


def run(client: LakebaseClient, query: str | sql.Composed) -> list[tuple[Any, ...]]:
    """Run a statement, commit, and give its rows, if it has any."""
    with client.connection() as connection:
        cursor = connection.execute(query)
        return cursor.fetchall() if cursor.description else []


def counts(result: Any) -> tuple[int, int, int, int]:
    """Inserted, updated, deleted and unchanged rows."""
    return (result.inserted, result.updated, result.deleted, result.unchanged)
