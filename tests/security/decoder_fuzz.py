"""Binary COPY data that is damaged at random, decoded here and by a second decoder that is slow and plain.

``python -m tests.security.decoder_fuzz SECONDS [SEED]`` goes on for so long; what it finds, it prints.
"""

from __future__ import annotations

import faulthandler
import itertools
import struct
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from psycopg import postgres

from lakebase_provider.core.bulk.read.result_columns import ResultColumn
from lakebase_provider.core.errors import LoadError

from .copy_data import (
    ARROW,
    CANARY,
    HEADER,
    SIGNATURE,
    TRAILER,
    array,
    column,
    decode_rows,
    numeric,
    read,
    row,
)

_DAY = 86_400_000_000
_DECIMALS = [pa.decimal128(38, 18), pa.decimal128(5, 2), pa.decimal128(12, 2), pa.decimal256(50, 20)]
_NUMBERS = (0, 1, -1, -2, 2, 3, 4, 5, 8, 10, 16, 20, 255, 9999, 10000, 0x4000, 0xC000, 32767, 32768, 65535)
_WORDS = (*_NUMBERS, 2**16, 2**24, 2**30, 2**31 - 1, -(2**31), -(2**31) + 1, 2**31 - 20, len(CANARY))


def _packed(form: str, *values: st.SearchStrategy[int]) -> st.SearchStrategy[bytes]:
    return st.tuples(*values).map(lambda found: struct.pack(form, *found))


def _between(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high)


_NUMERIC = st.builds(
    lambda digits, weight, sign, places: numeric(*digits, weight=weight, sign=sign, places=places),
    st.lists(_between(0, 9999) | st.sampled_from((0, 1, 9999)), max_size=7),
    _between(-6, 6),
    st.sampled_from((0, 0, 0x4000)),
    _between(0, 40),
)
#: By type, fields of it.
SCALARS: dict[str, st.SearchStrategy[bytes]] = {
    "bool": st.sampled_from((b"\0", b"\1")),
    "int2": st.binary(min_size=2, max_size=2),
    "int4": st.binary(min_size=4, max_size=4),
    "int8": st.binary(min_size=8, max_size=8),
    "oid": st.binary(min_size=4, max_size=4),
    "float4": st.binary(min_size=4, max_size=4),
    "float8": st.binary(min_size=8, max_size=8),
    "numeric": _NUMERIC,
    "date": _packed(">i", _between(-2_451_545, 2_145_031_948)),
    "time": _packed(">q", _between(0, _DAY - 1)),
    "timestamp": _packed(">q", _between(-2_451_545 * _DAY, 106_741_034 * _DAY)),
    "timestamptz": _packed(">q", _between(-(10**15), 10**15)),
    "interval": _packed(">qii", _between(-(10**17), 10**17), _between(-(10**6), 10**6), st.just(0)),
    "uuid": st.binary(min_size=16, max_size=16),
    "text": st.text(max_size=12).map(str.encode),
    "jsonb": st.sampled_from((b"\1{}", b'\1{"a": [1, null]}', b"\1null")),
    "bytea": st.binary(max_size=12),
}


def _lists(kind: str) -> st.SearchStrategy[bytes]:
    return st.lists(st.none() | SCALARS[kind], max_size=4).map(lambda found: array(*found, kind=kind))


#: Types of columns, each with fields of it.
_COLUMNS: list[tuple[str, pa.DataType, st.SearchStrategy[bytes | None]]] = [
    (kind, arrow_type, st.none() | values)
    for scalar in sorted(SCALARS)
    for kind, values in ((scalar, SCALARS[scalar]), (f"{scalar}[]", _lists(scalar)))
    for arrow_type in (_DECIMALS if scalar == "numeric" else [ARROW[scalar]])
]


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[ResultColumn], list[bytes]]:
    """Columns of any types, and rows that have their form."""
    chosen = [_COLUMNS[draw(_WHICH)] for _ in range(draw(_UP_TO_3))]
    columns = [column(kind, f"c{number}", arrow) for number, (kind, arrow, _) in enumerate(chosen)]
    rows = [row(*(draw(values) for _, _, values in chosen)) for _ in range(draw(_UP_TO_3))]
    # More rows than are walked through one by one.
    return columns, rows * (12 if draw(_UP_TO_3) == 3 else 1)


_UP_TO_3 = st.integers(1, 3)
_WHICH = st.integers(0, len(_COLUMNS) - 1)


def _put(form: str, values: Sequence[int]) -> Callable[[st.DrawFn, bytes], bytes]:
    def change(draw: st.DrawFn, data: bytes) -> bytes:
        size = struct.calcsize(form)
        place = draw(st.integers(0, max(len(data) - size, 0)))
        value = draw(st.sampled_from(values) | st.integers(-(2 ** (8 * size - 1)), 2 ** (8 * size - 1) - 1))
        return data[:place] + (value % 2 ** (8 * size)).to_bytes(size, "big") + data[place + size :]

    return change


def _cut(draw: st.DrawFn, data: bytes) -> bytes:
    begin = draw(st.integers(0, len(data)))
    return data[:begin] + data[begin + draw(st.integers(1, 8) | st.just(len(data))) :]


def _insert(draw: st.DrawFn, data: bytes) -> bytes:
    place = draw(st.integers(0, len(data)))
    return data[:place] + draw(st.binary(min_size=1, max_size=8)) + data[place:]


_CHANGES = (_put("b", (0, 1, 2, -1, -128)), _put("h", _NUMBERS), _put("i", _WORDS), _cut, _insert)


@st.composite
def damaged(draw: st.DrawFn, parts: list[bytes]) -> list[bytes]:
    """The messages with some changes."""
    parts = list(parts)
    for _ in range(draw(st.integers(0, 3))):
        which = draw(st.integers(0, len(parts) - 1))
        parts[which] = draw(st.sampled_from(_CHANGES))(draw, parts[which])
    return parts


class WrongError(Exception):
    """The second decoder's only error."""


def _need(holds: bool) -> None:
    if not holds:
        raise WrongError


def _number(raw: bytes, signed: bool = True) -> int:
    return int.from_bytes(raw, "big", signed=signed)


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise WrongError from None


def _decimal(raw: bytes, kind: pa.DataType) -> Decimal:
    _need(len(raw) >= 8)
    digits = [_number(raw[place : place + 2], signed=False) for place in range(8, len(raw), 2)]
    count, sign, places = (_number(raw[place : place + 2], signed=False) for place in (0, 4, 6))
    _need(len(raw) == 8 + 2 * count and sign in (0, 0x4000) and places < 0x4000)
    _need(all(digit < 10_000 for digit in digits))
    weights = range(_number(raw[2:4]), -(2**31), -1)
    found = [(digit, weight) for digit, weight in zip(digits, weights, strict=False) if digit]
    _need(all(-30 < weight < 30 for _, weight in found))
    with localcontext() as context:
        context.prec = 500
        value = sum((Decimal(digit).scaleb(4 * weight) for digit, weight in found), Decimal(0))
        scaled = value.scaleb(kind.scale)
        _need(scaled == scaled.to_integral_value() and scaled < 10**kind.precision)
        return -value if sign else value


def _interval(raw: bytes) -> int:
    microseconds, days, months = struct.unpack(">qii", raw)
    _need(months == 0 and abs(days + microseconds // _DAY) < 10**8)
    return microseconds + days * _DAY


def _within(raw: bytes, low: int, high: int, base: int) -> int:
    _need(low <= _number(raw) <= high)
    return _number(raw) + base


_WIDTHS = {"bool": 1, "int2": 2, "int4": 4, "int8": 8, "oid": 4, "float4": 4, "float8": 8, "uuid": 16}
_WIDTHS |= {"date": 4, "time": 8, "timestamp": 8, "timestamptz": 8, "interval": 16}


def _value(raw: bytes, kind: str, arrow_type: pa.DataType) -> Any:
    _need(len(raw) == _WIDTHS.get(kind, len(raw)))
    if kind == "numeric":
        return _decimal(raw, arrow_type)
    if kind == "bool":
        return bool(_within(raw, 0, 1, 0))
    if kind in ("text", "jsonb"):
        _need(kind == "text" or raw[:1] == b"\1")
        return _text(raw if kind == "text" else raw[1:])
    if kind == "date":
        return _within(raw, -2_451_545, 2_145_031_948, 10_957)
    if kind == "time":
        return _within(raw, 0, _DAY - 1, 0)
    if kind in ("timestamp", "timestamptz"):
        return _within(raw, -2_451_545 * _DAY, 2**63 - 1 - 10_957 * _DAY, 10_957 * _DAY)
    if kind == "interval":
        return _interval(raw)
    if kind == "uuid":
        return str(uuid.UUID(bytes=raw))
    return raw if kind == "bytea" else _number(raw, signed=kind != "oid")


def _fields(raw: bytes, count: int) -> list[bytes | None]:
    found: list[bytes | None] = []
    for _ in range(count):
        _need(len(raw) >= 4)
        size, raw = _number(raw[:4]), raw[4:]
        _need(-1 <= size <= len(raw))
        found.append(None if size < 0 else raw[:size])
        raw = raw[max(size, 0) :]
    _need(not raw)
    return found


def _field(raw: bytes | None, each: ResultColumn) -> Any:
    if raw is None or not each.kind.endswith("[]"):
        return None if raw is None else _value(raw, each.kind, each.arrow_type)
    kind = each.kind[:-2]
    _need(len(raw) >= 12)
    dimensions, flags, oid = struct.unpack(">iII", raw[:12])
    _need(flags < 2 and oid == postgres.types[kind].oid and dimensions in (0, 1))
    _need(len(raw) == 12 if dimensions == 0 else len(raw) >= 20)
    count = _number(raw[12:16]) if dimensions else 0
    _need(0 <= count <= len(raw))
    parts = _fields(raw[20:], count)
    return [None if part is None else _value(part, kind, each.arrow_type.value_type) for part in parts]


def plain_rows(rows: Sequence[bytes], columns: Sequence[ResultColumn]) -> list[list[Any]]:
    """What the rows hold, one value after another; :class:`WrongError` if they have not the form."""
    found = []
    for raw in rows:
        _need(raw[:2] == len(columns).to_bytes(2, "big"))
        fields = _fields(raw[2:], len(columns))
        found.append([_field(part, each) for part, each in zip(fields, columns, strict=True)])
    return found


def _as_plain(found: pa.Array) -> list[Any]:
    """An array's values as the second decoder gives them: times as numbers, floats as their bits."""
    if pa.types.is_list(found.type):
        flat, offsets = _as_plain(found.values), found.offsets.to_pylist()
        lists = [flat[begin:end] for begin, end in itertools.pairwise(offsets)]
        valid = found.is_valid().to_pylist()
        return [each if there else None for each, there in zip(lists, valid, strict=True)]
    if pa.types.is_temporal(found.type) or pa.types.is_floating(found.type):
        found = found.view(pa.int32() if found.type.bit_width == 32 else pa.int64())
    return list(found.to_pylist())


def check_rows(rows: Sequence[bytes], columns: Sequence[ResultColumn]) -> None:
    """Both decoders find the same, or neither finds anything."""
    try:
        expected = plain_rows(rows, columns)
    except WrongError:
        expected = None
    try:
        batch = decode_rows(rows, columns)
    except LoadError:
        assert expected is None
        return
    batch.validate(full=True)
    found = [list(values) for values in zip(*map(_as_plain, batch.columns), strict=True)]
    assert CANARY[:8].decode() not in repr(found)
    assert found == expected


def check_messages(messages: Sequence[bytes], columns: Sequence[ResultColumn], batch: int) -> None:
    """A table that holds together, or one error."""
    try:
        table = read(messages, columns, batch)
    except LoadError:
        return
    table.validate(full=True)
    assert messages[0].startswith(SIGNATURE)
    assert messages[-1].endswith(TRAILER)


def rows_are_equal_or_refused(data: st.DataObject) -> None:
    columns, rows = data.draw(tables())
    check_rows(data.draw(damaged(rows)), columns)


def streams_are_tables_or_refused(data: st.DataObject) -> None:
    columns, rows = data.draw(tables())
    messages = data.draw(damaged([HEADER + rows[0], *rows[1:], TRAILER]))
    check_messages(messages, columns, data.draw(st.sampled_from((1, 2, 1000))))


def any_bytes_are_equal_or_refused(data: st.DataObject) -> None:
    kind, arrow_type, _ = _COLUMNS[data.draw(_WHICH)]
    values = data.draw(_ANY_BYTES)
    for rows in ([row(value) for value in values], values):
        check_rows(rows, [column(kind, arrow_type=arrow_type)])


_ANY_BYTES = st.lists(st.binary(max_size=40), min_size=1, max_size=4)

Property = Callable[[st.DataObject], None]
PROPERTIES: tuple[Property, ...] = (
    rows_are_equal_or_refused,
    streams_are_tables_or_refused,
    any_bytes_are_equal_or_refused,
)


def run(which: Property, examples: int, start: int | None = None) -> None:
    """Look at so many examples of a property.

    Args:
        which: One of :data:`PROPERTIES`.
        examples: How many.
        start: Where randomness starts; None for the same each time.
    """

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=start is None,
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def test(data: st.DataObject) -> None:
        which(data)

    (test if start is None else seed(start)(test))()


def main() -> None:
    faulthandler.enable()
    end = time.monotonic() + float(sys.argv[1])
    start = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() % 2**32
    rounds = 0
    while time.monotonic() < end:
        print(f"seed {start + rounds}", file=sys.stderr, flush=True)
        for which in PROPERTIES:
            run(which, 500, start + rounds)
        rounds += 1
    print(f"{rounds * 500 * len(PROPERTIES)} examples")


if __name__ == "__main__":
    main()
