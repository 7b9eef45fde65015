"""Statements end, take values and are judged alike in the worker and the triggerer, in every front."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred
from airflow.providers.common.sql.hooks.handlers import fetch_all_handler

from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.shared import shared_clients
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.sql import LakebaseSqlOperator
from lakebase_provider.sensors.sql import LakebaseSqlSensor
from lakebase_provider.triggers.polling import LakebaseSqlSensorTrigger
from lakebase_provider.triggers.sql import LakebaseSqlTrigger
from tests.airflow.test_triggers import event_of

CONN: dict[str, Any] = {"conn_id": "lakebase_default"}
COMMENTED = "select %(a)s::int -- and region = %(region)s, 5 %\n/* %(b)s, %s */"


@pytest.fixture(autouse=True)
async def no_open_pool(lake: LocalLakebase) -> AsyncIterator[None]:
    yield
    for client in shared_clients():
        await client.aclose()


def run(**arguments: Any) -> Any:
    context: Any = {}
    return LakebaseSqlOperator(task_id="sql", **arguments).execute(context)


async def deferred(**arguments: Any) -> dict[str, Any]:
    """What the triggerer's event says after the task has deferred."""
    with pytest.raises(TaskDeferred) as caught:
        run(deferrable=True, **arguments)
    trigger = caught.value.trigger
    assert isinstance(trigger, LakebaseSqlTrigger)
    return await event_of(trigger)


async def test_one_way_of_splitting_everywhere(lake: LocalLakebase, tmp_path: Path) -> None:
    sql = "select 'a' ||-- note; here\n 'b'; /* ; /* ; */ */ select 1/*x*/as foo; -- the end;"
    rows = LakebaseHook().run(sql, split_statements=True, return_last=False, handler=fetch_all_handler)
    assert rows == [[("ab",)], [(1,)]]
    asynchronous = await LakebaseHook().arun(
        sql, split_statements=True, return_last=False, handler=fetch_all_handler
    )
    assert asynchronous == rows
    assert run(sql=sql, split_statements=True, return_last=False) == rows
    for split in (None, True, False):
        assert await deferred(sql=sql, split_statements=split) == {"status": "success", "rows": [1, 1]}
        path = tmp_path / f"{split}.csv"
        assert run(sql=sql, split_statements=split, output_path=str(path))["rows"] == 1
        assert path.read_text() == "foo\n1\n"
        path.unlink()
        event = await deferred(sql=sql, split_statements=split, output_path=str(path))
        assert (event["status"], path.read_text()) == ("success", "foo\n1\n")


def test_comments_stay_where_they_are(lake: LocalLakebase) -> None:
    parts = LakebaseHook.split_sql_string("-- why\nselect /*+ hint */ 1; -- end")
    assert parts == ["-- why\nselect /*+ hint */ 1;"]
    assert LakebaseHook.split_sql_string("select 1 ; select 2", strip_semicolon=True) == [
        "select 1",
        "select 2",
    ]
    shown = "select query from pg_stat_activity where pid = pg_backend_pid() -- mine"
    assert LakebaseHook().run(shown, split_statements=True, handler=fetch_all_handler) == [(shown,)]
    with pytest.raises(ValueError, match="empty"):
        LakebaseHook().run("-- nothing;\n/* ; */", split_statements=True)
    with pytest.raises(AirflowFailException, match="no statement"):
        run(sql=["-- nothing", ";"], output_path="/nowhere/x.csv")


def test_ten_thousand_tokens_are_no_limit(lake: LocalLakebase) -> None:
    sql = f"select {' + '.join(['1'] * 15_000)}; select 2"
    assert LakebaseHook().run(
        f"create temp table t as select array[{','.join(['1'] * 20_000)}] a; select cardinality(a) from t",
        split_statements=True,
        handler=fetch_all_handler,
    ) == [(20_000,)]
    assert len(LakebaseHook.split_sql_string(sql)) == 2


async def test_several_statements_share_values_as_they_do_in_the_worker(
    lake: LocalLakebase, tmp_path: Path
) -> None:
    by_position = {
        "sql": "create temp table t as select %s::int as i; select i + %s from t",
        "parameters": [1, 10],
    }
    by_name = {
        "sql": "create temp table t as select %(i)s::int as i; select i + %(i)s from t where i in %(all)s",
        "parameters": {"i": 1, "all": [1, 2]},
    }
    for split in (None, False):
        for arguments, expected in ((by_position, 11), (by_name, 2)):
            assert run(split_statements=split, **arguments) == [(expected,)]
            event = await deferred(split_statements=split, **arguments)
            assert event == {"status": "success", "rows": [1, 1]}
            path = tmp_path / "rows.csv"
            assert run(split_statements=split, output_path=str(path), **arguments)["rows"] == 1
            assert path.read_text().splitlines()[1] == str(expected)
            event = await deferred(split_statements=split, output_path=str(path), **arguments)
            assert event["rows"] == 1, event
            assert path.read_text().splitlines()[1] == str(expected)
    # Each statement that is split off is given them all.
    each = {"sql": "create temp table t as select %s::int i; select %s::int", "parameters": [1]}
    assert run(split_statements=True, **each) == [(1,)]
    assert (await deferred(split_statements=True, **each))["rows"] == [1, 1]


async def test_what_the_triggerer_would_do_otherwise_is_refused(lake: LocalLakebase) -> None:
    unsplit: dict[str, Any] = {"split_statements": False, "autocommit": True, "deferrable": True}
    with pytest.raises(AirflowFailException, match="several statements as one transaction"):
        run(sql="select 1; select 2", **unsplit)
    with pytest.raises(TaskDeferred):
        run(sql="select ';'; -- one;", **unsplit)


async def test_comments_neither_ask_for_values_nor_take_them(lake: LocalLakebase, tmp_path: Path) -> None:
    hook = LakebaseHook()
    for values in ({"a": 1}, {"a": 1, "region": "eu", "b": 2}):
        given: dict[str, Any] = {"sql": COMMENTED, "parameters": values}
        assert hook.get_records(**given) == [(1,)]
        assert await hook.aget_records(**given) == [(1,)]
        assert hook.get_df(**given).to_numpy().tolist() == [[1]]
        assert [len(chunk) for chunk in hook.get_df_by_chunks(**given, chunksize=2)] == [1]
        assert run(**given) == run(**given, split_statements=True) == [(1,)]
        assert (await deferred(**given))["rows"] == [1]
        for format in ("csv", "jsonl", "parquet"):
            path = str(tmp_path / f"rows.{format}")
            assert run(**given, output_path=path)["rows"] == 1
            assert (await deferred(**given, output_path=path))["rows"] == 1
        context: Any = {}
        assert LakebaseSqlSensor(task_id="s", **given).poke(context)
        event = await event_of(LakebaseSqlSensorTrigger(**CONN, **given, poke_interval=60))
        assert event == {"status": "success", "empty": False}
        with hook.client.connection() as connection:
            assert connection.execute(COMMENTED, values).fetchall() == [(1,)]
        several = f"{COMMENTED}; {COMMENTED}"
        assert hook.get_records(several, parameters=values) == [(1,)]
    assert hook.get_first("select %s::int -- %s", parameters=[3]) == (3,)
    assert hook.get_first("select 1 -- %(a)s", parameters={"a": 1}) == (1,)
    # In quotes it would silently be no value, and outside it has to be there.
    with pytest.raises(psycopg.ProgrammingError, match="inside quotes"):
        hook.get_first("select '%(a)s days', 1 -- %(a)s", parameters={"a": 1})
    with pytest.raises(psycopg.ProgrammingError, match=r"missing: %\(b\)s\. There are: 'a'"):
        hook.get_first("select %(b)s -- %(a)s", parameters={"a": 1})


CELLS = [
    "'0'", "0", "''", "null", "false", "0.0", "'0'::varchar", "'00'", "' '", "'f'", "'false'", "1",
    "'x'", "0.1", "'{}'::int[]",
    "'{0}'::int[]", "'0 s'::interval", "'NaN'::numeric", "'\\x'::bytea", "'{}'::jsonb",
]  # fmt: skip


@pytest.mark.parametrize("cell", CELLS)
async def test_one_truth_in_the_worker_and_the_triggerer(lake: LocalLakebase, cell: str) -> None:
    context: Any = {}
    sql = f"select {cell}"
    worker = LakebaseSqlSensor(task_id="s", sql=sql).poke(context)
    trigger = LakebaseSqlSensorTrigger(**CONN, sql=sql, poke_interval=60)
    triggerer = await trigger._poll(await LakebaseHook().aclient())
    assert (triggerer is not None) is worker
    # As SqlSensor's documentation says.
    if cell in ("'0'", "0", "''", "null"):
        assert worker is False
    # A criterion of the author's is asked alone.
    assert LakebaseSqlSensor(task_id="s", sql=sql, success=lambda _: True).poke(context)


async def test_a_sensors_last_statement_is_judged_in_both(lake: LocalLakebase) -> None:
    context: Any = {}
    for sql, parameters, expected in (
        ("select 0; select %(n)s::int", {"n": 1}, True),
        ("select 1; select 0", None, False),
        ("select 1; set statement_timeout to 0", None, False),
    ):
        assert LakebaseSqlSensor(task_id="s", sql=sql, parameters=parameters).poke(context) is expected
        trigger = LakebaseSqlSensorTrigger(**CONN, sql=sql, parameters=parameters, poke_interval=60)
        assert (await trigger._poll(await LakebaseHook().aclient()) is not None) is expected


@pytest.mark.parametrize(
    ("sql", "begins"),
    [
        ("update kept set i = 2", "UPDATE"),
        ("select 1; update kept set i = 2 returning i", "UPDATE"),
        ("-- select\ninsert into kept values (3) returning i", "INSERT"),
        ("with a as (delete from kept returning i) select * from a", "WITH"),
        ("create table unwanted (i int)", "CREATE"),
        ("show search_path", "SHOW"),
    ],
)
async def test_a_file_of_rows_needs_a_query(
    lake: LocalLakebase, tmp_path: Path, sql: str, begins: str
) -> None:
    hook = LakebaseHook()
    hook.run("drop table if exists kept; create table kept (i int); insert into kept values (1)")
    path = tmp_path / "rows.csv"
    with pytest.raises(AirflowFailException) as caught:
        run(sql=f"delete from kept; {sql}", output_path=str(path))
    assert isinstance(caught.value.__cause__, ConfigError)
    assert "needs a query" in str(caught.value.__cause__)
    assert begins in str(caught.value.__cause__)
    event = await deferred(sql=f"delete from kept; {sql}", output_path=str(path))
    assert (event["kind"], event["retryable"]) == ("ConfigError", False)
    assert "needs a query" in event["message"]
    assert hook.get_records("select i from kept") == [(1,)]
    assert not path.exists()
