"""Values in Postgres' binary format, one by one: for what Arrow has no type for, or pgpq no encoder."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

from psycopg.adapt import PyFormat, Transformer

from lakebase_provider.core.bulk.types.postgres_types import TEXTS, of_family
from lakebase_provider.core.bulk.types.target_columns import Target

_EPOCH_DAY = date(2000, 1, 1).toordinal()
_EPOCH = datetime(2000, 1, 1)
_EPOCH_UTC = datetime(2000, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)

Dump = Callable[[Any], bytes]


def dumper(target: Target) -> Dump:
    """A function from a checked value (:func:`.values.check`) to its binary form.

    Args:
        target: A column of any kind but ``"other"``.
    """
    if target.kind == "array":
        assert target.element is not None
        return _array_dumper(target.element)
    if target.kind == "numeric":
        return numeric_dumper()
    return _SCALARS[target.kind]


def numeric_dumper() -> Dump:
    """psycopg's binary numeric: it keeps each value's own scale, and NaN and the infinities."""
    dump = Transformer().get_dumper(Decimal(0), PyFormat.BINARY).dump

    def numeric(value: Decimal) -> bytes:
        found = dump(value)
        assert found is not None
        return bytes(found)

    return numeric


def _array_dumper(element: Target) -> Dump:
    dump = dumper(element)

    def array(value: list[Any]) -> bytes:
        dimensions: list[int] = []
        level: Any = value
        while isinstance(level, list) and level:
            dimensions.append(len(level))
            level = level[0]
        flat: list[Any] = value
        for _ in dimensions[1:]:
            flat = [item for part in flat for item in part]
        head = struct.pack(">iiI", len(dimensions), int(any(item is None for item in flat)), element.oid)
        parts = [head, *(struct.pack(">ii", size, 1) for size in dimensions)]
        for item in flat:
            if item is None:
                parts.append(b"\xff\xff\xff\xff")
            else:
                content = dump(item)
                parts += (struct.pack(">i", len(content)), content)
        return b"".join(parts)

    return array


def _time(value: time) -> bytes:
    seconds = (value.hour * 60 + value.minute) * 60 + value.second
    return struct.pack(">q", seconds * 1_000_000 + value.microsecond)


_SCALARS: dict[str, Dump] = {
    kind.name: struct.Struct(kind.form).pack for kind in of_family("boolean", "integer", "float")
}
_SCALARS |= dict.fromkeys((*TEXTS, "json"), str.encode)
_SCALARS["bytea"] = bytes
_SCALARS["uuid"] = lambda value: bytes(value.bytes)
_SCALARS["jsonb"] = lambda value: b"\x01" + value.encode()
_SCALARS["date"] = lambda value: struct.pack(">i", value.toordinal() - _EPOCH_DAY)
_SCALARS["time"] = _time
_SCALARS["timestamp"] = lambda value: struct.pack(">q", (value - _EPOCH) // _MICROSECOND)
_SCALARS["timestamptz"] = lambda value: struct.pack(">q", (value - _EPOCH_UTC) // _MICROSECOND)
