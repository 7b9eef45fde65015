"""The cursor of the package's own queries, on connections that may be their users'."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import TupleRow, tuple_row


def plain_cursor(connection: psycopg.Connection[Any]) -> psycopg.Cursor[TupleRow]:
    """A cursor of psycopg's own class that gives tuples, whatever the connection's cursors are and give."""
    return psycopg.Cursor(connection, row_factory=tuple_row)
