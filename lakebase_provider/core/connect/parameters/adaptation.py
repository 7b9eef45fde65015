"""How a Python value becomes a parameter of a statement, on every connection of this package.

psycopg's own rules, and a few more: what pandas and NumPy call missing is NULL, an enum's member is its value
unless psycopg's ``register_enum`` says otherwise, and what Python's own type would lose digits of is refused
(:mod:`lakebase_provider.core.connect.parameters.foreign_values`). The rules hold for one
connection or cursor, and not for psycopg as a whole, which others in the process use too.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any

import psycopg
from psycopg import postgres
from psycopg.abc import AdaptContext, Buffer, DumperKey
from psycopg.abc import Dumper as AnyDumper
from psycopg.adapt import AdaptersMap, Dumper, PyFormat, RecursiveDumper, Transformer
from psycopg.pq import Format
from psycopg.types.array import BaseListDumper, ListBinaryDumper, ListDumper
from psycopg.types.enum import EnumDumper

from lakebase_provider.core.connect.parameters.foreign_values import (
    CONVERTED,
    OWN,
    InexactValueError,
    plain,
    without_missing,
)


def new_adapters() -> AdaptersMap:
    """psycopg's adapters, whatever has been registered there until now, with the rules of this package."""
    global _made
    state = _state_of(postgres.adapters)
    made = _made
    if made is None or len(made[0]) != len(state) or any(map(operator.is_not, made[0], state)):
        found = AdaptersMap(postgres.adapters)
        # What is registered from now on goes into copies of these.
        state = _state_of(postgres.adapters)
        register(found)
        made = _made = (state, found)
    return AdaptersMap(made[1])


def _state_of(adapters: AdaptersMap) -> list[object]:
    """The dictionaries below, which whoever registers something replaces once they are shared."""
    return [
        *adapters._dumpers.values(),
        *adapters._dumpers_by_oid,
        *adapters._loaders,
        adapters.types._registry,
    ]


#: The adapters of a new connection, and what they were made from: to make them takes as long as a statement.
_made: tuple[list[object], AdaptersMap] | None = None


def register(context: AdaptContext) -> None:
    """Have a connection or a cursor of any kind follow the rules.

    Args:
        context: The connection or the cursor.
    """
    adapters = context.adapters
    for name in CONVERTED:
        # By name psycopg looks after types that somebody has registered themselves: these stay.
        adapters.register_dumper(name, _ConvertedBinaryDumper)
        adapters.register_dumper(name, _ConvertedDumper)
    if adapters.get_dumper(Enum, PyFormat.TEXT) is EnumDumper:
        # psycopg writes the name of a member whose enum nobody has registered (``register_enum``).
        adapters.register_dumper(Enum, _ConvertedBinaryDumper)
        adapters.register_dumper(Enum, _ConvertedDumper)
    # As psycopg has it: what comes last is preferred, and text takes elements of mixed types.
    adapters.register_dumper(list, _ListBinaryDumper)
    adapters.register_dumper(list, _ListDumper)
    # A copy whose types are set chooses by these and not by the value.
    for name in _TIMES:
        oid = adapters.types[name].oid
        for format in Format:
            stock = adapters.get_dumper_by_oid(oid, format)
            if stock.__module__.startswith(_STOCK_TIMES):
                adapters.register_dumper(None, _for_oid(stock))


#: Types whose dumpers take what only passes for their values, and where psycopg's own are from.
_TIMES = ("date", "time", "timetz", "timestamp", "timestamptz", "interval")
_STOCK_TIMES = ("psycopg.", "psycopg_binary.", "psycopg_c.")


@cache
def _for_oid(stock: type[AnyDumper]) -> type[Dumper]:
    class Exact(Dumper):
        oid, format = stock.oid, stock.format

        def __init__(self, cls: type, context: AdaptContext | None = None) -> None:
            super().__init__(cls, context)
            self._dump = stock(cls, context).dump

        def dump(self, obj: Any) -> Buffer | None:
            value = _exact(obj)
            return None if value is None else self._dump(value)

    return Exact


def text_dumper() -> Callable[[Any], bytes | None]:
    """A function from a value to the text that its type's input function reads, by the rules of this module.

    It gives None for NULL, and raises ``psycopg.Error`` for what has no such text or would lose something.
    """
    transformer = Transformer(new_adapters())

    def dump(value: Any) -> bytes | None:
        dumped = transformer.get_dumper(value, PyFormat.TEXT).dump(value)
        return None if dumped is None else bytes(dumped)

    return dump


def _exact(value: Any) -> Any:
    try:
        return plain(value)
    except InexactValueError as error:
        raise psycopg.DataError(f"a value of type {type(value).__name__}: {error.reason}") from None


class _ConvertedDumper(RecursiveDumper):
    """Dumps a value as psycopg does the one of Python's own that it means."""

    _inner: AnyDumper | None = None

    def get_key(self, obj: Any, format: PyFormat) -> DumperKey:
        """By the type of the value that is meant, for which psycopg may have several."""
        value = _exact(obj)
        if value is None:
            return (self.cls,)
        return (self.cls, self._dumper_of(value, format).get_key(value, format))

    def upgrade(self, obj: Any, format: PyFormat) -> Dumper:
        """A dumper whose format and type are those of the value that is meant."""
        value = _exact(obj)
        found = _ConvertedDumper(self.cls, self._tx)
        if value is not None:
            found._inner = self._dumper_of(value, format)
            found.oid, found.format = found._inner.oid, found._inner.format
        return found

    def dump(self, obj: Any) -> Buffer | None:
        """The value that is meant, or NULL."""
        value = _exact(obj)
        if value is None:
            return None
        inner = self._inner or self._dumper_of(value, PyFormat.from_pq(self.format))
        return inner.dump(value)

    def _dumper_of(self, value: Any, format: PyFormat) -> AnyDumper:
        return self._tx.get_dumper(value, format)


class _ConvertedBinaryDumper(_ConvertedDumper):
    format = Format.BINARY


class _NullableElements(BaseListDumper):
    """An array whose elements may be what pandas and NumPy call missing."""

    def _find_list_element(self, L: list[Any], format: PyFormat) -> Any:  # noqa: N803 - psycopg's name
        L = self._members(L)  # noqa: N806
        try:
            return super()._find_list_element(L, format)
        except psycopg.DataError:  # of several types, of which one may mean NULL
            found = _nulls(L)
            if found is L:
                raise
            return super()._find_list_element(found, format)

    def dump(self, obj: list[Any]) -> Buffer | None:
        """The array, with NULL for what means it."""
        if not OWN.issuperset(map(type, obj)):
            obj = _nulls(self._members(obj))
        return super().dump(obj)  # type: ignore[safe-super] # of the classes below, not of the base

    def _members(self, values: list[Any]) -> list[Any]:
        """The list with the values of an enum's members, which may be of several types; the same if none."""
        if OWN.issuperset(map(type, values)):
            return values
        found = [self._member(value) for value in values]
        return found if any(map(operator.is_not, found, values)) else values

    def _member(self, value: Any) -> Any:
        if isinstance(value, list):
            return self._members(value)
        if isinstance(value, Enum) and self._is_converted(type(value)):
            return _exact(value)
        return value

    def _is_converted(self, kind: type) -> bool:
        return self._tx.adapters.get_dumper(kind, PyFormat.TEXT) is _ConvertedDumper


class _ListDumper(_NullableElements, ListDumper):
    """In text."""


class _ListBinaryDumper(_NullableElements, ListBinaryDumper):
    """In the binary format."""


def _nulls(values: list[Any]) -> list[Any]:
    try:
        return without_missing(values)
    except RecursionError:
        return values  # psycopg says so
