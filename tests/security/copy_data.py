"""Binary COPY data, true and false: built of its parts, and decoded as a read decodes it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from psycopg import postgres

from lakebase_provider.core.bulk.read.decoding.binary_copy import row_batches
from lakebase_provider.core.bulk.read.decoding.decode import decode_batch
from lakebase_provider.core.bulk.read.decoding.fields import PADDING
from lakebase_provider.core.bulk.read.result_columns import ResultColumn

SIGNATURE = b"PGCOPY\n\xff\r\n\0"
HEADER = SIGNATURE + bytes(8)
TRAILER = b"\xff\xff"
#: What lies behind the data: it must not show in any value.
CANARY = b"CaNaRy#!" * 512

ARROW: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "oid": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "numeric": pa.decimal128(38, 18),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", tz="UTC"),
    "interval": pa.duration("us"),
    "uuid": pa.string(),
    "text": pa.string(),
    "jsonb": pa.string(),
    "bytea": pa.binary(),
}


def column(kind: str, name: str = "c", arrow_type: pa.DataType | None = None) -> ResultColumn:
    element = arrow_type or ARROW[kind.removesuffix("[]")]
    return ResultColumn(name, kind, pa.list_(element) if kind.endswith("[]") else element)


def sized(value: bytes | None) -> bytes:
    """A field or an element, behind its length."""
    return struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value


def row(*values: bytes | None) -> bytes:
    return struct.pack(">h", len(values)) + b"".join(map(sized, values))


def numeric(*digits: int, weight: int = 0, sign: int = 0, places: int = 0, count: int | None = None) -> bytes:
    head = struct.pack(">Hh2H", len(digits) if count is None else count, weight, sign, places)
    return head + struct.pack(f">{len(digits)}H", *digits)


def array(
    *elements: bytes | None,
    kind: str = "int4",
    dimensions: int = 1,
    flags: int = 0,
    count: int | None = None,
    bound: int = 1,
) -> bytes:
    head = struct.pack(">iII", dimensions, flags, postgres.types[kind].oid)
    head += struct.pack(">ii", len(elements) if count is None else count, bound)
    return head + b"".join(map(sized, elements))


@dataclass
class Messages:
    """What :func:`row_batches` reads from, without a server."""

    found: Sequence[bytes]
    batch: int = 2
    ended: bool = field(default=False, init=False)

    def batches(self, rows: int) -> Any:
        messages = list(self.found)
        while len(messages) > self.batch:
            now, messages = messages[: self.batch], messages[self.batch :]
            yield bytearray(b"".join(now)), list(map(len, now))
        self.ended = True
        yield bytearray(b"".join(messages)), list(map(len, messages))


def read(messages: Sequence[bytes], columns: Sequence[ResultColumn], batch: int = 1000) -> pa.Table:
    """What a read makes of a COPY's messages."""
    schema = pa.schema([pa.field(each.name, each.arrow_type) for each in columns])
    batches, first_row = [], 1
    for data, sizes in row_batches(Messages(messages, batch), batch):  # type: ignore[arg-type]
        batches.append(decode_batch(data, sizes, columns, schema, first_row))
        first_row += len(sizes)
    return pa.Table.from_batches(batches, schema)


def decode_rows(rows: Sequence[bytes], columns: Sequence[ResultColumn]) -> pa.RecordBatch:
    """The rows decoded where they lie before canaries, not before zeros."""
    assert len(CANARY) > PADDING
    schema = pa.schema([pa.field(each.name, each.arrow_type) for each in columns])
    return decode_batch(bytearray(b"".join(rows) + CANARY), list(map(len, rows)), columns, schema)
