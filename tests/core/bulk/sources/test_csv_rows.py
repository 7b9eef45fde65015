"""Where rows of CSV end: the fast look, the exact one and Arrow agree, whatever quotes there are."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv as arrow_csv

from lakebase_provider.core.bulk.sources.csv_rows import RowEnds
from tests.depth import examples

ENDS = RowEnds(",", '"')
BYTES = st.lists(
    st.sampled_from([b"x", b",", b'"', b'""', b'","', b"\n", b"\r", b"\r\n", b"\n\n"]), max_size=20
).map(b"".join)
COMMON = settings(deadline=None, database=None, derandomize=True, max_examples=examples(100, 3000))


def arrow_rows(data: bytes) -> list[tuple[Any, ...]] | None:
    if not data:
        return []
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(data),
            arrow_csv.ReadOptions(block_size=len(data) + 1, use_threads=False, column_names=["a", "b"]),
            arrow_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            arrow_csv.ConvertOptions(column_types={"a": pa.string(), "b": pa.string()}),
        )
    except pa.ArrowInvalid:
        return None
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


@pytest.mark.deep
@COMMON
@given(BYTES)
def test_the_fast_look_says_what_the_exact_one_says(data: bytes) -> None:
    found = 0
    for begin, stop in ENDS.outside(data):
        for place in range(begin, stop):
            if data[place : place + 1] == b"\n" or (
                data[place : place + 1] == b"\r" and b"\n" not in data[begin:stop] and place + 1 < len(data)
            ):
                found = max(found, place + 1)
    assert ENDS.last(data) == found


@pytest.mark.deep
@COMMON
@given(BYTES)
def test_arrow_finds_the_same_rows_in_both_parts(data: bytes) -> None:
    whole = arrow_rows(data)
    if whole is None or ENDS.open_quote(data) >= 0:
        return
    for end in (ENDS.last(data), ENDS.first(data, whole=True)):
        first, second = arrow_rows(data[:end]), arrow_rows(data[end:])
        assert first is not None
        assert second is not None
        assert first + second == whole


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"1,2\n\n3,4\n", 1),
        (b"\n1,2\n", 0),
        (b"1,2\r\n\r\n3,4\r\n", 1),
        (b'1,"a\n\nb"\n3,4\n', -1),
        (b'1,5" wide\n\n3,"4"\n', 1),
        (b"1,2\n3,4\n", -1),
    ],
)
def test_a_blank_line_is_found_outside_of_quotes(data: bytes, line: int) -> None:
    assert ENDS.blank_line(data) == line


def test_where_quotes_mean_nothing_each_line_is_a_row() -> None:
    ends = RowEnds("\t", None)
    assert ends.last(b'a\t"b\nc') == 5
    assert ends.first(b'"a\tb\nc', whole=False) == 5
    assert ends.open_quote(b'a\t"b') == -1
