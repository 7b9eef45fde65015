"""Binary COPY data to Arrow arrays, a batch of rows at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.bulk.read.decoding.binary_copy import malformed, split
from lakebase_provider.core.bulk.read.decoding.decode_list import decode_list, require_counted_from_one
from lakebase_provider.core.bulk.read.decoding.decode_numeric import decode_numeric
from lakebase_provider.core.bulk.read.decoding.fields import (
    Fields,
    Malformed,
    MalformedRow,
    ValueRefused,
    refuse,
)
from lakebase_provider.core.bulk.read.memory import scratch_pool
from lakebase_provider.core.bulk.types.decimals import REMEDY as DECIMALS_REMEDY
from lakebase_provider.core.bulk.types.postgres_types import BY_NAME, ByName, of_family
from lakebase_provider.core.errors import LoadError

if TYPE_CHECKING:
    import pyarrow as pa

    from lakebase_provider.core.bulk.read.result_columns import ResultColumn

#: 2000-01-01, from which Postgres counts, since 1970.
_EPOCH_DAYS = 10_957
_EPOCH_MICROSECONDS = _EPOCH_DAYS * 86_400_000_000
_DAY = 86_400_000_000
_INT64_MAX = 2**63 - 1
#: Since 2000: 4714-11-24 BC, from which Postgres' dates go, and the days after its last date and time.
_FIRST_DAY, _DATES_END, _TIMES_END = -2_451_545, 2_145_031_949, 106_751_983
#: Days of an interval whose microseconds are sure to fit 64 bits.
_INTERVAL_DAYS = 10**8

#: From fields and the Arrow type that they become. What has none here is texts or bytes.
_DECODERS = ByName[Callable[[Fields, "pa.DataType"], "pa.Array"]]()


def decode_batch(
    data: bytearray,
    sizes: Sequence[int],
    columns: Sequence[ResultColumn],
    schema: pa.Schema,
    first_row: int = 1,
    *,
    widen: bool = False,
) -> pa.RecordBatch:
    """The rows as a record batch.

    Args:
        data: The rows' bytes, one after another; becomes part of the batch.
        sizes: How many bytes each row has.
        columns: What they hold.
        schema: Their Arrow schema.
        first_row: Number of the first one in the result, for errors.
        widen: Whether a numeric that declares no digits may become another decimal than the schema's.

    Raises:
        LoadError: A value does not fit its column's Arrow type, or the bytes are not what COPY sends.
    """
    import pyarrow as pa

    arrays: list[pa.Array] = []
    try:
        for fields, column in zip(split(data, sizes, len(columns)), columns, strict=True):
            arrays.append(_decoded(fields, column, widen=widen))
    except ValueRefused as error:
        # Columns are taken one after another: a field's error is of the next one.
        found = None if isinstance(error, MalformedRow) else columns[len(arrays)]
        raise _load_error(error, found, first_row) from None
    if not columns:
        return pa.RecordBatch.from_struct_array(pa.array([{}] * len(sizes), type=pa.struct([])))
    if widen and any(array.type != kind for array, kind in zip(arrays, schema.types, strict=True)):
        return pa.RecordBatch.from_arrays(arrays, names=schema.names)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _decoded(fields: Fields, column: ResultColumn, *, widen: bool) -> pa.Array:
    try:
        found = decode(fields, column.kind, column.arrow_type)
        if column.refuses_bounds:
            require_counted_from_one(fields)
        return found
    except Malformed:
        raise
    except ValueRefused:
        if not (widen and column.is_open):
            raise
    return decode(fields, column.kind, None)


def _load_error(error: ValueRefused, column: ResultColumn | None, first_row: int) -> LoadError:
    row = "" if error.row is None else f"row {first_row + error.row}"
    if isinstance(error, Malformed) or column is None:
        name = "" if column is None else f'column "{column.name}"'
        return malformed(error.reason, ", ".join(part for part in (row, name) if part))
    return LoadError(
        f'Column "{column.name}" holds a value that {column.arrow_type} cannot: {error.reason}'
        f"{f' ({row})' if row else ''}.",
        remedy=DECIMALS_REMEDY
        if column.kind.startswith("numeric")
        else "Cast the column in the query, such as to text.",
    )


def decode(fields: Fields, kind: str, arrow_type: pa.DataType | None) -> pa.Array:
    """One column's fields as an array.

    Args:
        fields: The fields.
        kind: Name of their Postgres type, of which there is a decoder here; with ``[]`` behind it for arrays.
        arrow_type: What they become; None, of numerics, for the decimal that the values need.

    Raises:
        ValueRefused: A value does not fit.
        Malformed: A field is not of that type's form.
    """
    if kind.endswith("[]"):
        return decode_list(fields, kind[:-2], arrow_type, decode)
    width = BY_NAME[kind].width
    if width:
        fields.refuse(fields.sizes != width, f"another size than the {width} bytes of {kind}", Malformed)
    return _DECODERS.get(kind, _bytes)(fields, arrow_type)


_DECODERS["numeric"] = decode_numeric


def _number(form: str, fields: Fields, arrow_type: pa.DataType) -> pa.Array:
    # Of an oid, which has no sign, Arrow's type is a wider one.
    return _fixed(fields, fields.read(form).astype(arrow_type.to_pandas_dtype(), copy=False), arrow_type)


_DECODERS.update((kind.name, partial(_number, kind.form)) for kind in of_family("integer", "float", "oid"))


@_DECODERS.of("bool")
def _bool(fields: Fields, arrow_type: pa.DataType) -> pa.Array:
    import numpy as np

    flags = fields.read(">u1")
    refuse(flags > 1, "neither true nor false", Malformed)
    return _fixed(fields, np.packbits(flags, bitorder="little"), arrow_type)


@_DECODERS.of("jsonb")
def _jsonb(fields: Fields, arrow_type: pa.DataType) -> pa.Array:
    fields.refuse(fields.sizes < 1, "a jsonb without its version", Malformed)
    fields.refuse(fields.read(">u1") != 1, "another version of jsonb than 1", Malformed)
    return _bytes(fields, arrow_type, skip=1)


def _fixed(fields: Fields, numbers: Any, arrow_type: pa.DataType) -> pa.Array:
    import pyarrow as pa

    buffers = [fields.validity(), pa.py_buffer(numbers)]
    return pa.Array.from_buffers(arrow_type, len(fields), buffers, fields.null_count)


def _bytes(fields: Fields, arrow_type: pa.DataType, *, skip: int = 0) -> pa.Array:
    """Texts or bytes: every second value of an array over the batch's data as it lies there."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    count = len(fields)
    if len(fields.data) > 2**31 - 1:
        raise ValueRefused("too many bytes in one batch; read fewer rows at once by batch_rows")
    offsets = np.empty(2 * count + 1, dtype=np.int32)
    starts = fields.starts + skip if fields.nulls is None else fields.starts + skip * ~fields.nulls
    offsets[0:-1:2] = starts
    offsets[1::2] = fields.starts + fields.sizes
    offsets[-1] = offsets[-2] if count else 0
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(fields.data)]
    spread = pa.Array.from_buffers(arrow_type, 2 * count, buffers, 0)
    # By buffers: pa.array would import pandas where it is installed.
    even = pa.Array.from_buffers(pa.int64(), count, [None, pa.py_buffer(np.arange(0, 2 * count, 2))], 0)
    buffers = [fields.validity(), *pc.take(spread, even, memory_pool=scratch_pool()).buffers()[1:]]
    found = pa.Array.from_buffers(arrow_type, count, buffers, fields.null_count)
    if pa.types.is_string(arrow_type):
        try:
            found.validate(full=True)
        except pa.ArrowInvalid:
            raise ValueRefused("text that is not UTF-8", _first_not_utf8(fields, skip)) from None
    return found


def _first_not_utf8(fields: Fields, skip: int) -> int | None:
    for row, value in enumerate(fields.values()):
        try:
            str((value or b"")[skip:], "utf-8")
        except UnicodeDecodeError:
            return row
    return None


@_DECODERS.of("uuid")
def _uuid(fields: Fields, arrow_type: pa.DataType) -> pa.Array:
    """UUIDs as their text."""
    import numpy as np
    import pyarrow as pa

    count = len(fields)
    raw = np.stack([fields.read(">u1", k) for k in range(16)], axis=1)
    hexadecimal = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
    text = np.full((count, 36), ord("-"), dtype=np.uint8)
    digits = np.empty((count, 32), dtype=np.uint8)
    digits[:, 0::2] = hexadecimal[raw >> 4]
    digits[:, 1::2] = hexadecimal[raw & 15]
    for to, begin, end in ((0, 0, 8), (9, 8, 12), (14, 12, 16), (19, 16, 20), (24, 20, 32)):
        text[:, to : to + end - begin] = digits[:, begin:end]
    offsets = np.arange(0, 36 * (count + 1), 36, dtype=np.int32)
    buffers = [fields.validity(), pa.py_buffer(offsets), pa.py_buffer(text)]
    return pa.Array.from_buffers(arrow_type, count, buffers, fields.null_count)


@_DECODERS.of("date")
def _date(fields: Fields, arrow_type: pa.DataType) -> pa.Array:
    import numpy as np

    days = fields.read(">i4")
    if days.min(initial=0) < _FIRST_DAY or days.max(initial=0) >= _DATES_END:
        refuse(np.isin(days, (2**31 - 1, -(2**31))), "an infinite date")
        raise Malformed("a date before or after those of Postgres", _outside(days, _FIRST_DAY, _DATES_END))
    return _fixed(fields, days + np.int32(_EPOCH_DAYS), arrow_type)


@_DECODERS.of("timestamp", "timestamptz")
def _timestamp(fields: Fields, arrow_type: pa.DataType) -> pa.Array:
    import numpy as np

    found = fields.read(">i8")
    lowest, end = _FIRST_DAY * _DAY, _TIMES_END * _DAY
    if found.min(initial=0) < lowest or found.max(initial=0) > _INT64_MAX - _EPOCH_MICROSECONDS:
        refuse(np.isin(found, (_INT64_MAX, -(2**63))), "an infinite time")
        refuse((found < lowest) | (found >= end), "a time before or after those of Postgres", Malformed)
        refuse(found > _INT64_MAX - _EPOCH_MICROSECONDS, "a time after the year 294246")
    return _fixed(fields, found + np.int64(_EPOCH_MICROSECONDS), arrow_type)


@_DECODERS.of("time")
def _time(fields: Fields, arrow_type: pa.DataType) -> pa.Array:
    found = fields.read(">i8")
    if found.min(initial=0) < 0 or found.max(initial=0) >= _DAY:
        refuse(found == _DAY, "the time 24:00:00")
        raise Malformed("a time before or after the day", _outside(found, 0, _DAY))
    return _fixed(fields, found, arrow_type)


def _outside(found: Any, first: int, end: int) -> int:
    return int(((found < first) | (found >= end)).argmax())


@_DECODERS.of("interval")
def _interval(fields: Fields, arrow_type: pa.DataType) -> pa.Array:
    import numpy as np

    found, days, months = fields.read(">i8"), fields.read(">i4", 8).astype(np.int64), fields.read(">i4", 12)
    refuse(months != 0, "months or years, which have no fixed length")
    whole, rest = np.divmod(found, np.int64(_DAY))
    whole += days
    refuse(np.abs(whole) >= _INTERVAL_DAYS, "an interval of more than 273,000 years")
    return _fixed(fields, whole * _DAY + rest, arrow_type)
