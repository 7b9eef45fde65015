"""What a cursor of psycopg's reads where Python's value says less than the server's: its text, for a load."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psycopg
from psycopg.adapt import AdaptersMap, Buffer, Transformer
from psycopg.pq import Format
from psycopg.types.datetime import IntervalBinaryLoader, IntervalLoader
from psycopg.types.json import JsonbBinaryLoader, JsonBinaryLoader, JsonbLoader, JsonLoader

from lakebase_provider.core.bulk.types.intervals import has_months

_DAY = 24 * 60 * 60 * 1_000_000  # microseconds


def with_texts(cursor: object) -> Callable[[], None]:
    """Have what a cursor has still to give be the text of what Python cannot say.

    That is JSON of a text, of null, with a key twice or with more digits than a float; and an interval of
    months, or whose hours are none of a day. Any other cursor, and a type whose loader somebody has set, is
    left alone.

    Args:
        cursor: It has run its query.

    Returns:
        What makes the cursor as it was.
    """
    if not isinstance(cursor, psycopg.Cursor) or cursor.pgresult is None:
        return lambda: None
    before = cursor._tx
    context: Any = SimpleNamespace(adapters=AdaptersMap(cursor.adapters), connection=cursor.connection)
    for name, stock, ours in _LOADERS:
        oid = context.adapters.types[name].oid
        found: Any = context.adapters.get_loader(oid, ours.format)
        # By its name: it may be that of psycopg's compiled module.
        is_stock = found.__name__ == stock.__name__ and found.__module__.startswith("psycopg")
        if is_stock and getattr(found(oid), "loads", json.loads) is json.loads:
            context.adapters.register_loader(oid, ours)
    cursor._tx = Transformer(context)
    # That of a server's cursor; the description of one says text in any case.
    cursor._tx.set_pgresult(cursor.pgresult, format=getattr(cursor, "_format", None))

    def restore() -> None:
        cursor._tx = before

    return restore


def _float(text: str) -> float:
    value = float(text)
    if repr(value) != text:  # 1.10 keeps its zero
        raise ValueError("A number would lose digits.")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("A key stands there twice.")
    return found


def _json(data: bytes, encoding: str) -> Any:
    text = str(data, encoding)
    try:
        value = json.loads(text, parse_float=_float, object_pairs_hook=_object)
    except ValueError:  # Python's value would not be the document's, or cannot be
        return text
    return text if value is None or isinstance(value, str) else value


class _JsonLoader(JsonLoader):
    def load(self, data: Buffer) -> Any:
        return _json(bytes(data), self.connection.info.encoding if self.connection else "utf-8")


class _JsonBinaryLoader(_JsonLoader):
    format = Format.BINARY


class _JsonbBinaryLoader(_JsonBinaryLoader):
    def load(self, data: Buffer) -> Any:
        return super().load(bytes(data)[1:])  # after the version


class _IntervalLoader(IntervalLoader):
    def load(self, data: Buffer) -> Any:
        text = bytes(data)
        clock = text.rpartition(b" ")[2]
        # A timedelta makes 22 hours of a day less two hours, and a day of 24 hours.
        same = b":" not in clock or (clock[:1] != b"-" and int(clock.lstrip(b"+").partition(b":")[0]) < 24)
        return super().load(data) if same and not has_months(text) else text.decode()


class _IntervalBinaryLoader(IntervalBinaryLoader):
    def load(self, data: Buffer) -> Any:
        microseconds, days, months = struct.unpack("!qii", data)
        if not months and 0 <= microseconds < _DAY:
            return super().load(data)
        return f"{months} months {days} days {microseconds} microseconds"


_LOADERS: tuple[tuple[str, Any, Any], ...] = (
    ("json", JsonLoader, _JsonLoader),
    ("jsonb", JsonbLoader, _JsonLoader),
    ("json", JsonBinaryLoader, _JsonBinaryLoader),
    ("jsonb", JsonbBinaryLoader, _JsonbBinaryLoader),
    ("interval", IntervalLoader, _IntervalLoader),
    ("interval", IntervalBinaryLoader, _IntervalBinaryLoader),
)
