"""Adapts a table to the columns of what is loaded into it, as far as the user allows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import psycopg
from psycopg import sql

from lakebase_provider.core.bulk.tables.schema_evolution import SchemaEvolution
from lakebase_provider.core.bulk.types.postgres_types import of_family
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.database.catalog import Column, Table, read_table
from lakebase_provider.core.errors import ColumnMismatchError, ConfigError

#: Integers by size, with the decimal digits that each needs.
_INTEGERS = {kind.sql: len(str(1 << kind.width * 8 - 1)) for kind in of_family("integer")}
_FLOATS = tuple(kind.sql for kind in of_family("float"))
_NUMERIC = re.compile(r"numeric(?:\((\d+),(-?\d+)\))?")
_SHORT_TEXT = re.compile(r"(character varying|character)(?:\(\d+\))?")
#: More digits than a numeric may declare: then they are left undeclared.
_MAX_PRECISION = 1000


def needed_changes(table: Table, wanted: Mapping[str, str], policy: SchemaEvolution) -> list[str]:
    """What is to be changed about a table for it to take a source's columns.

    * ``error``: nothing is changed. The source must have exactly those columns of the table that the server
      does not fill itself.
    * ``add``: new columns are added; columns that the source lacks become NULL in its rows.
    * ``widen``: as ``add``, and a type becomes one that holds the old and the new values exactly, such as
      bigint for integer. If there is no such type, the column's stays, and loading shows whether the values
      fit.
    * ``recreate``: the table gets the source's columns. Grants, comments and anything else attached to the
      table or to a remaining column are kept. Only for a table without rows.

    Args:
        table: The table as the catalog describes it.
        wanted: The type of each of the source's columns, as Postgres writes it (``numeric(10,2)``).
        policy: What may be done.

    Returns:
        Actions of ALTER TABLE; empty if the table stays as it is.

    Raises:
        ColumnMismatchError: The policy does not allow what would be needed.
    """
    new = [name for name in wanted if table.column(name) is None]
    left_out = [column for column in table.columns if column.name not in wanted and not _filled(column)]
    if policy == "recreate":
        return [f"DROP COLUMN {_quoted(column.name)}" for column in left_out] + _recreated(table, wanted)
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
    return changes


def alter(
    connection: psycopg.Connection[Any], table: Table, changes: Sequence[str], policy: SchemaEvolution
) -> Table:
    """Change a table, in the connection's transaction, as :func:`needed_changes` says.

    Args:
        connection: The role must own the table.
        table: The table as the catalog describes it.
        changes: The actions.
        policy: By which they are allowed.

    Returns:
        The table as it is then.

    Raises:
        ConfigError: ``recreate`` for a table that has rows.
    """
    cursor, name = plain_cursor(connection), table.name.sql()
    if policy == "recreate":
        # A row that comes after the look would lose its values.
        cursor.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(name))
        if cursor.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(name)).rowcount:
            raise ConfigError(
                f"Table {table.name} has different columns from the source, and 'recreate' would change them "
                "for the rows that stay.",
                remedy="Use 'add' or 'widen', or 'recreate' only when the whole table is replaced.",
            )
    # The names are quoted, the types are the house's own words.
    actions = sql.SQL(", ").join(map(sql.SQL, changes))
    cursor.execute(sql.SQL("ALTER TABLE {} {}").format(name, actions))
    return read_table(connection, table.name)


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


def _recreated(table: Table, wanted: Mapping[str, str]) -> list[str]:
    changes = []
    for name, type_name in wanted.items():
        column = table.column(name)
        if column is None:
            changes.append(_add(name, type_name))
        elif column.type_name != type_name:
            # There are no rows whose values would need conversion.
            changes.append(_retype(name, type_name) + f" USING NULL::{type_name}")
    return changes


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
