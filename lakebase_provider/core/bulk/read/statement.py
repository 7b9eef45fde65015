"""A query as text that COPY takes: without parameters, and with each column in a form that can be decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.adapt import Buffer, Dumper, Transformer

from lakebase_provider.core.base.sql.sql_text import is_query, with_inert_comments, without_end
from lakebase_provider.core.bulk.read.result_columns import ResultColumn, result_columns
from lakebase_provider.core.bulk.types.decimals import Numeric
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.refusals import readable

if TYPE_CHECKING:
    from psycopg.abc import Query

#: What a query's parameters stand for, by position or by name.
Parameters = Sequence[Any] | Mapping[str, Any] | None


def query_text(connection: psycopg.Connection[Any], query: Query, params: Parameters) -> bytes:
    """The query with its parameters in place, as literals that psycopg has quoted.

    Args:
        connection: Says how to quote.
        query: The query; per cent signs stand for themselves if `params` is None.
        params: The parameters.

    Raises:
        psycopg.ProgrammingError: They do not fit the placeholders; beside parameters a per cent sign in
            quotes is written twice.
    """
    if params is not None:
        with psycopg.ClientCursor(connection) as cursor:
            cursor.adapters.register_dumper(_Number, _NumberDumper)
            if isinstance(query, sql.Composable):
                query = query.as_bytes(connection)
            return cursor.mogrify(with_inert_comments(query, params), _in_brackets(params)).encode(
                connection.info.encoding
            )
    if isinstance(query, str):
        return query.encode(connection.info.encoding)
    return query if isinstance(query, bytes) else _composed(query).as_bytes(connection)


@dataclass(frozen=True)
class _Number:
    """A number whose literal needs more than its digits.

    ``-1::text`` would be the negative of a text. ``1.5`` is a numeric and ``2`` an integer, also where
    psycopg binds a float as a float8 and a Decimal as a numeric.
    """

    value: int | float | Decimal


class _NumberDumper(Dumper):
    def dump(self, obj: _Number) -> Buffer:
        return str(obj.value).encode()

    def quote(self, obj: _Number) -> Buffer:
        if isinstance(obj.value, float):
            return b"'%r'::float8" % float(obj.value)
        if isinstance(obj.value, Decimal):
            return b"'%s'::numeric" % (b"NaN" if obj.value.is_nan() else str(obj.value).encode())
        return b"(%s)" % Transformer(self.connection).as_literal(obj.value)


def _in_brackets(params: Sequence[Any] | Mapping[str, Any]) -> Sequence[Any] | Mapping[str, Any]:
    if isinstance(params, Mapping):
        return {name: _bracketed(value) for name, value in params.items()}
    return [_bracketed(value) for value in params]


def _bracketed(value: Any) -> Any:
    typed = isinstance(value, (float, Decimal)) or (isinstance(value, int) and value < 0)
    return _Number(value) if typed else value


def _composed(query: Any) -> sql.Composable:
    if not isinstance(query, sql.Composable):
        raise TypeError(
            f"The query is of type {type(query).__name__}: give a str, bytes or psycopg.sql object."
        )
    return query


def is_plain_query(text: bytes) -> bool:
    """Whether it certainly is a query that can stand in another one's FROM."""
    return is_query(text.decode("latin-1"))


def describe(
    connection: psycopg.Connection[Any], text: bytes, numeric: Numeric = "decimal", *, for_file: bool = False
) -> list[ResultColumn]:
    """The columns of a query, of which not one row is computed.

    Args:
        connection: In whose transaction it is asked.
        text: A plain query.
        numeric: What numerics are to become.
        for_file: Whether they go to a file that is loaded again.

    Raises:
        LoadError: What the server says of them cannot be read.
    """
    with plain_cursor(connection) as cursor:
        cursor.execute(b"SELECT * FROM (%s\n) AS q LIMIT 0" % bare(text))
        with readable("a description of the query's columns"):
            return result_columns(connection, cursor.description or (), numeric, for_file=for_file)


def copy_statement(connection: psycopg.Connection[Any], text: bytes, casts: Sequence[str | None]) -> bytes:
    """The COPY that sends a plain query's columns in binary.

    Args:
        connection: Says how to quote.
        text: The query.
        casts: For each column what is to be sent in its place, of the expression given as ``{0}``; None for
            itself.
    """
    if all(cast is None for cast in casts):
        return b"COPY (%s\n) TO STDOUT (FORMAT binary)" % bare(text)
    # By names of our own: a query may have several columns of one name.
    names = [sql.Identifier(f"c{number}") for number in range(len(casts))]
    chosen = [
        name if cast is None else sql.SQL(cast).format(name) for name, cast in zip(names, casts, strict=True)
    ]
    head = sql.SQL("COPY (SELECT {} FROM (").format(sql.SQL(", ").join(chosen)).as_bytes(connection)
    tail = sql.SQL(") AS q ({})) TO STDOUT (FORMAT binary)").format(sql.SQL(", ").join(names))
    return b"%s%s\n%s" % (head, bare(text), tail.as_bytes(connection))


def bare(text: bytes) -> bytes:
    """Without the semicolon at its end, and what comments follow it."""
    text = text.rstrip()
    if b";" not in text:
        return text
    # Each byte as one character, whatever the encoding: what is beyond ASCII belongs to words and quotes.
    return without_end(text.decode("latin-1")).encode("latin-1")
