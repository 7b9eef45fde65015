"""A query as text that COPY takes: without parameters, and with each column in a form that can be decoded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.adapt import Buffer, Dumper, Transformer
from psycopg.rows import tuple_row

from lakebase_provider.core.bulk.result_types import ResultColumn, result_columns

if TYPE_CHECKING:
    from psycopg.abc import Query

#: What a query's parameters stand for, by position or by name.
Parameters = Sequence[Any] | Mapping[str, Any] | None

_COMMENT = re.compile(rb"\s+|--[^\n]*(?:\n|\Z)|/\*(?:[^*]|\*(?!/))*\*/")
_FIRST_WORD = re.compile(rb"\(*\s*(select|values|table|with)\b", re.IGNORECASE)
#: Words of statements that change data; WITH may hold them, and they cannot stand in a subquery.
_CHANGE = re.compile(rb"\b(insert|update|delete|merge)\b", re.IGNORECASE)
#: SELECT FOR UPDATE is a query all the same.
_LOCKING = re.compile(rb"\bfor\s+(no\s+key\s+)?update\b", re.IGNORECASE)


def query_text(connection: psycopg.Connection[Any], query: Query, params: Parameters) -> bytes:
    """The query with its parameters in place, as literals that psycopg has quoted.

    Args:
        connection: Says how to quote.
        query: The query; per cent signs stand for themselves if `params` is None.
        params: The parameters.
    """
    if params is not None:
        with psycopg.ClientCursor(connection) as cursor:
            cursor.adapters.register_dumper(_Negative, _NegativeDumper)
            return cursor.mogrify(query, _in_brackets(params)).encode()
    if isinstance(query, str):
        return query.encode()
    return query if isinstance(query, bytes) else _composed(query).as_bytes(connection)


@dataclass(frozen=True)
class _Negative:
    """A number below zero; as a bare literal, ``-1::text`` would be the negative of a text."""

    value: int | float | Decimal


class _NegativeDumper(Dumper):
    def dump(self, obj: _Negative) -> Buffer:
        return str(obj.value).encode()

    def quote(self, obj: _Negative) -> Buffer:
        return b"(%s)" % Transformer(self.connection).as_literal(obj.value)


def _in_brackets(params: Sequence[Any] | Mapping[str, Any]) -> Sequence[Any] | Mapping[str, Any]:
    if isinstance(params, Mapping):
        return {name: _bracketed(value) for name, value in params.items()}
    return [_bracketed(value) for value in params]


def _bracketed(value: Any) -> Any:
    return _Negative(value) if isinstance(value, (int, float, Decimal)) and value < 0 else value


def _composed(query: Any) -> sql.Composable:
    if not isinstance(query, sql.Composable):
        raise TypeError(
            f"The query is of type {type(query).__name__}: give a str, bytes or psycopg.sql object."
        )
    return query


def is_plain_query(text: bytes) -> bool:
    """Whether it certainly is a query that can stand in another one's FROM."""
    at = 0
    while match := _COMMENT.match(text, at):
        at = match.end()
    first = _FIRST_WORD.match(text, at)
    if first is None:
        return False
    return first.group(1).lower() != b"with" or not _CHANGE.search(_LOCKING.sub(b"", text))


def describe(connection: psycopg.Connection[Any], text: bytes) -> list[ResultColumn]:
    """The columns of a query, of which not one row is computed.

    Args:
        connection: In whose transaction it is asked.
        text: A plain query.
    """
    with psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
        cursor.execute(b"SELECT * FROM (%s\n) AS q LIMIT 0" % bare(text))
        return result_columns(connection, cursor.description or ())


def copy_statement(
    connection: psycopg.Connection[Any], text: bytes, columns: Sequence[ResultColumn]
) -> bytes:
    """The COPY that sends those columns of a plain query in binary."""
    if all(column.cast is None for column in columns):
        return b"COPY (%s\n) TO STDOUT (FORMAT binary)" % bare(text)
    # By names of our own: a query may have several columns of one name.
    names = [sql.Identifier(f"c{number}") for number in range(len(columns))]
    chosen = [column.sql(name) for column, name in zip(columns, names, strict=True)]
    head = sql.SQL("COPY (SELECT {} FROM (").format(sql.SQL(", ").join(chosen)).as_bytes(connection)
    tail = sql.SQL(") AS q ({})) TO STDOUT (FORMAT binary)").format(sql.SQL(", ").join(names))
    return b"%s%s\n%s" % (head, bare(text), tail.as_bytes(connection))


def bare(text: bytes) -> bytes:
    """Without the semicolon at its end."""
    return text.rstrip().rstrip(b";")
