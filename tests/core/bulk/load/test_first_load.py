"""A process's first load imports what pays, and few rows go the way of many: the same results and errors."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.encode import encoder
from lakebase_provider.core.bulk.sources.open import open_source
from lakebase_provider.core.bulk.tables.create import column_type, columns_for
from lakebase_provider.core.bulk.types.arrow import array_of, inferred_type
from lakebase_provider.core.errors import BadRowError, ColumnMismatchError
from lakebase_provider.local import LocalLakebase
from tests.core.bulk.sample_tables import counts, run
from tests.core.fake_clock import FakeClock
from tests.encoders import ENCODERS, encoded_by

UTC = dt.timezone.utc
HEAVY = {"pandas", "numpy", "pyarrow", "pgpq", "polars"}
_LOADS = """
import json, sys
from lakebase_provider.core import LakebaseClient, LakebaseConfig

def said():
    print(json.dumps(sorted(set(sys.modules) & set(%r))))

with LakebaseClient(LakebaseConfig.from_env()) as client:
    client.load([(1, "a")], "t", columns=["id", "name"], create=True)
    client.load([{"id": 2, "name": None}], "t", mode="merge", keys=["id"], load_id="two")
    client.load([(i, "x") for i in range(10_000)], "t", mode="replace", where="id > 5")
    said()
    client.load(((i, "y") for i in range(50_000)), "t")
    said()
    client.load(sys.argv[1], "t")
    client.load(sys.argv[2], "t")
    said()
"""


def test_what_the_first_loads_of_a_process_import(
    client: LakebaseClient, lakebase_env: LocalLakebase, tmp_path: Path
) -> None:
    """pandas is the caller's to import, and Arrow's import is paid where it pays."""
    csv, lines = tmp_path / "rows.csv", tmp_path / "rows.jsonl"
    csv.write_text("id,name\n1,a\n")
    lines.write_text(json.dumps({"id": 1, "name": "b"}) + "\n")
    command = [sys.executable, "-c", _LOADS % sorted(HEAVY), str(csv), str(lines)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    few, many, files = map(json.loads, done.stdout.splitlines()[-3:])
    assert few == []
    assert many == files == ["numpy", "pgpq", "pyarrow"]
    assert run(client, "SELECT count(*) FROM t") == [(60_004,)]


def test_arrow_is_imported_after_some_loads_of_thousands_of_rows(
    client: LakebaseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(client, "CREATE TABLE t (id int)")
    monkeypatch.setattr(encoder, "_FEW", 10)
    monkeypatch.setattr(encoder, "_IMPORT_AFTER", 100)
    monkeypatch.setattr(encoder, "_written", 0)
    modules = {name: module for name, module in sys.modules.items() if name != "pyarrow"}
    monkeypatch.setattr(encoder.sys, "modules", modules)
    sizes = [10, 60, 10, 41, 40, 11, 10]
    found = [client.load([(i,) for i in range(size)], "t").format for size in sizes]
    assert found == ["text", "text", "text", "binary", "text", "binary", "text"]


@pytest.mark.parametrize("encodes", ENCODERS)
@pytest.mark.parametrize("mode", ["append", "replace", "merge"])
def test_each_mode_counts_alike(client: LakebaseClient, mode: Any, encodes: str) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'old'), (9, 'old')")
    seen: list[Any] = []
    with encoded_by(encodes):
        rows = [(2, "a"), (3, None)] if mode == "append" else [(1, "new"), (2, "a\t\\")]
        for _ in range(2):
            result = client.load(rows, "t", mode=mode, load_id="once")
            seen.append((counts(result), run(client, "TABLE t ORDER BY 1")))
    assert seen[0][0] == {"append": (2, 0, 0, 0), "replace": (2, 0, 2, 0), "merge": (1, 1, 0, 0)}[mode]
    assert seen[0][1] == seen[1][1]
    assert set(rows) <= set(seen[0][1])


@pytest.mark.parametrize("encodes", ENCODERS)
def test_bad_rows_are_set_aside_alike(client: LakebaseClient, encodes: str) -> None:
    run(client, "CREATE TABLE t (id int, v varchar(3), x numeric(4, 1), doc jsonb, f real, flags bool[])")
    good = (1, "a", Decimal("1.5"), {"a": 1}, 1.5, [True, None])
    bad: list[tuple[Any, ...]] = [
        (2**40, *good[1:]), ("x", *good[1:]), (1, "abcd", *good[2:]), (1, "a\0", *good[2:]),
        (1, "\ud800", *good[2:]), (*good[:2], Decimal("1.25"), *good[3:]), (*good[:3], "{", *good[4:]),
        (*good[:3], {"a": b"x"}, *good[4:]), (*good[:4], 1e39, good[5]), (*good[:5], [1]),
    ]  # fmt: skip
    rows = [good, *(row for one in bad for row in (one, good))]
    with encoded_by(encodes):
        result = client.load(rows, "t", on_error="reject", reject_to="rejects")
    assert (result.rows, result.rejected) == (len(bad) + 1, len(bad))
    found = run(client, "SELECT row_number, column_name FROM rejects ORDER BY 1")
    columns = ["id", "id", "v", "v", "v", "x", "doc", "doc", "f", "flags"]
    assert found == [(2 * place + 2, name) for place, name in enumerate(columns)]


@pytest.mark.parametrize("encodes", ENCODERS)
def test_an_error_of_the_caller_comes_as_it_is(client: LakebaseClient, encodes: str) -> None:
    run(client, "CREATE TABLE t (id int)")

    def rows() -> Iterator[tuple[int]]:
        yield from ((i,) for i in range(15_000))
        raise KeyError("mine")

    with encoded_by(encodes), pytest.raises(KeyError, match="mine"):
        client.load(rows(), "t")
    with encoded_by(encodes), pytest.raises(BadRowError, match="row 12,001"):
        client.load([(i,) if i != 12_000 else "ab" for i in range(15_000)], "t")
    assert run(client, "SELECT count(*) FROM t") == [(0,)]


def test_rows_that_are_counted_come_once_and_are_let_go() -> None:
    source = open_source([(i,) for i in range(25_000)])
    assert source.count(9_999) == 10_000
    assert [batch.rows for batch in source.batches()] == [10_000, 10_000, 5_000]
    assert open_source([(1,)]).count(5) == 1
    assert open_source([]).count(5) == 0


def test_slow_rows_are_not_waited_for() -> None:
    clock = FakeClock()
    began = clock.elapsed()

    def rows() -> Iterator[tuple[int]]:
        for i in range(25_000):
            clock.advance(0.1)
            yield (i,)

    source = open_source(rows())
    assert source.count(100_000, clock) > 100_000
    # A bit more than ten seconds' worth.
    assert clock.elapsed() - began < 25
    assert sum(batch.rows for batch in source.batches()) == 25_000


_VALUES: dict[Any, st.SearchStrategy[Any]] = {
    pa.bool_(): st.booleans(),
    pa.int16(): st.integers(-(2**15), 2**15 - 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.floats(allow_nan=False),
    pa.string(): st.text(st.characters(codec="utf-8")),
    pa.binary(): st.binary(),
    pa.binary(16): st.binary(min_size=16, max_size=16),
    pa.date32(): st.dates(),
    pa.time64("us"): st.times(),
    pa.duration("us"): st.timedeltas(dt.timedelta(days=-(10**6)), dt.timedelta(days=10**6)),
    pa.decimal128(12, 3): st.decimals(-(10**8), 10**8, places=3) | st.integers(-(10**8), 10**8).map(Decimal),
}


@pytest.mark.parametrize("kind", _VALUES, ids=str)
def test_an_array_without_pandas_is_arrows_own(kind: Any) -> None:
    @given(st.lists(st.none() | _VALUES[kind], max_size=20))
    def same(values: list[Any]) -> None:
        with encoded_by("Arrow alone"):
            built = array_of(values, kind)
        built.validate(full=True)
        assert built.type == kind
        assert built.equals(pa.array(values, type=kind))
        assert built.null_count == values.count(None)

    same()


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.int16(), [1, 2**15]), (pa.int32(), ["1"]), (pa.int64(), [2**63]), (pa.float64(), ["x"]),
        (pa.string(), ["\ud800"]), (pa.string(), [1]), (pa.binary(), ["a"]), (pa.date32(), [1]),
        (pa.decimal128(4, 1), [Decimal("1.25")]), (pa.decimal128(4, 1), [Decimal("NaN")]),
    ],
    ids=str,
)  # fmt: skip
def test_what_arrow_refuses_is_refused_without_pandas(kind: Any, values: list[Any]) -> None:
    refusals = (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError)
    with encoded_by("Arrow alone"), pytest.raises(refusals):
        array_of(values, kind)


@pytest.mark.parametrize(
    "values",
    [
        [True], [1, None], [2**63], [-(2**63)], [1.5], ["a"], [b""], [dt.date(1, 1, 1)], [dt.time(1)],
        [dt.time(1, tzinfo=UTC)], [dt.datetime(1, 1, 1)], [dt.datetime(2000, 1, 1, tzinfo=UTC)],
        [dt.datetime(2000, 1, 1, tzinfo=UTC), dt.datetime(2000, 1, 1)], [dt.timedelta(1)], [UUID(int=1)],
        [Decimal(1)], [Decimal("1.5"), 1], [None], [1, 1.5], [1, "a"], [[1]], [{"a": 1}], [True, 1],
        [[[1.5]], None], [[None]], [["a"], []], [[{}]], [{}], [[1, "a"]], [(1, 2)],
    ],
    ids=str,
)  # fmt: skip
def test_a_new_column_has_the_type_that_arrow_infers(values: list[Any]) -> None:
    def found() -> dict[str, str]:
        return columns_for(open_source([{"n": value} for value in values]))[0]

    try:
        expected = column_type(inferred_type("n", values, "the first rows"), "n")
    except ColumnMismatchError:
        with pytest.raises(ColumnMismatchError):
            found()
        return
    assert found() == {"n": expected}
