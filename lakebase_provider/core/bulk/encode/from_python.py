"""A column of Python values as an Arrow array that is ready to be encoded for its target.

Most columns hold one plain type, whose values Arrow takes at C speed; only where others turn up is each value
looked at in Python (:mod:`lakebase_provider.core.bulk.types.values`), which also names the one that is bad.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg

from lakebase_provider.core.bulk.encode import binary
from lakebase_provider.core.bulk.types import json_text
from lakebase_provider.core.bulk.types.arrow import MAX_DECIMAL128, array_of, canonical, to_float4
from lakebase_provider.core.bulk.types.decimals import cast as cast_to_decimal
from lakebase_provider.core.bulk.types.postgres_types import BY_NAME, JSONS, TEXTS, ByName
from lakebase_provider.core.bulk.types.target_columns import OTHER, BadValueError, Target
from lakebase_provider.core.bulk.types.values import bad, check_column
from lakebase_provider.core.connect.parameters.adaptation import text_dumper

if TYPE_CHECKING:
    import pyarrow as pa

_NONE = type(None)
#: Bytes that one array of Arrow's strings holds.
_MAX_TEXT = 1 << 31
_EPOCH = datetime(1970, 1, 1)
_EPOCH_UTC = datetime(1970, 1, 1, tzinfo=timezone.utc)

_Build = Callable[[Any, Sequence[Any]], "pa.Array"]
#: From an encoder and its values; of other types than these the values go to Arrow's type as they are.
_BUILDERS = ByName[_Build]()


class ValuesEncoder:
    """Turns columns of Python values into Arrow arrays.

    Args:
        target: The column.
        text: True to prepare for text COPY, where an array is a literal and not a binary payload.
        strict: True to find now what the server would refuse, so that the row can be rejected.
    """

    def __init__(self, target: Target, *, text: bool, strict: bool) -> None:
        self._target = target
        self._text = text
        self._strict = strict
        self._text_of = text_dumper()
        self._dump = None if target.kind == OTHER else binary.dumper(target)
        self._build = partial(_BUILDERS.get(target.kind, type(self)._of_its_type), self)

    def encode(self, values: Sequence[Any]) -> pa.Array:
        """The values as an array.

        Raises:
            BadValueError: One of them does not fit the column; its index says which.
        """
        import pyarrow as pa

        if takes_as_it_is(self._target, values, strict=self._strict):
            try:
                return self._build(values)
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                pass  # Whether it is an error, and of which value, the look at each one tells.
        return self._build(self._checked(values))

    def _checked(self, values: Sequence[Any]) -> list[Any]:
        return checked(values, self._target)

    def _of_its_type(self, values: Sequence[Any]) -> pa.Array:

        return array_of(values, canonical(self._target))

    @_BUILDERS.of("time")
    def _times(self, values: Sequence[Any]) -> pa.Array:
        import pyarrow as pa

        if any(value is not None and value.tzinfo is not None for value in values):
            raise ValueError("time zone")
        return array_of(values, pa.time64("us"))

    @_BUILDERS.of("numeric")
    def _numerics(self, values: Sequence[Any]) -> pa.Array:
        import pyarrow as pa

        target = self._target
        if 0 < target.precision <= MAX_DECIMAL128 and 0 <= target.scale <= target.precision:
            try:
                return array_of(values, pa.decimal128(target.precision, target.scale))
            except pa.ArrowException:  # NaN, or a bad value
                values = self._checked(values)
        elif target.precision:
            values = self._checked(values)
        texts = array_of([None if value is None else str(value) for value in values], pa.string())
        scale = None if target.precision else _common_scale(texts)
        if scale is not None:
            try:
                return cast_to_decimal(texts, pa.decimal128(MAX_DECIMAL128, scale))
            except pa.ArrowException:
                pass  # NaN, or more digits than Arrow holds
        if self._text:
            return texts
        # Integers among the decimals become such, too.
        return self._payloads(values if target.precision else self._checked(values))

    @_BUILDERS.of(*JSONS)
    def _jsons(self, values: Sequence[Any]) -> pa.Array:
        import pyarrow as pa

        lines = json_text.encode_lines(values)
        if lines is not None and len(lines) < _MAX_TEXT:
            return _split(lines, len(values))
        # view() does not look whether it is UTF-8; the encoder wrote it, so it is.
        return array_of(json_text.encode_all(values), pa.binary()).view(pa.string())

    @_BUILDERS.of("array")
    def _arrays(self, values: Sequence[Any]) -> pa.Array:
        return self._others(values) if self._text else self._payloads(values)

    def _payloads(self, values: Sequence[Any]) -> pa.Array:
        import pyarrow as pa

        assert self._dump is not None
        dump = self._dump
        return array_of([None if value is None else dump(value) for value in values], pa.binary())

    @_BUILDERS.of(OTHER)
    def _others(self, values: Sequence[Any]) -> pa.Array:
        """Texts for the type's input function, as psycopg writes them."""
        import pyarrow as pa

        found: list[str | None] = []
        for index, value in enumerate(values):
            try:
                found.append(literal(value, self._target, self._text_of))
            except (psycopg.Error, ValueError, TypeError):
                error = bad(value, f"no {self._target.type_name}")
                error.index = index
                raise error from None
        return array_of(found, pa.string())


def takes_as_it_is(target: Target, values: Sequence[Any], *, strict: bool) -> bool:
    """Whether a column's values need no look at each: what does not fit shows when they are encoded.

    Args:
        target: The column.
        values: Its values.
        strict: True to find what only the server would refuse, too.
    """
    plain = BY_NAME[target.kind].takes if target.kind in BY_NAME else frozenset()
    return set(map(type, values)) <= {*plain, _NONE} and not _looks_needed(target, values, strict)


def _looks_needed(target: Target, values: Sequence[Any], strict: bool) -> bool:
    if target.fraction < 6:
        return True
    if target.kind not in TEXTS:
        return strict and target.kind in JSONS
    if target.length and any(value is not None and len(value) > target.length for value in values):
        return True
    if target.labels and not target.labels.issuperset(set(values) - {None}):
        return True
    if target.max_bytes:
        return True
    return strict and any(value is not None and "\0" in value for value in values)


def checked(values: Sequence[Any], target: Target) -> list[Any]:
    """Each of a column's values as :func:`.values.check_column` gives it.

    Raises:
        BadValueError: One of them does not fit the column; its index says which.
    """
    found = []
    for index, value in enumerate(values):
        try:
            found.append(check_column(value, target))
        except BadValueError as error:
            error.index = index
            raise
    return found


def literal(value: Any, target: Target, text_of: Callable[[Any], bytes | None]) -> str | None:
    """A checked value as text for the type's input function, as psycopg writes it; None for NULL.

    Args:
        value: The value.
        target: The column.
        text_of: What :func:`.adaptation.text_dumper` gave.

    Raises:
        psycopg.Error, TypeError, ValueError: It has no such text.
    """
    if value is None or isinstance(value, str):
        return value
    if target.delimiter == ";" and isinstance(value, list):
        return _boxes(value)
    dumped = text_of(value)
    return None if dumped is None else dumped.decode()


def _boxes(items: list[Any]) -> str:
    """An array of boxes, which semicolons separate; psycopg separates those of all arrays by commas."""
    return "{" + ";".join(_boxes(item) if isinstance(item, list) else _box(item) for item in items) + "}"


def _box(item: Any) -> str:
    if item is None:
        return "NULL"
    if not isinstance(item, str) or set('"\\{};') & set(item):
        raise ValueError("not a box")
    return f'"{item}"'


def _split(lines: bytes, count: int) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    offsets = struct.pack("=ii", 0, len(lines))
    text = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(offsets), pa.py_buffer(lines)])
    return pc.split_pattern(text, "\n").values.slice(0, count)  # nothing comes after the last line feed


@_BUILDERS.of("uuid")
def _uuids(_: ValuesEncoder, values: Sequence[Any]) -> pa.Array:
    import pyarrow as pa

    return array_of([None if value is None else value.bytes for value in values], pa.binary(16))


@_BUILDERS.of("timestamp")
def _timestamps(_: ValuesEncoder, values: Sequence[Any]) -> pa.Array:
    """An aware datetime raises, for it cannot be subtracted from a naive one; so in the next function."""
    import pyarrow as pa

    since = [None if value is None else value - _EPOCH for value in values]
    return array_of(since, pa.duration("us")).view(pa.timestamp("us"))


@_BUILDERS.of("timestamptz")
def _timestamptzs(_: ValuesEncoder, values: Sequence[Any]) -> pa.Array:
    import pyarrow as pa

    # A third of the time that Arrow needs for aware datetimes.
    since = [None if value is None else value - _EPOCH_UTC for value in values]
    return array_of(since, pa.duration("us")).view(pa.timestamp("us", "UTC"))


def _common_scale(texts: pa.Array) -> int | None:
    """The number of digits after the point that all the decimals have, or None.

    Without a declared scale Postgres keeps each value's own; Arrow can carry it only where they agree.
    """
    import pyarrow.compute as pc

    if pc.any(pc.match_substring(texts, "E")).as_py():
        return None
    points = pc.find_substring(texts, ".")
    bounds = pc.min_max(points).as_py()
    if bounds["max"] in (None, -1):
        return 0
    if bounds["min"] < 0:
        return None
    scales = pc.min_max(pc.subtract(pc.binary_length(texts), points)).as_py()
    return int(scales["min"]) - 1 if scales["min"] == scales["max"] <= MAX_DECIMAL128 else None


@_BUILDERS.of("float4")
def _float4s(_: ValuesEncoder, values: Sequence[Any]) -> pa.Array:
    import pyarrow as pa

    return to_float4(array_of(values, pa.float64()))
