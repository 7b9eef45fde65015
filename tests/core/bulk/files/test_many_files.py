"""Folders, patterns and folders ``key=value``: which files they are, in one load, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from upath import UPath

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.sources.open import open_source
from lakebase_provider.core.errors import BadRowError, ColumnMismatchError, ConfigError, LakebaseError
from tests.core.bulk.sample_tables import run


@pytest.fixture
def table(client: LakebaseClient) -> LakebaseClient:
    run(client, "CREATE TABLE t (id int, name text)")
    return client


def written(folder: Any, files: dict[str, str]) -> Any:
    """The folder, with files of these texts in it."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return folder


def rows(client: LakebaseClient, source: Any, **options: Any) -> list[tuple[Any, ...]]:
    client.load(source, "t", mode="replace", **options)
    return run(client, "SELECT * FROM t ORDER BY id")


PARTS = {"b.csv": "name,id\nb,2\n", "a.csv": "id,name\n1,a\n", "c.csv.gz": "id,name\n3,c\n"}
ABC = [(1, "a"), (2, "b"), (3, "c")]


def test_a_folder_a_pattern_and_their_uris(table: LakebaseClient, tmp_path: Path) -> None:
    folder = written(tmp_path / "parts", PARTS)
    written(UPath("memory://parts"), PARTS)
    for source in (
        folder,
        str(folder),
        f"{folder}/",
        f"{folder}/*.csv*",
        f"{folder}/[abc].csv*",
        f"{tmp_path}/*/?.csv*",
        f"{tmp_path}/**/*.csv*",
        f"{tmp_path}/p*",
        f"file://{folder}",
        f"file://{folder}/*",
        "memory://parts",
        "memory://parts/*.csv*",
        "memory://**/*.csv*",
        UPath("memory://parts"),
        UPath(f"file://{folder}/*.csv*"),
        Path(f"{folder}/*.csv*"),
    ):
        assert rows(table, source) == ABC, source
    assert rows(table, f"{folder}/?.csv") == ABC[:2]


def test_a_relative_pattern(table: LakebaseClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "parts", PARTS)
    monkeypatch.chdir(tmp_path)
    for source in ("parts", "parts/*", "*", "./parts/*.csv*"):
        assert rows(table, source) == ABC
    monkeypatch.chdir(tmp_path / "parts")
    assert rows(table, "*.csv*") == ABC
    assert rows(table, ".") == ABC


def test_object_storage_paths(table: LakebaseClient, tmp_path: Path) -> None:
    sdk = pytest.importorskip("airflow.sdk")
    folder = written(tmp_path / "parts", PARTS)
    for name in (f"file://{folder}", f"file://{folder}/*.csv*"):
        assert rows(table, sdk.ObjectStoragePath(name)) == ABC


def test_a_file_may_be_named_like_a_pattern(table: LakebaseClient, tmp_path: Path) -> None:
    written(tmp_path, {"[1].csv": "id,name\n1,a\n", "1.csv": "id,name\n2,b\n"})
    assert rows(table, tmp_path / "[1].csv") == [(1, "a")]
    written(tmp_path, {"folder[1]/x.csv": "id,name\n3,c\n"})
    assert rows(table, tmp_path / "folder[1]") == [(3, "c")]


def test_the_order_is_that_of_the_names(tmp_path: Path) -> None:
    written(tmp_path, {f"{number}.csv": f"n\n{number}\n" for number in (3, 10, 2, 1)})
    for _ in range(2):
        with open_source(tmp_path) as source:
            assert [batch.row(0)[0] for batch in source.batches()] == ["1", "10", "2", "3"]


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet", "arrow"])
@pytest.mark.parametrize("remote", [False, True])
def test_the_folder_of_an_unload(table: LakebaseClient, tmp_path: Path, format: Any, remote: bool) -> None:
    to: Any = "memory://unloaded" if remote else tmp_path / "unloaded"
    query = "SELECT i AS id, CASE WHEN i %% 7 > 0 THEN 'n' || i END AS name FROM generate_series(1, 5000) i"
    table.unload(query.replace("%%", "%"), to, format, parallel=3, by="id")
    # What others put beside the data.
    beside = UPath(to) if remote else to
    written(
        beside, {"_SUCCESS": "", ".part-00000.csv.crc": "x", "_temporary/0/x.csv": "id\n9\n", "x.tmp": ""}
    )
    expected = [(i, f"n{i}" if i % 7 else None) for i in range(1, 5001)]
    assert rows(table, to) == expected
    # The parts of fewer rows than files.
    table.unload("SELECT 1 AS id, 'a' AS name", f"{to}2", format, parallel=3, by="id")
    assert rows(table, f"{to}2") == [(1, "a")]


def test_folders_of_keys_become_columns(client: LakebaseClient, tmp_path: Path) -> None:
    files = {
        "day=2024-05-01/shop=A%2FB/x.csv": "id\n1\n",
        "day=2024-05-01/shop=__HIVE_DEFAULT_PARTITION__/x.csv": "id\n2\n",
        "day=2024-05-02/shop=C/x.csv": "id\n3\n",
        "_SUCCESS": "",
    }
    written(tmp_path / "root", files)
    written(UPath("memory://root"), files)
    run(client, "CREATE TABLE t (id int, day date, shop text)")
    days = "SELECT id, day::text, shop FROM t ORDER BY id"
    expected = [(1, "2024-05-01", "A/B"), (2, "2024-05-01", None), (3, "2024-05-02", "C")]
    for source in (tmp_path / "root", "memory://root", f"{tmp_path}/root/day=*", f"{tmp_path}/r*/*/*/*.csv"):
        client.load(source, "t", mode="replace")
        assert run(client, days) == expected
    # Folders that the name itself goes through are none of them.
    client.load(f"{tmp_path}/root/day=2024-05-01", "t", mode="replace")
    assert run(client, days) == [(1, None, "A/B"), (2, None, None)]
    client.load(tmp_path / "root", "t", mode="replace", columns=["shop", "id"])
    assert run(client, days) == [(1, None, "A/B"), (2, None, None), (3, None, "C")]


def test_folders_of_keys_in_every_format(client: LakebaseClient, tmp_path: Path) -> None:
    run(client, "CREATE TABLE t (id int, month int)")
    for format in ("csv", "jsonl", "parquet", "arrow"):
        for month in (1, 2):
            client.unload(
                f"SELECT {month} AS id", tmp_path / format / f"month=0{month}" / f"x.{format}", format
            )  # type: ignore[arg-type]
        client.load(tmp_path / format, "t", mode="replace")
        assert run(client, "SELECT * FROM t ORDER BY 1") == [(1, 1), (2, 2)]
    client.load(tmp_path / "parquet", "made", create=True)
    assert run(client, "SELECT * FROM made ORDER BY 1") == [(1, "01"), (2, "02")]


def test_files_without_a_header(client: LakebaseClient, tmp_path: Path) -> None:
    run(client, "CREATE TABLE t (id int, name text)")
    written(tmp_path / "flat", {"a.csv": "1,a\n", "b.csv": "", "c.csv": "3,c\n"})
    assert rows(client, tmp_path / "flat", header=False) == [(1, "a"), (3, "c")]
    written(tmp_path / "keys", {"name=a/x.csv": "1\n", "name=c/x.csv": "3\n"})
    assert rows(client, tmp_path / "keys", header=False, columns=["id", "name"]) == [(1, "a"), (3, "c")]
    with pytest.raises(ConfigError, match="have no column names"):
        rows(client, tmp_path / "keys", header=False)


def test_parts_without_rows(table: LakebaseClient, tmp_path: Path) -> None:
    written(tmp_path / "csv", {"a.csv": "", "b.csv": "id,name\n1,a\n", "c.csv": ""})
    written(tmp_path / "json", {"a.jsonl": "", "b.jsonl": '{"id": 1, "name": "a"}\n', "c.jsonl": ""})
    for kind in ("csv", "json"):
        assert rows(table, tmp_path / kind) == [(1, "a")]
    written(tmp_path / "nothing", {"a.csv": "", "b.csv": ""})
    with pytest.raises(ConfigError, match="is empty"):
        rows(table, tmp_path / "nothing")


def test_a_column_that_is_all_null_in_one_part(table: LakebaseClient, tmp_path: Path) -> None:
    parquet.write_table(pa.table({"id": [1], "name": ["a"]}), tmp_path / "a.parquet")
    parquet.write_table(pa.table({"id": [2], "name": pa.nulls(1)}), tmp_path / "b.parquet")
    assert rows(table, tmp_path) == [(1, "a"), (2, None)]


def test_a_bad_row_is_named_by_its_file(table: LakebaseClient, tmp_path: Path) -> None:
    written(tmp_path, {"a.csv": "id,name\n1,a\n2,b\n", "b.csv": "id,name\n3,c\nx,d\n"})
    with pytest.raises(BadRowError, match=r"(?s)row 2 of '.*/b\.csv' \(row 4 of all files\)") as caught:
        table.load(tmp_path, "t")
    assert caught.value.row == 4
    assert run(table, "SELECT count(*) FROM t") == [(0,)]
    written(tmp_path, {"b.csv": "id,name\n3,c\nx\n"})
    with pytest.raises(BadRowError, match=r"(?s)row 2 of '.*/b\.csv' \(row 4 of all files\)"):
        table.load(tmp_path, "t")
    # And where it goes to the others.
    written(tmp_path, {"b.csv": "id,name\n3,c\nx,d\n"})
    table.load(tmp_path, "t", on_error="reject", reject_to="rejected")
    assert run(table, "SELECT row_number FROM rejected") == [(4,)]


def test_a_later_file_that_is_broken_leaves_nothing(table: LakebaseClient, tmp_path: Path) -> None:
    for name in "abc":
        parquet.write_table(pa.table({"id": [1], "name": [name]}), tmp_path / f"{name}.parquet")
    (tmp_path / "c.parquet").write_bytes((tmp_path / "c.parquet").read_bytes()[:-10])
    with pytest.raises(LakebaseError, match=r"(?s)c\.parquet.*it is truncated"):
        table.load(tmp_path, "t", load_id="parts")
    assert run(table, "SELECT count(*) FROM t") == [(0,)]
    (tmp_path / "c.parquet").unlink()
    assert table.load(tmp_path, "t", load_id="parts").rows == 2
    assert table.load(tmp_path, "t", load_id="parts").skipped


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "holds no file to load"),
        ({"_SUCCESS": "", ".hidden.csv": "id\n1\n", "x.csv.tmp": ""}, "holds no file to load"),
        ({"a.csv": "id\n1\n", "b.jsonl": "{}"}, "several kinds: '.*a.csv' .CSV. and '.*b.jsonl'"),
        ({"a.csv": "id\n1\n", "README": ""}, "README' has no known suffix"),
        ({"a.csv": "id\n1\n", "old/b.csv": "id\n2\n"}, "holds the folder 'old'"),
        ({"k=1/a.csv": "id\n1\n", "b.csv": "id\n2\n"}, "in folders with different keys"),
        ({"k=1/a.csv": "id\n1\n", "j=1/b.csv": "id\n2\n"}, "in folders with different keys"),
        ({"_delta_log/0.json": "{}", "a.parquet": ""}, "is a Delta table"),
        ({".hoodie/x": "", "a.parquet": ""}, "is a Hudi table"),
        ({"id=1/a.csv": "id\n1\n"}, "Two columns of the source are named 'id'"),
        ({"a.csv": "id\n1\n", "b.csv": "id,name\n1,a\n"}, "b.csv' has the column 'name'"),
        ({"a.csv": "id,name\n1,a\n", "b.csv": "id\n1\n"}, "b.csv' lacks the column 'name'"),
    ],
)
def test_what_a_folder_may_not_hold(
    table: LakebaseClient, tmp_path: Path, files: dict[str, str], words: str
) -> None:
    (tmp_path / "parts").mkdir()
    with pytest.raises((ConfigError, ColumnMismatchError), match=words) as caught:
        table.load(written(tmp_path / "parts", files), "t", mode="replace")
    assert not caught.value.retryable
    assert str(tmp_path) in str(caught.value) or "named" in words


def test_other_types_in_a_later_part(table: LakebaseClient, tmp_path: Path) -> None:
    parquet.write_table(pa.table({"id": [1]}), tmp_path / "a.parquet")
    parquet.write_table(pa.table({"id": [1.5]}), tmp_path / "b.parquet")
    with pytest.raises(ColumnMismatchError, match=r"(?s)'id' of the file '.*b\.parquet' is of type double"):
        table.load(tmp_path, "t")


def _opened() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_folder_may_be_reached_by_a_link(table: LakebaseClient, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(written(tmp_path / "plain", PARTS))
    assert rows(table, tmp_path / "link") == ABC
    assert rows(table, tmp_path / "link" / "*.csv*") == ABC


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not tell of open files")
def test_many_parts_are_read_one_after_the_other(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number:03}.jsonl").write_text(json.dumps({"n": number}) + "\n")
    before = _opened()
    with open_source(tmp_path) as source:
        for number, batch in enumerate(source.batches()):
            assert batch.row(0) == (str(number),)
            assert _opened() <= before + 2
    assert _opened() <= before  # what others had open, such as a pool, may be closed by now
