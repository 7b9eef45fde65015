"""What has more columns than a table can have is refused early: in linear time and bounded memory."""

from __future__ import annotations

import csv
import functools
import gzip
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import parquet

from dagster_lakebase.io_manager.outputs import source_of
from lakebase_provider.core import LakebaseClient, LakebaseConfig, close_shared_clients
from lakebase_provider.core.bulk.sources.open import open_source
from lakebase_provider.core.errors import ColumnMismatchError, ConfigError, LoadError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from tests.airflow.conftest import connection_fields, define
from tests.depth import examples

# To look each of so many names up among the others takes a minute, or many.
pytestmark = [pytest.mark.deep, pytest.mark.timeout(examples(40, 120))]

COLUMNS = examples(80_000, 200_000)
SO_MANY = f"{COLUMNS:,} columns"
NAMES = [f"column {number}" for number in range(COLUMNS)]
#: Bytes that a look at a header may take.
_MOST = 64 << 20


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return pa.table([pa.array([1])] * len(NAMES), names=NAMES)


def _csv(table: pa.Table, folder: Path) -> Any:
    with (folder / "x.csv").open("w", newline="") as file:
        csv.writer(file).writerows([table.column_names, ["1"] * table.num_columns])
    return folder / "x.csv"


def _parquet(table: pa.Table, folder: Path) -> Any:
    parquet.ParquetWriter(folder / "x.parquet", table.schema).close()  # without rows, which take their time
    return folder / "x.parquet"


@functools.cache  # of so many columns it takes seconds
def _polars(columns: int) -> pl.DataFrame:
    return pl.DataFrame({name: [1] for name in NAMES[:columns]})


SOURCES: dict[str, Callable[[pa.Table, Path], Any]] = {
    "CSV": _csv,
    "Parquet": _parquet,
    "Arrow table": lambda table, _: table,
    "Arrow batches": lambda table, _: iter(table.to_batches()),
    "pandas": lambda table, _: pd.DataFrame([[1] * table.num_columns], columns=table.column_names),
    "pandas objects": lambda table, _: pd.DataFrame(
        [["x"] * table.num_columns], columns=table.column_names, dtype=object
    ),
    "Polars": lambda table, _: _polars(table.num_columns),
    "Polars lazy": lambda table, _: _polars(table.num_columns).lazy(),
    "dicts": lambda table, _: [dict.fromkeys(table.column_names, 1)],
    "tuples": lambda table, _: [(1,) * table.num_columns],
}
OF_DAGSTER = ["Arrow table", "Arrow batches", "pandas", "Polars", "Polars lazy"]


@pytest.mark.parametrize("kind", SOURCES)
def test_more_columns_than_a_table_can_have_are_refused(table: pa.Table, tmp_path: Path, kind: str) -> None:
    source = SOURCES[kind](table, tmp_path)
    with pytest.raises(ColumnMismatchError, match=rf"(?s)has {SO_MANY}; .* at most 1,600") as caught:
        open_source(source)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("kind", OF_DAGSTER)
def test_so_they_are_of_an_asset(table: pa.Table, tmp_path: Path, kind: str) -> None:
    with pytest.raises(ColumnMismatchError, match=f"has {SO_MANY}"):
        source_of(SOURCES[kind](table, tmp_path))


@pytest.mark.parametrize("kind", [kind for kind in SOURCES if kind != "tuples"])
def test_a_few_of_many_columns_may_be_taken(table: pa.Table, tmp_path: Path, kind: str) -> None:
    table = table.select(range(5000))
    chosen = [NAMES[4999], NAMES[0]]
    source = SOURCES[kind](table, tmp_path)
    with pytest.raises(ColumnMismatchError, match=f"columns= has {COLUMNS:,}"):
        open_source(source, NAMES)
    if kind not in ("dicts", "Arrow batches"):  # of which the first one is gone with the first look
        with pytest.raises(
            ColumnMismatchError, match=r"(?s)no column 'z'; it has 'column 0'.* 4,950 more"
        ) as caught:
            open_source(source, ["z"])
        assert len(str(caught.value)) < 2000
    with open_source(source, chosen) as opened:
        assert opened.column_names == tuple(chosen)


def test_of_a_wide_frame_only_the_chosen_columns_are_turned_into_values() -> None:
    frame = pd.DataFrame([[*range(3000)], [*range(3000)]], columns=[f"c{n}" for n in range(3000)])
    with open_source(frame, ["c7", "c3"]) as opened:
        (batch,) = opened.batches()
    assert [batch.row(index) for index in range(batch.rows)] == [(7, 3), (7, 3)]


def test_one_name_among_many_that_stands_twice_is_found_soon(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(",".join([*NAMES, "twice", "twice"]))
    with pytest.raises(ColumnMismatchError, match="named 'twice'"):
        open_source(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("piece", "packed"),
    [("a", False), ("a,", False), ('a,"b\n', False), ("\0", False), ("a,", True)],
    ids=ascii,
)
def test_a_header_without_an_end_is_not_read_to_the_end(tmp_path: Path, piece: str, packed: bool) -> None:
    path = tmp_path / ("x.csv.gz" if packed else "x.csv")
    block = piece.encode() * (1 << 20)
    with gzip.open(path, "wb", 1) if packed else path.open("wb") as file:
        file.write(b'"' if "\n" in piece else b"")
        for _ in range(100):
            file.write(block.replace(b'"', b""))
    tracemalloc.start()
    try:
        with pytest.raises(
            ConfigError, match=r"(?s)x\.csv.* does not begin with a line of column names"
        ) as caught:
            open_source(path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < _MOST
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("quoted", [True, False])
def test_the_names_of_a_header_are_counted_before_they_are_made(tmp_path: Path, quoted: bool) -> None:
    (tmp_path / "x.csv").write_text(('"a","b"' if quoted else "a") + "," * 4_000_000 + "\n")
    tracemalloc.start()
    try:
        with pytest.raises(ColumnMismatchError, match=r"x\.csv' has 4,000,00\d columns"):
            open_source(tmp_path / "x.csv")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < _MOST


def test_a_header_may_have_all_columns_of_a_table(tmp_path: Path) -> None:
    names = [f'"{number:04} {"ä" * 29}"' for number in range(1600)]
    (tmp_path / "x.csv").write_text(f"{','.join(names)}\n{','.join('1' * 1600)}\n")
    with open_source(tmp_path / "x.csv") as opened:
        assert opened.width == 1600
        assert sum(batch.rows for batch in opened.batches()) == 1


# End to end.


@pytest.fixture
def lake(lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalLakebase]:
    define(monkeypatch, **connection_fields(lakebase_env))
    LakebaseHook().run("drop table if exists narrow; create table narrow (a int)")
    yield lakebase_env
    LakebaseHook().run("drop table narrow")
    close_shared_clients()


@pytest.mark.parametrize(
    "options", [{}, {"create": True}, {"mode": "replace"}, {"mode": "merge", "keys": ["a"]}]
)
def test_a_load_of_too_many_columns_changes_nothing(
    lake: LocalLakebase, tmp_path: Path, table: pa.Table, options: Any
) -> None:
    name = "too_wide" if options.get("create") else "narrow"
    with LakebaseClient(LakebaseConfig.from_env()) as client:
        with pytest.raises(ColumnMismatchError, match=SO_MANY):
            client.load(_csv(table, tmp_path), name, **options)
        with client.connection() as connection:
            assert connection.execute("select to_regclass('too_wide')").fetchone() == (None,)


@pytest.mark.parametrize("replace", [False, True])
def test_the_hook_inserts_no_such_rows(lake: LocalLakebase, replace: bool) -> None:
    hook, row = LakebaseHook(), (1,) * len(NAMES)
    with pytest.raises(ColumnMismatchError, match=f"target_fields has {SO_MANY}"):
        hook.insert_rows("narrow", [row], target_fields=NAMES, replace=replace, replace_index=["a"])
    for rows in ([row], [row] * 800, [(1,), row]):
        with pytest.raises(ColumnMismatchError, match=f"A row has {SO_MANY}"):
            hook.insert_rows("narrow", rows, target_fields=["a"], replace=replace, replace_index=["a"])
    assert hook.get_records("select * from narrow") == []


def test_a_line_of_json_is_not_read_to_its_end(lake: LocalLakebase, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(b'{"a":1}\n{"a":"')
        for _ in range(300):
            file.write(b"1" * (1 << 20))
    with (
        LakebaseClient(lake.config()) as client,
        pytest.raises(
            LoadError, match=r"(?s)row 2 of '.*x\.jsonl\.gz'.*without an end within 256 MiB"
        ) as caught,
    ):
        client.load(path, "narrow")
    assert len(str(caught.value)) < 500
