"""Files and rows of other databases into a table, by the operators alone."""

from __future__ import annotations

import gzip
import logging
import sqlite3
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.providers.common.sql.hooks.sql import DbApiHook
from airflow.sdk import ObjectStoragePath
from deltalake import write_deltalake

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import (
    BadRowError,
    ConfigError,
    LoadError,
    PoolExhaustedError,
    TableNotFoundError,
)
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.bulk import BulkOperator
from lakebase_provider.operators.load import LakebaseLoadOperator
from lakebase_provider.operators.transfer import LakebaseTransferOperator, SourceCursor
from lakebase_provider.operators.unload import LakebaseUnloadOperator
from tests.airflow.conftest import connection_fields, define
from tests.core.bulk.sources.test_arrow_cursor import Cursor


def executed(operator: BulkOperator, **ti: Any) -> dict[str, Any]:
    """What the operator returns, rendered and run as one try of a task instance."""
    fields = {"dag_id": "dag", "task_id": operator.task_id, "run_id": "run", "map_index": -1, **ti}
    tries = {"try_number": 1, "max_tries": operator.retries}
    context: Any = {"ti": SimpleNamespace(**{**tries, **fields}), "task": operator}
    operator.render_template_fields(context)
    return operator.execute(context)


def load(source: Any, table: str = "loaded", *, ti: dict[str, Any] | None = None, **arguments: Any) -> Any:
    operator = LakebaseLoadOperator(task_id="load", source=source, table=table, **arguments)
    return executed(operator, **(ti or {}))


def transfer(sql: str, **arguments: Any) -> Any:
    arguments = {"source_conn_id": "lakebase_default", "table": "loaded", **arguments}
    return executed(LakebaseTransferOperator(task_id="transfer", sql=sql, **arguments))


def rows(statement: str = "select id, name from loaded order by 1") -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = LakebaseHook().get_records(statement)
    return found


@pytest.fixture(autouse=True)
def tables(lake: LocalLakebase) -> None:
    LakebaseHook().run(
        "drop table if exists loaded, lakebase_load, rejected, source_rows;"
        "create table loaded (id int primary key, name text)"
    )


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("id,name\n1,one\n2,two\n")
    return path


def test_the_changes_of_a_delta_table_are_loaded_and_its_rows_written_once(tmp_path: Path) -> None:
    lake, back = tmp_path / "lake", tmp_path / "back"
    feed = {"delta.enableChangeDataFeed": "true"}
    write_deltalake(lake, pa.table({"id": pa.array([1], pa.int32()), "name": ["one"]}), configuration=feed)
    first = load(f"delta:{lake}", mode="merge", since="ledger")
    assert (first["inserted"], first["skipped"]) == (1, False)
    write_deltalake(lake, pa.table({"id": pa.array([2], pa.int32()), "name": ["two"]}), mode="append")
    assert load(f"delta:{lake}", mode="merge", since="ledger")["inserted"] == 1
    assert load(f"delta:{lake}", mode="merge", since="ledger")["skipped"]
    assert rows() == [(1, "one"), (2, "two")]
    # A retry whose success was unheard of.
    results = [
        executed(LakebaseUnloadOperator(task_id="unload", sql="select * from loaded", to=f"delta:{back}"))
        for _ in range(2)
    ]
    assert [(result["rows"], result["version"], result["skipped"]) for result in results] == [
        (2, 0, False),
        (0, 0, True),
    ]


def test_a_delta_table_of_the_unity_catalog_is_found_by_the_connections_workspace(
    lake: LocalLakebase,
) -> None:
    name = "main.src.of_the_operator"
    write_deltalake(lake.table_path(name), pa.table({"id": pa.array([7], pa.int32()), "name": ["seven"]}))
    assert load(f"delta:uc://{name}", mode="merge", since="ledger")["inserted"] == 1
    assert rows() == [(7, "seven")]


@pytest.mark.parametrize(
    "arguments",
    [
        {"source": "delta:https://example.com/t"},
        {"source": "delta:/lake?version=x"},
        {"source": "delta:uc://main.orders"},
        {"source": "delta:/lake", "delimiter": ";"},
        {"source": "delta:/lake", "since": "ledger"},
        {"source": "delta:/lake", "since": "ledger", "mode": "merge", "load_id": "own"},
    ],
)
def test_what_is_wrong_about_a_delta_table_shows_when_the_dag_is_parsed(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        LakebaseLoadOperator(task_id="load", table="loaded", **arguments)


def test_a_file_is_loaded_once_however_often_it_is_tried(
    csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = load(str(csv))
    assert first["load_id"] == "dag/load/run/-1"
    assert (first["table"], first["rows"], first["inserted"], first["skipped"]) == (
        "public.loaded",
        2,
        2,
        False,
    )
    again = load(str(csv))
    assert (again["rows"], again["skipped"]) == (2, True)
    said = capsys.readouterr().out.strip().splitlines()[-1]
    assert (
        "Skipped, nothing was loaded: load_id 'dag/load/run/-1' was already loaded into public.loaded" in said
    )
    assert "To load again, clear the task." in said
    assert rows() == [(1, "one"), (2, "two")]


def test_another_run_and_another_map_index_are_other_loads(csv: Path) -> None:
    LakebaseHook().run("alter table loaded drop constraint loaded_pkey")
    assert [load(str(csv), ti=ti)["skipped"] for ti in ({}, {"map_index": 0}, {"run_id": "next"})] == [
        False
    ] * 3
    assert len(rows()) == 6


@pytest.mark.parametrize(
    ("try_number", "max_tries", "load_id"),
    [
        (1, 2, "dag/load/run/-1"),
        (3, 2, "dag/load/run/-1"),
        # Cleared after its first try, and tried again.
        (2, 3, "dag/load/run/-1/from-try-2"),
        (4, 3, "dag/load/run/-1/from-try-2"),
        # Cleared while it ran its last try: Airflow allows no more tries, and makes one.
        (4, 2, "dag/load/run/-1/from-try-4"),
        (5, 3, "dag/load/run/-1/from-try-5"),
    ],
)
def test_a_task_that_a_user_clears_is_another_load(
    csv: Path, try_number: int, max_tries: int, load_id: str
) -> None:
    tries = {"try_number": try_number, "max_tries": max_tries}
    assert load(str(csv), ti=tries, retries=2)["load_id"] == load_id


def test_a_load_is_forced_once_by_each_history_of_tries(
    csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    LakebaseHook().run("alter table loaded drop constraint loaded_pkey")
    own = {"load_id": "orders", "retries": 1}
    cleared = {"try_number": 2, "max_tries": 2}
    skipped = [
        load(str(csv), **own)["skipped"],
        load(str(csv), **own, ti={"run_id": "next"})["skipped"],
        load(str(csv), **own, ti={"run_id": "next"}, force="{{ task.retries == 1 }}")["skipped"],
        load(str(csv), **own, ti={"run_id": "next", "try_number": 2}, force=True)["skipped"],
        load(str(csv), **own, ti={"run_id": "next", **cleared}, force=True)["skipped"],
        load(str(csv), **own, ti={"run_id": "last"}, force="{{ none }}")["skipped"],
    ]
    assert skipped == [False, True, False, True, False, True]
    assert len(rows()) == 6
    assert "To load again, set force=True, or give another load_id." in capsys.readouterr().out
    with pytest.raises(AirflowFailException, match="force is 'perhaps'"):
        load(str(csv), force="{{ 'perhaps' }}")


def test_without_an_id_each_try_loads(csv: Path) -> None:
    for _ in range(2):
        assert load(str(csv), mode="merge", load_id=None)["load_id"] is None
    assert LakebaseHook().get_first("select to_regclass('lakebase_load')") == (None,)


def test_the_id_is_a_template(csv: Path) -> None:
    assert load(str(csv), load_id="orders/{{ ti.run_id }}")["load_id"] == "orders/run"


@pytest.mark.parametrize("kind", ["path", "uri", "object storage", "gz", "parquet"])
def test_where_files_come_from(csv: Path, kind: str) -> None:
    source: Any = csv
    if kind == "uri":
        source = f"file://{csv.parent}/{{{{ 'rows' }}}}.csv"
    elif kind == "object storage":
        source = ObjectStoragePath(f"file://{csv}")
    elif kind == "gz":
        source = str(csv) + ".gz"
        Path(source).write_bytes(gzip.compress(csv.read_bytes()))
    elif kind == "parquet":
        source = str(csv.with_suffix(".parquet"))
        pq.write_table(pa.table({"id": [1, 2], "name": ["one", "two"]}), source)
    assert load(source)["inserted"] == 2
    assert rows() == [(1, "one"), (2, "two")]


def test_a_table_follows_the_file_where_that_is_allowed(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("id,name,note\n1,one,new\n")
    with pytest.raises(AirflowFailException, match="'note'"):
        load(str(file))
    assert list(load(str(file), schema_evolution="add")["changes"]) == ['ADD COLUMN "note" text']
    more = {"schema_evolution": "add", "source_conn_id": "lakebase_default", "load_id": "more"}
    transfer("select 2 as id, 'two' as name, 'old' as note, 3.5 as price", **more)
    assert rows("select id, note, price from loaded order by 1") == [
        (1, "new", None),
        (2, "old", Decimal("3.5")),
    ]


def test_merge_replace_and_create(csv: Path) -> None:
    LakebaseHook().run("insert into loaded values (2, 'old'), (3, 'other')")
    merged = load(str(csv), mode="merge", load_id="merge", lsn=True)
    assert LakebaseHook().get_first("select pg_current_wal_lsn() >= %s::pg_lsn", (merged["lsn"],)) == (True,)
    assert (merged["inserted"], merged["updated"]) == (1, 1)
    assert rows() == [(1, "one"), (2, "two"), (3, "other")]
    csv.write_text("id,name\n4,other\n")
    assert load(str(csv), mode="replace", where={"name": "{{ 'other' }}"}, load_id="slice")["deleted"] == 1
    assert rows() == [(1, "one"), (2, "two"), (4, "other")]
    LakebaseHook().run("drop table loaded")
    assert load(str(csv), create=True, load_id="create")["inserted"] == 1


def test_bad_rows_go_where_they_are_asked_to(csv: Path) -> None:
    csv.write_text("id,name\n1,one\nx,two\n")
    with pytest.raises(AirflowFailException, match="row 2") as caught:
        load(str(csv))
    assert isinstance(caught.value.__cause__, BadRowError)
    assert rows() == []
    result = load(str(csv), on_error="reject", reject_to="rejected")
    assert (result["inserted"], result["rejected"]) == (1, 1)
    assert rows("select row_number, column_name, load_id from rejected") == [(2, "id", "dag/load/run/-1")]


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        ({"mode": "merge", "keys": "{{ 'id' }}"}, ConfigError),
        ({"table": "no_such_table"}, TableNotFoundError),
        ({"source": "/no/such/file.csv"}, ConfigError),
        ({"source": "{{ 'rows.xlsx' }}"}, ConfigError),
    ],
)
def test_what_can_never_work_is_not_retried(
    csv: Path, arguments: dict[str, Any], cause: type[Exception]
) -> None:
    with pytest.raises(AirflowFailException) as caught:
        load(**{"source": str(csv), **arguments})
    assert isinstance(caught.value.__cause__, cause)
    # Nothing keeps the next try from loading.
    assert load(str(csv))["skipped"] is False


def test_settings_and_rows_as_dicts_do_not_disturb(
    lake: LocalLakebase, csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(monkeypatch, **connection_fields(lake, extra={"cursor": "dictcursor"}))
    assert load(str(csv), hook_params={"lock_timeout": 5})["inserted"] == 2
    assert transfer("select 5 as id, 'five' as name", hook_params={"lock_timeout": 5})["inserted"] == 1


def test_a_fence_ends_the_earlier_session(lake: LocalLakebase, csv: Path) -> None:
    from lakebase_provider.core.database.fence import fence

    with LakebaseHook().client.connect() as zombie:
        fence(zombie, "dag/load/run/-1")
        assert load(str(csv), fence=True)["inserted"] == 2
        with pytest.raises(Exception, match="terminating connection"):
            zombie.execute("select 1")


def test_rows_of_a_query_are_transferred_once() -> None:
    LakebaseHook().run(
        "create table source_rows as select n as id, 'n' || n as name from generate_series(1, 25000) n"
    )
    first = transfer("select * from source_rows where id > %(least)s", parameters={"least": 5})
    assert (first["inserted"], first["load_id"]) == (24_995, "dag/transfer/run/-1")
    # The query is not run again, so that it matters not that it no longer can.
    LakebaseHook().run("drop table source_rows")
    assert transfer("select * from source_rows")["skipped"] is True
    assert rows("select count(*), max(id) from loaded") == [(24_995, 25_000)]


def test_a_query_that_fails_is_not_taken_for_the_table() -> None:
    with pytest.raises(AirflowFailException, match="Query on 'lakebase_default': relation") as caught:
        transfer("select * from no_such_table")
    assert isinstance(caught.value.__cause__, LoadError)


class SqliteHook(DbApiHook):
    """A database of another kind, whose driver has no cursor on a server."""

    conn_name_attr = "sqlite_conn_id"
    path = ""

    def get_conn(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path)


@pytest.fixture
def sqlite(tmp_path: Path) -> SqliteHook:
    hook = SqliteHook()
    hook.path = str(tmp_path / "source.db")
    with sqlite3.connect(hook.path) as connection:
        connection.execute("create table t (id integer, name text)")
        connection.executemany("insert into t values (?, ?)", ((i, f"n{i}") for i in range(25_000)))
    return hook


def test_any_db_api_connection_is_a_source(sqlite: SqliteHook) -> None:
    operator = LakebaseTransferOperator(
        task_id="transfer",
        source_conn_id="sqlite",
        sql="select id, name from t where id >= ?",
        parameters=[10],
        table="loaded",
    )
    operator.__dict__["_source_hook"] = sqlite
    assert executed(operator)["inserted"] == 24_990
    assert rows("select count(*), min(name) from loaded") == [(24_990, "n10")]


def test_a_connection_that_runs_no_sql_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    define(monkeypatch, "files", conn_type="fs")
    with pytest.raises(AirflowFailException, match="which cannot run SQL"):
        transfer("select 1", source_conn_id="files")


def test_a_source_and_a_target_need_two_connections(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(monkeypatch, **connection_fields(lake, extra={"max_size": 1, "connect_budget": 4}))
    with pytest.raises(PoolExhaustedError):
        transfer("select 1 as id, 'one' as name")


def test_the_server_keeps_the_rows_that_are_not_fetched_yet() -> None:
    with SourceCursor(LakebaseHook(), "lakebase_default", "select generate_series(1, 3) as n") as cursor:
        assert [column.name for column in cursor.description] == ["n"]
        assert cursor.fetchmany(2) == [(1,), (2,)]
        assert rows("select name from pg_cursors") == []
        assert cursor._cursor.connection.execute("select name from pg_cursors").fetchall() == [
            ("lakebase_transfer",)
        ]


def test_a_warehouses_cursor_gives_arrow_data(lake: LocalLakebase) -> None:
    cursor = Cursor(pa.table({"id": pa.array([1, 2], pa.int32()), "name": ["one", None]}))
    connection = SimpleNamespace(cursor=lambda: cursor, close=lambda: None)
    hook: Any = SimpleNamespace(get_conn=lambda: connection, log=logging.getLogger("warehouse"))
    with LakebaseClient(lake.config()) as client, SourceCursor(hook, "warehouse", "select 1") as source:
        assert client.load(source, "loaded").inserted == 2
    assert (cursor.statement, rows()) == ("select 1", [(1, "one"), (2, None)])


@pytest.mark.parametrize(
    "options",
    [{"delimiter": ";;"}, {"encoding": "no-such"}, {"header": "id"}, {"quote": ""}, {"null": []}],
    ids=str,
)
def test_options_of_csv_that_cannot_be_fail_when_the_dag_is_parsed(options: dict[str, Any]) -> None:
    (field,) = options
    with pytest.raises(ConfigError, match=field):
        LakebaseLoadOperator(task_id="load", source="/no/such.csv", table="loaded", **options)


def test_csv_that_others_write(csv: Path) -> None:
    csv.write_bytes("1;'é';\n2;NULL;x\n".encode("cp1252"))
    options: Any = {
        "delimiter": ";",
        "encoding": "cp1252",
        "null": ["", "NULL"],
        "header": False,
        "quote": "'",
    }
    assert (
        load(str(csv), columns=["id", "name", "note"], create=True, table="source_rows", **options)["rows"]
        == 2
    )
    assert rows("select id, name, note from source_rows order by 1") == [("1", "é", None), ("2", None, "x")]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_folder_and_a_pattern_are_one_load(csv: Path, scheme: str) -> None:
    (csv.parent / "more.csv").write_text("id,name\n3,three\n")
    first = load(f"{scheme}{csv.parent}/{{{{ '*' }}}}.csv")
    assert (first["rows"], first["skipped"]) == (3, False)
    assert load(f"{scheme}{csv.parent}")["skipped"]
    assert rows() == [(1, "one"), (2, "two"), (3, "three")]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("latin.csv", "id,name\n1,é\n".encode("latin-1")),
        ("late.csv", b"id,name\n" + b"1,x\n" * 500_000 + b"2,\xe9\n"),
        ("utf16.csv", "id,name\n1,x\n".encode("utf-16")),
        ("cut.csv.gz", gzip.compress(b"id,name\n1,x\n", mtime=0)[:-4]),
        ("cut.jsonl.gz", gzip.compress(b'{"id": 1, "name": "x"}\n' * 500_000, mtime=0)[:-4]),
        ("text.parquet", b"id,name\n1,x\n"),
        ("text.arrow", b"id,name\n1,x\n"),
        ("open.csv", b'id,name\n1,"x\n'),
    ],
)
def test_a_broken_file_is_not_tried_again(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(AirflowFailException, match=name):
        load(str(path))
    assert rows() == []
