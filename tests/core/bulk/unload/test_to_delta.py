"""From a query to a Delta table: one commit, once for an id, and back again as it was."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakebase_provider.core import Delta, LakebaseClient
from lakebase_provider.core.errors import ColumnMismatchError, ConfigError, LoadError
from tests.core.bulk.sample_tables import run


@pytest.fixture
def lake(client: LakebaseClient, tmp_path: Path) -> Path:
    run(client, "CREATE TABLE t (id bigint PRIMARY KEY, v text)")
    run(client, "INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 5) i")
    return tmp_path / "lake"


def rows_of(table: Path) -> list[tuple[Any, ...]]:
    found = pa.RecordBatchReader.from_stream(DeltaTable(table).scan()).read_all()
    return sorted(zip(*(column.to_pylist() for column in found.columns), strict=True))


def test_rows_are_appended_put_in_place_of_others_or_merged(client: LakebaseClient, lake: Path) -> None:
    query = "SELECT * FROM t WHERE id <= %s"
    first = client.unload(query, f"delta:{lake}", params=(2,))
    assert (first.rows, first.version, first.skipped) == (2, 0, False)
    assert client.unload("SELECT * FROM t WHERE id > 2", Delta(lake)).version == 1
    assert rows_of(lake) == [(i, f"v{i}") for i in range(1, 6)]
    run(client, "UPDATE t SET v = 'new' WHERE id = 2")
    run(client, "INSERT INTO t VALUES (6, 'v6')")
    merged = client.unload("SELECT * FROM t WHERE id IN (2, 6)", f"delta:{lake}", mode="merge", keys=["id"])
    assert (merged.rows, merged.version) == (2, 2)
    assert rows_of(lake) == [(1, "v1"), (2, "new"), (3, "v3"), (4, "v4"), (5, "v5"), (6, "v6")]
    assert client.unload(query, f"delta:{lake}", mode="overwrite", params=(1,)).version == 3
    assert rows_of(lake) == [(1, "v1")]


def test_a_missing_table_is_made_by_a_merge_too(client: LakebaseClient, lake: Path) -> None:
    assert client.unload("SELECT * FROM t", f"delta:{lake}", mode="merge", keys=["id"]).rows == 5
    assert len(rows_of(lake)) == 5


@pytest.mark.parametrize("mode", ["append", "overwrite", "merge"])
def test_an_id_is_unloaded_once(client: LakebaseClient, lake: Path, mode: Any) -> None:
    options: dict[str, Any] = {"mode": mode, "keys": ["id"] if mode == "merge" else None}
    client.unload("SELECT * FROM t", f"delta:{lake}", unload_id="day/0", **options)
    client.unload("SELECT * FROM t WHERE id = 1", f"delta:{lake}", unload_id="day/1", **options)
    again = client.unload("SELECT * FROM t", f"delta:{lake}", unload_id="day/0", **options)
    assert (again.skipped, again.rows, again.version) == (True, 0, 1)
    assert DeltaTable(lake).transaction_version("lakebase/day/0") == 1
    # The log is compacted, and still knows.
    DeltaTable(lake).create_checkpoint()
    assert client.unload("SELECT 1 AS id, 'x' AS v", f"delta:{lake}", unload_id="day/1", **options).skipped


def test_of_two_with_one_id_at_the_same_time_one_writes(client: LakebaseClient, lake: Path) -> None:
    client.unload("SELECT * FROM t", f"delta:{lake}")
    results: list[Any] = []

    def unload() -> None:
        results.append(client.unload("SELECT t.* FROM t, pg_sleep(0.3)", f"delta:{lake}", unload_id="once"))

    threads = [threading.Thread(target=unload) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.skipped for result in results) == [False, True]
    assert len(rows_of(lake)) == 10


def test_what_is_unloaded_loads_back_as_it_was(client: LakebaseClient, lake: Path) -> None:
    columns = (
        "id int PRIMARY KEY, s smallint, f real, d double precision, n numeric(20, 4), b boolean, day date,"
        " at timestamptz, wall timestamp, bin bytea, doc jsonb, u uuid, words text[], i interval"
    )
    run(client, f"CREATE TABLE kinds ({columns})")
    run(
        client,
        "INSERT INTO kinds VALUES (1, -5, 0.1, 'NaN', 1.5000, true, '0001-01-01',"
        " '9999-12-31 23:59:59.999999Z', '2027-01-31 06:00', '\\x00ff', '{\"a\": [1, null]}',"
        " '6f1f9b1e-0000-4000-8000-000000000001', '{a,NULL,\"\"}', '1 mon -2 days')",
    )
    run(client, "INSERT INTO kinds (id) VALUES (2)")
    client.unload("SELECT * FROM kinds", f"delta:{lake}")
    run(client, "CREATE TABLE back (LIKE kinds INCLUDING ALL)")
    client.load(f"delta:{lake}", "back")
    assert run(client, "SELECT count(*) FROM kinds a JOIN back b ON a.*::text = b.*::text") == [(2,)]


def test_no_rows_are_a_table_without_rows(client: LakebaseClient, lake: Path) -> None:
    assert client.unload("SELECT * FROM t WHERE false", f"delta:{lake}").rows == 0
    assert rows_of(lake) == []
    assert [field.name for field in DeltaTable(lake).schema().fields] == ["id", "v"]


@pytest.mark.parametrize(
    ("query", "options", "kind", "text"),
    [
        ("SELECT 1 AS a, 2 AS a", {}, ColumnMismatchError, "Two columns of the query"),
        ("SELECT '12:00'::time AS at", {}, ColumnMismatchError, "'at' is of Arrow's type time64"),
        ("SELECT 1::numeric(50, 2) AS n", {}, ColumnMismatchError, "'n' is of Arrow's type decimal256"),
        ("SELECT 1 AS id", {"mode": "merge", "keys": ["other"]}, ColumnMismatchError, "no column 'other'"),
        ("SELECT 1 AS id", {"mode": "merge"}, ConfigError, "need each other"),
        ("SELECT 1 AS id", {"keys": ["id"]}, ConfigError, "need each other"),
        ("SELECT 1 AS id", {"format": "csv"}, ConfigError, "format= has no meaning for a Delta table"),
        ("SELECT 1 AS id", {"by": "id", "parallel": 2}, ConfigError, "by= has no meaning for a Delta table"),
        ("SELECT 1 AS id", {"mode": "replace"}, ConfigError, "mode"),
        ("SELECT 1 / 0 AS id", {}, (LoadError, psycopg.Error), "division by zero"),
        ("SELECT nothing", {}, (LoadError, psycopg.Error), "nothing"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(
    client: LakebaseClient, lake: Path, query: str, options: dict[str, Any], kind: Any, text: str
) -> None:
    with pytest.raises(kind, match=text):
        client.unload(query, f"delta:{lake}", **options)
    assert not DeltaTable.is_deltatable(str(lake))


def test_an_error_in_the_middle_leaves_the_table_as_it_was(client: LakebaseClient, lake: Path) -> None:
    client.unload("SELECT * FROM t", f"delta:{lake}")
    with pytest.raises((LoadError, psycopg.Error), match="division by zero"):
        client.unload("SELECT i AS id, (1 / (90000 - i))::text AS v FROM generate_series(1, 100000) i",
                      f"delta:{lake}")  # fmt: skip
    assert DeltaTable(lake).version() == 0
    assert len(rows_of(lake)) == 5
    assert client.unload("SELECT * FROM t", f"delta:{lake}").version == 1


def test_other_columns_than_the_tables_are_refused(client: LakebaseClient, lake: Path) -> None:
    write_deltalake(lake, pa.table({"id": pa.array([1], pa.int64()), "w": [1.5]}))
    with pytest.raises(ColumnMismatchError, match="not those of delta:"):
        client.unload("SELECT * FROM t", f"delta:{lake}")


def test_options_of_a_delta_table_mean_nothing_for_files(client: LakebaseClient, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unload_id= has no meaning for files"):
        client.unload("SELECT 1 AS id", tmp_path / "a.parquet", unload_id="x")
    with pytest.raises(ConfigError, match="names a version or a filter"):
        client.unload("SELECT 1 AS id", f"delta:{tmp_path}/t?version=1")
