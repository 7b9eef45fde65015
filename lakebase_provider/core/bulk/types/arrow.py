"""Arrow's types: what lies below an encoding, which one a target takes, and the checked ways there."""

from __future__ import annotations

import sys
from array import array as packed
from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal
from functools import cache
from importlib.util import find_spec
from itertools import accumulate
from typing import TYPE_CHECKING, Any
from uuid import UUID

from lakebase_provider.core.bulk.types.decimals import cast as cast_to_decimal
from lakebase_provider.core.bulk.types.postgres_types import BY_NAME, KINDS
from lakebase_provider.core.bulk.types.target_columns import BadValueError, Target
from lakebase_provider.core.errors import ColumnMismatchError

if TYPE_CHECKING:
    import pyarrow as pa

Cast = Callable[["pa.Array"], "pa.Array"]
#: Digits that Arrow's decimal128 holds.
MAX_DECIMAL128 = 38
#: Precision that stands for a numeric without bounds: Arrow has none, and nobody declares all its digits.
ANY_PRECISION = 76
#: Extension types that mean what a type of Postgres means, with that type's name.
KNOWN_EXTENSIONS = {kind.extension: kind.sql for kind in KINDS if kind.extension}


_NO_DAY = date(1970, 1, 1).toordinal()
#: No decimal of Arrow has as many digits.
_BEYOND = 1_000
#: Codes of the module array, by Arrow's name of the type.
_PACKED = {"int16": "h", "int32": "i", "int64": "q", "double": "d", "date32[day]": "i"}


def array_of(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Python values, and None for NULL, as an array of the type that is :func:`canonical` for them.

    pyarrow.array looks whether what it gets is of pandas, and imports pandas for it: a second of CPU in a
    process that does not use it. So where it is not imported, the values are packed here.

    Raises:
        pyarrow.ArrowException, TypeError, ValueError, OverflowError: One of them is not of that type.
    """
    import pyarrow as pa

    if pa.types.is_decimal(kind) and any(map(_is_beyond, values)):
        raise pa.ArrowInvalid(
            "A number has an exponent of more digits than a decimal."
        )  # or Arrow would crash
    if "pandas" in sys.modules or not _is_installed("pandas"):
        return pa.array(values, type=kind)
    if pa.types.is_decimal(kind):
        texts = [None if value is None else str(value) for value in values]
        return cast_to_decimal(array_of(texts, pa.string()), kind)
    if pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return _array_of_bytes(values, kind)
    if pa.types.is_time(kind) or pa.types.is_duration(kind):
        moments = _in_microseconds(values, clock=pa.types.is_time(kind))
        return array_of(moments, pa.int64()).view(kind)
    code = "b" if pa.types.is_boolean(kind) else _PACKED[str(kind)]
    filled: Sequence[Any] = values
    if None in values:
        filled = [0 if value is None else value for value in values]
    if pa.types.is_date(kind):
        filled = [value and value.toordinal() - _NO_DAY for value in filled]
    numbers = packed(code, filled)
    return (
        _of_buffers(pa.int8(), values, numbers).cast(kind)
        if code == "b"
        else _of_buffers(kind, values, numbers)
    )


def scalar_of(value: Any, kind: pa.DataType) -> pa.Scalar:
    """One value as :func:`array_of` takes it: to make a scalar of it, Arrow would import pandas, too."""
    return array_of([value], kind)[0]


def _of_buffers(kind: pa.DataType, values: Sequence[Any], *data: Any) -> pa.Array:
    import pyarrow as pa

    valid = None
    if None in values:
        flags = pa.py_buffer(bytes([value is not None for value in values]))
        valid = pa.Array.from_buffers(pa.int8(), len(values), [None, flags]).cast(pa.bool_()).buffers()[1]
    return pa.Array.from_buffers(kind, len(values), [valid, *map(pa.py_buffer, data)])


def _array_of_bytes(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_fixed_size_binary(kind):
        return _of_buffers(kind, values, b"".join([value or bytes(kind.byte_width) for value in values]))
    if pa.types.is_string(kind):
        parts = [b"" if value is None else value.encode() for value in values]
    else:
        parts = [value or b"" for value in values]
    offsets = packed("i", accumulate(map(len, parts), initial=0))
    return _of_buffers(kind, values, offsets, b"".join(parts))


def _in_microseconds(values: Sequence[Any], *, clock: bool) -> list[int | None]:
    """Times of day, or else spans of time, in microseconds."""
    if clock:
        return [
            None
            if value is None
            else ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond
            for value in values
        ]
    return [
        None if value is None else (value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds
        for value in values
    ]


def _is_beyond(value: Any) -> bool:
    return type(value) is Decimal and not -_BEYOND < value.adjusted() < _BEYOND


@cache
def _is_installed(package: str) -> bool:
    return find_spec(package) is not None


def is_text(kind: pa.DataType) -> bool:
    """Whether it is one of Arrow's three types of text."""
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def require_known(schema: pa.Schema) -> None:
    """Refuse extension types whose meaning is not known: what they store need not be what they mean.

    Raises:
        ColumnMismatchError: A column is of such a type, or has one within.
    """
    for field in schema:
        name = unknown_extension(field)
        if name is not None:
            raise ColumnMismatchError(
                f"Column {field.name!r} of the source is of the extension type {name!r}, unknown here.",
                remedy="Cast it in the source to a type that says what is meant, such as text.",
            )


def unknown_extension(field: pa.Field) -> str | None:
    """The name of the extension type of a field, or of one within it, that is not known; else None."""
    import pyarrow as pa

    kind = field.type
    # Of a type that nobody has registered here, only the field's metadata tell.
    stored = (field.metadata or {}).get(b"ARROW:extension:name", b"").decode()
    name = kind.extension_name if isinstance(kind, pa.BaseExtensionType) else stored
    if name:
        return None if name in KNOWN_EXTENSIONS else str(name)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return unknown_extension(pa.field("", kind.value_type))
    within = (unknown_extension(kind.field(place)) for place in range(kind.num_fields))
    return next((name for name in within if name is not None), None)


def inferred_type(name: str, values: Sequence[Any], where: str) -> pa.DataType:
    """The type that shows in Python values.

    Args:
        name: Their column's name, for the error.
        values: The values, with None for NULL.
        where: What they are, for the error.

    Raises:
        ColumnMismatchError: There is none that holds them all.
    """
    import pyarrow as pa

    kinds = set(map(type, values)) - {type(None)}
    if kinds == {UUID}:
        return pa.uuid()
    # The digits of these bound nothing.
    unbounded = pa.decimal256(ANY_PRECISION, 0)
    if kinds == {Decimal}:
        return unbounded
    try:
        found = pa.array(values).type
    except (pa.ArrowException, OverflowError) as error:
        raise ColumnMismatchError(
            f"The type of column {name!r} cannot be inferred from {where}.",
            remedy="Give it values of one type, or give data whose types are known, such as Arrow's.",
        ) from error
    return unbounded if pa.types.is_decimal(found) else found


def decoded_type(kind: pa.DataType) -> pa.DataType:
    """The type below extension, dictionary and run-end encoding."""
    import pyarrow as pa

    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = pa.bool_() if kind.extension_name == "arrow.bool8" else kind.storage_type
        elif pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
            kind = kind.value_type
        else:
            return kind


def decoded(array: pa.Array) -> pa.Array:
    """The array without extension, dictionary and run-end encoding."""
    import pyarrow as pa
    import pyarrow.compute as pc

    while True:
        if isinstance(array, pa.ExtensionArray):
            is_bool = array.type.extension_name == "arrow.bool8"  # a byte, of which any but 0 is true
            array = array.storage.cast(pa.bool_()) if is_bool else array.storage
        elif pa.types.is_dictionary(array.type):
            # Arrow cannot unfold a dictionary of string views, which is what Polars gives.
            words = decoded(array.dictionary)
            view = pa.types.is_string_view(words.type)
            array = (words.cast(pa.string()) if view else words).take(array.indices)
        elif pa.types.is_run_end_encoded(array.type):
            values = decoded(array.values)
            if values.type == array.type.value_type:
                array = pc.run_end_decode(array)
            else:  # Arrow cannot unfold runs of what is encoded itself
                places = pa.RunEndEncodedArray.from_arrays(array.run_ends, pa.array(range(len(values))))
                array = values.take(pc.run_end_decode(places.slice(array.offset, len(array))))
        else:
            return array


def canonical(target: Target) -> pa.DataType:
    """The Arrow type that encodes to the target's binary format."""
    import pyarrow as pa

    if target.kind == "numeric":
        return pa.decimal128(target.precision or MAX_DECIMAL128, target.scale)
    kind = BY_NAME.get(target.kind)
    make = kind and (kind.sent or kind.arrow)
    return make(pa) if make else pa.string()


def nulls(target: Target) -> Cast:
    """Nulls of the target's type, for a column that has no type of its own."""
    import pyarrow as pa

    scalar = not (target.kind == "array" or (target.kind == "numeric" and target.precision > MAX_DECIMAL128))
    kind = canonical(target) if scalar and target.scale >= 0 else pa.binary()
    return lambda array: pa.nulls(len(array), kind)


def is_list(kind: pa.DataType) -> bool:
    """Whether it is one of Arrow's types of lists."""
    import pyarrow as pa

    t = pa.types
    return bool(t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind) or is_list_view(kind))


def is_list_view(kind: pa.DataType) -> bool:
    """Whether it is one of the lists of which Arrow's own cast loses elements without a word."""
    import pyarrow as pa

    return bool(pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))


def same(array: pa.Array) -> pa.Array:
    """The array as it is."""
    return array


def to(kind: pa.DataType) -> Cast:
    """A cast that raises where it would lose anything."""
    import pyarrow as pa

    if pa.types.is_decimal128(kind):
        return lambda array: array if array.type == kind else cast_to_decimal(array, kind)
    return lambda array: array if array.type == kind else array.cast(kind, safe=True)


def to_float4(array: pa.Array) -> pa.Array:
    """The nearest float4, which is what the type means; but no infinity or 0 for what is out of its range."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wide = array.cast(pa.float64())
    narrow = wide.cast(pa.float32())
    zeros = narrow.cast(pa.bool_()).equals(wide.cast(pa.bool_()))  # as booleans, only they are false
    same_ends = pc.is_inf(narrow).equals(pc.is_inf(wide)) and zeros
    if not same_ends:
        raise BadValueError("out of range", kind=str(array.type))
    return narrow


def with_digits_of_float4(array: pa.Array) -> pa.Array:
    """The array with each float4, also within lists and structs, as the float8 that has the same digits.

    They are the fewest that mean the float4: 0.1 stays 0.1, where its exact value is 0.10000000149011612.
    """
    import pyarrow as pa

    texts = _with_float4_as(pa.string(), array.type)
    if texts == array.type:
        return array
    if "list_view" in str(array.type):
        # Arrow's own cast of a list view loses elements without a word.
        array = pa.array(array.to_pylist(), type=_with_float4_as(pa.float32(), array.type))
    return array.cast(texts).cast(_with_float4_as(pa.float64(), array.type))


def _with_float4_as(wanted: pa.DataType, kind: pa.DataType) -> pa.DataType:
    """The type with another one in place of each float4 in it."""
    import pyarrow as pa

    t = pa.types

    def changed(field: pa.Field) -> pa.Field:
        return field.with_type(_with_float4_as(wanted, field.type))

    if t.is_float32(kind):
        return wanted
    if t.is_struct(kind):
        return pa.struct([changed(field) for field in kind])
    if t.is_map(kind):
        return pa.map_(changed(kind.key_field), changed(kind.item_field), kind.keys_sorted)
    if t.is_fixed_size_list(kind):
        return pa.list_(changed(kind.value_field), kind.list_size)
    if t.is_list(kind):
        return pa.list_(changed(kind.value_field))
    if t.is_large_list(kind) or t.is_list_view(kind) or t.is_large_list_view(kind):
        return pa.large_list(changed(kind.value_field))
    if t.is_dictionary(kind) or t.is_run_end_encoded(kind):
        found = _with_float4_as(wanted, kind.value_type)
        return kind if found == kind.value_type else found
    return kind


def to_day(array: pa.Array) -> pa.Array:
    """Midnights as days."""
    import pyarrow as pa

    days = array.cast(pa.date32())
    if not days.cast(array.type).equals(array):
        raise BadValueError("a time of day", kind=str(array.type))
    return days


def bounded(cast: Cast, integer: pa.DataType, first: int) -> Cast:
    """Refuse what lies before Postgres' first day or moment."""
    import pyarrow.compute as pc

    def checked(array: pa.Array) -> pa.Array:
        found = cast(array)
        least = pc.min(found.view(integer)).as_py()
        if least is not None and least < first:
            raise BadValueError("before Postgres' first day", kind=str(array.type))
        return found

    return checked
