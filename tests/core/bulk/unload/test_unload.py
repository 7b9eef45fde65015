"""Unloading to files: whole or not at all, of one snapshot, and no value changed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import fsspec
import psycopg
import pyarrow as pa
import pytest
from pyarrow import parquet

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.unload.destination import Destination
from lakebase_provider.core.errors import (
    ColumnMismatchError,
    ConfigError,
    LakebaseError,
    LoadError,
    LoadInterruptedError,
)
from lakebase_provider.local import FaultProxy, LocalLakebase
from tests.core.bulk.sample_tables import run
from tests.eventually import eventually

_QUERY = (
    "SELECT i AS id, i / 4.0::numeric(10,2) AS n, nullif('x' || i, 'x3') AS t"
    " FROM generate_series(1, 10000) i"
)


def _read(path: Path) -> pa.Table:
    return pa.ipc.open_file(path).read_all() if path.suffix == ".arrow" else parquet.read_table(path)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_file_holds_what_the_query_returns(client: LakebaseClient, tmp_path: Path, suffix: Any) -> None:
    path = tmp_path / f"new/folder/rows.{suffix}"
    result = client.unload(_QUERY, path, suffix, batch_rows=3000)
    assert _read(path).equals(client.fetch_arrow(_QUERY))
    assert (result.rows, result.files, result.bytes) == (10_000, 1, path.stat().st_size)
    assert result.seconds > 0
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_row_groups_have_the_rows_that_are_asked_for(client: LakebaseClient, tmp_path: Path) -> None:
    client.unload(_QUERY, tmp_path / "rows.parquet", batch_rows=4000)
    file = parquet.ParquetFile(tmp_path / "rows.parquet")
    sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert sizes == [4000, 4000, 2000]


def test_csv_tells_null_from_an_empty_text(client: LakebaseClient, tmp_path: Path) -> None:
    query = "SELECT %s::text AS \"a b\", NULL::text AS n, '' AS e, E'x\\ny' AS l, 1.50::numeric AS d;"
    result = client.unload(query, tmp_path / "rows.csv", "csv", params=["50%"])
    assert (tmp_path / "rows.csv").read_text() == 'a b,n,e,l,d\n50%,,"","x\ny",1.50\n'
    assert result.rows == 1


def test_csv_without_rows_has_its_header(client: LakebaseClient, tmp_path: Path) -> None:
    assert client.unload("SELECT 1 AS a WHERE false", tmp_path / "rows.csv", "csv").rows == 0
    assert (tmp_path / "rows.csv").read_text() == "a\n"


def test_an_unload_comes_back_by_a_load(client: LakebaseClient, tmp_path: Path) -> None:
    client.unload(_QUERY, tmp_path / "rows.parquet")
    client.load(tmp_path / "rows.parquet", "copied", create=True)
    assert client.fetch_arrow("SELECT sum(n)::numeric(20,2), count(t) FROM copied").to_pylist() == [
        {"sum": Decimal("12501250.00"), "count": 9999}
    ]


def test_a_file_behind_a_uri(client: LakebaseClient) -> None:
    client.unload(_QUERY, "memory://unloaded/rows.parquet")
    with fsspec.open("memory://unloaded/rows.parquet") as file:
        assert parquet.read_table(file).num_rows == 10_000
    assert fsspec.filesystem("memory").ls("/unloaded", detail=False) == ["/unloaded/rows.parquet"]


@pytest.mark.parametrize("parallel", [None, 2])
def test_a_failed_unload_leaves_what_was_there(
    client: LakebaseClient, tmp_path: Path, parallel: int | None
) -> None:
    more: dict[str, Any] = {} if parallel is None else {"parallel": parallel, "by": "i"}
    to = tmp_path / "rows.parquet"
    client.unload("SELECT 1 AS i", to, **more)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    failing = "SELECT i, 1 / (40000 - i) AS q FROM generate_series(1, 50000) i"
    with pytest.raises(psycopg.errors.DivisionByZero):
        client.unload(failing, to, **more)
    unfit = "SELECT i, CASE WHEN i = 40000 THEN date 'infinity' END AS d FROM generate_series(1, 50000) i"
    with pytest.raises(LoadError, match=r'(?s)"d" .*infinite date'):
        client.unload(unfit, to, **more)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert client.fetch_arrow("SELECT 1 AS one").to_pylist() == [{"one": 1}]


def test_parts_are_of_one_snapshot_and_hold_each_row_once(client: LakebaseClient, tmp_path: Path) -> None:
    with client.connection() as connection:
        connection.execute("CREATE TABLE parts AS SELECT nullif(i, 7) AS i FROM generate_series(1, 3000) i")
    query = "SELECT i FROM parts"
    client.unload(query, tmp_path / "to", parallel=3, by="i")
    with client.connection() as connection:
        connection.execute("INSERT INTO parts SELECT 1")
    result = client.unload(query, tmp_path / "to", parallel=2, by="i")
    files = sorted((tmp_path / "to").iterdir())
    assert [file.name for file in files] == ["part-00000.parquet", "part-00001.parquet"]
    tables = [parquet.read_table(file) for file in files]
    assert min(table.num_rows for table in tables) > 1000
    values = pa.concat_tables(tables)["i"].to_pylist()
    assert sorted(values, key=lambda i: i or 0) == [None, 1, *[i for i in range(1, 3001) if i != 7]]
    assert (result.rows, result.files) == (3001, 2)


def test_workers_read_the_snapshot_of_the_first(client: LakebaseClient, tmp_path: Path) -> None:
    with client.connection() as connection:
        connection.execute("CREATE TABLE seen AS SELECT i FROM generate_series(1, 100) i")
    lent = 0

    def connections() -> Any:
        nonlocal lent
        lent += 1
        if lent > 1:  # the snapshot has been taken
            with client.connect() as other:
                other.execute("INSERT INTO seen SELECT i FROM generate_series(1, 100) i")
        return client.connection()

    from lakebase_provider.core.bulk.unload.unload import unload

    assert unload(connections, "SELECT i FROM seen", tmp_path / "to", parallel=3, by="i").rows == 100
    assert client.fetch_arrow("SELECT count(*) FROM seen")["count"].to_pylist() == [300]


def test_a_folder_with_other_files_is_left_alone(client: LakebaseClient, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"letters\.txt"):
        client.unload("SELECT 1 AS i", tmp_path, parallel=2, by="i")
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"format": "xml"}, ConfigError, "format is 'xml'"),
        ({"parallel": 2}, ConfigError, "which rows go where"),
        ({"parallel": 0, "by": "i"}, ConfigError, "parallel is 0"),
        ({"batch_rows": 0}, ConfigError, "batch_rows is 0"),
        ({"parallel": 5, "by": "i"}, ConfigError, "pool has at most 4 connections"),
        ({"parallel": 2, "by": 'i" OR true'}, ColumnMismatchError, "no columns named"),
    ],
)
def test_what_contradicts_itself_is_refused(
    client: LakebaseClient, tmp_path: Path, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        client.unload("SELECT 1 AS i", tmp_path / "to", **options)
    assert list(tmp_path.rglob("*.*")) == []


def test_a_statement_that_changes_data_is_no_query(client: LakebaseClient, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a query"):
        client.unload("CREATE TABLE unloaded (i int)", tmp_path / "rows.csv", "csv")
    assert list(tmp_path.iterdir()) == []


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_parts_take_no_more_connections_than_files(lakebase_env: LocalLakebase, tmp_path: Path) -> None:
    with LakebaseClient(lakebase_env.config(max_size=2)) as client:
        assert client.unload(_QUERY, tmp_path / "to", parallel=2, by="id").rows == 10_000


@pytest.mark.parametrize(
    "options", [{}, {"format": "arrow"}, {"format": "csv"}, {"parallel": 2, "by": "i"}], ids=str
)
def test_a_link_that_is_cut_leaves_what_was_there(
    lakebase_env: LocalLakebase, tmp_path: Path, options: dict[str, Any]
) -> None:
    query, to = "SELECT i FROM generate_series(1, 100000) i", tmp_path / "to"
    with (
        FaultProxy(lakebase_env.host, lakebase_env.port) as proxy,
        LakebaseClient(lakebase_env.config(port=proxy.port)) as client,
    ):
        client.unload("SELECT 1 AS i", to, **options)
        before = _files(tmp_path)
        proxy.cut_after(400_000, direction="to_client")
        with pytest.raises(LoadInterruptedError, match="connection was lost") as caught:
            client.unload(query, to, **options)
        assert caught.value.retryable
        assert _files(tmp_path) == before
        assert client.unload(query, to, **options).rows == 100_000
        assert _files(tmp_path).keys() == before.keys()


@pytest.mark.parametrize(
    "unload",
    [
        lambda client, to: client.unload("SELECT i FROM generate_series(1, 9) i", to),
        lambda client, to: client.unload("SELECT i FROM generate_series(1, 9) i", to, format="jsonl"),
        lambda client, to: client.unload("SELECT i FROM generate_series(1, 9) i", to, parallel=2, by="i"),
    ],
    ids=["parquet", "jsonl", "parts"],
)
def test_a_link_that_is_cut_at_any_moment_is_said_to_be_lost(
    lakebase_env: LocalLakebase, tmp_path: Path, unload: Callable[[LakebaseClient, Path], object]
) -> None:
    met: list[LakebaseError] = []
    with FaultProxy(lakebase_env.host, lakebase_env.port) as proxy:
        for received in range(1, 1600, 40):
            with LakebaseClient(lakebase_env.config(port=proxy.port)) as client:
                unload(client, tmp_path / "to")
                proxy.cut_after(received, direction="to_client")
                try:
                    unload(client, tmp_path / "to")
                except LakebaseError as error:
                    met.append(error)
            proxy.heal()
    assert LoadInterruptedError in map(type, met)
    assert [error for error in met if not error.retryable] == []


_SLEEPERS = "SELECT count(pg_cancel_backend(pid)) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"


@pytest.mark.parametrize("options", [{}, {"parallel": 2, "by": "i"}], ids=str)
def test_a_cancelled_unload_leaves_what_was_there(
    client: LakebaseClient, tmp_path: Path, options: dict[str, Any]
) -> None:
    to = tmp_path / "to"
    client.unload("SELECT 1 AS i", to, **options)
    before = _files(tmp_path)
    cancel = threading.Thread(target=lambda: eventually(lambda: run(client, _SLEEPERS) == [(True,)]))
    cancel.start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        client.unload("SELECT 1 AS i, pg_sleep(60)", to, **options)
    cancel.join()
    assert _files(tmp_path) == before


def test_one_part_that_fails_ends_the_others(client: LakebaseClient, tmp_path: Path) -> None:
    # Row 1 is in one of the parts, and comes before the server sleeps in each of them.
    query = (
        "SELECT i, CASE WHEN i = 1 THEN date 'infinity' END AS d, repeat('x', 20000) AS t,"
        " CASE WHEN i = 50 THEN pg_sleep(60) END AS s FROM generate_series(1, 50) i"
    )
    with pytest.raises(LoadError, match="infinite date"):
        client.unload(query, tmp_path / "to", parallel=2, by="i", batch_rows=1)
    assert run(client, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == [(0,)]
    assert _files(tmp_path) == {}


@pytest.mark.parametrize("parallel", [None, 2])
def test_what_a_killed_unload_leaves_goes_with_the_next(
    client: LakebaseClient, tmp_path: Path, parallel: int | None
) -> None:
    to, more = tmp_path / "to", "" if parallel is None else f", parallel={parallel}, by='i'"
    script = (
        "from lakebase_provider.core import LakebaseClient, LakebaseConfig\n"
        f"LakebaseClient(LakebaseConfig.from_env()).unload('SELECT 1 AS i, pg_sleep(60)', {str(to)!r}{more})"
    )
    with subprocess.Popen([sys.executable, "-c", script], env=os.environ) as process:
        eventually(lambda: len(_files(tmp_path)) == (parallel or 1), within=60)
        process.kill()
    left = _files(tmp_path)
    assert all(name.endswith(".unfinished") for name in left)
    other = tmp_path / ".other.0123abcd.unfinished"
    other.write_bytes(b"another unload's")
    arguments: dict[str, Any] = {} if parallel is None else {"parallel": parallel, "by": "i"}
    client.unload("SELECT 1 AS i", to, **arguments)
    expected = {"to"} if parallel is None else {"to/part-00000.parquet", "to/part-00001.parquet"}
    assert _files(tmp_path).keys() == {*expected, other.name}


def test_of_two_unloads_to_one_file_the_later_one_counts(client: LakebaseClient, tmp_path: Path) -> None:
    to = tmp_path / "rows.csv"

    def overtaken() -> None:
        with Destination(to).files("csv", None) as [file]:
            file.write(b"of the earlier one")
            client.unload("SELECT 1 AS i", to, "csv")

    with pytest.raises(LoadInterruptedError, match="Another unload") as caught:
        overtaken()
    assert not caught.value.retryable
    assert _files(tmp_path) == {"rows.csv": b"i\n1\n"}


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("rows.csv", b"a\n1\n"),
        ("rows.CSV", b"a\n1\n"),
        ("rows.ndjson", b'{"a":'),
        ("rows.pq", b"PAR1"),
        ("rows.arrow", b"ARROW1"),
        ("v1.x/rows", b"PAR1"),
        ("rows.2024-01-01", b"PAR1"),
    ],
)
def test_a_files_suffix_says_its_format(
    client: LakebaseClient, tmp_path: Path, name: str, begins: bytes
) -> None:
    client.unload("SELECT 1 AS a", tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begins)
    client.unload("SELECT 1 AS a", tmp_path / name, "csv")
    assert (tmp_path / name).read_bytes() == b"a\n1\n"


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.xlsx", "file/rows.csv", "x" * 300 + ".csv"])
def test_what_cannot_be_written_is_told_before_anything_is(
    client: LakebaseClient, tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^to"):
        client.unload("SELECT 1 AS a", tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    if not name.endswith(("gz", "xlsx")):
        with pytest.raises(ConfigError, match=r"^source"):
            client.load(tmp_path / name, "t", create=True)
