"""What a session is set to while rows move, whatever its user has set it to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from lakebase_provider.core.cursor import plain_cursor

#: COPY's text in the binary format, as that of statements given as bytes, is in the session's encoding.
UTF8 = {"client_encoding": "UTF8"}


@contextmanager
def settings(connection: psycopg.Connection[Any], wanted: Mapping[str, str]) -> Iterator[None]:
    """Give settings other values until the context is left.

    It takes no round trip where they are as wanted. What was set in a transaction that fails, its rollback
    undoes.

    Args:
        connection: Whose session it is.
        wanted: Values of settings that the server reports to libpq.
    """
    before = {name: connection.info.parameter_status(name) for name in wanted}
    _set(connection, wanted)
    try:
        yield
    finally:
        status = connection.info.transaction_status
        if status in (TransactionStatus.IDLE, TransactionStatus.INTRANS):
            _set(connection, before)
            if status == TransactionStatus.IDLE:
                connection.commit()


def _set(connection: psycopg.Connection[Any], values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is not None and connection.info.parameter_status(name) != value:
            with plain_cursor(connection) as cursor:
                # A statement that takes no snapshot: it may come before SET TRANSACTION.
                cursor.execute(sql.SQL("SET {} TO {}").format(sql.Identifier(name), sql.Literal(value)))
