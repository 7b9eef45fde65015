"""Rows kept as text in a temporary table, to be compared by key with what the table holds later.

As text they depend on no type that may be dropped or altered meanwhile, and in a temporary table nobody else
sees them. A row is its key, as the text of a record, and its values, as an array of texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

from psycopg import sql

from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.connect.session import settings
from lakebase_provider.core.database.catalog import Table
from lakebase_provider.core.database.rows.row_diff import RowDiff, RowExample, RowFate, example
from lakebase_provider.core.errors import ConfigError

#: What texts of values depend on.
_AS_TEXT = {
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
}
#: Characters of a value of an example that are fetched: all of a secret that begins in what is shown.
_FETCHED = 10_000
#: Into how many parts rows are divided, by a hash of their key, to find out where two tables differ.
_PARTS = 16_384
_FATES: dict[RowFate, sql.SQL] = {
    "added": sql.SQL("before IS NULL"),
    "changed": sql.SQL("before IS NOT NULL AND after IS NOT NULL"),
    "removed": sql.SQL("after IS NULL"),
}
_numbers = count(1)


@dataclass(frozen=True)
class Selection:
    """Rows of a table.

    Attributes:
        table: The table, with its schema.
        keys: The columns by which a row is the same one.
        columns: The columns that count, the keys among them.
        where: Condition of the rows in SQL; None for all.
        parts: Those parts of the rows only; None for all.
    """

    table: Table
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    where: str | None = None
    parts: tuple[int, ...] | None = None

    def query(self) -> sql.Composed:
        """A query for ``key`` and ``cells`` of each row."""
        query = sql.SQL("SELECT {}::text AS key, {} AS cells FROM {} AS t WHERE ({})").format(
            self._key(),
            sql.SQL("ARRAY[{}]::text[]").format(
                sql.SQL(", ").join(sql.SQL("t.{}::text").format(sql.Identifier(c)) for c in self.columns)
            ),
            self.table.name.sql(),
            # A comment at its end must not hide what follows.
            sql.SQL("true") if self.where is None else sql.SQL("{}\n").format(_raw(self.where)),
        )
        if self.parts is None:
            return query
        return sql.SQL("SELECT key, cells FROM ({}) AS q WHERE {} = ANY ({})").format(
            query, _PART, sql.Literal(list(self.parts))
        )

    def _key(self) -> sql.Composed:
        names = sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(name)) for name in self.keys)
        return sql.SQL("ROW({})").format(names)

    def require_unique(self, connection: LakebaseConnection) -> None:
        """Raise an error unless the keys tell rows apart.

        Raises:
            ConfigError: Two rows have the same keys.
        """
        if self.keys == self.table.primary_key:
            return
        query = sql.SQL("SELECT FROM ({}) AS q GROUP BY key HAVING count(*) > 1 LIMIT 1").format(self.query())
        if plain_cursor(connection).execute(query).fetchone() is not None:
            raise ConfigError(
                f"Several rows of {self.table.name} have the same {', '.join(self.keys)}.",
                remedy="Give columns that tell rows apart.",
            )


_PART = sql.SQL("(pg_catalog.hashtextextended(key, 0) & {})").format(sql.Literal(_PARTS - 1))


def _raw(text: str) -> sql.SQL:
    return sql.SQL(text)  # the user's own SQL


def key_columns(table: Table, keys: Sequence[str]) -> tuple[str, ...]:
    """The columns by which rows of a table are compared.

    Args:
        table: The table.
        keys: Those that were given; none for the primary key.

    Raises:
        ConfigError: There is no such column, or none was given and there is no primary key.
    """
    found = tuple(keys) or table.primary_key
    if not found:
        raise ConfigError(
            f"{table.name} has no primary key.", remedy="Name the columns by which rows are the same ones."
        )
    for name in found:
        if table.column(name) is None:
            raise ConfigError(f"{table.name} has no column {name!r}.", remedy="Name columns of the table.")
    return found


@contextmanager
def as_text(connection: LakebaseConnection, *, first: sql.Composed | None = None) -> Iterator[None]:
    """Have values written alike by every session in this block, which is a transaction.

    Args:
        connection: A session that commits by itself.
        first: What the transaction begins with, before it looks at anything.
    """
    with connection.transaction():
        if first is not None:
            plain_cursor(connection).execute(first)
        with settings(connection, _AS_TEXT):
            yield


@dataclass(frozen=True)
class KeptRows:
    """Rows in a temporary table.

    Attributes:
        name: The temporary table.
        selection: Which rows they were; of a table that did not exist, none.
        rows: How many.
    """

    name: sql.Identifier
    selection: Selection
    rows: int


def keep(connection: LakebaseConnection, selection: Selection, *, no_rows: bool = False) -> KeptRows:
    """Keep rows as they are now, until the session ends.

    Args:
        connection: A session that commits by itself; the rows are kept in it.
        selection: Which rows.
        no_rows: True to keep none, of a table that did not exist.
    """
    name = _new_table()
    with as_text(connection):
        if not no_rows:
            selection.require_unique(connection)
        query = sql.SQL("SELECT NULL::text AS key, NULL::text[] AS cells LIMIT 0")
        kept = plain_cursor(connection).execute(
            sql.SQL("CREATE TEMPORARY TABLE {} AS {}").format(name, query if no_rows else selection.query())
        )
        plain_cursor(connection).execute(sql.SQL("ANALYZE {}").format(name))
    return KeptRows(name, selection, max(0, kept.rowcount))


def fetch(connection: LakebaseConnection, selection: Selection, source: LakebaseConnection) -> KeptRows:
    """Keep rows of another database.

    Args:
        connection: A session that commits by itself; the rows are kept in it.
        selection: Which rows.
        source: A session of the other database, in a block of :func:`as_text`.
    """
    name = _new_table()
    with connection.transaction():
        cursor = plain_cursor(connection)
        cursor.execute(sql.SQL("CREATE TEMPORARY TABLE {} (key text, cells text[])").format(name))
        query = sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(selection.query())
        into = sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(name)
        with plain_cursor(source).copy(query) as rows, cursor.copy(into) as target:
            for block in rows:
                target.write(block)
        kept = cursor.rowcount
        cursor.execute(sql.SQL("ANALYZE {}").format(name))
    return KeptRows(name, selection, kept)


def differing_parts(
    one: tuple[LakebaseConnection, Selection], other: tuple[LakebaseConnection, Selection]
) -> tuple[int, ...]:
    """The parts of the rows in which two databases differ, found without sending rows.

    Args:
        one: A session in a block of :func:`as_text`, and the rows.
        other: Those of the other database.
    """
    found = []
    for connection, selection in (one, other):
        # A sum, which two equal rows do not cancel out of.
        query = sql.SQL(
            "SELECT {}, count(*), sum(pg_catalog.hashtextextended(key || cells::text, 0))"
            " FROM ({}) AS q GROUP BY 1"
        ).format(_PART, selection.query())
        rows = plain_cursor(connection).execute(query).fetchall()
        found.append({part: (number, total) for part, number, total in rows})
    then, now = found
    return tuple(sorted(part for part in {*then, *now} if then.get(part) != now.get(part)))


@dataclass(frozen=True)
class Differences:
    """The rows that differ, in a temporary table with ``before`` and ``after``, each an array or NULL.

    Attributes:
        name: The temporary table.
        columns: The columns of both arrays.
        diff: How many there are, with examples.
    """

    name: sql.Identifier
    columns: tuple[str, ...]
    diff: RowDiff


def compare(connection: LakebaseConnection, kept: KeptRows, now: Selection, *, examples: int) -> Differences:
    """Compare kept rows with what a table holds now.

    Args:
        connection: The session that keeps them, in a block of :func:`as_text`.
        kept: The kept rows.
        now: The rows now, by the same keys.
        examples: How many of each kind are shown.
    """
    name, before = _new_table(), kept.selection.columns
    both = tuple(column for column in now.columns if column in before)
    places = [sql.Literal(before.index(column) + 1) for column in both]
    cells = sql.SQL(", ").join(sql.SQL("cells[{}]").format(place) for place in places)
    query = sql.SQL(
        "CREATE TEMPORARY TABLE {} ON COMMIT DROP AS"
        " SELECT coalesce(k.key, n.key) AS key, k.cells AS before, n.cells AS after"
        " FROM (SELECT key, ARRAY[{}]::text[] AS cells FROM {}) AS k FULL JOIN ({}) AS n ON k.key = n.key"
        " WHERE k.cells IS DISTINCT FROM n.cells"
    )
    # The keys tell rows apart also after a change of the table, or the join would multiply them.
    compared = Selection(now.table, now.keys, both, now.where, now.parts)
    compared.require_unique(connection)
    plain_cursor(connection).execute(query.format(name, cells, kept.name, compared.query()))
    counts = sql.SQL(", ").join(
        sql.SQL("count(*) FILTER (WHERE {})").format(condition) for condition in _FATES.values()
    )
    found = plain_cursor(connection).execute(sql.SQL("SELECT {} FROM {}").format(counts, name)).fetchone()
    assert found is not None
    added, changed, removed = found
    shown = tuple(
        one for fate in _FATES if examples for one in _examples(connection, name, fate, both, now, examples)
    )
    diff = RowDiff(
        str(now.table.name),
        now.keys,
        kept.rows,
        added,
        changed,
        removed,
        examples=shown,
        not_compared=tuple(sorted({*before} ^ {*now.columns})),
    )
    return Differences(name, both, diff)


def _examples(
    connection: LakebaseConnection,
    name: sql.Identifier,
    fate: RowFate,
    columns: tuple[str, ...],
    now: Selection,
    limit: int,
) -> Iterator[RowExample]:
    short = sql.SQL(
        "CASE WHEN {0} IS NOT NULL THEN ARRAY(SELECT pg_catalog.left(c, {1})"
        " FROM pg_catalog.unnest({0}) WITH ORDINALITY AS u (c, i) ORDER BY i) END"
    )
    query = sql.SQL(
        "SELECT {}, {}, ARRAY(SELECT i - 1 FROM pg_catalog.generate_series(1, {}) AS i"
        " WHERE before[i] IS DISTINCT FROM after[i] OR before IS NULL OR after IS NULL)"
        " FROM {} WHERE {} ORDER BY key LIMIT {}"
    ).format(
        short.format(sql.SQL("before"), sql.Literal(_FETCHED)),
        short.format(sql.SQL("after"), sql.Literal(_FETCHED)),
        sql.Literal(len(columns)),
        name,
        _FATES[fate],
        sql.Literal(limit),
    )
    for before, after, differing in plain_cursor(connection).execute(query):
        yield example(fate, columns, now.keys, before, after, differing)


def _new_table() -> sql.Identifier:
    return sql.Identifier("pg_temp", f"lakebase_kept_{next(_numbers)}")
