"""What a column takes: its kind of type, and the limits that Postgres would enforce by changing a value."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property

from lakebase_provider.core.bulk.types.intervals import FIELDS
from lakebase_provider.core.bulk.types.postgres_types import BY_NAME, BY_OID, of_family
from lakebase_provider.core.database.catalog import Column, Structure

#: What binary COPY is not written of gets text, which the type's own input function reads.
OTHER = "other"
#: Bytes of a name; Postgres cuts a longer text off without a word.
_NAME_BYTES = 63
#: int2vector and oidvector: arrays by category, but of a format of their own.
_VECTORS = frozenset({22, 30})
#: Types of whose numbers an integer below 0 or above these becomes another one.
UNSIGNED = frozenset(kind.oid for kind in of_family("oid", "reg"))
_MONEY = BY_NAME["money"].oid
_CHAR = BY_NAME["char"].oid
_INTERVAL = BY_NAME["interval"].oid
_OF_FRACTIONS = frozenset(kind.oid for kind in BY_OID.values() if kind.modifier == "fraction")
_UNZONED = frozenset({BY_NAME["time"].oid, BY_NAME["timestamp"].oid})


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
        field: The smallest field that an interval keeps.
        labels: Labels of an enum.
        not_null: Whether it refuses NULL.
        element: What an array's elements are.
        delimiter: What separates an array's elements, as text; empty if it is not an array.
        form: How its text holds parts, as :class:`~lakebase_provider.core.database.catalog.Structure` has it.
        parts: What these are.
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
    field: str = "second"
    form: str = ""
    parts: tuple[Target, ...] = ()

    @cached_property
    def suspect(self) -> re.Pattern[str] | None:
        """Where texts may say more than the column keeps; None where it keeps all that it takes.

        For Python and for Arrow, and for a part wherever it stands in a text.
        """
        pattern = self._suspect
        return None if pattern is None else re.compile(pattern)

    @cached_property
    def limited(self) -> bool:
        """Whether the type's input function would take some values and keep less of them."""
        own = self.oid in UNSIGNED or self.suspect is not None
        return own or any(part.limited for part in self.parts)

    @property
    def _suspect(self) -> str | None:
        if self.form:
            patterns = [part.suspect.pattern for part in self.parts if part.suspect is not None]
            return "|".join(dict.fromkeys(patterns)) if patterns else None
        if self.length or self.max_bytes or self.oid == _CHAR:
            return ""
        if self.kind == "numeric" and self.precision:
            # More digits, or a form of number that is seldom seen.
            # Arrow's expressions repeat nothing more often.
            most = min(self.scale + 1, 1000)
            return rf"\.[0-9_]{{{most}}}|[eExX]" if self.scale >= 0 else ""
        if self.kind == "float8":
            # More digits than tell one number from the next.
            return r"(?:^|[^0-9.])[0-9]{16}|[0-9.]{19}"
        if self.oid == _MONEY:
            return r"\.[0-9]{2}[0-9]*[1-9]"
        if self.oid == _INTERVAL:
            return self._suspect_interval
        if self.oid not in _OF_FRACTIONS:
            return ":" if self.kind == "date" else None
        digits = rf"[.,][0-9]{{{self.fraction}}}[0-9]*[1-9]"
        return f"{digits}|{_ZONE}" if self.oid in _UNZONED else digits

    @property
    def _suspect_interval(self) -> str:
        if self.field != "second":
            return ""
        if self.fraction < 6:
            return r"[.,]|[0-9]\s*(?i:u|mic|mil|ms)"
        # A fraction of a second, or one of what is less than that or has no days.
        return r"[.,][0-9]{6}[0-9]*[1-9]|[.,][0-9]+\s*(?i:u|mic|mil|ms|y|d?ec|c)"

    @property
    def max_bytes(self) -> int:
        """Bytes that a text may have; 0 for any number."""
        return _NAME_BYTES if self.kind == "name" else 0


#: A zone after a time of day.
_ZONE = r":[0-9.,]+\s*(?i:[ap]m\s*)?(?i:z|[-+][0-9]|[a-z_/]{3})"


def target_of(column: Column) -> Target:
    """Work out what a column takes."""
    found = _target(column)
    if column.structure is None:
        return found
    whole = _structured(column, column.structure)
    return replace(found, form=whole.form, parts=whole.parts)


def _structured(column: Column, structure: Structure) -> Target:
    found = _scalar(column, structure.type_oid, structure.typmod)
    parts = tuple(_structured(column, part) for part in structure.parts)
    return replace(found, form=structure.form, parts=parts)


def _target(column: Column) -> Target:
    if column.element_oid and column.type_oid not in _VECTORS:
        element = _scalar(column, column.element_oid, column.typmod)
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
            form="array",
            parts=(element,),
        )
    return _scalar(column, column.type_oid, column.typmod)


def _scalar(column: Column, oid: int, typmod: int) -> Target:
    known = BY_OID.get(oid)
    kind = "enum" if column.enum_labels else known.name if known is not None and known.takes else OTHER
    precision = scale = length = 0
    fraction, field = 6, "second"
    modifier = "" if known is None or typmod < 0 else known.modifier
    if modifier == "digits":
        packed = typmod - 4
        precision = packed >> 16 & 0xFFFF
        scale = (packed & 0x7FF ^ 0x400) - 0x400  # eleven bits with a sign
    elif modifier == "length":
        length = typmod - 4
    elif modifier == "fraction":
        fraction = typmod
    elif modifier == "interval":
        fraction = min(typmod & 0xFFFF, 6)
        field = next(name for name, bit in FIELDS.items() if typmod >> 16 & 1 << bit)
    return Target(
        column.name,
        column.type_name,
        kind,
        oid,
        precision=precision,
        scale=scale,
        length=length,
        fraction=fraction,
        field=field,
        labels=frozenset(column.enum_labels),
        not_null=column.not_null,
    )
