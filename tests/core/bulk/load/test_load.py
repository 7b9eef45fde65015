from __future__ import annotations

import datetime as dt
import json
import logging
import uuid
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from psycopg import sql

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.load.load import load
from lakebase_provider.core.bulk.load.progress import Progress
from lakebase_provider.core.bulk.tables.create import column_type
from lakebase_provider.core.errors import BadRowError, ConfigError, LoadError, TableNotFoundError
from tests.core.bulk.sample_tables import counts, run
from tests.core.fake_clock import FakeClock


def test_rows_are_added_and_counted(client: LakebaseClient, caplog: pytest.LogCaptureFixture) -> None:
    run(client, "CREATE TABLE t (id int, v text)")
    with caplog.at_level(logging.INFO, "lakebase_provider"):
        result = client.load(((i, str(i)) for i in range(1000)), "t")
    assert (result.table, result.mode, result.rows, result.rejected) == ("public.t", "append", 1000, 0)
    assert counts(result) == (1000, 0, 0, 0)
    assert result.bytes > 0
    assert result.seconds > 0
    assert "Loaded public.t (append): 1000 rows" in caplog.text
    assert run(client, "SELECT count(*), sum(id) FROM t") == [(1000, 499500)]


def test_a_missing_table_says_what_to_do(client: LakebaseClient) -> None:
    with pytest.raises(TableNotFoundError, match="create=True"):
        client.load([(1,)], "t")


def test_a_view_is_refused(client: LakebaseClient) -> None:
    run(client, "CREATE VIEW v AS SELECT 1 AS id")
    with pytest.raises(LoadError, match="is a view"):
        client.load([(1,)], "v")
    run(client, "DROP VIEW v")


@pytest.mark.parametrize(
    ("rows", "said", "row"),
    [
        ([(1, 1), (1, 1)], 'duplicate key value violates unique constraint "t_pkey"', 2),
        ([(1, -1)], 'violates check constraint "t_n_check"', 1),
        ([(1, None)], "NULL, which the column refuses", 1),
    ],
)
def test_what_the_server_refuses_is_named_by_row_without_its_values(
    client: LakebaseClient, rows: Any, said: str, row: int
) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL CHECK (n > 0))")
    with pytest.raises(BadRowError) as caught:
        client.load(rows, "t")
    assert said in str(caught.value)
    assert caught.value.row == row
    assert not caught.value.retryable
    assert run(client, "SELECT count(*) FROM t") == [(0,)]


def test_missing_privileges_say_so(client: LakebaseClient) -> None:
    with pytest.raises(LoadError, match=r"(?s)permission denied.*Grant the role"):
        client.load([("x",)], "pg_catalog.pg_authid", columns=["rolname"])


def test_a_table_is_created_for_the_source(client: LakebaseClient) -> None:
    values: dict[str, tuple[Any, str]] = {
        "b": (True, "boolean"), "i": (1, "bigint"), "f": (1.5, "double precision"),
        "n": (Decimal("12345678901234567890.123"), "numeric"), "s": ("x", "text"), "y": (b"x", "bytea"),
        "d": (dt.date(2024, 1, 1), "date"), "t": (dt.datetime(2024, 1, 1), "timestamp without time zone"),
        "z": (dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc), "timestamp with time zone"),
        "u": (uuid.UUID(int=7), "uuid"), "a": ([1, 2], "bigint[]"), "j": ({"k": 1}, "jsonb"),
        "nothing": (None, "text"),
    }  # fmt: skip
    client.load([{name: value for name, (value, _) in values.items()}], "t", create=True, keys=["i"])
    types = run(client, "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum")  # fmt: skip
    assert types == [(name, kind) for name, (_, kind) in values.items()]
    (found,) = run(client, "SELECT * FROM t")
    assert found == tuple(value for value, _ in values.values())
    with pytest.raises(BadRowError, match="t_pkey"):
        client.load([{"i": 1}], "t", create=True)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (pa.uint8(), "smallint"), (pa.uint16(), "integer"), (pa.uint32(), "bigint"),
        (pa.uint64(), "numeric(20,0)"), (pa.float16(), "real"), (pa.decimal128(10, 2), "numeric(10,2)"),
        (pa.decimal128(5, -3), "numeric(8,0)"), (pa.dictionary(pa.int8(), pa.string()), "text"),
        (pa.timestamp("ns", "UTC"), "timestamp with time zone"),
        (pa.timestamp("s"), "timestamp without time zone"),
        (pa.list_(pa.time32("s")), "time without time zone[]"),
        (pa.list_(pa.list_(pa.int32())), "integer[]"), (pa.struct([("a", pa.int8())]), "jsonb"),
        (pa.map_(pa.string(), pa.int8()), "jsonb"), (pa.duration("us"), "interval"),
        (pa.time64("us"), "time without time zone"), (pa.large_string(), "text"), (pa.json_(), "jsonb"),
        (pa.uuid(), "uuid"),
    ],
)  # fmt: skip
def test_each_type_of_arrow_has_one_that_holds_its_values(kind: pa.DataType, name: str) -> None:
    assert column_type(kind) == name


def test_rows_without_names_create_a_table_only_with_columns(client: LakebaseClient) -> None:
    with pytest.raises(ConfigError, match="no column names"):
        client.load([(1, "a")], "t", create=True)
    assert client.load([(1, "a")], "t", create=True, columns=["id", "v"]).rows == 1


def test_bad_rows_are_put_aside_with_the_reason(client: LakebaseClient, tmp_path: Path) -> None:
    run(client, "CREATE TABLE t (id int, v text)")
    rows = [(1, "a"), ("x", "b"), (3, "nul\0"), (4, "d"), (2**40, "e")]
    for to in ("rejects", tmp_path / "rejects.jsonl"):
        run(client, "TRUNCATE t")
        result = client.load(rows, "t", on_error="reject", reject_to=to, load_id=f"to {to}")
        assert (result.rows, result.inserted, result.rejected) == (2, 2, 3)
        assert run(client, "SELECT id FROM t ORDER BY id") == [(1,), (4,)]
        assert client.load(rows, "t", on_error="reject", reject_to=to, load_id=f"to {to}").rejected == 3
    query = "SELECT row_number, column_name, row::text, load_id FROM rejects ORDER BY 1"
    assert run(client, query) == [
        (2, "id", '{"id": "x", "v": "b"}', "to rejects"),
        (3, "v", '{"id": 3, "v": "nul\\u0000"}', "to rejects"),
        (5, "id", '{"id": 1099511627776, "v": "e"}', "to rejects"),
    ]
    lines = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert [(line["row_number"], line["column_name"]) for line in lines] == [(2, "id"), (3, "v"), (5, "id")]
    assert lines[1]["row"] == {"id": 3, "v": "nul\0"}
    assert all(line["reason"] and line["table_name"] == "public.t" for line in lines)
    assert [path.name for path in tmp_path.iterdir()] == ["rejects.jsonl"]


def test_a_load_that_fails_leaves_no_rejects(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY)")
    run(client, "CREATE TABLE rejects (rejected_at timestamptz DEFAULT now(), table_name text, load_id text,"
        " row_number bigint, column_name text, reason text, row json)")  # fmt: skip
    with pytest.raises(BadRowError):
        client.load([("x",), (1,), (1,)], "t", on_error="reject", reject_to="rejects")
    assert run(client, "SELECT count(*) FROM rejects") == [(0,)]


@pytest.mark.parametrize("autocommit", [None, True])
def test_a_file_of_rejects_tells_of_no_load_whose_commit_fails(
    client: LakebaseClient, tmp_path: Path, autocommit: bool | None
) -> None:
    run(client, "CREATE TABLE t (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    file = tmp_path / "rejects.jsonl"
    with client.connect(autocommit=True) as connection:
        into: Any = partial(load, connection) if autocommit else client.load
        assert into([("x",), (1,)], "t", on_error="reject", reject_to=file).rejected == 1
        told = file.read_text()
        assert json.loads(told)["row"] == {"id": "x"}
        with pytest.raises(BadRowError, match="t_id_key"):
            into([("y",), (1,)], "t", on_error="reject", reject_to=file)
    assert file.read_text() == told
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_of_rejects_that_cannot_be_written_is_known_before_the_load(
    client: LakebaseClient, tmp_path: Path
) -> None:
    run(client, "CREATE TABLE t (id int)")
    for path in (tmp_path, tmp_path / "missing" / "rejects.jsonl"):
        with pytest.raises(ConfigError, match="reject_to"):
            client.load([(1,)], "t", on_error="reject", reject_to=path)
    assert run(client, "SELECT * FROM t") == []


def test_progress_shows_every_few_seconds(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    with (
        caplog.at_level(logging.INFO, "lakebase_provider"),
        Progress("t", clock=clock, bar=False) as progress,
    ):
        progress.phase("copy")
        for i in range(1, 11):
            clock.advance(1)
            progress(i * 1000, i * 2_000_000)
    assert [record.message for record in caplog.records] == [
        "Loading t: copy, 5,000 rows, 10.0 MB, 2.0 MB/s",
        "Loading t: copy, 10,000 rows, 20.0 MB, 2.0 MB/s",
    ]


def test_a_bar_shows_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Progress("t", bar=True) as progress:
        progress.phase("copy")
        progress(1000, 2_000_000)
    assert "Loading t" in capsys.readouterr().err


def test_many_small_statements_go_without_waiting(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, v text)")
    query = "INSERT INTO t VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET v = excluded.v"
    assert client.executemany_pipeline(query, ((i, "a") for i in range(500))) == 500
    with pytest.raises(LoadError, match="invalid text representation"):
        client.executemany_pipeline(sql.SQL(query), [(1, "b"), ("x", "b")])
    assert run(client, "SELECT count(*), min(v), max(v) FROM t") == [(500, "a", "a")]
