"""What binary COPY sends, taken apart: batches of rows, and in each the fields of one column after another.

The rows of a batch lie one after another: the number of fields in 2 bytes, then each field's size in 4 (-1
for NULL) and its bytes. Column by column, the place of each row's field follows from the one before. Each row
is a message of its own, and no field is believed to reach beyond it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lakebase_provider.core.bulk.read.decoding.fields import (
    PADDING,
    Fields,
    Malformed,
    MalformedRow,
    at,
    refuse,
)
from lakebase_provider.core.bulk.read.stream import CopyOut
from lakebase_provider.core.errors import LoadError

#: What binary COPY begins with; flags and the size of an extension follow in 4 bytes each.
_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
_HEADER = len(_SIGNATURE) + 8
#: Flags of what a reader has to know, of which there is none any more; the others it is to ignore.
_CRITICAL = 0xFFFF0000
_TRAILER = b"\xff\xff"


def row_batches(copy: CopyOut, rows: int) -> Iterator[tuple[bytearray, list[int]]]:
    """The rows' bytes, one after another, with the size of each.

    Args:
        copy: A COPY in binary.
        rows: Rows in a batch, at most; there are fewer where they are big.

    Raises:
        LoadError: The data is not binary COPY's, or ends before its end.
        psycopg.Error: The server ended the query.
    """
    began = finished = False
    for data, sizes in copy.batches(rows):
        if not began:
            began = True
            _drop_header(data, sizes)
        if finished:
            raise malformed("it goes on behind its end")
        if copy.ended and sizes and sizes[-1] == len(_TRAILER) and data.endswith(_TRAILER):
            # A row begins with the number of its fields, which is not -1.
            finished = True
            del data[-len(_TRAILER) :], sizes[-1]
        if sizes:
            yield data, sizes
        del data, sizes  # not held while the next ones come
    if not finished:
        raise malformed("it has no end")


def _drop_header(data: bytearray, sizes: list[int]) -> None:
    """Take away what comes before the first row, in the first message."""
    if not sizes or sizes[0] < _HEADER or not data.startswith(_SIGNATURE):
        raise malformed("it does not begin as binary COPY does")
    if int.from_bytes(data[_HEADER - 8 : _HEADER - 4], "big") & _CRITICAL:
        raise malformed("its header has unknown flags")
    length = _HEADER + int.from_bytes(data[_HEADER - 4 : _HEADER], "big")
    if length > sizes[0]:
        raise malformed("its header is longer than its message")
    del data[:length]
    sizes[0] -= length
    if sizes[0] == 0:
        del sizes[0]


def split(data: bytearray, sizes: Sequence[int], columns: int) -> Iterator[Fields]:
    """The fields of one column after another.

    Args:
        data: The bytes of a batch of rows; it gets the padding that fields need, where it has none.
        sizes: How many bytes each row has.
        columns: How many columns there are.

    Raises:
        Malformed: The rows do not have that many fields, or a field has another size than its row has room
            for.
    """
    import numpy as np

    room = np.array(sizes, dtype=np.int64)
    ends = np.cumsum(room)
    if (missing := int(room.sum()) + PADDING - len(data)) > 0:
        data += bytes(missing)
    refuse(room < 2, "the row is shorter than the number of its fields", MalformedRow)
    place = ends - room
    counts = at(data, ">i2")[place]
    if (counts != columns).any():
        row = int((counts != columns).argmax())
        raise MalformedRow(f"{counts[row]} fields where the query has {columns}", row)
    place += 2
    for _ in range(columns):
        # No place lies behind its row's end, and behind the last one is padding.
        lengths = at(data, ">i4")[place].astype(np.int64)
        nulls = lengths < 0
        if nulls.any():
            refuse(lengths < -1, "a field of a negative length", Malformed)
            lengths[nulls] = 0
        else:
            nulls = None
        starts = place + 4
        place = starts + lengths
        if (place > ends).any():
            refuse(place > ends, "a field reaches beyond its row", Malformed)
        yield Fields(data, starts, lengths, nulls)
    if (place != ends).any():
        refuse(place != ends, "bytes behind the last field", MalformedRow)


def malformed(why: str, place: str = "") -> LoadError:
    """The error of data that are not what binary COPY sends.

    Args:
        why: What is wrong with them, without a value.
        place: Where, such as ``'row 7, column "total"'``.
    """
    where = f"{place}: " if place else ""
    return LoadError(
        f"The server's COPY data is not of the form that it announced: {where}{why}.",
        remedy="Report this; something between here and the server changes what it sends.",
    )
