"""The rows that loads are measured with, and their table; imports nothing that a measurement would count."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

TABLE = "bench_load"
COLUMNS = ("id", "n", "x", "amount", "name", "at", "flag", "doc")
DDL = (
    f"CREATE TABLE {TABLE} (id bigint, n int, x double precision, amount numeric(12,2), name text,"
    " at timestamptz, flag boolean, doc jsonb)"
)
_START = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)


def make_rows(begin: int, end: int) -> Iterator[tuple[Any, ...]]:
    """Rows of 8 columns, the document as a dict."""
    for i in range(begin, end):
        yield (
            i,
            i % 100_000,
            i * 0.37,
            Decimal(i % 1_000_000) / 100,
            f"customer name {i:09d}",
            _START + dt.timedelta(seconds=i, microseconds=i % 1_000_000),
            i % 2 == 0,
            {"k": i % 1000, "tag": "abc"},
        )
