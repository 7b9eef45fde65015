"""Sessions of Postgres' superuser over its unix socket, whatever libpq's environment says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NAME = "postgres"


def dsn(folder: str, port: int, database: str) -> str:
    """Connection string for programs that may use the socket.

    What every libpq knows is said, lest PGHOSTADDR or PGOPTIONS lead to another server or session.

    Args:
        folder: The socket's.
        port: Number in the socket's name.
        database: Which.
    """
    return (
        f"host={folder} hostaddr='' port={port} user={NAME} dbname={database} "
        "options='' passfile=/dev/null/none requirepeer='' target_session_attrs=any"
    )


def execute(
    dsn: str, statement: str, parameters: Sequence[Any] | None = None, *, database: str
) -> list[tuple[Any, ...]]:
    """Run one statement, or several without parameters, and return the rows."""
    import psycopg

    from lakebase_provider.core.network import neutral_parameters

    neutral: dict[str, Any] = dict(neutral_parameters())
    if "require_auth" in neutral:
        # The socket's folder decides who may come; nobody is asked for anything.
        neutral["require_auth"] = ""
    with psycopg.connect(dsn, dbname=database, autocommit=True, **neutral) as connection:
        cursor = connection.execute(statement.encode(), parameters)
        return cursor.fetchall() if cursor.description else []
