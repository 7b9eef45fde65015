"""Rows of any source into a table by one COPY, inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import psycopg
from psycopg import sql

from lakebase_provider.core.bulk.table import Table, TableName


@dataclass(frozen=True)
class CopyResult:
    """What a COPY did.

    Attributes:
        rows: Rows that were written.
        bytes: Bytes of COPY data that were sent.
        format: ``"binary"`` or ``"text"``.
        encoder: What encoded them: ``"pgpq"``, ``"pyarrow"`` or ``"psycopg"``.
        reason: Why that format and encoder.
        columns: The table's columns that took values, in the order of COPY.
        rejected: Rows that were handed to `reject` instead of being written.
    """

    rows: int
    bytes: int
    format: str
    encoder: str
    reason: str
    columns: tuple[str, ...]
    rejected: int = 0


@dataclass(frozen=True)
class RejectedRow:
    """A row that was not written.

    Attributes:
        number: Its number in the source, from 1.
        column: Name of the column whose value is at fault; None where the whole row is.
        reason: What is wrong, without the value.
        row: Its values, in the order of the columns.
    """

    number: int
    column: str | None
    reason: str
    row: tuple[Any, ...]


def copy_in(
    connection: psycopg.Connection[Any],
    source: Any,
    table: Table,
    *,
    into: TableName | None = None,
    columns: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    reject: Callable[[RejectedRow], None] | None = None,
) -> CopyResult:
    """Copy all rows of a source into a table.

    Args:
        connection: The connection whose transaction it becomes part of.
        source: Rows.
        table: The table as the catalog describes it.
        into: Another relation with the same columns, such as a temporary table.
        columns: The table's columns that the source's columns go to.
        progress: Called with rows and bytes sent so far.
        reject: Called with each bad row; without it the first one is an error.
    """
    rows: Iterable[Any] = source
    iterator = iter(rows)
    first = next(iterator, None)
    if columns is not None:
        names = tuple(columns)
    elif isinstance(first, Mapping):
        names = tuple(first)
    else:
        names = tuple(column.name for column in table.writable)
    types = []
    for name in names:
        column = table.column(name)
        assert column is not None
        types.append(column.type_oid)
    target = into or table.name
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        target.sql(), sql.SQL(", ").join(sql.Identifier(name) for name in names)
    )
    count = 0
    with psycopg.Cursor(connection) as cursor, cursor.copy(statement) as copy:
        for row in chain([first] if first is not None else [], iterator):
            copy.write_row([row[name] for name in names] if isinstance(row, Mapping) else row)
            count += 1
    if progress is not None:
        progress(count, 0)
    return CopyResult(count, 0, "text", "psycopg", "a first version", names)
