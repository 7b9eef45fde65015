"""Delta tables as sources: which rows of them come, and what is refused, before anything is sent."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakebase_provider.core import Delta, LakebaseClient
from lakebase_provider.core.errors import ColumnMismatchError, ConfigError, LakebaseError, LoadError
from tests.core.bulk.delta_tables import commit, delete_by_vector, log_file, mapped_table, protocol
from tests.core.bulk.sample_tables import run


def rows(begin: int, end: int, note: str = "n") -> pa.Table:
    ids = range(begin, end)
    return pa.table({"id": pa.array(ids, pa.int64()), "note": [f"{note}{number}" for number in ids]})


def loaded(client: LakebaseClient, source: Any, **options: Any) -> list[int]:
    """The ids that a load of the source leaves in a table."""
    run(client, "DROP TABLE IF EXISTS t")
    client.load(source, "t", create=True, **options)
    return [number for (number,) in run(client, "SELECT id FROM t ORDER BY id")]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A table of three versions, of ten rows each."""
    table = tmp_path / "lake"
    for begin in (0, 10, 20):
        write_deltalake(table, rows(begin, begin + 10), mode="append")
    return table


def test_a_table_is_named_by_a_text_a_description_or_the_library(client: LakebaseClient, lake: Path) -> None:
    everything = list(range(30))
    assert loaded(client, f"delta:{lake}") == everything
    assert loaded(client, f"delta:file://{lake}") == everything
    assert loaded(client, Delta(lake)) == everything
    assert loaded(client, DeltaTable(lake)) == everything
    assert run(client, "SELECT note FROM t WHERE id = 25") == [("n25",)]


def test_a_version_or_a_moment_is_read(client: LakebaseClient, lake: Path) -> None:
    assert loaded(client, Delta(lake, version=1)) == list(range(20))
    assert loaded(client, f"delta:{lake}?version=0") == list(range(10))
    assert loaded(client, DeltaTable(lake, version=0)) == list(range(10))
    written = log_file(lake, 1).stat().st_mtime_ns
    os.utime(log_file(lake, 2), ns=(written, written + 10**9))
    moment = datetime.fromtimestamp(written / 10**9 + 0.5, timezone.utc)
    assert loaded(client, Delta(lake, timestamp=moment)) == list(range(20))
    assert loaded(client, f"delta:{lake}?timestamp={moment.isoformat().replace('+00:00', 'Z')}") == list(
        range(20)
    )


def test_names_of_columns_are_taken_as_they_are(client: LakebaseClient, tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", pa.table({"id": [1, 2], "Note": ["a", "b"], 'an "odd" one': [3, 4]}))
    place = Delta(tmp_path / "t", filter="Note = 'b' -- and no more")
    assert loaded(client, place, columns=["id", 'an "odd" one']) == [2]
    with pytest.raises(ConfigError, match="No field named note"):
        loaded(client, Delta(tmp_path / "t", filter="note = 'b'"))


def test_a_moment_before_the_first_version_has_none(client: LakebaseClient, lake: Path) -> None:
    with pytest.raises(ConfigError, match="has no version from before 2020"):
        client.load(Delta(lake, timestamp="2020-01-01T00:00:00Z"), "t", create=True)


def test_columns_and_filter_are_pushed_down(client: LakebaseClient, lake: Path) -> None:
    assert loaded(client, Delta(lake, filter="id >= 8 AND id < 12")) == [8, 9, 10, 11]
    assert loaded(client, f"delta:{lake}?version=1&filter=id%20%3C%202") == [0, 1]
    assert loaded(client, Delta(lake, filter="note = 'n7'"), columns=["id"]) == [7]
    assert run(client, "SELECT column_name FROM information_schema.columns WHERE table_name = 't'") == [
        ("id",)
    ]
    # Of what is filtered away, the files are not even opened.
    first = next(iter(DeltaTable(lake, version=0).file_uris()))
    Path(first.removeprefix("file://")).write_bytes(b"no Parquet")
    assert loaded(client, Delta(lake, filter="id >= 25")) == [25, 26, 27, 28, 29]


def test_partition_columns_come_with_their_types(client: LakebaseClient, tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array(range(4), pa.int64()),
            "day": pa.array([None, datetime(2027, 1, 31), None, datetime(2027, 2, 1)]).cast(pa.date32()),
            "place": ["a/b", "ä b", None, ""],
        }
    )
    write_deltalake(tmp_path / "t", table, partition_by=["day", "place"])
    loaded(client, f"delta:{tmp_path / 't'}")
    assert run(client, "SELECT id, day::text, place, pg_typeof(day)::text FROM t ORDER BY id") == [
        (0, None, "a/b", "date"),
        (1, "2027-01-31", "ä b", "date"),
        (2, None, None, "date"),
        (3, "2027-02-01", "", "date"),
    ]


def test_deletion_vectors_hide_their_rows(client: LakebaseClient, tmp_path: Path) -> None:
    table = tmp_path / "t"
    write_deltalake(table, rows(0, 10))
    delete_by_vector(table, 1, [1, 3, 9])
    assert loaded(client, f"delta:{table}") == [0, 2, 4, 5, 6, 7, 8]
    assert loaded(client, Delta(table, filter="id < 4")) == [0, 2]
    assert loaded(client, Delta(table, version=0)) == list(range(10))


@pytest.mark.parametrize("partitioned_by", [None, "note"])
def test_renamed_columns_have_their_new_names(
    client: LakebaseClient, tmp_path: Path, partitioned_by: str | None
) -> None:
    table = tmp_path / "t"
    mapped_table(table, rows(0, 4), partitioned_by=partitioned_by)
    assert loaded(client, f"delta:{table}") == [0, 1, 2, 3]
    assert run(client, "SELECT note FROM t ORDER BY id") == [("n0",), ("n1",), ("n2",), ("n3",)]
    assert loaded(client, Delta(table, filter="note = 'n2'"), columns=["id"]) == [2]


def test_every_mode_and_the_ledger_hold_for_them(client: LakebaseClient, lake: Path) -> None:
    run(client, "CREATE TABLE t (id bigint PRIMARY KEY, note text)")
    run(client, "INSERT INTO t VALUES (5, 'old'), (99, 'old')")
    result = client.load(f"delta:{lake}", "t", mode="merge", delete="missing", load_id="v2")
    assert (result.inserted, result.updated, result.deleted) == (29, 1, 1)
    assert client.load(f"delta:{lake}", "t", mode="merge", load_id="v2").skipped
    assert client.load(Delta(lake, version=0), "t", mode="replace").rows == 10
    assert run(client, "SELECT count(*) FROM t") == [(10,)]


def test_a_bad_row_is_named_by_the_table_and_its_version(client: LakebaseClient, lake: Path) -> None:
    run(client, "CREATE TABLE t (id smallint, note varchar(2))")
    with pytest.raises(LoadError, match=r"row \d+ as read of delta:.*lake, version 2"):
        client.load(f"delta:{lake}", "t")
    assert run(client, "SELECT count(*) FROM t") == [(0,)]


REFUSED: dict[str, tuple[str, type[LakebaseError], str]] = {
    "no folder": ("delta:{}/none", ConfigError, "There is no Delta table delta:.*none"),
    "no table": ("delta:{}/empty", ConfigError, "There is no Delta table delta:.*empty"),
    "no version": ("delta:{}/lake?version=9", ConfigError, "version 9, cannot be opened"),
    "no number": ("delta:{}/lake?version=new", ConfigError, "version of the Delta table is 'new'"),
    "both": ("delta:{}/lake?version=1&timestamp=2027-01-31T00:00:00Z", ConfigError, "both given"),
    "no zone": ("delta:{}/lake?timestamp=2027-01-31", ConfigError, "timestamp of the Delta table"),
    "no option": ("delta:{}/lake?version=1&rows=2", ConfigError, "unknown option 'rows'"),
    "no filter": ("delta:{}/lake?filter=", ConfigError, "filter of a Delta table is empty"),
    "other column": ("delta:{}/lake?filter=nothing%20%3D%201", ConfigError, "with its filter"),
    "no condition": ("delta:{}/lake?filter=id%20%3D%20%3D", ConfigError, "with its filter"),
    "more than a condition": ("delta:{}/lake?filter=id%20%3D%201%20AN%20id", ConfigError, "with its filter"),
    "protocol": ("delta:https://example.com/t", ConfigError, "the protocol is 'https'"),
    "chain": ("delta:s3://a::b", ConfigError, "chains file systems"),
    "broken log": ("delta:{}/broken", ConfigError, "broken"),
    "feature": ("delta:{}/feature", ConfigError, "'somethingNew'"),
    "missing file": ("delta:{}/missing", LoadError, "a file of that version is gone"),
    "cut file": ("delta:{}/cut", LoadError, "version 0, cannot be read"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_by_name_with_a_remedy(
    client: LakebaseClient, lake: Path, tmp_path: Path, case: str
) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("broken", "feature"):
        shutil.copytree(lake, tmp_path / name)
    log_file(tmp_path / "broken", 2).write_text("{")
    commit(tmp_path / "feature", 3, protocol("somethingNew"))
    for name in ("missing", "cut"):
        write_deltalake(tmp_path / name, rows(0, 10))
        file = next((tmp_path / name).glob("*.parquet"))
        if name == "missing":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:300])
    run(client, "CREATE TABLE t (id bigint, note text)")
    source, kind, text = REFUSED[case]
    with pytest.raises(kind, match=text) as found:
        client.load(source.format(tmp_path), "t")
    assert found.value.remedy
    assert run(client, "SELECT count(*) FROM t") == [(0,)]


def test_a_column_that_the_table_lacks_is_refused(client: LakebaseClient, lake: Path) -> None:
    with pytest.raises(ColumnMismatchError, match="has no column 'price'; it has 'id', 'note'"):
        client.load(f"delta:{lake}", "t", columns=["id", "price"], create=True)


def test_a_folder_that_is_a_table_says_how_to_load_it(client: LakebaseClient, lake: Path) -> None:
    with pytest.raises(ConfigError, match="is a Delta table") as found:
        client.load(str(lake), "t", create=True)
    assert "'delta:'" in found.value.remedy


def test_secrets_of_a_store_are_not_shown(lake: Path) -> None:
    place = Delta("s3://user:hidden@lake/t", storage_options={"AWS_SECRET_ACCESS_KEY": "hidden-too"})
    assert "hidden" not in f"{place} {place!r}"


def test_options_of_csv_files_are_refused(client: LakebaseClient, lake: Path) -> None:
    with pytest.raises(ConfigError, match="Delta table"):
        client.load(f"delta:{lake}", "t", delimiter=";", create=True)


def test_a_question_mark_may_be_in_the_path() -> None:
    assert Delta.parse("delta:/a?b/c").path == "/a?b/c"
    assert Delta.parse("delta:/a?b/c?version=3") == Delta("/a?b/c", version=3)
    assert json.dumps(str(Delta("s3://lake/t"))) == '"delta:s3://lake/t"'
