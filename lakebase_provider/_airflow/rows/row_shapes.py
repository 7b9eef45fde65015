"""What rows are: values in column order or by column name; and what only looks like rows.

A text is a sequence of its characters, and a mapping one of its keys: as rows, they would be stored as nobody
intended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized, ValuesView
from itertools import chain
from operator import itemgetter
from typing import Any

from lakebase_provider.core.errors import BadRowError, ConfigError

Row = Sequence[Any]
_NOTHING: Any = object()
_REMEDY = "Give rows as tuples, lists or dicts."
_PLAIN = frozenset({tuple, list})


def refuse_frames(rows: Iterable[Any]) -> None:
    """Refuse what does not yield rows when iterated: a data frame yields its columns, a text its characters.

    Raises:
        ConfigError: It is such a thing.
    """
    if any(hasattr(rows, name) for name in ("__arrow_c_stream__", "__arrow_c_array__", "__dataframe__")):
        raise ConfigError(
            f"The rows are given as a {type(rows).__name__}, which is not an iterable of rows.",
            remedy="Load it with hook.client.load(frame, table), or give its rows as tuples.",
        )
    if isinstance(rows, (str, bytes, bytearray, memoryview, Mapping)):
        raise ConfigError(f"A {type(rows).__name__} is not an iterable of rows.", remedy=_REMEDY)


def named(
    rows: Iterator[Any], fields: Sequence[str] | None, catalog_name: Callable[[str], str]
) -> tuple[Sequence[str] | None, Iterator[Any]]:
    """The column names and the rows, converted by name if the first one is a mapping.

    Args:
        rows: The rows.
        fields: Names of the columns as the caller gave them, if any.
        catalog_name: Turns a name in SQL's form into the catalog's.

    Returns:
        The names of the columns, by default the first row's keys; and the rows. If the first row is not a
        mapping, both are unchanged.

    Raises:
        BadRowError: The first row lacks a column, or has one that is not among `fields`; later rows raise it
            when their turn comes.
    """
    first = next(rows, _NOTHING)
    if first is _NOTHING:
        return fields, rows
    rows = chain((first,), rows)
    if not isinstance(first, Mapping):
        if isinstance(first, Sized) and len(first) == 0:
            raise _bad(1, first, "it has no values")
        return fields, rows
    if not first or not all(isinstance(key, str) for key in first):
        raise _bad(1, first, "its keys are not column names")
    fields = fields or list(first)
    keys = {catalog_name(key): key for key in first}
    wanted = [keys.get(catalog_name(field), field) for field in fields]
    return fields, _by_name(rows, wanted)


def _by_name(rows: Iterator[Any], keys: list[str]) -> Iterator[Row]:
    known, values = set(keys), itemgetter(*keys)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise _bad(number, row, "not a mapping, as the first row is")
        # The view of SQLAlchemy's rows compares its keys in their order.
        if row.keys() != known and set(row) != known:
            raise _bad(number, row, _difference(row, keys))
        found = values(row)
        yield found if len(keys) > 1 else (found,)


def _difference(row: Mapping[Any, Any], keys: list[str]) -> str:
    missing = [key for key in keys if key not in row]
    if missing:
        return f"it has no value for {missing[0]!r}: use None for NULL"
    other = next(key for key in row if key not in keys)
    return f"it has a value for {other!r}, which is not one of the columns"


def as_rows(rows: list[Any], begun: int) -> list[Row]:
    """The rows as lists and tuples.

    Args:
        rows: Rows without names.
        begun: How many rows came before them.

    Raises:
        BadRowError: One of them is not a row.
    """
    kinds: set[Any] = set(map(type, rows))
    if kinds <= _PLAIN:
        return rows
    return [_as_row(row, number) for number, row in enumerate(rows, begun + 1)]


def require_values(rows: list[Row], width: int, begun: int) -> None:
    """Refuse a row with more or fewer values than there are columns.

    Args:
        rows: The rows.
        width: How many values each has.
        begun: How many rows came before them.

    Raises:
        BadRowError: One has a different number of values.
    """
    if set(map(len, rows)) <= {width}:
        return
    for number, row in enumerate(rows, begun + 1):
        if len(row) != width:
            raise _bad(number, row, f"it has {len(row)} values for {width} columns")


def _as_row(row: Any, number: int) -> Row:
    if isinstance(row, (list, tuple)):
        return row
    if isinstance(row, Mapping):
        raise _bad(number, row, "a mapping, unlike the first row")
    if isinstance(row, (str, bytes, bytearray, memoryview)):
        raise _bad(number, row, "a single value instead of a row")
    ordered = isinstance(row, (Sequence, Iterator, ValuesView)) or hasattr(row, "__array__")
    # Such as a driver's row; an object with neither, such as a set or a pydantic model, has no order of
    # values.
    if not ordered and not (hasattr(row, "__len__") and hasattr(row, "__getitem__")):
        raise _bad(number, row, "not a row")
    return tuple(row)


def _bad(number: int, row: Any, what: str) -> BadRowError:
    kind = type(row).__name__
    return BadRowError(f"Row {number:,} ({kind}): {what}.", row=number, kind=kind, remedy=_REMEDY)
