"""A server that lies about binary COPY: no length of its is believed, and each lie is one typed error."""

from __future__ import annotations

import mmap
import resource
import struct
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.read.decoding.binary_copy import split
from lakebase_provider.core.bulk.read.decoding.decode import decode
from lakebase_provider.core.bulk.read.decoding.fields import Malformed, ValueRefused
from lakebase_provider.core.errors import LoadError

from .copy_data import (
    ARROW,
    HEADER,
    SIGNATURE,
    TRAILER,
    array,
    column,
    decode_rows,
    numeric,
    read,
    row,
    sized,
)
from .lying_server import LyingServer, of_types

INT4 = struct.pack(">i", 7)
GOOD = row(INT4)
FORM = "COPY data is not of the form"

#: Messages of a COPY of one int4, and what the error says of them.
STREAMS: dict[str, tuple[list[bytes], str]] = {
    "nothing": ([], "does not begin"),
    "an empty message": ([b""], "does not begin"),
    "a wrong signature": ([b"PGCOPX\n\xff\r\n\0" + bytes(8) + GOOD, TRAILER], "does not begin"),
    "text": ([b"7\n"], "does not begin"),
    "a header that is cut off": ([SIGNATURE + bytes(7)], "does not begin"),
    "a header in two messages": ([SIGNATURE, bytes(8) + GOOD, TRAILER], "does not begin"),
    "a critical flag": ([SIGNATURE + struct.pack(">II", 1 << 16, 0) + GOOD, TRAILER], "unknown flags"),
    "the highest flag": ([SIGNATURE + struct.pack(">II", 1 << 31, 0) + GOOD, TRAILER], "unknown flags"),
    "an extension beyond its message": ([SIGNATURE + struct.pack(">II", 0, 11) + GOOD, TRAILER], "longer"),
    "an extension of 4 GB": ([SIGNATURE + struct.pack(">II", 0, 2**32 - 1) + GOOD, TRAILER], "longer"),
    "no end": ([HEADER + GOOD], "no end"),
    "no end, nor a row": ([HEADER], "no end"),
    "half an end": ([HEADER + GOOD, b"\xff"], "row 2: the row is shorter"),
    "an end in a row's message": ([HEADER + GOOD + TRAILER], "row 1: bytes behind the last field"),
    "rows behind the end": ([HEADER + GOOD, TRAILER, GOOD], "row 2: -1 fields"),
    "an end before the end": ([HEADER + GOOD, TRAILER, TRAILER], "row 2: -1 fields where the query has 1"),
    "an empty row": ([HEADER + GOOD, b"", TRAILER], "row 2: the row is shorter"),
    "a row of one byte": ([HEADER + GOOD, b"\0", TRAILER], "row 2: the row is shorter"),
    "no field": ([HEADER + row(), TRAILER], "row 1: 0 fields"),
    "two fields": ([HEADER + GOOD, row(INT4, INT4), TRAILER], "row 2: 2 fields"),
    "-2 fields": ([HEADER + struct.pack(">h", -2), TRAILER], "row 1: -2 fields"),
    "32767 fields": ([HEADER + struct.pack(">h", 32767), TRAILER], "row 1: 32767 fields"),
    "a row in two messages": ([HEADER + GOOD[:5], GOOD[5:], TRAILER], "row 2: 1024 fields"),
    "two rows in a message": ([HEADER + GOOD + GOOD, TRAILER], "row 1: bytes behind the last field"),
    "a row without its field": ([HEADER + GOOD[:2], TRAILER], 'row 1, column "c": a field reaches beyond'),
    "a row cut off in a length": ([HEADER + GOOD[:4], TRAILER], 'row 1, column "c": a field'),
    "a row cut off in its field": ([HEADER + GOOD, GOOD[:8], TRAILER], 'row 2, column "c": a field reaches'),
    "bytes behind a row": ([HEADER + GOOD, GOOD + b"\0", TRAILER], "row 2: bytes behind the last field"),
    **{
        f"a length of {length}": (
            [HEADER + GOOD, GOOD, GOOD[:2] + struct.pack(">i", length) + INT4, TRAILER],
            'row 3, column "c": ',
        )
        for length in (-2, -3, -(2**31), 3, 5, 8, 10, 26, 4096, 2**31 - 1)
    },
}


@pytest.mark.parametrize("batch", [1, 2, 1000])
@pytest.mark.parametrize("case", STREAMS)
def test_a_stream_that_is_none(case: str, batch: int) -> None:
    messages, says = STREAMS[case]
    with pytest.raises(LoadError) as caught:
        read(messages, [column("int4")], batch)
    assert FORM in str(caught.value)
    if batch == 1000:  # of several faults, small batches show another one first
        assert says in str(caught.value)


@pytest.mark.parametrize("messages", [[HEADER + TRAILER], [HEADER, TRAILER]])
def test_no_rows(messages: list[bytes]) -> None:
    assert read(messages, [column("int4")]).num_rows == 0


def test_flags_that_readers_are_to_ignore_and_an_extension_are_skipped() -> None:
    header = SIGNATURE + struct.pack(">II", 0xFFFF, 5) + b"\xff" * 5
    assert read([header + GOOD, TRAILER], [column("int4")]).to_pylist() == [{"c": 7}]


MICROSECONDS = 86_400_000_000
#: By type, values that have its form.
VALID: dict[str, list[tuple[bytes | None, Any]]] = {
    "bool": [(b"\0", False), (b"\1", True), (None, None)],
    "int4": [(INT4, 7)],
    "numeric": [
        (numeric(), Decimal(0)),
        (numeric(weight=32767), Decimal(0)),
        (numeric(weight=-32768), Decimal(0)),
        (numeric(12, 3400, sign=0x4000, places=2), Decimal("-12.34")),
        (numeric(9999, weight=-4), Decimal("9.999e-13")),
        # Digits that are zero are not sent, and mean what they say.
        (numeric(0, 0, 0, 5, 0, 0, weight=3), Decimal(5)),
        (numeric(*[0] * 8000, 5, *[0] * 8000, weight=8000), Decimal(5)),
    ],
    "jsonb": [(b'\1{"a": 1}', '{"a": 1}'), (b"\1", ""), (None, None)],
    "text": [(b"", ""), ("é".encode(), "é"), (None, None)],
    "int4[]": [
        (array(INT4, None, INT4), [7, None, 7]),
        (array(flags=1, dimensions=0)[:12], []),
        (array(), []),
        (None, None),
    ],
    "text[]": [(array(b"", None, b"abc", kind="text"), ["", None, "abc"])],
}
#: By type, fields that are none of its own, and what the error says.
INVALID: dict[str, list[tuple[bytes, str]]] = {
    "bool": [(b"\2", "neither true nor false"), (b"\xff", "neither"), (b"", "1 bytes"), (b"\0\0", "1 bytes")],
    **{
        kind: [(bytes(size), f"{width} bytes of {kind}") for size in (0, 1, width - 1, width + 1, 3 * width)]
        for kind, width in {
            **{"int2": 2, "int4": 4, "int8": 8, "oid": 4, "float4": 4, "float8": 8, "uuid": 16},
            **{"date": 4, "time": 8, "timestamp": 8, "timestamptz": 8, "interval": 16},
        }.items()
    },
    "numeric": [
        (b"", "another size"),
        (bytes(7), "another size"),
        (numeric(1) + b"\0", "another size"),
        (numeric(1)[:-1], "another size"),
        (numeric(1, count=0), "another size"),
        (numeric(1, count=2), "another size"),
        (numeric(1, count=32767), "another size"),
        (numeric(1, count=32768), "another size"),
        (numeric(1, count=65535), "another size"),
        (numeric(1, sign=1), "unknown sign"),
        (numeric(1, sign=0x8000), "unknown sign"),
        (numeric(1, sign=0xE000), "unknown sign"),
        (numeric(1, sign=0xFFFF), "unknown sign"),
        (numeric(1, places=0x4000), "too many places"),
        (numeric(1, places=0xFFFF), "too many places"),
        (numeric(10000), "a digit that is none"),
        (numeric(65535), "a digit that is none"),
        (numeric(1, 32768), "a digit that is none"),
        (numeric(1, 1, 1, 1, 1, 1, 1, 10000, weight=4), "a digit that is none"),
    ],
    "jsonb": [(b"", "without its version"), (b"\0{}", "another version"), (b"\2{}", "another version")],
    "int4[]": [
        (b"", "shorter than its header"),
        (array()[:11], "shorter than its header"),
        (array()[:12], "another size"),
        (array()[:19], "another size"),
        (array(dimensions=-1), "impossible dimension"),
        (array(dimensions=-(2**31)), "impossible dimension"),
        (array(dimensions=7), "impossible dimension"),
        (array(dimensions=2**31 - 1), "impossible dimension"),
        (array(dimensions=0), "another size"),
        (array(INT4, flags=2), "unknown flags"),
        (array(INT4, flags=2**32 - 1), "unknown flags"),
        (array(INT4, kind="float4"), "another type than int4"),
        (array(INT4, count=0), "bytes behind its elements"),
        (array(INT4, count=-1), "more elements than it has bytes"),
        (array(INT4, count=-(2**31)), "more elements than it has bytes"),
        (array(INT4, count=2), "reaches beyond it"),
        (array(INT4, count=3), "more elements than it has bytes"),
        (array(INT4, count=2**30), "more elements than it has bytes"),
        (array(INT4, count=2**31 - 1), "more elements than it has bytes"),
        (array(INT4) + b"\0", "bytes behind its elements"),
        (array(INT4)[:-1], "reaches beyond it"),
        (array(b"123"), "4 bytes of int4"),
        (array(b"12345678"), "4 bytes of int4"),
        *[
            (array()[:12] + struct.pack(">iii", 1, 1, length) + INT4, "beyond it")
            for length in (-2, -(2**31), 5, 2**31 - 1)
        ],
    ],
    "date": [(struct.pack(">i", days), "before or after") for days in (-2_451_546, 2_145_031_949)],
    "time": [
        (struct.pack(">q", value), "a time before or after the day") for value in (-1, MICROSECONDS + 1)
    ],
    "timestamp": [
        (struct.pack(">q", value), "before or after")
        for value in (-2_451_545 * MICROSECONDS - 1, 106_751_983 * MICROSECONDS, 2**63 - 2, -(2**63) + 1)
    ],
}
for kind in ("date", "time", "timestamp"):
    INVALID[kind] += [(bytes(3), f"bytes of {kind}"), (bytes(9), f"bytes of {kind}")]
#: By type, fields that are its own, and that Arrow's type cannot hold.
REFUSED: dict[str, list[tuple[bytes, str]]] = {
    "text": [(b"\xff", "not UTF-8"), (b"\xc3", "not UTF-8"), (b"\xed\xa0\x80", "not UTF-8")],
    "jsonb": [(b"\1\xff", "not UTF-8")],
    "text[]": [(array(b"abc", b"\xc3", kind="text"), "not UTF-8")],
    "numeric": [
        (numeric(sign=0xC000), "NaN"),
        (numeric(sign=0xD000, places=32), "NaN or an infinity"),
        (numeric(sign=0xF000, places=32), "NaN or an infinity"),
        (numeric(1, weight=32767), "digits"),
        (numeric(*[9999] * 16000, weight=16000), "digits"),
        (numeric(1, weight=-32768), "behind"),
        (numeric(*[9999] * 16000, weight=0), "behind"),
    ],
    "date": [(struct.pack(">i", days), "infinite") for days in (2**31 - 1, -(2**31))],
    "time": [(struct.pack(">q", MICROSECONDS), "24:00")],
    "timestamp": [
        (struct.pack(">q", 2**63 - 1), "infinite"),
        (struct.pack(">q", -(2**63)), "infinite"),
        (struct.pack(">q", 106_751_983 * MICROSECONDS - 1), "after the year 294246"),
    ],
    "interval": [
        (struct.pack(">qii", 0, 0, 1), "months"),
        (struct.pack(">qii", 2**63 - 1, 2**31 - 1, 2**31 - 1), "months"),
        (struct.pack(">qii", 0, 2**31 - 1, 0), "273,000 years"),
        (struct.pack(">qii", 0, -(2**31), 0), "273,000 years"),
        (struct.pack(">qii", 2**63 - 1, 0, 0), "273,000 years"),
        # Each part fits 64 bits of microseconds, and both together do not.
        (struct.pack(">qii", (10**8 - 2) * MICROSECONDS, 10**8, 0), "273,000 years"),
    ],
    "int4[]": [(array(INT4, dimensions=2), "more than one dimension")],
}


def cases(table: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(kind, *case, id=f"{kind}-{number}")
        for kind, found in table.items()
        for number, case in enumerate(found)
    ]


@pytest.mark.parametrize(("kind", "value", "expected"), cases(VALID))
def test_what_has_its_form_is_read(kind: str, value: bytes | None, expected: Any) -> None:
    batch = decode_rows([row(value)] * 3, [column(kind)])
    batch.validate(full=True)
    assert batch.to_pylist() == [{"c": expected}] * 3


def _place(kind: str, value: bytes, good: bytes | None) -> str:
    rows = [row(INT4, good), row(None, None), row(INT4, value), row(INT4, good)]
    with pytest.raises(LoadError) as caught:
        decode_rows(rows, [column("int4", "first"), column(kind, "second")])
    text = str(caught.value)
    assert '"second"' in text
    assert "row 3" in text
    assert "'second'" not in text
    return text


GOOD_VALUES = {kind: found[0][0] for kind, found in VALID.items()} | {
    "int2": bytes(2),
    "oid": bytes(4),
    "date": bytes(4),
    "float4": bytes(4),
    "uuid": bytes(16),
    "interval": bytes(16),
}


@pytest.mark.parametrize(("kind", "value", "says"), cases(INVALID))
def test_what_has_not_its_form_is_an_error_of_its_column_and_row(kind: str, value: bytes, says: str) -> None:
    text = _place(kind, value, GOOD_VALUES.get(kind, bytes(8)))
    assert FORM in text
    assert says in text


@pytest.mark.parametrize(("kind", "value", "says"), cases(REFUSED))
def test_what_arrow_cannot_hold_is_an_error_of_its_column_and_row(kind: str, value: bytes, says: str) -> None:
    text = _place(kind, value, GOOD_VALUES.get(kind, bytes(8)))
    assert "holds a value that" in text
    assert says in text


@pytest.mark.parametrize("rows", [1, 100], ids=["one by one", "all at once"])
def test_arrays_by_either_way(rows: int) -> None:
    long = array(*[INT4, None] * 500)
    good = [row(long), row(array(INT4))] * rows
    assert decode_rows(good, [column("int4[]")]).column(0).to_pylist() == [[7, None] * 500, [7]] * rows
    for wrong, says in INVALID["int4[]"]:
        with pytest.raises(LoadError, match=says) as caught:
            decode_rows([*good, row(wrong), row(wrong)], [column("int4[]")])
        assert f"row {2 * rows + 1}" in str(caught.value)


@pytest.mark.parametrize("kind", sorted({*INVALID, *VALID, *ARROW}))
def test_nulls_at_the_very_end_are_read_inside_the_buffer(kind: str) -> None:
    columns = [column(kind, f"c{number}") for number in range(3)]
    assert decode_rows([row(None, None, None)], columns).to_pylist() == [{"c0": None, "c1": None, "c2": None}]


@pytest.mark.parametrize(
    "value", [numeric(1, weight=32767), numeric(1, weight=-32768), numeric(*[1] * 30000)]
)
def test_a_long_numeric_takes_no_time(value: bytes) -> None:
    """Of 30,000 digits the product would take longer than the timeout, for each of so many rows."""
    rows = [row(value)] * 300
    with pytest.raises(LoadError):
        decode_rows(rows, [column("numeric")])
    # The last one only: the others are looked at before.
    zero = numeric(*[0] * 30000, weight=30000)
    assert decode_rows([row(zero)] * 100, [column("numeric")]).column(0).to_pylist() == [Decimal(0)] * 100


def test_no_count_is_believed_before_there_is_room_for_it() -> None:
    _, before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 29), before))
    try:
        for wrong in (array(INT4, count=2**31 - 1), array(INT4, count=2**30), numeric(1, count=65535)):
            with pytest.raises(LoadError):
                decode_rows([row(wrong)] * 5, [column("int4[]" if len(wrong) > 20 else "numeric")])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, before))


@pytest.mark.skipif(sys.maxsize < 2**32, reason="needs 64 bits")
def test_places_beyond_2_gib_do_not_wrap() -> None:
    size = 2**31 + 2**20
    # Pages that nobody touches take no memory.
    data: Any = mmap.mmap(-1, 2 + 4 + size + 8 + 16)
    data[0:2] = struct.pack(">h", 2)
    data[2:6] = struct.pack(">i", -2)
    data[6 + size : 14 + size] = sized(INT4)
    sizes = [14 + size]
    with pytest.raises(Malformed):
        list(split(data, sizes, 2))
    # No length of 4 bytes reaches so far; two fields do.
    half = size // 2
    data[0:2] = struct.pack(">h", 3)
    data[2:6] = struct.pack(">i", half)
    data[6 + half : 10 + half] = struct.pack(">i", size - half - 4)
    big, other, number = split(data, sizes, 3)
    assert decode(number, "int4", pa.int32()).to_pylist() == [7]
    for fields in (big, other):
        with pytest.raises(ValueRefused, match="read fewer rows at once"):
            decode(fields, "bytea", pa.binary())
    data[6 + half : 10 + half] = struct.pack(">i", 2**31 - 1)
    with pytest.raises(Malformed, match="beyond its row"):
        list(split(data, sizes, 3))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LyingServer]:
    with LyingServer(tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture(scope="module")
def client(server: LyingServer) -> Iterator[LakebaseClient]:
    with LakebaseClient(server.config()) as found:
        yield found


WAYS: dict[str, Callable[[LakebaseClient], Any]] = {
    "fetch_arrow": lambda client: client.fetch_arrow("SELECT c0 FROM t"),
    "fetch_polars": lambda client: client.fetch_polars("SELECT c0 FROM t"),
    "iter_batches": lambda client: list(client.iter_batches("SELECT c0 FROM t", batch_rows=2)),
}


def lie(server: LyingServer, kind: str, copied: list[bytes] | bytes) -> None:
    server.described, server.copied = of_types(kind), copied


def test_the_server_can_tell_the_truth(server: LyingServer, client: LakebaseClient) -> None:
    lie(server, "int4", [HEADER + GOOD, GOOD, TRAILER])
    assert WAYS["fetch_arrow"](client).to_pylist() == [{"c0": 7}, {"c0": 7}]


@pytest.mark.parametrize("case", STREAMS)
def test_a_server_whose_stream_is_none(server: LyingServer, client: LakebaseClient, case: str) -> None:
    lie(server, "int4", STREAMS[case][0])
    # libpq passes an empty message over.
    if case == "an empty row":
        assert WAYS["fetch_arrow"](client).num_rows == 1
        return
    for way in WAYS.values():
        with pytest.raises(LoadError, match=FORM):
            way(client)


@pytest.mark.parametrize(
    ("kind", "value", "says"), [found for table in (INVALID, REFUSED) for found in cases(table)]
)
def test_a_server_whose_values_are_none(
    server: LyingServer, client: LakebaseClient, kind: str, value: bytes, says: str
) -> None:
    good = row(GOOD_VALUES.get(kind, bytes(8)))
    lie(server, kind, [HEADER + good, row(value), good, TRAILER])
    for way in WAYS.values():
        with pytest.raises(LoadError, match=says) as caught:
            way(client)
        assert 'olumn "c0"' in str(caught.value)
        assert "row 2" in str(caught.value)
    lie(server, kind, [HEADER + good, TRAILER])
    assert WAYS["fetch_arrow"](client).num_rows == 1  # the pool gives a connection that works
