"""Rows from Python into a table, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.types.json import Json

from lakebase_provider.core.bulk.table import Table, TableName, read_table
from lakebase_provider.core.errors import ConfigError

if TYPE_CHECKING:
    from lakebase_provider.core.connection import LakebaseConnection

#: Rows that are held at most, however many belong to one transaction.
_BATCH = 1000
_JSON = ("json", "jsonb")

Row = Sequence[Any]


def batches(rows: Iterable[Row], commit_every: int) -> Iterator[tuple[list[Row], bool]]:
    """Rows in lists, each with whether a transaction ends after it.

    Args:
        rows: The rows, consumed as they are needed.
        commit_every: Rows of one transaction; 0 for all in one.
    """
    rows = iter(rows)
    left = commit_every
    while True:
        size = min(_BATCH, left) if commit_every else _BATCH
        batch = list(islice(rows, size))
        if not batch:
            return
        left -= len(batch)
        ends = commit_every > 0 and left == 0
        if ends:
            left = commit_every
        yield batch, ends


class RowWriter:
    """Runs a statement with the values of each row, as the columns' types want them.

    A mapping becomes JSON. A list becomes an array, or JSON where its column is ``json`` or ``jsonb``. All
    else psycopg knows.

    Args:
        connection: The connection to write on.
        table: Name of the table.
        columns: Names of the columns of each row, as the catalog has them; all of the table's if empty.
        statement: The statement for rows of that many values.
    """

    def __init__(
        self,
        connection: LakebaseConnection,
        table: TableName,
        columns: Sequence[str],
        statement: Callable[[int], str],
    ) -> None:
        self._connection = connection
        self._table = table
        self._columns = columns
        self._statement = statement
        self._json: list[bool] | None = None

    def write(self, rows: list[Row]) -> int:
        """Write rows; they may differ in length.

        Returns:
            The number of rows that the server reports as written.

        Raises:
            psycopg.Error: The server refused one; the transaction is lost.
        """
        written = 0
        with psycopg.Cursor(self._connection) as cursor:
            for width, run in _runs(rows):
                cursor.executemany(self._statement(width), [self._adapted(row) for row in run])
                written += max(cursor.rowcount, 0)
        return written

    def _adapted(self, row: Row) -> Row:
        if not isinstance(row, (list, tuple)):
            row = tuple(row)
        if not any(isinstance(value, (list, dict)) for value in row):
            return row
        json = self._json_columns(len(row))
        return [
            Json(value) if isinstance(value, dict) or (isinstance(value, list) and json[i]) else value
            for i, value in enumerate(row)
        ]

    def _json_columns(self, width: int) -> list[bool]:
        if self._json is None:
            found = read_table(self._connection, self._table)
            names = self._columns or [column.name for column in found.columns]
            self._json = [_is_json(found, name) for name in names]
        return self._json + [False] * (width - len(self._json))


def _is_json(table: Table, name: str) -> bool:
    column = table.column(name)
    return column is not None and column.base_name in _JSON


def _runs(rows: list[Row]) -> Iterator[tuple[int, list[Row]]]:
    """Rows of the same length that follow each other."""
    run: list[Row] = []
    for row in rows:
        if run and len(row) != len(run[0]):
            yield len(run[0]), run
            run = []
        run.append(row)
    if run:
        yield len(run[0]), run


def check_commit_every(commit_every: object) -> int:
    """The number of rows of a transaction.

    Raises:
        ConfigError: It is no whole number of 0 or more.
    """
    if isinstance(commit_every, bool) or not isinstance(commit_every, int) or commit_every < 0:
        raise ConfigError(
            f"commit_every is {commit_every!r}.", remedy="Use a number of rows, or 0 for one transaction."
        )
    return commit_every
