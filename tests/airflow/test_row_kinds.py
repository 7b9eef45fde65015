"""Whatever `cursor` says, common-sql's own code gets the rows that it takes, and users get theirs."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException
from airflow.providers.common.sql.operators.generic_transfer import GenericTransfer
from airflow.providers.common.sql.operators.sql import (
    BranchSQLOperator,
    SQLCheckOperator,
    SQLColumnCheckOperator,
    SQLIntervalCheckOperator,
    SQLTableCheckOperator,
    SQLThresholdCheckOperator,
    SQLValueCheckOperator,
)
from airflow.providers.common.sql.sensors.sql import SqlSensor

from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.sensors.sql import LakebaseSqlSensor
from tests.airflow.conftest import connection_fields, define

CONN: dict[str, Any] = {"task_id": "check", "conn_id": "lakebase_default"}


@pytest.fixture(params=[None, "dictcursor", "namedtuplecursor"])
def kind(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str | None:
    hook = LakebaseHook()
    hook.run("drop table if exists rows; create table rows (a int, b int, day date default current_date)")
    hook.run("drop table if exists copied; create table copied (a int, b int)")
    hook.run("insert into rows values (1, 10), (2, 20)")
    if request.param is not None:
        define(monkeypatch, **connection_fields(lake, extra={"cursor": request.param}))
    kind: str | None = request.param
    return kind


class _Pushed(SQLThresholdCheckOperator):
    def push(self, meta_data: Any) -> None:
        assert meta_data["result"] == 2


CHECKS = {
    "column": SQLColumnCheckOperator(**CONN, table="rows", column_mapping={"a": {"max": {"equal_to": 2}}}),
    "table": SQLTableCheckOperator(**CONN, table="rows", checks={"two": {"check_statement": "count(*) = 2"}}),
    "check": SQLCheckOperator(**CONN, sql="select count(*), max(a) from rows"),
    "value": SQLValueCheckOperator(**CONN, sql="select count(*) from rows", pass_value=2),
    "interval": SQLIntervalCheckOperator(
        **CONN, table="rows", date_filter_column="day", days_back=0,
        metrics_thresholds={"sum(a)": 1.5, "sum(b)": 1.5},
    ),
    "threshold": _Pushed(**CONN, sql="select count(*) from rows", min_threshold=1, max_threshold="select 3"),
}  # fmt: skip

# Two columns of one name, of which a dict has one; in place of days that Airflow's templates would fill in.
vars(CHECKS["interval"]).update(dict.fromkeys(("sql1", "sql2"), "select sum(a), sum(b) from rows"))

FAILING = {
    "column": SQLColumnCheckOperator(**CONN, table="rows", column_mapping={"a": {"max": {"equal_to": 3}}}),
    "table": SQLTableCheckOperator(**CONN, table="rows", checks={"two": {"check_statement": "count(*) = 3"}}),
    "check": SQLCheckOperator(**CONN, sql="select count(*), 0 as zero from rows"),
    "value": SQLValueCheckOperator(**CONN, sql="select count(*) from rows", pass_value=3),
}


@pytest.mark.parametrize("name", CHECKS)
def test_each_check_passes_and_fails_as_with_tuples(kind: str | None, name: str) -> None:
    context: Any = {}
    vars(CHECKS[name]).pop("_hook", None)
    CHECKS[name].execute(context)
    if name in FAILING:
        vars(FAILING[name]).pop("_hook", None)
        with pytest.raises(AirflowException):
            FAILING[name].execute(context)


@pytest.mark.parametrize("sensor", [SqlSensor, LakebaseSqlSensor])
def test_a_sensor_takes_its_cell_by_position_or_by_name(kind: str | None, sensor: Any) -> None:
    context: Any = {}
    assert sensor(**CONN, sql="select a, b from rows").poke(context)
    assert not sensor(**CONN, sql="select 0 as a").poke(context)
    by_name = {
        None: lambda row: row[1],
        "dictcursor": lambda row: row["b"],
        "namedtuplecursor": lambda row: row.b,
    }[kind]
    chosen = sensor(
        **CONN, sql="select a, b from rows order by a", selector=by_name, success=lambda b: b == 10
    )
    assert chosen.poke(context)


def test_a_branch_follows_its_cell(kind: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    branch = BranchSQLOperator(
        **CONN,
        sql="select count(*) = 2 from rows",
        follow_task_ids_if_true="yes",
        follow_task_ids_if_false="no",
    )
    followed: list[Any] = []
    monkeypatch.setattr(branch, "skip_all_except", lambda ti, ids: followed.append(ids), raising=False)
    monkeypatch.setattr(branch, "do_branch", lambda context, ids: followed.append(ids), raising=False)
    context: Any = {"ti": None}
    branch.execute(context)
    assert followed == ["yes"]


def test_a_transfer_copies_values(kind: str | None) -> None:
    context: Any = {}
    GenericTransfer(
        task_id="transfer", sql="select a, b from rows", destination_table="copied",
        source_conn_id="lakebase_default", destination_conn_id="lakebase_default",
    ).execute(context)  # fmt: skip
    with LakebaseHook().client.connection() as connection:
        assert connection.execute("select a, b from copied order by a").fetchall() == [(1, 10), (2, 20)]


def test_the_users_own_rows_stay_as_configured(kind: str | None) -> None:
    row = LakebaseHook().get_first("select a, b from rows order by a")
    expected: dict[str | None, type] = {None: tuple, "dictcursor": dict, "namedtuplecursor": tuple}
    assert isinstance(row, expected[kind])
    assert hasattr(row, "_fields") is (kind == "namedtuplecursor")
    if kind == "dictcursor":
        assert LakebaseHook().get_records("select a from rows order by a") == [{"a": 1}, {"a": 2}]
        with pytest.raises(KeyError):
            row[0]
