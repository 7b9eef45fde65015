"""Blank lines in a CSV file of several columns, which its reader takes for rows of NULLs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.bulk.target import BadValueError

if TYPE_CHECKING:
    import pyarrow as pa

_BLANK = re.compile(rb"\n\r?(?=\n)|\r(?=\r)")


class BlankLines:
    """A file that is read through this, which looks for lines without anything.

    Args:
        stream: The file.
        columns: How many columns its header has.

    Attributes:
        closed: Always False: the file's owner closes it.
    """

    closed = False

    def __init__(self, stream: Any, columns: int) -> None:
        self._stream = stream
        self._columns = columns
        self._line: int | None = None
        self._lines = 1
        self._quoted = False
        self._end = b""
        self._has_null_row = False

    def read(self, size: int) -> bytes:
        """The next bytes."""
        data: bytes = self._stream.read(size)
        if self._line is None and data:
            self._look(self._end + data)
        return data

    def _look(self, data: bytes) -> None:
        # What was kept back of the piece before has been counted; of it there are line ends alone.
        kept = len(self._end)
        for found in _BLANK.finditer(data):
            odd = data.count(b'"', kept, found.start()) % 2 == 1
            if odd == self._quoted:
                self._line = self._lines + data.count(b"\n", kept, found.end())
                return
        self._quoted ^= data.count(b'"', kept) % 2 == 1
        self._lines += data.count(b"\n", kept)
        tail = data[-2:]
        self._end = tail if tail.strip(b"\r\n") == b"" else tail[-1:] if tail[-1:] in (b"\r", b"\n") else b""

    def check(self, batch: pa.RecordBatch) -> None:
        """Refuse a blank line among what was read so far.

        Args:
            batch: The next rows.

        Raises:
            BadValueError: There was one.
        """
        # Where quotes stand in texts without quotes around them, a line within others may look blank: a blank
        # one is a row, too.
        self._has_null_row = self._has_null_row or _null_row(batch)
        if self._line is not None and self._has_null_row:
            reason = f"line {self._line:,} of the file is blank, where the header has {self._columns} columns"
            raise BadValueError(reason, kind="CSV", index=-1)


def _null_row(batch: pa.RecordBatch) -> bool:
    import pyarrow.compute as pc

    columns = sorted(batch.columns, key=lambda column: column.null_count)
    if not columns[0].null_count:
        return False
    nulls = columns[0].is_null()
    for column in columns[1:]:
        nulls = pc.and_(nulls, column.is_null())
        if not pc.any(nulls).as_py():
            return False
    return True
