"""Settings of a session while rows move, whatever its user has set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from lakebase_provider.core.connect.cursor import plain_cursor

if TYPE_CHECKING:
    from typing_extensions import LiteralString

#: Text in binary COPY, like statements as bytes, is in the session's encoding.
UTF8 = {"client_encoding": "UTF8"}


@contextmanager
def settings(connection: psycopg.Connection[Any], wanted: Mapping[str, str]) -> Iterator[None]:
    """Change settings until the context is left or the transaction ends.

    Settings that the server reports to libpq take no round trip if they already have the wanted value.

    Args:
        connection: The session's connection.
        wanted: Values of settings, by name.
    """
    before = {name: _value(connection, name) for name in wanted}
    changed = {name: value for name, value in before.items() if value != wanted[name]}
    # In a transaction only for that transaction: otherwise a user's SET LOCAL, once restored, would outlive
    # it.
    alone = connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE
    scope, usable = ("SESSION", TransactionStatus.IDLE) if alone else ("LOCAL", TransactionStatus.INTRANS)
    _set(connection, scope, {name: wanted[name] for name in changed})
    try:
        yield
    finally:
        if connection.info.transaction_status == usable:
            _set(connection, scope, changed)


def _value(connection: psycopg.Connection[Any], name: str) -> str:
    value = connection.info.parameter_status(name)
    if value is None:
        with plain_cursor(connection) as cursor:
            row = cursor.execute("SELECT pg_catalog.current_setting(%s)", (name,)).fetchone()
            assert row is not None
            value = row[0]
    return str(value)


def _set(connection: psycopg.Connection[Any], scope: LiteralString, values: Mapping[str, str]) -> None:
    for name, value in values.items():
        with plain_cursor(connection) as cursor:
            # A statement that takes no snapshot, so it may precede SET TRANSACTION.
            statement = sql.SQL("SET " + scope + " {} TO {}")
            cursor.execute(statement.format(sql.Identifier(name), sql.Literal(value)))
