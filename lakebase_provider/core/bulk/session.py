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

    What was set in a transaction that fails, its rollback undoes. Settings that the server reports to libpq
    take no round trip where they are as wanted.

    Args:
        connection: Whose session it is.
        wanted: Values of settings, by name.
    """
    before = {name: _value(connection, name) for name in wanted}
    changed = {name: value for name, value in before.items() if value != wanted[name]}
    _set(connection, {name: wanted[name] for name in changed})
    try:
        yield
    finally:
        status = connection.info.transaction_status
        if changed and status in (TransactionStatus.IDLE, TransactionStatus.INTRANS):
            _set(connection, changed)
            if status == TransactionStatus.IDLE:
                connection.commit()


def _value(connection: psycopg.Connection[Any], name: str) -> str:
    value = connection.info.parameter_status(name)
    if value is None:
        with plain_cursor(connection) as cursor:
            row = cursor.execute("SELECT pg_catalog.current_setting(%s)", (name,)).fetchone()
            assert row is not None
            value = row[0]
    return str(value)


def _set(connection: psycopg.Connection[Any], values: Mapping[str, str]) -> None:
    for name, value in values.items():
        with plain_cursor(connection) as cursor:
            # A statement that takes no snapshot: it may come before SET TRANSACTION.
            cursor.execute(sql.SQL("SET {} TO {}").format(sql.Identifier(name), sql.Literal(value)))
