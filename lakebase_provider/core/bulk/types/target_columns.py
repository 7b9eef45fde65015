"""What a column takes: its kind of type, and the limits that Postgres would enforce by changing a value."""

from __future__ import annotations

from dataclasses import dataclass

from lakebase_provider.core.database.catalog import Column

#: Kinds that can be encoded for binary COPY, by the OID of their type.
_KINDS = {
    16: "bool",
    17: "bytea",
    19: "name",
    20: "int8",
    21: "int2",
    23: "int4",
    25: "text",
    114: "json",
    700: "float4",
    701: "float8",
    1042: "bpchar",
    1043: "varchar",
    1082: "date",
    1083: "time",
    1114: "timestamp",
    1184: "timestamptz",
    1700: "numeric",
    2950: "uuid",
    3802: "jsonb",
}
#: A type of any other kind gets text, which its own input function reads.
OTHER = "other"
TEXTS = frozenset({"text", "varchar", "bpchar", "name", "enum"})
JSONS = frozenset({"json", "jsonb"})
INTEGERS = {"int2": 16, "int4": 32, "int8": 64}
#: Bytes of a name; Postgres cuts a longer text off without a word.
_NAME_BYTES = 63
#: int2vector and oidvector: arrays by category, but of a format of their own.
_VECTORS = frozenset({22, 30})
INTERVAL, _TIMETZ = 1186, 1266
#: The one array of Postgres' own whose elements are not parted by commas.
BOX_ARRAY = 1020


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

    @property
    def max_bytes(self) -> int:
        """Bytes that a text may have; 0 for any number."""
        return _NAME_BYTES if self.kind == "name" else 0


def target_of(column: Column) -> Target:
    """Work out what a column takes."""
    if column.element_oid and column.type_oid not in _VECTORS:
        element = _scalar(column, column.element_oid)
        kind = "array" if element.kind != OTHER else OTHER
        return Target(
            column.name,
            column.type_name,
            kind,
            column.type_oid,
            not_null=column.not_null,
            element=element if kind == "array" else None,
            fraction=element.fraction,
        )
    return _scalar(column, column.type_oid)


def array_delimiter(column: Column) -> str:
    """What parts the elements of the column's array, as text; empty for what is no array."""
    if not column.element_oid or column.type_oid in _VECTORS:
        return ""
    return ";" if column.type_oid == BOX_ARRAY else ","


def _scalar(column: Column, oid: int) -> Target:
    kind = "enum" if column.enum_labels else _KINDS.get(oid, OTHER)
    precision = scale = length = 0
    fraction = 6
    if column.typmod >= 0:
        if kind == "numeric":
            packed = column.typmod - 4
            precision = packed >> 16 & 0xFFFF
            scale = (packed & 0x7FF ^ 0x400) - 0x400  # eleven bits with a sign
        elif kind in ("varchar", "bpchar"):
            length = column.typmod - 4
        elif kind in ("time", "timestamp", "timestamptz") or oid == _TIMETZ:
            fraction = column.typmod
        elif oid == INTERVAL:
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
