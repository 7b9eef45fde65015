"""Sessions of Postgres' superuser over its unix socket, whatever libpq's environment says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lakebase_provider.local.contract.errors import LocalLakebaseError

if TYPE_CHECKING:
    import psycopg

NAME = "postgres"
#: Nothing takes long on a unix socket, except on a machine that is busy with a whole test run.
_CONNECT_SECONDS = 60


def dsn(folder: str, port: int, database: str) -> str:
    """Connection string for programs that may use the socket.

    It sets every parameter that libpq knows, so that PGHOSTADDR or PGOPTIONS cannot lead to another server or
    session.

    Args:
        folder: The socket's.
        port: Number in the socket's name.
        database: Which.
    """
    return (
        f"host={_quoted(folder)} hostaddr='' port={port} user={NAME} dbname={_quoted(database)} "
        "options='' passfile=/dev/null/none requirepeer='' target_session_attrs=any "
        f"connect_timeout={_CONNECT_SECONDS} client_encoding=UTF8"
    )


def _quoted(value: str) -> str:
    """A value of a connection string: TMPDIR's path may hold a blank."""
    escaped = value.replace("\\", r"\\").replace("'", r"\'")
    return value if re.fullmatch(r"[\w./-]+", value) else f"'{escaped}'"


def connect(dsn: str, *, database: str) -> psycopg.Connection[Any]:
    """Open a session in which each statement is a transaction of its own."""
    import psycopg

    from lakebase_provider.core.connect.network import neutral_parameters
    from lakebase_provider.core.errors.texts import classify_login

    neutral: dict[str, Any] = dict(neutral_parameters())
    if "require_auth" in neutral:
        # The socket's folder decides who may connect; no credentials are needed.
        neutral["require_auth"] = ""
    try:
        return psycopg.connect(dsn, dbname=database, autocommit=True, **neutral)
    except psycopg.OperationalError as error:
        known = classify_login(str(error), where="the local Postgres")
        raise LocalLakebaseError(known.message, remedy=known.remedy) from error


def execute(
    dsn: str, statement: str, parameters: Sequence[Any] | None = None, *, database: str
) -> list[tuple[Any, ...]]:
    """Run one statement, or several without parameters, and return the rows."""
    with connect(dsn, database=database) as connection:
        cursor = connection.execute(statement.encode(), parameters)
        return cursor.fetchall() if cursor.description else []
