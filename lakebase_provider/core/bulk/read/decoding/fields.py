"""The fields of one column in a batch of binary COPY data: where each lies, and how many bytes it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

#: Bytes after the data, so that reading a NULL field at its end stays inside.
PADDING = 16


class ValueRefused(ValueError):  # noqa: N818 - it becomes a LoadError that names column and row
    """A value that the column's Arrow type cannot hold.

    Args:
        reason: Why, without the value.
        row: Index of its field among those that were decoded; None if it is not known.

    Attributes:
        reason: As given.
        row: As given.
    """

    def __init__(self, reason: str, row: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.row = row


class Malformed(ValueRefused):
    """Bytes that are not of the form that binary COPY has, or of their column's type."""


class MalformedRow(Malformed):
    """A row that is none, whatever its columns are."""


def refuse(wrong: Any, reason: str, kind: type[ValueRefused] = ValueRefused) -> None:
    """Raise if a mask of fields chooses one, with the first one's index.

    Args:
        wrong: The mask.
        reason: Why they are refused, without their values.
        kind: What to raise.
    """
    if wrong.any():
        raise kind(reason, int(wrong.argmax()))


@dataclass(frozen=True)
class Fields:
    """One column's fields.

    Attributes:
        data: The batch, with at least :data:`PADDING` more bytes after it.
        starts: Index of each field's first byte, int64.
        sizes: Bytes of each field, int64; 0 for NULL. All of them lie within their row: who takes fields
            apart checks it before.
        nulls: Which fields are NULL; None if none is.
    """

    data: bytearray
    starts: Any
    sizes: Any
    nulls: Any = None

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def null_count(self) -> int:
        """How many are NULL."""
        return 0 if self.nulls is None else int(self.nulls.sum())

    def read(self, kind: str, offset: int = 0) -> Any:
        """A number at that offset of each field, which has to have been found to have it; 0 for NULL.

        Args:
            kind: numpy's name of the type, big-endian, such as ``">i4"``.
            offset: Bytes from the field's start.
        """
        import numpy as np

        found = np.asarray(at(self.data, kind)[self.starts + offset if offset else self.starts])
        found = found.astype(found.dtype.newbyteorder("="))
        if self.nulls is not None:
            found[self.nulls] = 0
        return found

    def only(self, chosen: Any) -> Fields:
        """The fields that a mask chooses."""
        nulls = None if self.nulls is None else self.nulls[chosen]
        return Fields(self.data, self.starts[chosen], self.sizes[chosen], nulls)

    def validity(self) -> pa.Buffer | None:
        """Arrow's bitmap of what is not NULL; None if nothing is."""
        import numpy as np
        import pyarrow as pa

        if self.nulls is None:
            return None
        return pa.py_buffer(np.packbits(~self.nulls, bitorder="little"))

    def refuse(self, wrong: Any, reason: str, kind: type[ValueRefused] = ValueRefused) -> None:
        """As :func:`refuse`, but for fields that are NULL."""
        if wrong.any():
            refuse(wrong if self.nulls is None else wrong & ~self.nulls, reason, kind)

    def values(self) -> list[bytes | None]:
        """Each field's bytes; None for NULL."""
        view = memoryview(self.data)
        nulls = [False] * len(self) if self.nulls is None else self.nulls.tolist()
        return [
            None if null else bytes(view[start : start + size])
            for start, size, null in zip(self.starts.tolist(), self.sizes.tolist(), nulls, strict=True)
        ]


def at(data: bytearray, kind: str) -> Any:
    """A view of the data that has at each index the number which begins at that byte."""
    import numpy as np

    width = np.dtype(kind).itemsize
    return np.ndarray((max(len(data) - width + 1, 0),), kind, data, strides=(1,))
