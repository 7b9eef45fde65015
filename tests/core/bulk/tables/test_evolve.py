"""A table whose columns are not those of what is loaded into it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from psycopg import sql

from lakebase_provider.core import LakebaseClient, PostgresQuery, load
from lakebase_provider.core.bulk.load.result import Mode
from lakebase_provider.core.bulk.tables.evolve import common_type
from lakebase_provider.core.bulk.tables.schema_evolution import SchemaEvolution
from lakebase_provider.core.database.catalog import Table
from lakebase_provider.core.errors import BadRowError, ColumnMismatchError, ConfigError
from tests.core.bulk.sample_tables import run


@pytest.mark.parametrize(
    ("first", "second", "common"),
    [
        ("smallint", "bigint", "bigint"),
        ("integer", "integer", "integer"),
        ("real", "double precision", "double precision"),
        ("integer", "real", "double precision"),
        ("integer", "numeric(6,2)", "numeric(12,2)"),
        ("numeric(4,2)", "numeric(5,4)", "numeric(6,4)"),
        ("numeric(1000,0)", "numeric(10,5)", "numeric"),
        ("numeric", "bigint", "numeric"),
        ("character varying(10)", "text", "text"),
        ("character(3)", "character varying", "text"),
        ("date", "timestamp without time zone", "timestamp without time zone"),
        # A double holds no bigint exactly, a decimal no float, and nobody knows the zone of a wall clock.
        ("bigint", "double precision", None),
        ("numeric(10,2)", "double precision", None),
        ("timestamp without time zone", "timestamp with time zone", None),
        ("text", "integer", None),
    ],
)
def test_the_narrowest_type_that_holds_both(first: str, second: str, common: str | None) -> None:
    assert common_type(first, second) == common
    assert common_type(second, first) == common


def columns(client: LakebaseClient, table: str = "t") -> dict[str, str]:
    """The table's columns with their types."""
    query = (
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = {}::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    )
    return dict(run(client, sql.SQL(query).format(table)))


@pytest.fixture
def orders(client: LakebaseClient) -> LakebaseClient:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, v varchar(3), at timestamptz DEFAULT now())")
    run(client, "INSERT INTO t VALUES (1, 'one')")
    return client


WIDER = pa.table({"id": pa.array([2**40], pa.int64()), "note": ["new"]})


@pytest.mark.parametrize("mode", ["append", "merge", "replace"])
@pytest.mark.parametrize(
    ("policy", "changes"),
    [
        ("add", ['ADD COLUMN "note" text']),
        ("widen", ['ADD COLUMN "note" text', 'ALTER COLUMN "id" TYPE bigint']),
    ],
)
def test_a_table_follows_its_source(
    orders: LakebaseClient, mode: Mode, policy: SchemaEvolution, changes: list[str]
) -> None:
    source = WIDER if policy == "widen" else pa.table({"id": [2], "note": ["new"]})
    result = orders.load(source, "t", mode=mode, schema_evolution=policy)
    assert list(result.changes) == changes
    assert (result.inserted, result.deleted) == (1, int(mode == "replace"))
    found = run(orders, "SELECT id, v, note, at IS NULL FROM t ORDER BY id")
    old = [] if mode == "replace" else [(1, "one", None, False)]
    assert found == [*old, (source["id"][0].as_py(), None, "new", False)]
    assert orders.load(source, "t", mode="merge", schema_evolution=policy).changes == ()


def test_a_table_stays_as_it_is_unless_it_is_allowed_to_change(orders: LakebaseClient) -> None:
    before = columns(orders)
    with pytest.raises(ConfigError, match="schema_evolution is 'any'"):
        orders.load(WIDER, "t", schema_evolution="any")  # type: ignore[arg-type] # what a user may pass
    for options in ({}, {"schema_evolution": "error"}):
        with pytest.raises(ColumnMismatchError, match="'note'"):
            orders.load(WIDER, "t", **options)  # type: ignore[arg-type] # of both kinds
    with pytest.raises(ColumnMismatchError, match=r"(?s)lacks column 'v'.*schema evolution"):
        orders.load([{"id": 2}], "t", schema_evolution="error")
    with pytest.raises(ColumnMismatchError, match="lacks column 'id'"):
        orders.load([{"v": "two"}], "t", schema_evolution="add")
    with pytest.raises(BadRowError):
        orders.load(pa.table({"id": [2**40], "v": ["two"]}), "t", schema_evolution="add")
    orders.load([{"id": 2}], "t")
    orders.load([{"id": 3, "v": "3"}], "t", schema_evolution="error")
    assert columns(orders) == before
    assert run(orders, "SELECT id, v FROM t ORDER BY id") == [(1, "one"), (2, None), (3, "3")]


def test_a_table_becomes_what_replaces_its_rows(orders: LakebaseClient) -> None:
    run(orders, "GRANT SELECT ON t TO PUBLIC")
    with pytest.raises(ConfigError, match="rows that stay"):
        orders.load(WIDER, "t", schema_evolution="recreate")
    with pytest.raises(ConfigError, match="rows that stay"):
        orders.load(WIDER, "t", mode="replace", where={"id": 7}, schema_evolution="recreate")
    result = orders.load(WIDER, "t", mode="replace", schema_evolution="recreate")
    assert (result.inserted, result.deleted) == (1, 1)
    expected = {"id": "bigint", "at": "timestamp with time zone", "note": "text"}
    assert columns(orders) == expected
    assert run(orders, "SELECT id, note, has_table_privilege('public', 't', 'select') FROM t") == [
        (2**40, "new", True)
    ]
    # Of an empty table no row stays.
    run(orders, "TRUNCATE t")
    orders.load([{"n": 1}], "t", schema_evolution="recreate")
    assert columns(orders) == {"at": "timestamp with time zone", "n": "bigint"}


def sources(folder: Path, client: LakebaseClient) -> dict[str, tuple[Callable[[], Any], str]]:
    """What gives the rows (2, 'two', 7), and the type that the third one has in a table."""
    (folder / "rows.csv").write_text("id,v,more\n2,two,7\n")
    (folder / "rows.jsonl").write_text('{"id": 2, "v": "two", "more": 7}\n')
    row = {"id": 2, "v": "two", "more": 7}
    return {
        "dicts": (lambda: (one for one in [row]), "bigint"),
        "CSV": (lambda: folder / "rows.csv", "text"),
        "JSON lines": (lambda: folder / "rows.jsonl", "text"),
        "pandas": (lambda: pd.DataFrame([row]).astype({"v": object}), "bigint"),
        "query": (
            lambda: PostgresQuery(client.connection, "SELECT 2 AS id, 'two' AS v, 7::int2 AS more"),
            "smallint",
        ),
    }


@pytest.mark.parametrize("kind", ["dicts", "CSV", "JSON lines", "pandas", "query"])
def test_each_source_tells_its_columns(orders: LakebaseClient, tmp_path: Path, kind: str) -> None:
    source, more = sources(tmp_path, orders)[kind]
    orders.load(source(), "t", schema_evolution="add")
    assert columns(orders)["more"] == more
    assert run(orders, "SELECT id, v, more::int FROM t ORDER BY id") == [(1, "one", None), (2, "two", 7)]


def test_rows_without_names_need_columns_and_no_rows_need_none(orders: LakebaseClient) -> None:
    with pytest.raises(ConfigError, match="no column names"):
        orders.load([(2, "two", 7)], "t", schema_evolution="add")
    orders.load([(2, "two", 7)], "t", schema_evolution="add", columns=["id", "v", "more"])
    assert run(orders, "SELECT more FROM t WHERE id = 2") == [(7,)]
    assert orders.load([], "t", mode="replace", schema_evolution="recreate").deleted == 2
    assert list(columns(orders)) == ["id", "v", "at", "more"]


def test_a_column_of_objects_is_of_the_type_of_all_its_values(client: LakebaseClient) -> None:
    # As many as pandas' rows come at once, and more.
    late = pd.DataFrame({"v": pd.Series([None] * 40_000 + [1.5], dtype=object)})
    client.load(late, "t", create=True)
    assert columns(client) == {"v": "double precision"}


def test_a_missing_schema_is_created_with_its_table(client: LakebaseClient) -> None:
    for load_id in (None, "first"):
        client.load([{"id": 1}], "made.t", create=True, keys=["id"], mode="merge", load_id=load_id)
    assert run(client, "SELECT conkey::text FROM pg_constraint WHERE conrelid = 'made.t'::regclass") == [
        ("{1}",)
    ]
    client.load([{"id": 1}], "made at once.t", create=True, load_id="first")
    with client.connection() as connection:
        load(connection, [{"id": 1}], "pg_temp.t", create=True)


@pytest.mark.parametrize("mode", ["append", "merge", "replace"])
def test_rows_outside_of_a_slice_are_counted(client: LakebaseClient, mode: Mode) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, day date, month int GENERATED ALWAYS AS"
        " (extract(month FROM day)) STORED)")  # fmt: skip
    run(client, "INSERT INTO t VALUES (1, '2024-01-31'), (2, '2024-02-01')")
    asked: list[Table] = []

    def january(table: Table) -> sql.Composable:
        asked.append(table)
        return sql.SQL("month = 1")

    rows = [(3, "2024-01-01"), (4, "2024-03-01"), (5, None)]
    counted = partial(client.load, rows, "t", columns=["id", "day"], mode=mode, count_outside=True)
    result = counted(where=january)
    assert (result.rows, result.inserted, result.outside) == (3, 3, 2)
    assert result.deleted == int(mode == "replace")
    assert [table.column("month") is not None for table in asked] == [True]
    with pytest.raises(ConfigError, match="where="):
        counted()


def test_two_loads_that_replace_the_same_slice_follow_each_other(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (day int, v text)")
    threads = [
        threading.Thread(
            target=client.load,
            args=([(1, v)] * 500, "t"),
            kwargs={"mode": "replace", "where": {"day": 1}},
        )
        for v in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert run(client, "SELECT count(*), count(DISTINCT v) FROM t") == [(500, 1)]
