"""What binary COPY sends, taken apart: batches of rows, and in each the fields of one column after another.

The rows of a batch lie one after another: the number of fields in 2 bytes, then each field's size in 4 (-1
for NULL) and its bytes. Column by column, the place of each row's field follows from the one before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lakebase_provider.core.bulk.copy_out import CopyOut
from lakebase_provider.core.bulk.fields import PADDING, Fields, at
from lakebase_provider.core.errors import LoadError

#: What binary COPY begins with; flags and the size of an extension follow in 4 bytes each.
_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
_HEADER = len(_SIGNATURE) + 8
_TRAILER = b"\xff\xff"


def row_batches(copy: CopyOut, rows: int) -> Iterator[tuple[bytearray, list[int]]]:
    """The rows' bytes, one after another, with the size of each.

    Args:
        copy: A COPY in binary.
        rows: Rows in a batch, at most; there are fewer where they are big.

    Raises:
        LoadError: The data is not binary COPY's.
        psycopg.Error: The server ended the query.
    """
    began = False
    for data, sizes in copy.batches(rows):
        if not began:
            began = True
            _drop_header(data, sizes)
        if copy.ended and data.endswith(_TRAILER) and sizes[-1] == len(_TRAILER):
            # Only the last batch can end so: a row begins with the number of its fields, which is not -1.
            del data[-len(_TRAILER) :], sizes[-1]
        if sizes:
            yield data, sizes
        del data, sizes  # not held while the next ones come


def _drop_header(data: bytearray, sizes: list[int]) -> None:
    """Take away what comes before the first row, in the first message."""
    if not data.startswith(_SIGNATURE):
        raise malformed()
    length = _HEADER + int.from_bytes(data[_HEADER - 4 : _HEADER], "big")
    del data[:length]
    sizes[0] -= length
    if sizes[0] == 0:
        del sizes[0]


def split(data: bytearray, sizes: Sequence[int], columns: int) -> Iterator[Fields]:
    """The fields of one column after another.

    Args:
        data: The bytes of a batch of rows; it gets the padding that fields need.
        sizes: How many bytes each row has.
        columns: How many columns there are.

    Raises:
        LoadError: The rows do not have that many fields, or other sizes.
    """
    import numpy as np

    ends = np.cumsum(np.array(sizes, dtype=np.int64))
    data += bytes(PADDING)
    place = np.concatenate((np.zeros(1, dtype=np.int64), ends[:-1]))
    if (at(data, ">i2")[place] != columns).any():
        raise malformed()
    place += 2
    for _ in range(columns):
        lengths = at(data, ">i4")[place].astype(np.int64)
        nulls = lengths < 0
        if nulls.any():
            lengths[nulls] = 0
        else:
            nulls = None
        starts = place + 4
        place = starts + lengths
        yield Fields(data, starts, lengths, nulls)
    if (place != ends).any():
        raise malformed()


def malformed() -> LoadError:
    """The error of data that are not what binary COPY sends."""
    return LoadError(
        "The server's COPY data is not of the form that it announced.",
        remedy="Report this; something between here and the server changes what it sends.",
    )
