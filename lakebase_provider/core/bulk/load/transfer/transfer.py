"""From a query on one Postgres server into a table of another: what COPY sends there is what COPY takes here.

No value becomes a Python object on the way, so that none changes. If every column has the same binary form on
both sides, binary is sent; otherwise text, under settings with which it means the same on both.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from lakebase_provider.core.base.sql.names import identifier
from lakebase_provider.core.bulk.load.copy_in import (
    CopyResult,
    cancelled_when_interrupted,
    copy_from,
    target_columns,
)
from lakebase_provider.core.bulk.load.transfer.columns import Passage, Typed, mismatch, passage
from lakebase_provider.core.bulk.load.transfer.servers import Block, Server, server_of
from lakebase_provider.core.bulk.read.statement import Parameters, bare, is_plain_query
from lakebase_provider.core.bulk.sources.source import Source
from lakebase_provider.core.bulk.types.postgres_types import BY_NAME
from lakebase_provider.core.bulk.types.target_columns import target_of
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.connect.session import UTF8, settings
from lakebase_provider.core.database.catalog import Column, Table, TableName
from lakebase_provider.core.database.refusals import typed_errors
from lakebase_provider.core.errors import BadRowError, ColumnMismatchError, ConfigError
from lakebase_provider.core.errors.sqlstates import meaning

logger = logging.getLogger(__name__)

#: What the query's server says of a value that its column's guard refuses.
_REFUSED = re.compile(r"lakebase: column (\d+) does not fit")
_MONEY = BY_NAME["money"].oid


@dataclass(frozen=True)
class QueryColumn:
    """A column of the query.

    Attributes:
        name: Its name.
        type: Its type.
    """

    name: str
    type: Typed


class PostgresQuery:
    """A query on another Postgres server, as the source of a load; it runs when the load does.

    Args:
        connections: Lends the connection, from psycopg 3 or psycopg 2; or the connection itself. One without
            a transaction under way has none afterwards either.
        query: A SELECT, VALUES, TABLE or WITH that changes no data.
        params: Its parameters, in the driver's placeholder style.
        name: What errors call it.

    Example:
        >>> with psycopg.connect(other) as source:
        ...     client.load(PostgresQuery(source, "SELECT * FROM orders WHERE day = %s", [day]), "orders")
    """

    def __init__(
        self,
        connections: Callable[[], AbstractContextManager[Any]] | Any,
        query: Any,
        params: Parameters = None,
        *,
        name: str = "Query",
    ) -> None:
        self._connections = connections if callable(connections) else lambda: nullcontext(connections)
        self._query = query
        self._params = params
        self.name = name
        self._opened = ExitStack()
        self._server: Server | None = None
        self._text = b""
        self._columns: tuple[QueryColumn, ...] = ()

    @property
    def server(self) -> Server:
        """The server, in a transaction of the query's own.

        Raises:
            ConfigError: The connection cannot stream COPY, or the query is not one that COPY accepts.
        """
        if self._server is None:
            connection = self._opened.enter_context(self._connections())
            server = server_of(connection)
            self._opened.callback(server.end)
            with self.errors():
                self._opened.enter_context(server.settings(UTF8))
                self._text = server.text(self._query, self._params)
            if not is_plain_query(self._text):
                raise ConfigError(
                    "The statement is not a query that COPY accepts.",
                    remedy="Transfer a SELECT, VALUES, TABLE or WITH that changes no data.",
                )
            self._server = server
        return self._server

    def columns(self) -> tuple[QueryColumn, ...]:
        """The query's columns, without computing a single row.

        Raises:
            LoadError: The server refuses the query.
        """
        if not self._columns:
            server = self.server
            with self.errors():
                found = server.describe(b"SELECT * FROM (%s\n) AS q LIMIT 0" % bare(self._text))
                names = _type_names(server, [(oid, typmod) for _, oid, typmod in found])
            self._columns = tuple(
                QueryColumn(name, Typed(oid, typmod, type_name))
                for (name, oid, typmod), type_name in zip(found, names, strict=True)
            )
        return self._columns

    def source(self, columns: Sequence[str] | None) -> Source:
        """What is known before its rows arrive: its column names, all of them or the chosen ones."""
        source = Source("query", lambda: iter(()), column_names=tuple(c.name for c in self.columns()))
        return source if columns is None else source.select(columns)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """An error of psycopg's is named the query's; other drivers' are told from the table's by type."""
        with typed_errors(self.name):
            yield

    def statement(self, chosen: Sequence[tuple[int, Passage]], form: str) -> bytes:
        """The COPY of chosen columns, by their places, each in the form that it passes in."""
        options = b"FORMAT binary" if form == "binary" else b"FORMAT text, ENCODING 'UTF8'"
        if [place for place, _ in chosen] == list(range(len(self._columns))) and all(
            p.value is None and p.guard is None for _, p in chosen
        ):
            return b"COPY (%s\n) TO STDOUT (%s)" % (bare(self._text), options)
        return b"COPY (%s) TO STDOUT (%s)" % (self.select(chosen), options)

    def select(self, chosen: Sequence[tuple[int, Passage]]) -> bytes:
        """The outer query around the query."""
        # By names of our own: a query may have several columns of one name. OFFSET keeps the planner from
        # computing a column once for each time that its name stands here.
        names = ", ".join(f"c{number}" for number in range(len(self._columns)))
        values = ", ".join(_expression(place, passed) for place, passed in chosen)
        head = f"SELECT {values} FROM (SELECT * FROM (".encode()  # noqa: S608 - of types' names
        return b"%s%s\n) AS q OFFSET 0) AS q (%s)" % (head, bare(self._text), names.encode())

    def close(self) -> None:
        """End the query's transaction, and return the connection."""
        self._server = None
        self._opened.close()


def _expression(place: int, passed: Passage) -> str:
    name = f"c{place}"
    value = (passed.value or "{c}").replace("{c}", name)
    if passed.guard is None:
        return value
    guard = passed.guard.replace("{c}", name)
    # No function exists that raises: a text that is no number does, which the planner cannot know before.
    text = f"'lakebase: column {place} does not fit' || pg_catalog.left({name}::text, 0)"
    raised = f"CASE WHEN ({text})::int4 IS NULL THEN {value} END"
    return f"CASE WHEN {name} IS NULL OR ({guard}) THEN {value} ELSE {raised} END"


def _type_names(server: Server, types: Sequence[tuple[int, int]]) -> list[str]:
    listed = ", ".join(f"pg_catalog.format_type({oid}, {typmod})" for oid, typmod in types)
    return [str(name) for name in server.rows(f"SELECT {listed}")[0]] if types else []


def copy_between(
    connection: psycopg.Connection[Any],
    query: PostgresQuery,
    table: Table,
    *,
    into: TableName | None = None,
    columns: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CopyResult:
    """Copy all rows of a query on another server into a table, in constant memory.

    Args:
        connection: The connection whose transaction it becomes part of.
        query: The query; its transaction has ended when this returns.
        table: The table as the catalog describes it.
        into: Another relation with the same columns, such as a temporary table.
        columns: The query's columns to take, by name; None for all.
        progress: Called with the rows and bytes sent so far.

    Raises:
        BadRowError: A value that its column cannot hold unchanged; the error names row and column.
        ColumnMismatchError: The query's columns do not match the table's, or have types that cannot be
            converted.
        LoadInterruptedError: The connection to the query's server was lost.
        LoadError: The query failed.
        psycopg.Error: The table's server refused the rows.
    """
    source = query.source(columns)
    targets = target_columns(source, table, columns)
    known = [column.name for column in query.columns()]
    places = [known.index(name) for name in source.column_names or ()]
    plan = _planned(connection, query, places, targets, table.text_only)
    logger.info("COPY into %s: %s by the server: %s", table.name, plan.form, plan.reason)
    run = _Run(query, plan, progress)
    with (
        settings(connection, _TARGET_TEXT if plan.form == "text" else UTF8),
        plain_cursor(connection) as cursor,
        run.reading() as blocks,
    ):
        statement = copy_from(into or table.name, targets, plan.form)
        with cursor.copy(statement) as copy, cancelled_when_interrupted(connection):
            for block in blocks:
                copy.write(block)
        rows = cursor.rowcount
    # What the query has locked is free before this side takes locks of its own.
    query.close()
    return CopyResult(rows, run.bytes, plan.form, "server", plan.reason, tuple(c.name for c in targets))


#: With which settings a text says all of a value, and is read as the value that it says.
_SOURCE_TEXT = {
    **UTF8,
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
}
_TARGET_TEXT = {
    **UTF8,
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "array_nulls": "on",
    "lc_monetary": "C",
    "xmloption": "content",
}


@dataclass(frozen=True)
class _Plan:
    """How the columns are sent.

    Attributes:
        form: ``"binary"`` or ``"text"``.
        reason: Why.
        chosen: The places of the query's columns, and how each passes.
        columns: For each its name, its type and the table's.
    """

    form: str
    reason: str
    chosen: tuple[tuple[int, Passage], ...]
    columns: tuple[tuple[str, Typed, Typed], ...]

    @property
    def source_settings(self) -> dict[str, str]:
        converts = any(passed.value is not None for _, passed in self.chosen)
        return _SOURCE_TEXT if self.form == "text" or converts else UTF8


def _planned(
    connection: psycopg.Connection[Any],
    query: PostgresQuery,
    places: Sequence[int],
    targets: Sequence[Column],
    text_only: str | None,
) -> _Plan:
    wanted = _target_types(connection, targets)
    chosen: list[tuple[int, Passage]] = []
    columns: list[tuple[str, Typed, Typed]] = []
    for place, target in zip(places, wanted, strict=True):
        column = query.columns()[place]
        chosen.append((place, passage(column.name, column.type, target, query.server.version)))
        columns.append((column.name, column.type, target))
    texts = [column for column, (_, passed) in zip(columns, chosen, strict=True) if not passed.binary]
    form, reason = "binary", "each column is of one type on both sides"
    if text_only is not None:
        form, reason = "text", text_only
    elif texts:
        name, source, _ = texts[0]
        form, reason = "text", f"column {name!r} of type {source.name} has a binary form of its server's own"
    plan = _Plan(form, reason, tuple(chosen), tuple(columns))
    _require_conversions(query, plan)
    _require_one_currency(connection, query, plan)
    return plan


def _target_types(connection: psycopg.Connection[Any], targets: Sequence[Column]) -> list[Typed]:
    """The types below the columns' domains."""
    calls = sql.SQL(", ").join(
        sql.SQL("pg_catalog.format_type({}, {})").format(sql.Literal(c.type_oid), sql.Literal(c.typmod))
        for c in targets
    )
    names = plain_cursor(connection).execute(sql.SQL("SELECT {}").format(calls)).fetchone() or ()
    return [
        Typed(c.type_oid, c.typmod, str(name), bool(target_of(c).form) and target_of(c).limited)
        for c, name in zip(targets, names, strict=True)
    ]


def _require_conversions(query: PostgresQuery, plan: _Plan) -> None:
    """Ask the query's server whether it has the conversions, before this side waits for its rows."""
    converted = [
        (column, (place, passed))
        for column, (place, passed) in zip(plan.columns, plan.chosen, strict=True)
        if passed.value is not None or passed.guard is not None
    ]
    if not converted:
        return
    server = query.server
    try:
        server.describe(query.select([chosen for _, chosen in converted]) + b" LIMIT 0")
        return
    except Exception as error:
        if not meaning(sqlstate_of(error)).no_conversion or not server.end():
            with query.errors():
                raise
    for column, chosen in converted:
        try:
            server.describe(query.select([chosen]) + b" LIMIT 0")
        except Exception as error:
            raise mismatch(*column) from error
    raise mismatch(*converted[0][0])


def _require_one_currency(connection: psycopg.Connection[Any], query: PostgresQuery, plan: _Plan) -> None:
    """An amount of money is a number of the smallest coins of each server's own currency."""
    amounts = [(name, of) for name, of, to in plan.columns if of.element == to.element == _MONEY]
    if not amounts:
        return
    coins = "SELECT pg_catalog.encode(pg_catalog.cash_send('1'::money), 'hex')"
    with query.errors():
        there = query.server.rows(coins)[0]
    if plain_cursor(connection).execute(coins).fetchone() != tuple(there):
        raise ColumnMismatchError(
            f"Column {amounts[0][0]!r} is of type money, which has different decimals on the two servers "
            "(lc_monetary).",
            remedy="Convert it in the query and the table, such as to numeric.",
        )


def sqlstate_of(error: BaseException) -> str | None:
    """The SQLSTATE of an error of either driver."""
    state: str | None = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return state


class _Run:
    """The rows of one COPY under way."""

    def __init__(
        self, query: PostgresQuery, plan: _Plan, progress: Callable[[int, int], None] | None
    ) -> None:
        self._query = query
        self._plan = plan
        self._progress = progress
        self._messages = 0
        self.bytes = 0

    @contextmanager
    def reading(self) -> Iterator[Iterator[bytes | bytearray]]:
        """The query's COPY; leaving it early ends it."""
        server, plan = self._query.server, self._plan
        with ExitStack() as opened:
            with self._query.errors():
                opened.enter_context(server.settings(plan.source_settings))
                blocks = opened.enter_context(server.copy_out(self._query.statement(plan.chosen, plan.form)))
            yield self._counted(blocks)

    def _counted(self, blocks: Iterator[Block]) -> Iterator[bytes | bytearray]:
        # What binary COPY sends after the last row is a message, too.
        others = 1 if self._plan.form == "binary" else 0
        while (block := self._next(blocks)) is not None:
            data, messages = block
            yield data
            self._messages += messages
            self.bytes += len(data)
            if self._progress is not None:
                self._progress(max(self._messages - others, 0), self.bytes)

    def _next(self, blocks: Iterator[Block]) -> Block | None:
        try:
            return next(blocks, None)
        except Exception as error:
            refused = self._refused(error)
            if refused is not None:
                raise refused from None  # the other one quotes SQL of this module's
            with self._query.errors():
                raise

    def _refused(self, error: Exception) -> BadRowError | None:
        """The error of a value that its column's guard refuses."""
        diagnosis = getattr(error, "diag", None)
        match = _REFUSED.search(getattr(diagnosis, "message_primary", None) or "")
        if match is None:
            return None
        place = int(match[1])
        at = [chosen for chosen, _ in self._plan.chosen].index(place)
        name, of, to = self._plan.columns[at]
        row = self._messages + 1
        return BadRowError(
            f"Bad value in row {row:,}, column {name!r}: {of.name}, which {to.name} cannot hold unchanged.",
            row=row,
            column=name,
            kind=of.name,
            remedy=f"Convert it in the query to what {to.name} can hold, or leave the row out.",
        )


def columns_of(
    connection: psycopg.Connection[Any], query: PostgresQuery, columns: Sequence[str] | None = None
) -> dict[str, str]:
    """The columns that hold a query's rows, by name with their types as Postgres writes them.

    Args:
        connection: A connection to the table's server, which knows not every type of the query's.
        query: The query.
        columns: Its columns to take; None for all.

    Raises:
        ColumnMismatchError: It has no columns, or two of one name.
    """
    names = [identifier(column) for column in query.source(columns).column_names or ()]
    if not names:
        raise ColumnMismatchError("The query has no columns.")
    types = {column.name: column.type for column in query.columns()}
    return {name: _type_here(connection, types[name]) for name in names}


def _type_here(connection: psycopg.Connection[Any], of: Typed) -> str:
    """The type of a new column: the query's, or text if this server does not know it."""
    found = plain_cursor(connection).execute("SELECT pg_catalog.to_regtype(%s) IS NOT NULL", (of.plain_name,))
    known = (found.fetchone() or (False,))[0] and of.oid not in (2249, 2287)
    if not known:
        logger.warning("This server has no type %s: keeping its values as text.", of.name)
    return of.name if known else "text"  # as format_type has quoted it
