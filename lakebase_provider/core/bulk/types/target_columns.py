"""What a column takes: its kind of type, and the limits that Postgres would enforce by changing a value."""

from __future__ import annotations

from dataclasses import dataclass

from lakebase_provider.core.bulk.types.postgres_types import BY_OID
from lakebase_provider.core.database.catalog import Column

#: What binary COPY is not written of gets text, which the type's own input function reads.
OTHER = "other"
#: Bytes of a name; Postgres cuts a longer text off without a word.
_NAME_BYTES = 63
#: int2vector and oidvector: arrays by category, but of a format of their own.
_VECTORS = frozenset({22, 30})


class BadValueError(ValueError):
    """A value that its column cannot hold unchanged.

    Args:
        reason: What is wrong, without the value.
        kind: Kind of the value, such as ``"str"``.
        index: Its place in the batch, where known.
        remedy: What to do, where correcting the row is not all that may help.
    """

    def __init__(self, reason: str, *, kind: str, index: int = -1, remedy: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind
        self.index = index
        self.remedy = remedy


@dataclass(frozen=True)
class Target:
    """A column that takes values.

    Attributes:
        name: The column's name.
        type_name: Its type as SQL writes it.
        kind: Name of a base type, ``"enum"``, ``"array"`` or ``"other"``.
        oid: OID of the type.
        precision: Digits of a numeric; 0 for any number of them.
        scale: Digits of them after the point.
        length: Characters that a varchar or char holds; 0 for any number.
        fraction: Digits of a second that a time, a timestamp or an interval keeps.
        labels: Labels of an enum.
        not_null: Whether it refuses NULL.
        element: What an array's elements are.
        delimiter: What separates an array's elements, as text; empty if it is not an array.
    """

    name: str
    type_name: str
    kind: str
    oid: int
    precision: int = 0
    scale: int = 0
    length: int = 0
    fraction: int = 6
    labels: frozenset[str] = frozenset()
    not_null: bool = False
    element: Target | None = None
    delimiter: str = ""

    @property
    def max_bytes(self) -> int:
        """Bytes that a text may have; 0 for any number."""
        return _NAME_BYTES if self.kind == "name" else 0


def target_of(column: Column) -> Target:
    """Work out what a column takes."""
    if column.element_oid and column.type_oid not in _VECTORS:
        element = _scalar(column, column.element_oid)
        known = BY_OID.get(column.element_oid)
        kind = "array" if element.kind != OTHER else OTHER
        return Target(
            column.name,
            column.type_name,
            kind,
            column.type_oid,
            not_null=column.not_null,
            element=element if kind == "array" else None,
            fraction=element.fraction,
            delimiter="," if known is None else known.delimiter,
        )
    return _scalar(column, column.type_oid)


def _scalar(column: Column, oid: int) -> Target:
    known = BY_OID.get(oid)
    kind = "enum" if column.enum_labels else known.name if known is not None and known.takes else OTHER
    precision = scale = length = 0
    fraction = 6
    modifier = "" if known is None or column.typmod < 0 else known.modifier
    if modifier == "digits":
        packed = column.typmod - 4
        precision = packed >> 16 & 0xFFFF
        scale = (packed & 0x7FF ^ 0x400) - 0x400  # eleven bits with a sign
    elif modifier == "length":
        length = column.typmod - 4
    elif modifier == "fraction":
        fraction = column.typmod
    elif modifier == "interval":
        fraction = min(column.typmod & 0xFFFF, 6)  # the other half are the fields that it keeps
    return Target(
        column.name,
        column.type_name,
        kind,
        oid,
        precision=precision,
        scale=scale,
        length=length,
        fraction=fraction,
        labels=frozenset(column.enum_labels),
        not_null=column.not_null,
    )
