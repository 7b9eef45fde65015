"""The hook on a real Postgres: one connection, one token, clean sessions, values as they are."""

from __future__ import annotations

import datetime
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from airflow.providers.common.sql.hooks.handlers import fetch_all_handler

from lakebase_provider.core.errors import ConfigError, DatabaseMissingError, LakebaseError, LoginRejectedError
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


@pytest.mark.parametrize("df_type", ["pandas", "polars"])
def test_chunks_of_no_rows_are_one_frame_that_has_the_columns(lake: LocalLakebase, df_type: Any) -> None:
    for sql in ("select 1 as a, 'x' as b where false", "delete from pg_temp.none returning i as a, 'x' as b"):
        hook = LakebaseHook()
        whole = f"create temp table none (i int); {sql}" if "none" in sql else sql
        (frame,) = hook.get_df_by_chunks(whole, chunksize=2, df_type=df_type)
        assert (list(frame.columns), len(frame)) == (["a", "b"], 0)
    (full,) = hook.get_df_by_chunks("select 1 as a", chunksize=1, df_type=df_type)
    assert len(full) == 1


def test_the_primary_key_of_no_table_is_none(lake: LocalLakebase) -> None:
    hook = LakebaseHook()
    hook.run("create table if not exists keyless (i int)")
    tables = [("keyless", None), ("no_such_table", None), ("no_such_table", "public"), ("t", "no_such")]
    for table, schema in [*tables, ("no_such.table", None), ('"No such"."ta""ble"', None)]:
        assert hook.get_table_primary_key(table, schema) is None
    hook.run("drop table keyless")


EXACT = Decimal("12345678901234567.89")


def test_numbers_stay_exact_in_data_frames(lake: LocalLakebase) -> None:
    hook = LakebaseHook()
    sql = f"select {EXACT}::numeric(38, 2) as n, {EXACT} as free, 9007199254740993 as i"
    for frame in (hook.get_df(sql), next(iter(hook.get_df_by_chunks(sql, chunksize=1)))):
        assert frame["n"].tolist() == [EXACT]
        assert frame["i"].tolist() == [9007199254740993]
    assert hook.get_df(sql, coerce_float=True)["n"].dtype == "float64"
    # Beside NULL pandas makes floats of integers, which these do not survive; smaller ones do.
    beside = "select case n when 2 then 9007199254740993 end as i, nullif(n, 1)::int8 as small"
    beside += " from generate_series(1, 3) n"
    frame, chunks = hook.get_df(beside), list(hook.get_df_by_chunks(beside, chunksize=2))
    assert frame["i"].dropna().tolist() == chunks[0]["i"].dropna().tolist() == [9007199254740993]
    assert frame["i"].isna().tolist() == [True, False, True]
    assert str(frame["small"].dtype) == "float64"
    assert hook.get_df(beside, index_col="i", dtype={"small": "Int64"}).index[1] == 9007199254740993
    frame = hook.get_df(sql, df_type="polars")
    assert str(frame.schema["n"]) == "Decimal(precision=38, scale=2)"
    assert frame.row(0) == (EXACT, EXACT, 9007199254740993)


@pytest.mark.parametrize("rows", [0, 5, 500])
def test_polars_columns_have_the_servers_types_however_late_values_come(
    lake: LocalLakebase, rows: int
) -> None:
    import polars

    hook = LakebaseHook()
    sql = f"""
        select case when i = {rows} then i end as a, case when i = {rows} then '{{}}'::jsonb end as j,
            case when i = {rows} then gen_random_uuid() end as u, 1.5::numeric(5, 2) as n,
            '2025-01-01T00:00:00Z'::timestamptz as t, null::bytea as b, array[1, 2] as l
        from generate_series(1, {rows}) i
    """
    types = [polars.Int32, polars.String, polars.String, polars.Decimal(5, 2)]
    types += [polars.Datetime("us", "UTC"), polars.Binary]
    frame = hook.get_df(sql, df_type="polars")
    assert frame.height == rows
    assert frame.dtypes[:6] == types
    for chunk in hook.get_df_by_chunks(sql, df_type="polars", chunksize=100):
        assert chunk.dtypes[:6] == types
    late = hook.get_df(sql, df_type="polars", schema_overrides={"a": polars.Int64})
    assert late.dtypes[0] == polars.Int64


def test_data_frames_of_several_statements_and_of_what_is_no_query(lake: LocalLakebase) -> None:
    hook = LakebaseHook()
    hook.run("create table if not exists framed (i int)")
    insert = "insert into framed select generate_series(1, 3) returning i"
    assert hook.get_df(["truncate framed", insert])["i"].tolist() == [1, 2, 3]
    assert hook.get_df("truncate framed; " + insert)["i"].tolist() == [1, 2, 3]
    assert [len(f) for f in hook.get_df_by_chunks(insert, chunksize=2)] == [2, 1]
    assert [f.height for f in hook.get_df_by_chunks(insert, chunksize=2, df_type="polars")] == [2, 1]
    assert hook.get_first("select count(*) from framed") == (9,)
    with pytest.raises(psycopg.errors.UndefinedColumn):
        hook.get_df("select nothing from framed")
    hook.run("drop table framed")


@pytest.mark.parametrize("df_type", ["pandas", "polars"])
def test_chunks_are_fetched_as_they_are_asked_for(lake: LocalLakebase, df_type: Any) -> None:
    hook = LakebaseHook()
    # All rows of it would not fit into this machine's memory.
    chunks = hook.get_df_by_chunks("select generate_series(1, 1e12::int8) i", chunksize=10, df_type=df_type)
    assert len(next(chunks)) == 10
    chunks.close()
    assert hook.get_first("select count(*) from pg_cursors") == (0,)


def test_a_server_side_cursor(lake: LocalLakebase) -> None:
    with closing(LakebaseHook().get_conn()) as conn, conn.cursor(name="mine") as cursor:
        cursor.execute("select generate_series(%s, 1e12::int8)", (2,))
        assert cursor.fetchmany(2) == [(2,), (3,)]


def test_one_read_takes_one_round_trip_and_all_else_a_transaction(lake: LocalLakebase) -> None:
    idle, in_transaction = psycopg.pq.TransactionStatus.IDLE, psycopg.pq.TransactionStatus.INTRANS

    def status(cursor: Any) -> Any:
        return cursor.connection.info.transaction_status

    hook = LakebaseHook()
    assert hook.run("select 1", handler=status) == idle
    assert hook.run("select %s::int", parameters=(1,), handler=status) == idle
    assert hook.run("select 1", autocommit=True, handler=status) == idle
    for harmful in ("select pg_advisory_lock(1)", "create temp table t (i int)", "select 1; select 2"):
        assert hook.run(harmful, handler=status) == in_transaction
    assert hook.run(["select 1", "select 2"], handler=status) == [in_transaction] * 2
    assert LakebaseHook(read_only=True).run("select 1", handler=status) == in_transaction


def test_a_text_of_several_statements_returns_what_the_last_does(lake: LocalLakebase) -> None:
    hook = LakebaseHook()
    assert hook.get_records("create temp table t (i int); insert into t values (1); select * from t") == [
        (1,)
    ]
    assert hook.get_records("select 1; set statement_timeout to 0") is None


def test_splitting(lake: LocalLakebase) -> None:
    hook = LakebaseHook()
    everything = {"split_statements": True, "return_last": False, "handler": fetch_all_handler}
    assert hook.run("select 1; select ';'; -- end", **everything) == [[(1,)], [(";",)]]
    assert hook.run("select 1", **everything) == [[(1,)]]
    assert [len(description or ()) for description in hook.descriptions] == [1]
    assert hook.run("select 1; select 2", split_statements=True, handler=fetch_all_handler) == [(2,)]
    assert hook.run("select 1, 2", handler=fetch_all_handler) == [(1, 2)]
    assert len(hook.last_description or ()) == 2
    for nothing in ("", " ", []):
        with pytest.raises(ValueError, match="empty"):
            hook.run(nothing)
    with pytest.raises(ConfigError, match="parameters are of type str"):
        hook.run("select %s", parameters="x")


@pytest.mark.parametrize("commit_every", [0, 1, 3, 1000])
def test_insert_rows_loads_all_in_transactions_of_that_size(lake: LocalLakebase, commit_every: int) -> None:
    hook = LakebaseHook()
    hook.run("drop table if exists loaded; create table loaded (i int primary key)")
    hook.insert_rows("loaded", ((i,) for i in range(7)), commit_every=commit_every)
    assert hook.get_first("select count(*), count(distinct xmin::text) from loaded") == (
        7,
        {0: 1, 1: 7, 3: 3, 1000: 1}[commit_every],
    )
    with pytest.raises(psycopg.errors.UniqueViolation):
        hook.insert_rows("loaded", [(7,), (8,), (0,)], commit_every=commit_every)
    assert hook.get_first("select count(*) from loaded") == ({0: 7, 1: 9, 3: 7, 1000: 7}[commit_every],)
    hook.run("drop table loaded")


def test_insert_rows_takes_a_generator_of_any_length(lake: LocalLakebase) -> None:
    import gc
    import weakref

    class Cell(str):
        """A text that can be counted while it lives."""

    alive: weakref.WeakSet[Cell] = weakref.WeakSet()
    most = 0

    def rows() -> Any:
        nonlocal most
        for i in range(5000):
            cell = Cell(str(i))
            alive.add(cell)
            if i % 500 == 0:
                gc.collect()
                most = max(most, len(alive))
            yield (cell,)

    hook = LakebaseHook()
    hook.run("drop table if exists long; create table long (i text)")
    hook.insert_rows("long", rows(), commit_every=0)
    assert hook.get_first("select count(*), count(distinct i) from long") == (5000, 5000)
    assert most < 2500
    hook.run("drop table long")


@pytest.mark.parametrize("commit_every", [-1, 1.5, "10", True])
def test_insert_rows_refuses_a_size_that_is_none(lake: LocalLakebase, commit_every: Any) -> None:
    with pytest.raises(ConfigError, match="commit_every is"):
        LakebaseHook().insert_rows("loaded", [(1,)], commit_every=commit_every)


def test_upsert_rows(lake: LocalLakebase) -> None:
    hook = LakebaseHook()
    hook.run("drop table if exists up; create table up (id int primary key, a text, b text)")
    fields, key = ["id", "a", "b"], ["id"]
    hook.upsert_rows("up", [(1, "a", "b"), (2, "a", "b")], fields, key)
    hook.upsert_rows("up", [(1, "A", "B")], fields, key, update_fields=["a"])
    hook.upsert_rows("up", [(2, "A", "B"), (3, "x", "y")], fields, key, update_fields=[])
    assert hook.get_records("select * from up order by id") == [(1, "A", "b"), (2, "a", "b"), (3, "x", "y")]
    hook.run("create table if not exists keyless (i int)")
    with pytest.raises(ConfigError, match="no primary key"):
        hook.insert_rows("keyless", [(1,)], ["i"], replace=True)
    hook.run("drop table up; drop table keyless")


def test_names_of_tables_and_columns_are_names_and_never_sql(lake: LocalLakebase) -> None:
    hook = LakebaseHook()
    hook.run('drop table if exists "Odd.Table"')
    hook.run('create table "Odd.Table" (id int primary key, "Col""umn" int, "order" int)')
    columns = ["ID", '"Col""umn"', "order"]
    hook.insert_rows('public."Odd.Table"', [(1, 2, 3)], columns, replace=True)
    hook.insert_rows('"Odd.Table"', [(1, 4, 5)], ["id", 'Col"umn', "order"], replace=True)
    assert hook.get_records('select * from "Odd.Table"') == [(1, 4, 5)]
    assert hook.get_table_primary_key('"Odd.Table"') == ["id"]
    assert hook.get_table_primary_key('"Odd.Table"', schema="public") == ["id"]
    assert hook.dialect.get_column_names('"Odd.Table"') == ["id", 'Col"umn', "order"]
    hook.run("create table if not exists plain (i int, g int generated always as (1) stored)")
    assert hook.get_table_primary_key("PLAIN") is None
    assert hook.dialect.get_target_fields("Plain") == ["i"]
    for bad in ("plain (i) values (1); drop table plain; --", "a.b.c", "", "plain; select 1"):
        with pytest.raises(LakebaseError):
            hook.get_table_primary_key(bad)
        with pytest.raises((LakebaseError, psycopg.errors.UndefinedTable)):
            hook.insert_rows(bad, [(1,)])
    with pytest.raises(psycopg.errors.UndefinedColumn):
        hook.insert_rows("plain", [(1,)], ["i) values (1); drop table plain; --"])
    hook.run('drop table "Odd.Table"; drop table plain')


def test_reserved_words_and_the_dialect(lake: LocalLakebase) -> None:
    hook = LakebaseHook()
    assert hook.dialect_name == hook.dialect.name == "postgresql"
    assert {"select", "order", "user"} <= hook.reserved_words
    assert hook.dialect.escape_word("order") == '"order"'
    assert hook.dialect.escape_word("plain") == "plain"
    assert hook.dialect.escape_word('a"b') == '"a""b"'
    assert LakebaseHook(escape_column_names=True).dialect.escape_word("plain") == '"plain"'


def test_bulk_dump_and_load(lake: LocalLakebase, tmp_path: Path) -> None:
    hook = LakebaseHook()
    hook.run("drop table if exists dumped; create table dumped (i int, t text)")
    rows = [(1, "a\tb\n\\"), (2, None), (3, "")]
    hook.insert_rows("dumped", rows)
    file = tmp_path / "dumped.tsv"
    hook.bulk_dump("dumped", str(file))
    hook.run("truncate dumped")
    hook.bulk_load("dumped", str(file))
    assert hook.get_records("select * from dumped order by i") == rows
    file.write_text("1\tok\nnot a number\tx\n")
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        hook.bulk_load("dumped", str(file))
    assert hook.get_first("select count(*) from dumped") == (3,)
    hook.run("drop table dumped")


def test_notices_are_logged_if_asked_for(
    lake: LocalLakebase, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    notice = "do $$ begin raise notice 'said %', 1; end $$"
    LakebaseHook(enable_log_db_messages=True).run(notice, autocommit=True)
    assert "said 1" in caplog.text + "".join(capfd.readouterr())
    caplog.clear()
    # The next borrower of the same connection did not ask.
    LakebaseHook(log_sql=False).run(notice, autocommit=True)
    assert "NOTICE: said 1" not in caplog.text + "".join(capfd.readouterr())


def test_dict_and_namedtuple_cursors(lake: LocalLakebase) -> None:
    hook = LakebaseHook(cursor="dictcursor")
    assert hook.get_records("select 1 as a, 2 as b") == [{"a": 1, "b": 2}]
    assert hook.get_df("select 1 as a")["a"].tolist() == [1]
    assert hook.get_cursor().execute("select 1 as a").fetchone() == {"a": 1}
    assert LakebaseHook(cursor="NamedTupleCursor").get_first("select 1 as a").a == 1
    assert LakebaseHook().get_first("select 1 as a") == (1,)
    hook.run("create table if not exists with_key (id int primary key)")
    assert hook.get_table_primary_key("with_key") == ["id"]
    hook.insert_rows("with_key", [(1,)], replace=True)
    assert hook.get_table_schema("with_key") == [{"name": "id", "type": "INTEGER"}]
    hook.inspector.engine.dispose()
    hook.run("drop table with_key")


def test_errors_of_sql_are_psycopgs_and_errors_of_connecting_are_ours(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in (LakebaseHook().get_first, LakebaseHook().get_df, LakebaseHook().run):
        with pytest.raises(psycopg.errors.SyntaxError):
            call("selct 1")
    define(monkeypatch, **connection_fields(lake, schema="no_such_database"))
    with pytest.raises(DatabaseMissingError):
        LakebaseHook().run("select 1")


def test_everything_of_postgres_hook_has_its_place(lake: LocalLakebase) -> None:
    """Names that PostgresHook and DbApiHook offer; PostgresHook itself need not be installed."""
    offered = """
        bulk_dump bulk_load connection connection_extra copy_expert descriptions dialect dialect_name
        enable_log_db_messages escape_column_names escape_word_format get_autocommit get_conn get_cursor
        get_db_log_messages get_df get_df_by_chunks get_first get_openlineage_database_dialect
        get_openlineage_database_info get_openlineage_database_specific_lineage get_openlineage_default_schema
        get_pandas_df get_pandas_df_by_chunks get_records get_reserved_words get_sqlalchemy_engine
        get_table_primary_key get_table_schema get_uri insert_rows insert_statement_format inspector
        last_description placeholder replace_statement_format reserved_words run set_autocommit
        split_sql_string sqlalchemy_url strip_sql_string test_connection upsert_rows database
    """
    has = {*dir(LakebaseHook), *vars(LakebaseHook())}
    assert set(offered.split()) - has == set()


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


def test_names_may_hold_percent_signs(lake: LocalLakebase) -> None:
    hook = LakebaseHook()
    hook.run('DROP TABLE IF EXISTS "90%s"; CREATE TABLE "90%s" (id int PRIMARY KEY, "share %" int)')
    hook.insert_rows('"90%s"', [(1, 50)], target_fields=["id", "share %"])
    hook.insert_rows('"90%s"', [(1, 60)], target_fields=["id", "share %"], replace=True, replace_index="id")
    assert hook.get_records('SELECT * FROM "90%s"') == [(1, 60)]
    hook.run('DROP TABLE "90%s"')
