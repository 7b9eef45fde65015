"""Adapts a table to the columns of what is loaded into it, as far as the user allows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import psycopg
from psycopg import sql

from lakebase_provider.core.bulk.tables.schema_evolution import SchemaEvolution
from lakebase_provider.core.bulk.types.postgres_types import of_family
from lakebase_provider.core.database.catalog import Column, Table
from lakebase_provider.core.errors import ColumnMismatchError, ConfigError

#: Integers by size, with the decimal digits that each needs.
_INTEGERS = {kind.sql: len(str(1 << kind.width * 8 - 1)) for kind in of_family("integer")}
_FLOATS = tuple(kind.sql for kind in of_family("float"))
_NUMERIC = re.compile(r"numeric(?:\((\d+),(-?\d+)\))?")
_SHORT_TEXT = re.compile(r"(character varying|character)(?:\(\d+\))?")
#: More digits than a numeric may declare: then they are left undeclared.
_MAX_PRECISION = 1000


def evolve(
    connection: psycopg.Connection[Any],
    table: Table,
    wanted: Mapping[str, str],
    policy: SchemaEvolution,
    *,
    emptied: bool = False,
) -> list[str]:
    """Make a table take a source's columns, in the connection's transaction.

    * ``error``: nothing is changed. The source must have exactly those columns of the table that the server
      does not fill itself.
    * ``add``: new columns are added; columns that the source lacks become NULL in its rows.
    * ``widen``: as ``add``, and a type becomes one that holds the old and the new values exactly, such as
      bigint for integer. If there is no such type, the column's stays, and loading shows whether the values
      fit.
    * ``recreate``: the table gets the source's columns. Grants, comments and anything else attached to the
      table or to a remaining column are kept. Only for a table that has just been emptied.

    Args:
        connection: The role must own the table if anything is to change.
        table: The table as the catalog describes it.
        wanted: The type of each of the source's columns, as Postgres writes it (``numeric(10,2)``).
        policy: What may be done.
        emptied: Whether the transaction has deleted all rows.

    Returns:
        What was changed, one line each, for the log; empty if nothing was.

    Raises:
        ColumnMismatchError: The policy does not allow what would be needed.
        ConfigError: ``recreate`` for a table whose other rows stay.
    """
    new = [name for name in wanted if table.column(name) is None]
    left_out = [column for column in table.columns if column.name not in wanted and not _filled(column)]
    if policy == "recreate":
        return _recreate(connection, table, wanted, emptied)
    if policy == "error" and (new or left_out):
        raise _mismatch(table, new, left_out)
    if required := [column for column in left_out if column.not_null]:
        raise _mismatch(table, [], required)
    changes = [_add(name, wanted[name]) for name in new]
    if policy == "widen":
        for column in table.columns:
            if column.name in wanted:
                wider = common_type(column.type_name, wanted[column.name])
                if wider is not None and wider != column.type_name:
                    changes.append(_retype(column.name, wider))
    return _alter(connection, table, changes)


def common_type(current: str, wanted: str) -> str | None:
    """The narrowest type that holds all values of two exactly.

    Args:
        current: A type as Postgres writes it (``format_type``).
        wanted: The other one.

    Returns:
        A type as Postgres writes it; None if there is no such type.

    Example:
        >>> common_type("integer", "numeric(6,2)")
        'numeric(12,2)'
    """
    if current == wanted:
        return current
    pair = {current, wanted}
    if pair <= _INTEGERS.keys():
        return max(pair, key=lambda name: _INTEGERS[name])
    if pair <= set(_FLOATS):
        return _FLOATS[1]
    if pair & set(_FLOATS) and pair & {"smallint", "integer"}:
        return _FLOATS[1]
    if pair == {"date", "timestamp without time zone"}:
        return "timestamp without time zone"
    if all(name == "text" or _SHORT_TEXT.fullmatch(name) for name in pair):
        return "text"
    first, second = _digits(current), _digits(wanted)
    return None if first is None or second is None else _numeric(first, second)


def _digits(name: str) -> tuple[int, int] | Literal["any"] | None:
    """Digits before and after the point that a type holds; None if it is not a decimal number."""
    if name in _INTEGERS:
        return _INTEGERS[name], 0
    match = _NUMERIC.fullmatch(name)
    if match is None:
        return None
    if match.group(1) is None:
        return "any"
    precision, scale = int(match.group(1)), int(match.group(2))
    return precision - scale, scale


def _numeric(first: tuple[int, int] | Literal["any"], second: tuple[int, int] | Literal["any"]) -> str:
    if first == "any" or second == "any":
        return "numeric"
    whole, scale = max(first[0], second[0]), max(first[1], second[1])
    return f"numeric({whole + scale},{scale})" if whole + scale <= _MAX_PRECISION else "numeric"


def _filled(column: Column) -> bool:
    """Whether the server gives the column a value if the source does not."""
    return column.generated or column.has_default


def _recreate(
    connection: psycopg.Connection[Any], table: Table, wanted: Mapping[str, str], emptied: bool
) -> list[str]:
    changes = [
        f"DROP COLUMN {_quoted(column.name)}"
        for column in table.columns
        if column.name not in wanted and not _filled(column)
    ]
    for name, type_name in wanted.items():
        column = table.column(name)
        if column is None:
            changes.append(_add(name, type_name))
        elif column.type_name != type_name:
            # There are no rows whose values would need conversion.
            changes.append(_retype(name, type_name) + f" USING NULL::{type_name}")
    if changes and not emptied:
        raise ConfigError(
            f"Table {table.name} has different columns from the source, and 'recreate' would change them for "
            "the rows that stay.",
            remedy="Use 'add' or 'widen', or 'recreate' only when the whole table is replaced.",
        )
    return _alter(connection, table, changes)


def _mismatch(table: Table, new: Sequence[str], left_out: Iterable[Column]) -> ColumnMismatchError:
    missing = [column.name for column in left_out]
    parts = []
    if new:
        parts.append(f"the source has {_listed(new)}, which the table does not have")
    if missing:
        parts.append(f"the source lacks {_listed(missing)}")
    return ColumnMismatchError(
        f"Table {table.name}: {'; '.join(parts)}.",
        remedy="Make the source's columns match the table's, or allow schema evolution: 'add' for new "
        "columns and for nullable ones that are left out, 'recreate' for a new table.",
    )


def _listed(names: Sequence[str]) -> str:
    return "column " * (len(names) == 1) + "columns " * (len(names) != 1) + ", ".join(map(repr, names))


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string(None)


def _add(name: str, type_name: str) -> str:
    return f"ADD COLUMN {_quoted(name)} {type_name}"


def _retype(name: str, type_name: str) -> str:
    return f"ALTER COLUMN {_quoted(name)} TYPE {type_name}"


def _alter(connection: psycopg.Connection[Any], table: Table, changes: list[str]) -> list[str]:
    if changes:
        # The names are quoted, and the types are this module's own words.
        actions = sql.SQL(", ").join(sql.SQL(change) for change in changes)
        connection.execute(sql.SQL("ALTER TABLE {} {}").format(table.name.sql(), actions))
    return changes
