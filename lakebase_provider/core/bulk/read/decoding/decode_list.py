"""Postgres' binary arrays of one dimension to Arrow's lists, many at once."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.bulk.read.decoding.fields import Fields, Malformed, ValueRefused, at
from lakebase_provider.core.bulk.types.postgres_types import BY_NAME

if TYPE_CHECKING:
    import pyarrow as pa

#: Bytes before an array's elements: dimensions, flags and element type; then for each one size and bound.
_HEADER, _DIMENSION = 12, 8
#: Postgres' own limit.
_MOST_DIMENSIONS = 6
#: Arrays that are left with elements when it is quicker to go on by one after another than by all at once.
_FEW = 32


def decode_list(
    fields: Fields,
    kind: str,
    arrow_type: pa.DataType | None,
    decode: Callable[[Fields, str, pa.DataType | None], pa.Array],
) -> pa.Array:
    """Arrays as lists.

    Args:
        fields: The fields.
        kind: Name of the elements' Postgres type.
        arrow_type: The list that they become; None for one of what `decode` makes of no type.
        decode: Makes an array of the elements.

    Raises:
        ValueRefused: An array has several dimensions, or an element does not fit.
        Malformed: A field is no such array.
    """
    import numpy as np
    import pyarrow as pa

    filled = _filled(fields, kind)
    counts = np.zeros(len(fields), dtype=np.int64)
    chosen = fields if filled.all() else fields.only(filled)
    counts[filled] = chosen.read(">i4", _HEADER)
    # Before there is room for them: each element takes 4 bytes for its length.
    room = fields.sizes - (_HEADER + _DIMENSION)
    fields.refuse(
        filled & ((counts < 0) | (4 * counts > room)),
        "an array of more elements than it has bytes",
        Malformed,
    )
    offsets = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(counts)))
    if offsets[-1] > 2**31 - 1:
        raise ValueRefused("too many elements in one batch; read fewer rows at once by batch_rows")
    flat = _elements(fields, filled, counts, offsets)
    try:
        elements = decode(flat, kind, None if arrow_type is None else arrow_type.value_type)
    except ValueRefused as error:
        if error.row is not None:
            error.row = int(np.searchsorted(offsets, error.row, side="right")) - 1
        raise
    return pa.Array.from_buffers(
        pa.list_(elements.type) if arrow_type is None else arrow_type,
        len(fields),
        [fields.validity(), pa.py_buffer(offsets.astype(np.int32))],
        fields.null_count,
        children=[elements],
    )


def require_counted_from_one(fields: Fields) -> None:
    """Refuse arrays whose first element is not number 1, which a list cannot tell.

    Args:
        fields: Well-formed arrays, of one dimension at most.

    Raises:
        ValueRefused: There is one.
    """
    filled = fields.read(">i4") == 1
    bounds = fields.only(filled).read(">i4", _HEADER + 4)
    wrong = filled.copy()
    wrong[filled] = bounds != 1
    fields.refuse(wrong, "an array that is not counted from 1")


def _filled(fields: Fields, kind: str) -> Any:
    """Which arrays have elements; of all the header is checked."""
    import numpy as np

    fields.refuse(fields.sizes < _HEADER, "an array shorter than its header", Malformed)
    dimensions = fields.read(">i4")
    fields.refuse(
        (dimensions < 0) | (dimensions > _MOST_DIMENSIONS), "an array of an impossible dimension", Malformed
    )
    fields.refuse(dimensions > 1, "an array of more than one dimension")
    fields.refuse(fields.read(">u4", 4) > 1, "an array with unknown flags", Malformed)
    fields.refuse(
        fields.read(">u4", 8) != BY_NAME[kind].oid, f"an array of another type than {kind}", Malformed
    )
    filled = dimensions == 1
    fields.refuse(
        np.where(filled, fields.sizes < _HEADER + _DIMENSION, fields.sizes != _HEADER),
        "an array of another size than its dimensions have",
        Malformed,
    )
    return filled


def _elements(fields: Fields, filled: Any, counts: Any, offsets: Any) -> Fields:
    """The elements of all arrays, one after another."""
    import numpy as np

    # Where in the flat list of elements each row's next one goes, and where it lies in the data.
    rows = np.flatnonzero(filled)
    slots, left = offsets[:-1][rows], counts[rows]
    places, ends = fields.starts[rows] + (_HEADER + _DIMENSION), (fields.starts + fields.sizes)[rows]
    sizes = np.zeros(offsets[-1], dtype=np.int64)
    starts = np.zeros(offsets[-1], dtype=np.int64)
    view = at(fields.data, ">i4")
    while len(rows) > _FEW:
        done = left == 0
        if done.any():
            if (wrong := done & (places != ends)).any():
                raise Malformed("an array with bytes behind its elements", int(rows[wrong.argmax()]))
            rows, slots, places, ends, left = (part[~done] for part in (rows, slots, places, ends, left))
            continue
        # No place lies behind its field's end.
        size = view[places].astype(np.int64)
        sizes[slots], starts[slots] = size, places + 4
        places = places + 4 + np.maximum(size, 0)
        if (wrong := (size < -1) | (places > ends)).any():
            raise Malformed("an array's element reaches beyond it", int(rows[wrong.argmax()]))
        slots, left = slots + 1, left - 1
    for row, slot, place, end, count in zip(
        *(part.tolist() for part in (rows, slots, places, ends, left)), strict=True
    ):
        _walk(fields, (row, place, end), starts[slot : slot + count], sizes[slot : slot + count])
    nulls = sizes < 0
    return Fields(fields.data, starts, np.where(nulls, 0, sizes), nulls if nulls.any() else None)


def _walk(fields: Fields, array: tuple[int, int, int], starts: Any, sizes: Any) -> None:
    """Find one array's elements.

    Args:
        fields: In whose data it lies.
        array: Its row, where its elements begin, and where it ends.
        starts: Gets the place of each element.
        sizes: Gets the size of each; -1 for NULL.
    """
    row, place, end = array
    size_at = Struct(">i").unpack_from
    found_starts, found_sizes = [], []
    for _ in range(len(starts)):
        (size,) = size_at(fields.data, place)
        found_starts.append(place + 4)
        found_sizes.append(size)
        place += 4 + max(size, 0)
        if size < -1 or place > end:
            raise Malformed("an array's element reaches beyond it", row)
    if place != end:
        raise Malformed("an array with bytes behind its elements", row)
    starts[:], sizes[:] = found_starts, found_sizes
