"""Reading by the client: frames, batches, rows, and what a reader that stops early leaves behind."""

from __future__ import annotations

from contextlib import closing
from decimal import Decimal

import psycopg
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.read import batches
from lakebase_provider.core.errors import ConfigError, LoadError, LoadInterruptedError
from lakebase_provider.local import FaultProxy, LocalLakebase
from tests.core.bulk.sample_tables import run

_SERIES = "SELECT i FROM generate_series(1, 100000) i"


def test_frames_keep_integers_and_decimals(client: LakebaseClient) -> None:
    query = "SELECT * FROM (VALUES (9007199254740993, 0.10::numeric(4,2)), (NULL, NULL)) v (i, n)"
    pandas, polars = client.fetch_pandas(query), client.fetch_polars(query)
    assert (str(pandas["i"].dtype), pandas["i"].tolist()[0]) == ("Int64", 9007199254740993)
    assert pandas["n"].tolist() == [Decimal("0.10"), None]
    assert polars.rows() == [(9007199254740993, Decimal("0.10")), (None, None)]


def test_batches_have_the_rows_that_are_asked_for(client: LakebaseClient) -> None:
    sizes = [batch.num_rows for batch in client.iter_batches(_SERIES, batch_rows=30_000)]
    assert sizes == [30_000, 30_000, 30_000, 10_000]
    with pytest.raises(ConfigError, match="batch_rows is 0"):
        next(iter(client.iter_batches(_SERIES, batch_rows=0)))


def test_rows_are_psycopgs(client: LakebaseClient) -> None:
    query = "SELECT i, i / 3.0, jsonb_build_object('i', i) FROM generate_series(1, 5000) i"
    assert list(client.iter_rows(query)) == run(client, query)


def test_a_reader_that_stops_early_gives_its_connection_back(client: LakebaseClient) -> None:
    for _ in range(client.config.max_size + 1):
        with closing(client.iter_batches("SELECT i FROM generate_series(1, 3000000) i")) as batches:
            assert next(batches).num_rows > 0
        with closing(client.iter_rows(_SERIES)) as rows:
            assert next(rows) == (1,)
    assert run(client, "SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("SELECT %s::int2 AS a, %s::text AS b, '50%%' AS c", [-32768, -1]),
        ("SELECT %(n)s::int2 AS a, %(t)s::text AS b, '50%%' AS c -- end", {"n": -32768, "t": -1}),
        ("  /* first */ -- second\n (SELECT %s::int2 AS a, %s::text AS b, '50%%' AS c) ; ", [-32768, -1]),
    ],
)
def test_parameters_are_values(client: LakebaseClient, query: str, params: object) -> None:
    [row] = client.fetch_arrow(query, params).to_pylist()  # type: ignore[arg-type] # a list or a dict
    assert row == {"a": -32768, "b": "-1", "c": "50%"}
    hostile = "'; DROP TABLE kept; --"
    assert client.fetch_arrow("SELECT %s::text AS v", [hostile])["v"].to_pylist() == [hostile]


def test_columns_of_one_name_stay_apart(client: LakebaseClient) -> None:
    table = client.fetch_arrow("SELECT 1 AS a, '1.2.3.4'::inet AS a, 'x' AS \"B \"\"c\"")
    assert table.column_names == ["a", "a", 'B "c']
    assert [column.to_pylist() for column in table.columns] == [[1], ["1.2.3.4"], ["x"]]


def test_other_statements_that_return_rows_are_run_by_a_cursor(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE changed (i int)")
    inserting = "WITH new AS (INSERT INTO changed VALUES (7) RETURNING i) SELECT i, -i::int8 AS n FROM new"
    assert client.fetch_arrow(inserting).to_pylist() == [{"i": 7, "n": -7}]
    assert client.fetch_arrow("INSERT INTO changed VALUES (8) RETURNING *").to_pylist() == [{"i": 8}]
    assert run(client, "SELECT i FROM changed ORDER BY i") == [(7,), (8,)]
    with pytest.raises(LoadError, match="returns no rows"):
        client.fetch_arrow("DELETE FROM changed")


def test_the_servers_errors_come_as_they_are(client: LakebaseClient) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable):
        client.fetch_arrow("SELECT * FROM absent")
    with pytest.raises(psycopg.errors.DivisionByZero):
        list(client.iter_batches("SELECT 1 / (90000 - i) FROM generate_series(1, 100000) i"))
    assert run(client, "SELECT 1") == [(1,)]


def test_a_link_that_is_cut_while_rows_come_can_be_tried_again(lakebase_env: LocalLakebase) -> None:
    with (
        FaultProxy(lakebase_env.host, lakebase_env.port) as proxy,
        LakebaseClient(lakebase_env.config(port=proxy.port)) as remote,
    ):
        for read in (remote.fetch_arrow, remote.fetch_polars, lambda query: list(remote.iter_rows(query))):
            proxy.cut_after(400_000, direction="to_client")
            with pytest.raises(LoadInterruptedError, match="connection was lost while") as caught:
                read(_SERIES)
            assert caught.value.retryable
            assert len(read(_SERIES)) == 100_000


@pytest.mark.parametrize(
    "query",
    [
        "WITH c AS (SELECT 'insert' AS kind) SELECT kind AS v FROM c",
        """WITH c AS (SELECT 1 AS "delete") SELECT 'insert' AS v FROM c -- merge""",
        "/* update */ WITH c AS (SELECT $$delete$$ AS v) SELECT 'insert' AS v FROM c WHERE v <> E'\\'update'",
        "SELECT 'insert' AS v FROM locked FOR UPDATE",
        "WITH c AS (SELECT * FROM locked FOR NO KEY UPDATE) SELECT 'insert' AS v FROM c",
    ],
)
def test_queries_that_only_name_a_change_stream(
    client: LakebaseClient, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(client, "CREATE TABLE locked AS SELECT 1 AS i")
    monkeypatch.delattr(batches, "cursor_batches")
    assert client.fetch_arrow(query)["v"].to_pylist() == ["insert"]


@pytest.mark.parametrize(
    "params",
    [
        [1.5, -1.5, float("inf"), 0.1],
        [2**40, -(2**33), True, b"\x00'"],
        [Decimal("-1.50"), Decimal("2"), "\\'; --", None],
    ],
)
def test_parameters_are_of_the_types_that_psycopg_binds(client: LakebaseClient, params: list[object]) -> None:
    query = "SELECT %s AS a, %s AS b, %s AS c, %s AS d"
    [row] = client.iter_rows(query, params)
    [found] = client.fetch_arrow(query, params).to_pylist()
    assert list(found.values()) == list(row)
    assert list(map(type, found.values())) == list(map(type, row))


BEYOND_PYTHON = {
    "date": "'0044-03-15 BC'::date", "late date": "'10000-01-01'::date",
    "dates": "array['2026-01-01', '0044-03-15 BC']::date[]",
}  # fmt: skip


@pytest.mark.parametrize("value", BEYOND_PYTHON.values(), ids=BEYOND_PYTHON)
def test_what_pandas_cannot_say_is_refused_by_its_column(client: LakebaseClient, value: str) -> None:
    for columns in ("", "1 as one, current_date as day, "):
        with pytest.raises(LoadError, match='Column "odd" holds a value that Python cannot') as caught:
            client.fetch_pandas(f"select {columns}{value} as odd")
        assert "year -43" not in str(caught.value)
        assert caught.value.__cause__ is None
    assert client.fetch_pandas("select '10000-01-01'::timestamp as at").shape == (1, 1)


def test_a_frame_has_the_elements_of_an_array_without_its_bounds(client: LakebaseClient) -> None:
    query = "select '[0:1]={1,2}'::int[] as v"
    assert client.fetch_arrow(query)["v"].to_pylist() == [[1, 2]]
    assert client.fetch_polars(query)["v"].to_list() == [[1, 2]]
    assert list(client.fetch_pandas(query)["v"][0]) == [1, 2]
    with client.connection() as connection:
        assert connection.execute(query).fetchall() == [([1, 2],)]
