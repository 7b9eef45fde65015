"""Sources of rows: what is taken, what it is called, how a bad one is named, and that it streams."""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads
from pyarrow import parquet
from upath import UPath

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.sources.open import open_source
from lakebase_provider.core.bulk.sources.source import Batch
from lakebase_provider.core.bulk.types.target_columns import BadValueError
from lakebase_provider.core.errors import ColumnMismatchError, ConfigError, LakebaseError
from tests.core.bulk.sample_tables import run

TABLE = pa.table({"a": [1, 2, 3], "b": ["x", None, ""]})
ROWS = [(1, "x"), (2, None), (3, "")]


def _read(
    source: Any, columns: list[str] | None = None
) -> tuple[tuple[str, ...] | None, list[tuple[Any, ...]]]:
    with open_source(source, columns) as opened:
        rows = [batch.row(index) for batch in opened.batches() for index in range(batch.rows)]
        return opened.column_names, rows


class _Stream:
    """A library of which nothing is known but the protocol."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return TABLE.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    "source",
    [
        [{"a": a, "b": b} for a, b in ROWS],
        ({"b": b, "a": a} if a > 1 else {"a": a, "b": b} for a, b in ROWS),
        TABLE,
        TABLE.to_reader(),
        TABLE.to_batches(max_chunksize=2),
        iter(TABLE.to_batches(max_chunksize=1)),
        TABLE.combine_chunks().to_batches()[0],
        _Stream(),
        pl.DataFrame(TABLE),
        pl.DataFrame(TABLE).lazy(),
        TABLE.to_pandas(),
        TABLE.to_pandas(types_mapper=pd.ArrowDtype),
    ],
    ids=lambda source: type(source).__module__.partition(".")[0] + " " + type(source).__name__,
)
def test_sources_with_names(source: Any) -> None:
    assert _read(source) == (("a", "b"), ROWS)


@pytest.mark.parametrize(
    "source", [ROWS, iter(ROWS), [list(row) for row in ROWS], (tuple(row) for row in ROWS)]
)
def test_rows_without_names(source: Any) -> None:
    assert _read(source) == (None, ROWS)


def test_columns_are_picked_by_name() -> None:
    for source in (
        TABLE,
        pl.DataFrame(TABLE).lazy(),
        TABLE.to_pandas(),
        [dict(zip("ab", row, strict=True)) for row in ROWS],
    ):
        assert _read(source, ["b"]) == (("b",), [(b,) for _, b in ROWS])
        with pytest.raises(ColumnMismatchError, match="no column 'z'"):
            open_source(source, ["z"])


def test_files(tmp_path: Path) -> None:
    text = 'a,b\n1,x\n2,\n3,""\n'
    (tmp_path / "rows.csv").write_text("\ufeff" + text)
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(text.encode()))
    parquet.write_table(TABLE, tmp_path / "rows.parquet")
    as_text = [(str(a), b) for a, b in ROWS]
    with fsspec.open("memory://rows.csv", "w") as file:
        file.write(text)
    for path, rows in (
        (str(tmp_path / "rows.csv"), as_text),
        (tmp_path / "rows.csv.gz", as_text),
        (tmp_path / "rows.parquet", ROWS),
        ("memory://rows.csv", as_text),
        (UPath("memory://rows.csv"), as_text),
        (f"file://{tmp_path}/rows.parquet", ROWS),
    ):
        assert _read(path) == (("a", "b"), rows)


def test_an_object_storage_path(tmp_path: Path) -> None:
    sdk = pytest.importorskip("airflow.sdk")
    parquet.write_table(TABLE, tmp_path / "rows.parquet")
    assert _read(sdk.ObjectStoragePath(f"file://{tmp_path}/rows.parquet")) == (("a", "b"), ROWS)


def test_a_cursor_of_another_database() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a, b)")
    connection.executemany("INSERT INTO t VALUES (?, ?)", ROWS)
    assert _read(connection.execute("SELECT * FROM t ORDER BY a")) == (("a", "b"), ROWS)
    with pytest.raises(ConfigError, match="The cursor has no result"):
        open_source(connection.cursor())
    connection.close()


def test_pandas_calls_missing_what_postgres_calls_null() -> None:
    frame = pd.DataFrame(
        {
            "f": [1.5, float("nan")],
            "o": pd.Series([{"k": 1}, float("nan")], dtype=object),
            "t": pd.to_datetime(["2024-05-01", None]),
            "n": pd.Series([1, None], dtype="Int64"),
            "c": pd.Categorical(["x", None]),
        }
    ).set_index(pd.Index([7, 7]))
    names, rows = _read(frame)
    assert names == tuple("fotnc")
    assert rows[1] == (None,) * 5
    assert rows[0][:2] == (1.5, {"k": 1})


@pytest.mark.parametrize(
    ("rows", "index", "words"),
    [
        ([(1, 2), (1, 2), (3,)], 2, "1 values"),
        ([(1, 2), (1, 2, 3)], 1, "3 values"),
        ([{"a": 1}, {"b": 1}], 1, "no value for 'a'"),
        ([{"a": 1}, {"a": 1, "b": 2}], 1, "2 values"),
        ([{"a": 1}, (1,)], 1, "not a row like the first"),
        ([(1, 2), "xy"], 1, "not a row like the first"),
        ([(1, 2), {"a": 1, "b": 2}], 1, "not a row like the first"),
        ([(1, 2), None], 1, "not a row like the first"),
    ],
)
def test_a_row_of_another_shape_is_named(rows: list[Any], index: int, words: str) -> None:
    good = [rows[0]] * 20_000
    with pytest.raises(BadValueError, match=words) as caught:
        _read(good + rows)
    assert caught.value.index == 20_000 + index


def test_a_csv_row_of_another_shape_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("a,b\n1,2\nprivate\n")
    with pytest.raises(BadValueError, match="1 fields") as caught:
        _read(tmp_path / "bad.csv")
    assert caught.value.index == 1
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (5, "int is not a source"),
        (b"x", "bytes is not a source"),
        ({"a": [1]}, "dict is not a source"),
        (["a", "b"], "first row is of type str"),
        ([1], "first row is of type int"),
        ("rows.xlsx", "no known suffix"),
        ("missing.csv", "no file"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "named 'a'"),
        (pa.table([[1], [2]], names=["a", "a"]), "named 'a'"),
        (pd.DataFrame({("a", "b"): [1]}), "several levels"),
    ],
)
def test_what_is_no_source(source: Any, words: str) -> None:
    with pytest.raises(LakebaseError, match=words):
        _read(source)


def test_an_endless_source_is_read_as_it_comes() -> None:
    def endless() -> Iterator[tuple[int]]:
        n = 0
        while True:
            yield (n,)
            n += 1

    batches = open_source(endless()).batches()
    assert [next(batches).columns[0][0] for _ in range(3)] == [0, 10_000, 20_000]


@pytest.mark.parametrize("convert", [pa.table, pl.DataFrame, pl.LazyFrame])
def test_big_batches_are_cut(convert: Any) -> None:
    wide = convert({"t": [f"{row:01000d}" for row in range(50_000)]})
    sizes = [batch.rows for batch in open_source(wide).batches()]
    assert sum(sizes) == 50_000
    assert 500 <= min(sizes[:-1]) <= max(sizes) <= 1050


def test_a_polars_frame_is_not_copied() -> None:
    parts = [pl.DataFrame({"n": range(begin, begin + 70_000), "t": "text"}) for begin in (0, 70_000)]
    frame = pl.concat(parts, rechunk=False)
    batches = list(open_source(frame).batches())
    assert [value for batch in batches for value in batch.columns[0].to_pylist()] == list(range(140_000))
    kept = {pa.array(part["n"].to_arrow()).buffers()[1].address for part in parts}
    assert kept <= {batch.columns[0].buffers()[1].address for batch in batches}
    assert list(open_source(frame.clear()).batches()) == []


@pytest.mark.parametrize("lazy", [False, True])
def test_python_objects_of_polars_are_refused(lazy: bool) -> None:
    frame = pl.DataFrame({"thing": [object(), object()]}, schema={"thing": pl.Object})
    with pytest.raises(ColumnMismatchError, match="'thing' of the data frame holds Python objects"):
        open_source(frame.lazy() if lazy else frame)


def test_a_row_of_a_damaged_file_can_be_shown() -> None:
    damaged = pa.array([b"a\x80b", None], pa.binary()).view(pa.string())
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2]), damaged)
    assert Batch((damaged, lists), 2).row(0) == ("a\\x80b", ["a\\x80b"])
    assert Batch((damaged, lists), 2).row(1) == (None, [None])


#: Values that say more than Python's of the same name.
SAYING_MORE = """
select 1 as id, '"123"'::jsonb as j1, '"true"'::jsonb as j2, 'null'::jsonb as j3,
    '[1.10, 1e400]'::jsonb as j4, '{"a": 0.48812409112942318}'::json as j5, '{"a": 1, "a": 2}'::json as j6,
    '{"a": [1, "x"]}'::jsonb as j7, null::jsonb as j8, '7'::jsonb as j9,
    interval '1 mon' as i1, interval '1 day -2 hours' as i2,
    '{"\\"1\\"",null}'::jsonb[] as a1
"""


@pytest.mark.parametrize("kind", ["client's", "server's", "binary", "by name"])
def test_a_cursor_of_postgres_gives_what_the_server_has(client: LakebaseClient, kind: str) -> None:
    run(client, f"create table said as {SAYING_MORE}; create table loaded (like said)")
    with client.connection() as connection:
        cursor: Any = connection.cursor("said") if kind == "server's" else connection.cursor()
        if kind == "by name":
            cursor = connection.cursor(row_factory=dict_row)
        cursor.execute("select * from said", binary=kind == "binary")
        client.load(cursor, "loaded")
        # The cursor is its owner's again.
        cursor.execute("select * from said")
        (row,) = cursor.fetchall()
        assert (row["j1"] if kind == "by name" else row[1]) == "123"
        cursor.close()
    assert run(client, "select md5(r::text), r::text from loaded r") == run(
        client, "select md5(r::text), r::text from said r"
    )


def test_a_loader_that_somebody_has_set_is_asked(client: LakebaseClient) -> None:
    run(client, "create table loaded (v jsonb)")
    with client.connection() as connection:
        set_json_loads(lambda data: {"read": bytes(data).decode()}, connection)
        client.load(connection.execute("""select '"x"'::jsonb as v"""), "loaded")
    assert run(client, "select v from loaded") == [({"read": '"x"'},)]
