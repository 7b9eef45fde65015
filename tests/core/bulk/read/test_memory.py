"""Batches that are kept: the same values, in no more memory than they need."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.read.memory import as_views, packed

_ROWS = 40_000  # several batches
_TEXTS = f"""
SELECT i, i / 4.0::numeric(10,2) AS n, i % 2 = 0 AS b, timestamptz '2024-01-01Z' + i * interval '1 h' AS t,
    CASE WHEN i % 5 > 0 THEN 'one of seven texts, number ' || i % 7 END AS equal,
    CASE WHEN i % 5 > 0 THEN 'a text of its own, number ' || i END AS different,
    CASE WHEN i < 20000 THEN 'first all equal' ELSE 'and then not: ' || i END AS late,
    left('short', i % 6) AS short, nullif('absent', 'absent') AS absent, 'é' || repeat('x', i % 30) AS mixed,
    ARRAY['x', NULL, 'a long element, number ' || i] AS list
FROM generate_series(1, {_ROWS}) i
"""


def test_a_polars_frame_holds_what_the_arrow_table_does(client: LakebaseClient) -> None:
    table, frame = client.fetch_arrow(_TEXTS), client.fetch_polars(_TEXTS)
    assert table.num_rows == _ROWS
    assert frame.rows() == list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    assert frame.rechunk().rows() == frame.rows()
    assert frame.filter(equal="one of seven texts, number 3")["i"].to_list() == [
        i for i in range(1, _ROWS + 1) if i % 7 == 3 and i % 5
    ]


def test_a_polars_frame_without_rows_has_the_same_columns(client: LakebaseClient) -> None:
    frame = client.fetch_polars(f"{_TEXTS} LIMIT 0")
    assert (frame.height, frame.schema) == (0, client.fetch_polars(f"{_TEXTS} LIMIT 1").schema)


def _batch() -> pa.RecordBatch:
    return pa.record_batch(
        {
            "i": pa.array([None, *range(4999)], pa.int32()),
            "n": pa.array([Decimal(i) for i in range(5000)], pa.decimal128(12, 2)),
            "b": pa.array([i % 3 == 0 for i in range(5000)]),
            "s": pa.array(
                [None if i % 9 == 0 else f"one of ten texts, number {i % 10}" for i in range(5000)]
            ),
            "l": pa.array([[i, None] if i % 4 else None for i in range(5000)], pa.list_(pa.int64())),
            "z": pa.nulls(5000, pa.string()),
        }
    )


@pytest.mark.parametrize("batch", [_batch(), _batch().slice(77, 1000), as_views(_batch())])
def test_a_packed_batch_is_equal_and_in_one_piece(batch: pa.RecordBatch) -> None:
    copy = packed(batch)
    copy.validate(full=True)
    assert copy.equals(batch)
    parts = [part for column in copy.columns for part in column.buffers() if part is not None and part.size]
    begin = min(part.address for part in parts)
    assert all(part.address % 64 == 0 for part in parts)
    assert max(part.address + part.size for part in parts) - begin <= sum(part.size + 63 for part in parts)


def test_a_batch_without_rows_is_packed_too() -> None:
    assert packed(_batch().slice(0, 0)).equals(_batch().slice(0, 0))
    assert packed(pa.RecordBatch.from_pylist([])).num_columns == 0


def test_equal_texts_share_their_bytes() -> None:
    batch = _batch()
    views = as_views(batch)
    views.validate(full=True)
    assert views["s"].cast(pa.string()).equals(batch["s"])
    assert views["z"].null_count == 5000
    assert sum(part.size for part in views["s"].buffers()[2:]) < 1000
    different = pa.record_batch({"s": pa.array([f"a text of its own, number {i}" for i in range(5000)])})
    assert as_views(different)["s"].cast(pa.string()).equals(different["s"])
