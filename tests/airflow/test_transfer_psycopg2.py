"""Rows of a source whose hook is on psycopg2, as PostgresHook is with SQLAlchemy 1.4: by a named cursor."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest
from airflow.providers.common.sql.hooks.sql import DbApiHook

from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.transfer import LakebaseTransferOperator, SourceCursor
from tests.airflow.test_load_operators import executed

psycopg2 = pytest.importorskip("psycopg2", reason="psycopg2 is not installed: dagster-postgres brings it")


class Psycopg2Hook(DbApiHook):
    """A connection of psycopg2 to the same database, past the front end."""

    conn_name_attr = "psycopg2_conn_id"
    dsn = ""
    options: dict[str, Any] = {}  # noqa: RUF012 # set for one test

    def get_conn(self) -> Any:
        return psycopg2.connect(self.dsn, **self.options)


@pytest.fixture
def source(lake: LocalLakebase) -> Iterator[Psycopg2Hook]:
    hook = Psycopg2Hook()
    hook.dsn = f"{lake.superuser_dsn} dbname={lake.config().database}"
    LakebaseHook().run("drop table if exists loaded, lakebase_load")
    yield hook
    LakebaseHook().run("drop table if exists loaded, lakebase_load")


def transfer(source: Psycopg2Hook, sql: str, **arguments: Any) -> dict[str, Any]:
    operator = LakebaseTransferOperator(
        task_id="transfer", source_conn_id="psycopg2", sql=sql, table="loaded", **arguments
    )
    operator.__dict__["_source_hook"] = source
    return executed(operator)


def test_all_rows_arrive_with_their_values(source: Psycopg2Hook) -> None:
    LakebaseHook().run("create table loaded (id int, name text, price numeric, at timestamptz, raw bytea)")
    sql = """
        select n as id, nullif('n' || n, 'n7') as name, n / 4.0 as price,
            timestamptz '2026-01-02 03:04:05+00' as at, '\\x00ff'::bytea as raw
        from generate_series(1, 25000) as n where n > %(least)s
    """
    assert transfer(source, sql, parameters={"least": 5})["inserted"] == 24_995
    found = LakebaseHook().get_records(
        "select count(*), count(name), min(id), max(id) from loaded"
        " union all select count(distinct id), 0, 0, 0 from loaded"
    )
    assert found == [(24_995, 24_994, 6, 25_000), (24_995, 0, 0, 0)]
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    assert LakebaseHook().get_first("select * from loaded where id = 6") == (
        6,
        "n6",
        Decimal("1.5"),
        at,
        b"\x00\xff",
    )


def test_no_rows(source: Psycopg2Hook) -> None:
    LakebaseHook().run("create table loaded (id int)")
    assert transfer(source, "select 1 as id where false")["inserted"] == 0


def test_rows_as_dicts(source: Psycopg2Hook) -> None:
    from psycopg2.extras import RealDictCursor

    LakebaseHook().run("create table loaded (id int, name text)")
    source.options = {"cursor_factory": RealDictCursor}
    assert transfer(source, "select 'n' || n as name, n as id from generate_series(1, 2) n")["inserted"] == 2
    assert LakebaseHook().get_records("select * from loaded order by id") == [(1, "n1"), (2, "n2")]


def test_the_server_keeps_the_rows_that_are_not_fetched_yet(source: Psycopg2Hook) -> None:
    query = "select generate_series(1, 3000) as n"
    with SourceCursor(source, "psycopg2", query) as rows:
        assert [column[0] for column in rows.description] == ["n"]
        fetched = rows.fetchmany(2000)
        with rows._cursor.connection.cursor() as beside:
            beside.execute("select name from pg_cursors")
            assert beside.fetchall() == [("lakebase_transfer",)]
        assert 0 < len(fetched) <= 2000
        while more := rows.fetchmany(2000):
            fetched = [*fetched, *more]
    assert [n for (n,) in fetched] == list(range(1, 3001))
