"""The hook on a real Postgres: one connection, one token, clean sessions, values as they are."""

from __future__ import annotations

import datetime
from contextlib import closing
from decimal import Decimal
from typing import Any

import pytest
from airflow.providers.common.sql.hooks.handlers import fetch_all_handler

from lakebase_provider.core.errors import LakebaseError, LoginRejectedError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from tests.airflow.conftest import connection_fields, define


def test_ten_calls_open_one_connection_and_mint_one_token(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A name of its own makes it a new pool; the token of other tests' clients is thrown away.
    define(monkeypatch, **connection_fields(lake, extra={"application_name": "ten calls"}))
    tokens = LakebaseHook().client.tokens
    tokens.invalidate(tokens.get().fingerprint)
    before = lake.admin.counters()
    for number in range(10):
        assert LakebaseHook().get_first("select %s::int", parameters=(number,)) == (number,)
    after = lake.admin.counters()
    assert after.mints - before.mints == 1
    assert after.logins - before.logins == 1


def test_a_borrower_leaves_no_autocommit_and_no_search_path(lake: LocalLakebase) -> None:
    hook = LakebaseHook()
    default = hook.get_first("show search_path")
    hook.run(
        ["set search_path to pg_catalog", "set statement_timeout to '1h'", "create temp table t (i int)"],
        autocommit=True,
    )
    with closing(hook.get_conn()) as conn:
        assert conn.autocommit is False
    assert hook.get_first("show search_path") == default
    assert hook.get_first("show statement_timeout") == ("0",)
    assert hook.get_first("select to_regclass('pg_temp.t')") == (None,)


def test_an_uncommitted_change_is_gone_when_the_connection_is_closed(lake: LocalLakebase) -> None:
    hook = LakebaseHook()
    with closing(hook.get_conn()) as conn:
        conn.execute("create table forgotten (i int)")
    assert hook.get_first("select to_regclass('forgotten')") == (None,)


def test_autocommit_runs_what_no_transaction_may(lake: LocalLakebase) -> None:
    hook = LakebaseHook()
    hook.run("vacuum pg_catalog.pg_class", autocommit=True)


@pytest.mark.parametrize(
    ("sql", "parameters", "expected"),
    [
        ("select %s::text", ["a'b"], ("a'b",)),
        ("select %(n)s::int + 1", {"n": 41, "unused": 0}, (42,)),
        ("select 'ab' like 'a%'", None, (True,)),
        ("select %s::text like 'a%%'", ("ab",), (True,)),
        ("select 2 = any(%s::int[])", ([1, 2, 3],), (True,)),
        ("select %s::timestamptz", ("2025-01-01T00:00:00Z",), None),
        ("select %s::numeric(12,2)", (Decimal("1.10"),), (Decimal("1.10"),)),
    ],
)
def test_parameters(lake: LocalLakebase, sql: str, parameters: Any, expected: object) -> None:
    row = LakebaseHook().get_first(sql, parameters=parameters)
    if expected is None:
        assert isinstance(row[0], datetime.datetime)
    else:
        assert row == expected


def test_several_statements_share_named_parameters(lake: LocalLakebase) -> None:
    results = LakebaseHook().run(
        "select %(a)s::int; select %(b)s::int",
        parameters={"a": 1, "b": 2},
        split_statements=True,
        return_last=False,
        handler=fetch_all_handler,
    )
    assert results == [[(1,)], [(2,)]]


def test_insert_rows_keeps_values_as_they_are(lake: LocalLakebase) -> None:
    hook = LakebaseHook()
    hook.run("create table if not exists kinds (i int[], d date, n numeric, j jsonb, b bytea, t text)")
    row = ([1, 2], datetime.date(2025, 1, 2), Decimal("3.5"), {"k": [1]}, b"\x00\xff", None)
    hook.insert_rows("kinds", [row] * 3, target_fields=["i", "d", "n", "j", "b", "t"])
    assert hook.get_records("select * from kinds") == [row] * 3
    hook.run("drop table kinds")


def test_replace_updates_the_row_of_the_same_key(lake: LocalLakebase) -> None:
    hook = LakebaseHook()
    hook.run("create table if not exists keyed (id int primary key, v text)")
    fields: dict[str, Any] = {"target_fields": ["id", "v"], "replace": True}
    hook.insert_rows("keyed", [(1, "a"), (2, "b")], **fields, replace_index="id")
    hook.insert_rows("keyed", [(2, "c")], **fields)
    assert hook.get_records("select * from keyed order by id") == [(1, "a"), (2, "c")]
    hook.run("drop table keyed")


def test_data_frames(lake: LocalLakebase) -> None:
    hook = LakebaseHook()
    sql = "select i, 'x' as t from generate_series(1, %(n)s) as i"
    frame = hook.get_df(sql, parameters={"n": 5})
    assert frame["i"].tolist() == [1, 2, 3, 4, 5]
    chunks = list(hook.get_df_by_chunks(sql, parameters={"n": 5}, chunksize=2))
    assert [len(chunk) for chunk in chunks] == [2, 2, 1]
    polars = hook.get_df(sql, parameters={"n": 5}, df_type="polars")
    assert polars["i"].to_list() == [1, 2, 3, 4, 5]
    batches = list(hook.get_df_by_chunks(sql, parameters={"n": 5}, chunksize=2, df_type="polars"))
    assert sum(len(batch) for batch in batches) == 5


def test_the_engine_and_the_url_hold_no_secret(lake: LocalLakebase) -> None:
    hook = LakebaseHook()
    engine = hook.get_sqlalchemy_engine({"pool_size": 1})
    try:
        with engine.connect() as connection:
            assert connection.exec_driver_sql("select 1").scalar() == 1
        assert engine.url == hook.sqlalchemy_url
    finally:
        engine.dispose()
    assert hook.sqlalchemy_url.password is None
    assert lake.client_secret not in hook.get_uri()
    assert hook.get_uri().startswith("postgresql+psycopg://")


def test_the_schema_argument_changes_the_database(lake: LocalLakebase) -> None:
    with LakebaseHook().client.connect(autocommit=True) as conn:
        conn.execute("create database elsewhere")
    try:
        hook = LakebaseHook(schema="elsewhere")
        assert hook.get_first("select current_database()") == ("elsewhere",)
        other = LakebaseHook()
        assert other.get_first("select current_database()") == ("databricks_postgres",)
        other.schema = "elsewhere"
        assert other.get_first("select current_database()") == ("elsewhere",)
        hook.client.close()
    finally:
        with LakebaseHook().client.connect(autocommit=True) as conn:
            conn.execute("drop database elsewhere")


def test_inspection(lake: LocalLakebase) -> None:
    hook = LakebaseHook()
    hook.run("create table if not exists seen (id int primary key)")
    assert hook.get_table_schema("seen") == [{"name": "id", "type": "INTEGER"}]
    hook.inspector.engine.dispose()
    hook.run("drop table seen")


def test_test_connection_tells_each_stage(lake: LocalLakebase) -> None:
    ok, message = LakebaseHook().test_connection()
    assert ok, message
    for stage in ("resolve", "credential", "dns", "tcp", "tls", "login", "query", "write"):
        assert f"{stage} " in message


def test_test_connection_tells_what_to_do(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> None:
    define(monkeypatch, **connection_fields(lake, password="wrong-secret"))
    ok, message = LakebaseHook().test_connection()
    assert not ok
    assert "Remedy: Check the client id and secret" in message
    assert "wrong-secret" not in message


def test_test_connection_of_a_connection_that_is_no_configuration(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(monkeypatch, conn_type="lakebase")
    ok, message = LakebaseHook().test_connection()
    assert not ok
    assert "Connection 'lakebase_default': Setting 'endpoint' is missing" in message
    assert "Remedy: " in message


def test_a_refused_login_says_why(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> None:
    define(monkeypatch, **connection_fields(lake, extra={"client_id": lake.client_id}, login="nobody"))
    with pytest.raises(LoginRejectedError, match="nobody"):
        LakebaseHook().get_first("select 1")


def test_the_application_name_tells_the_task(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = "show application_name"
    assert LakebaseHook().get_first(shown) == ("lakebase-provider",)
    monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", "sales")
    monkeypatch.setenv("AIRFLOW_CTX_TASK_ID", "x" * 80)
    assert LakebaseHook().get_first(shown) == ("sales." + "x" * 57,)
    monkeypatch.setenv("AIRFLOW_CTX_TASK_ID", "load")
    assert LakebaseHook().get_first(shown) == ("sales.load",)
    assert LakebaseHook(application_name="by hand").get_first(shown) == ("by hand",)


def test_cancel_ends_the_statement_on_the_server(lake: LocalLakebase) -> None:
    import threading

    import psycopg

    hook = LakebaseHook()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            with closing(hook.get_conn()) as conn:
                conn.execute("select pg_sleep(60)")
        except LakebaseError as error:
            failures.append(error)
        except psycopg.errors.QueryCanceled as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    sleeping = (
        "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'"
    )
    with hook.client.connect(autocommit=True) as observer:
        while observer.execute(sleeping.encode()).fetchone() != (1,):
            pass
    hook.cancel()
    thread.join(30)
    assert [type(failure) for failure in failures] == [psycopg.errors.QueryCanceled]
