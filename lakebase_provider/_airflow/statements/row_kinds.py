"""The form of a row: a tuple, or what the connection's `cursor` sets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import psycopg
from psycopg.rows import dict_row, namedtuple_row, tuple_row

from lakebase_provider.core.errors import ConfigError


def row_factory(cursor: str | None) -> Any:
    """How rows are made, by PostgresHook's name for it.

    Args:
        cursor: ``dictcursor`` or ``namedtuplecursor``; None for tuples.

    Raises:
        ConfigError: It has another value.
    """
    try:
        return _ROW_FACTORIES[cursor.lower() if cursor else None]
    except KeyError:
        raise ConfigError(
            f"Setting 'cursor' is {cursor!r}.", remedy="Use dictcursor or namedtuplecursor, or leave it out."
        ) from None


_ROW_FACTORIES: dict[str | None, Any] = {
    None: tuple_row,
    "dictcursor": dict_row,
    "namedtuplecursor": namedtuple_row,
}
_of_call: ContextVar[Any] = ContextVar("lakebase_row_factory", default=None)


class _Row(dict[Any, Any]):
    """A dict whose values can also be accessed by position."""

    def __missing__(self, key: object) -> Any:
        if isinstance(key, int):
            return list(self.values())[key]
        raise KeyError(key)


def _row_by_both(cursor: psycopg.Cursor[Any]) -> Any:
    make = dict_row(cursor)
    return lambda values: _Row(make(values))


def rows_as_taken_by(module: str) -> AbstractContextManager[None]:
    """Give common-sql the rows that its own code expects, whatever `cursor` is set to.

    Its checks and transfers take values in order, which a dict does not have, and the checks would misread a
    dict's keys. Its sensor passes the row to a function that may be the user's.

    Args:
        module: Name of the module that requests rows.
    """
    if not module.startswith("airflow.providers.common.sql."):
        return _AS_CONFIGURED
    return _rows_for("sensor" if ".sensors." in module else "other")


_AS_CONFIGURED = nullcontext()


@contextmanager
def _rows_for(kind: str) -> Iterator[None]:
    made = _of_call.set(kind)
    try:
        yield
    finally:
        _of_call.reset(made)


def row_factory_of_call(configured: Any) -> Any:
    """The configured way to make rows, or the one that the caller in common-sql needs."""
    kind = _of_call.get()
    if kind is None:
        return configured
    if kind == "sensor":
        return _row_by_both if configured is dict_row else configured
    return tuple_row
