"""Binary COPY data to Arrow arrays, a batch of rows at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.bulk.binary_copy import malformed, split
from lakebase_provider.core.bulk.decode_numeric import decode_numeric
from lakebase_provider.core.bulk.fields import Fields, ValueRefused, at
from lakebase_provider.core.bulk.packing import scratch_pool
from lakebase_provider.core.errors import LoadError

if TYPE_CHECKING:
    import pyarrow as pa

    from lakebase_provider.core.bulk.result_types import ResultColumn

#: 2000-01-01, from which Postgres counts, since 1970.
_EPOCH_DAYS = 10_957
_EPOCH_MICROSECONDS = _EPOCH_DAYS * 86_400_000_000
_DAY = 86_400_000_000
_INT64_MAX = 2**63 - 1
_NUMBERS = {
    "int2": ">i2",
    "int4": ">i4",
    "int8": ">i8",
    "oid": ">u4",
    "float4": ">f4",
    "float8": ">f8",
}


def decode_batch(
    data: bytearray, sizes: Sequence[int], columns: Sequence[ResultColumn], schema: pa.Schema
) -> pa.RecordBatch:
    """The rows as a record batch.

    Args:
        data: The rows' bytes, one after another; becomes part of the batch.
        sizes: How many bytes each row has.
        columns: What they hold.
        schema: Their Arrow schema.

    Raises:
        LoadError: A value does not fit its column's Arrow type.
    """
    import pyarrow as pa

    arrays = []
    for fields, column in zip(split(data, sizes, len(columns)), columns, strict=True):
        try:
            arrays.append(decode(fields, column.kind, column.arrow_type))
        except ValueRefused as error:
            raise LoadError(
                f'Column "{column.name}" holds a value that {column.arrow_type} cannot: {error}.',
                remedy="Cast the column in the query, such as to text; declare precision and scale of a "
                "numeric.",
            ) from None
    if not columns:
        return pa.RecordBatch.from_struct_array(pa.array([{}] * len(sizes), type=pa.struct([])))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def decode(fields: Fields, kind: str, arrow_type: pa.DataType) -> pa.Array:
    """One column's fields as an array.

    Args:
        fields: The fields.
        kind: Name of their Postgres type, of which there is a decoder here; with ``[]`` behind it for arrays.
        arrow_type: What they become.

    Raises:
        ValueRefused: A value does not fit.
    """
    import numpy as np

    width = _WIDTHS.get(kind)
    if (
        width is not None
        and (fields.sizes != width)[slice(None) if fields.nulls is None else ~fields.nulls].any()
    ):
        raise malformed()
    if kind.endswith("[]"):
        return _array(fields, kind[:-2], arrow_type)
    if kind == "numeric":
        return decode_numeric(fields, arrow_type)
    if kind in _NUMBERS:
        numbers = fields.read(_NUMBERS[kind])
        return _fixed(fields, numbers.astype(np.int64) if kind == "oid" else numbers, arrow_type)
    if kind == "bool":
        bits = np.packbits(fields.read(">i1") != 0, bitorder="little")
        return _fixed(fields, bits, arrow_type)
    if kind in _TIMES:
        return _fixed(fields, _TIMES[kind](fields), arrow_type)
    if kind == "uuid":
        return _uuid(fields)
    if kind == "jsonb":
        return _bytes(fields, arrow_type, skip=1)
    return _bytes(fields, arrow_type)


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
            raise ValueRefused("text that is not UTF-8") from None
    return found


def _uuid(fields: Fields) -> pa.Array:
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
    return pa.Array.from_buffers(pa.string(), count, buffers, fields.null_count)


def _date(fields: Fields) -> Any:
    import numpy as np

    days = fields.read(">i4")
    if np.isin(days, (2**31 - 1, -(2**31))).any():
        raise ValueRefused("an infinite date")
    return days + np.int32(_EPOCH_DAYS)


def _timestamp(fields: Fields) -> Any:
    import numpy as np

    found = fields.read(">i8")
    if np.isin(found, (_INT64_MAX, -(2**63))).any():
        raise ValueRefused("an infinite time")
    if (found > _INT64_MAX - _EPOCH_MICROSECONDS).any():
        raise ValueRefused("a time after the year 294246")
    return found + np.int64(_EPOCH_MICROSECONDS)


def _time(fields: Fields) -> Any:
    found = fields.read(">i8")
    if (found >= _DAY).any():
        raise ValueRefused("the time 24:00:00")
    return found


def _interval(fields: Fields) -> Any:
    import numpy as np

    found, days, months = fields.read(">i8"), fields.read(">i4", 8).astype(np.int64), fields.read(">i4", 12)
    if months.any():
        raise ValueRefused("months or years, which have no fixed length")
    # 64 bits hold 10**8 days in microseconds.
    if (np.abs(days) > 10**8).any() or (np.abs(found // _DAY) > 10**8 - 1).any():
        raise ValueRefused("an interval of more than 273,000 years")
    return found + days * _DAY


_WIDTHS = {
    **{"bool": 1, "int2": 2, "int4": 4, "int8": 8, "oid": 4, "float4": 4, "float8": 8, "uuid": 16},
    **{"date": 4, "time": 8, "timestamp": 8, "timestamptz": 8, "interval": 16},
}
_TIMES = {
    "date": _date,
    "time": _time,
    "timestamp": _timestamp,
    "timestamptz": _timestamp,
    "interval": _interval,
}


def _array(fields: Fields, kind: str, arrow_type: pa.DataType) -> pa.Array:
    """Arrays of one dimension as lists: dimensions, flags, element type, size, bound, and then fields."""
    import numpy as np
    import pyarrow as pa

    dimensions = fields.read(">i4")
    if (dimensions > 1).any():
        raise ValueRefused("an array of more than one dimension")
    counts = np.zeros(len(fields), dtype=np.int64)
    filled = dimensions == 1
    counts[filled] = fields.only(filled).read(">i4", 12)
    offsets = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(counts)))
    if offsets[-1] > 2**31 - 1:
        raise ValueRefused("too many elements in one batch; read fewer rows at once by batch_rows")
    # Where in the flat list of elements each row's next one goes, and where it lies in the data.
    slots, places, left = offsets[:-1][filled], fields.starts[filled] + 20, counts[filled]
    sizes = np.zeros(offsets[-1], dtype=np.int64)
    starts = np.zeros(offsets[-1], dtype=np.int64)
    view = at(fields.data, ">i4")
    while len(slots):
        size = view[places].astype(np.int64)
        sizes[slots], starts[slots] = size, places + 4
        places = places + 4 + np.maximum(size, 0)
        left = left - 1
        more = left > 0
        slots, places, left = slots[more] + 1, places[more], left[more]
    nulls = sizes < 0
    flat = Fields(fields.data, starts, np.where(nulls, 0, sizes), nulls if nulls.any() else None)
    elements = decode(flat, kind, arrow_type.value_type)
    return pa.Array.from_buffers(
        arrow_type,
        len(fields),
        [fields.validity(), pa.py_buffer(offsets.astype(np.int32))],
        fields.null_count,
        children=[elements],
    )
