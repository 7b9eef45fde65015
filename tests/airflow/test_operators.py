"""The operators alone, without a DAG run."""

from __future__ import annotations

import importlib
import inspect
import re
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import BaseOperator

from lakebase_provider import get_provider_info
from lakebase_provider._airflow.task.failing_fast import failing_fast
from lakebase_provider.core.connect.cancel import ASKED_TO_END, forget_request_to_end, refuse_next_statement
from lakebase_provider.core.errors import (
    CommitUnknownError,
    ConfigError,
    EndpointWakingError,
    HealthCheckError,
    LockTimeoutError,
    LoginRejectedError,
    ResultTooLargeError,
)
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.health import LakebaseHealthCheckOperator
from lakebase_provider.operators.sql import LakebaseSqlOperator
from tests.airflow.conftest import EXAMPLES, connection_fields, define


def run(**arguments: Any) -> Any:
    context: Any = {}
    return LakebaseSqlOperator(task_id="sql", **arguments).execute(context)


def refusal(**arguments: Any) -> BaseException | None:
    """The cause of the failure that Airflow does not retry."""
    with pytest.raises(AirflowFailException) as caught:
        run(**arguments)
    return caught.value.__cause__


def test_sql_returns_rows_and_takes_parameters(lake: LocalLakebase) -> None:
    assert run(sql="select %(n)s::int", parameters={"n": 1}) == [(1,)]
    assert run(sql="select current_database()", database="postgres") == [("postgres",)]


def test_timeouts_reach_the_server(lake: LocalLakebase) -> None:
    shown = "select current_setting('statement_timeout'), current_setting('lock_timeout')"
    assert run(sql=shown, statement_timeout=1.5, lock_timeout=2) == [("1500ms", "2s")]
    assert run(sql=shown) == [("0", "0")]
    cause = refusal(sql="select pg_sleep(30)", statement_timeout=0.1)
    assert isinstance(cause, psycopg.errors.QueryCanceled)


@pytest.mark.parametrize(
    ("sql", "cause"),
    [
        ("selekt 1", psycopg.errors.SyntaxError),
        ("select * from no_such_table", psycopg.errors.UndefinedTable),
        ("select 1/0", psycopg.errors.DivisionByZero),
        ("create table pg_catalog.mine (i int)", psycopg.errors.InsufficientPrivilege),
    ],
)
def test_what_the_server_will_never_do_is_not_retried(
    lake: LocalLakebase, sql: str, cause: type[BaseException]
) -> None:
    assert isinstance(refusal(sql=sql), cause)


def test_a_lock_that_is_not_had_may_be_had_later(lake: LocalLakebase) -> None:
    run(sql="create table if not exists locked (i int)")
    with LakebaseHook().client.connection() as other:
        other.execute("lock table locked")
        with pytest.raises(LockTimeoutError):
            run(sql="select * from locked", lock_timeout=0.1)


def test_a_transaction_that_may_only_read_refuses_to_write(lake: LocalLakebase) -> None:
    run(sql="create table if not exists kept (i int)")
    assert run(sql="select count(*) from kept", read_only=True) == [(0,)]
    cause = refusal(sql="insert into kept values (1)", read_only=True)
    assert isinstance(cause, psycopg.errors.ReadOnlySqlTransaction)
    assert run(sql=["insert into kept values (1)", "delete from kept returning i"])[-1] == [(1,)]


def test_too_many_rows_are_rolled_back_and_not_pushed(lake: LocalLakebase) -> None:
    run(sql="create table if not exists bounded (i int)")
    insert = "insert into bounded select generate_series(1, 4) returning i"
    cause = refusal(sql=insert, max_xcom_rows=3)
    assert isinstance(cause, ResultTooLargeError)
    assert "4 rows" in str(cause)
    assert "output_path" in cause.remedy
    assert LakebaseHook().get_first("select count(*) from bounded") == (0,)
    cause = refusal(sql="select generate_series(1, 4)", max_xcom_rows=3, handler=lambda c: list(c))
    assert isinstance(cause, ResultTooLargeError)
    # What does not go to XCom is not limited, nor is what the handler has made small.
    assert run(sql="select generate_series(1, 4)", max_xcom_rows=3, do_xcom_push=False) is None
    assert run(sql="select generate_series(1, 4)", max_xcom_rows=3, handler=lambda c: len(list(c))) == 4
    assert len(run(sql="select generate_series(1, 20000)", max_xcom_rows=None)) == 20_000


MIXED = """
    select 1 as id, 'é, "x"' as name, 1.50::numeric as amount, null::int as missing, '{1,2}'::int[] as tags,
        '{"a": 1}'::jsonb as doc, timestamptz '2026-01-02 03:04:05+00' as at, '\\x00ff'::bytea as raw
"""


def test_rows_go_to_a_file_of_csv(lake: LocalLakebase, tmp_path: Path) -> None:
    path = tmp_path / "new" / "result.csv"
    assert run(sql=MIXED, output_path=str(path)) == {"path": str(path), "rows": 1}
    header, line = path.read_text().splitlines()
    assert header == "id,name,amount,missing,tags,doc,at,raw"
    assert line == '1,"é, ""x""",1.50,,"{1,2}","{""a"": 1}",2026-01-02 03:04:05+00,\\x00ff'


def test_rows_go_to_a_file_of_json_lines(lake: LocalLakebase, tmp_path: Path) -> None:
    path = f"file://{tmp_path}/result.jsonl"
    assert run(sql=MIXED, output_path=path)["rows"] == 1
    import json

    text = (tmp_path / "result.jsonl").read_text()
    (row,) = map(json.loads, text.splitlines())
    assert row["tags"] == [1, 2]
    assert row["doc"] == {"a": 1}
    assert row["missing"] is None
    assert '"amount": 1.50' in text


def test_rows_go_to_a_file_of_parquet(lake: LocalLakebase, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "result.parquet"
    many = f"select t.* from ({MIXED}) t, generate_series(1, 2500)"
    assert run(sql=many, output_path=str(path))["rows"] == 2500
    table = pq.read_table(path)
    assert table.num_rows == 2500
    row = table.slice(2499).to_pylist()[0]
    assert row["at"] == datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    assert row["raw"] == b"\x00\xff"
    assert row["missing"] is None
    assert row["doc"] == '{"a": 1}'
    assert Decimal(row["amount"]) == Decimal("1.50")


def test_an_empty_result_is_a_file_with_its_columns(lake: LocalLakebase, tmp_path: Path) -> None:
    path = tmp_path / "empty.csv"
    assert run(sql="select 1 as one where false", output_path=str(path))["rows"] == 0
    assert path.read_text() == "one\n"


def test_a_query_that_breaks_off_leaves_no_file_and_no_changes(lake: LocalLakebase, tmp_path: Path) -> None:
    path = tmp_path / "half.csv"
    run(sql="create table if not exists before_half (i int)")
    # The division fails in the third portion of rows.
    statements = [
        "insert into before_half values (1)",
        "select 1 / (2500 - i) from generate_series(1, 3000) i",
    ]
    assert isinstance(refusal(sql=statements, output_path=str(path)), psycopg.errors.DivisionByZero)
    assert not path.exists()
    assert LakebaseHook().get_first("select count(*) from before_half") == (0,)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"deferrable": True, "handler": list}, "handler"),
        ({"deferrable": True, "return_last": False}, "return_last"),
        ({"deferrable": True, "output_processor": lambda rows, _: rows}, "output_processor"),
        ({"deferrable": True, "hook_params": {"client_secret": "canary"}}, "client_secret"),
        ({"deferrable": True, "parameters": {"day": datetime(2026, 1, 1)}}, "'day' holds a datetime"),
        ({"deferrable": True, "parameters": [1, Decimal(1)]}, "number 2 holds a Decimal"),
        ({"deferrable": True, "parameters": {"ids": (1, 2)}}, "Pass a list"),
        ({"deferrable": True, "parameters": {"x": [float("nan")]}}, "'x' holds a float"),
        ({"output_path": "result.xls"}, "not end in a known format"),
        ({"output_path": "result.csv", "handler": list}, "handler"),
        ({"output_path": "result.csv", "autocommit": True}, "output_path"),
        ({"read_only": True, "autocommit": True}, "read_only"),
        ({"max_xcom_rows": 0}, "max_xcom_rows"),
    ],
)
def test_what_cannot_work_is_refused_when_the_dag_is_parsed(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LakebaseSqlOperator(task_id="sql", sql="select 1", **arguments)
    assert named in str(caught.value)
    assert "canary" not in str(caught.value)


def test_no_secret_gets_into_a_template_field(lake: LocalLakebase) -> None:
    operator = LakebaseSqlOperator(task_id="sql", sql="select 1", hook_params={"max_size": 1})
    operator.execute({})
    assert operator.hook_params == {"max_size": 1}
    assert operator.get_db_hook().config.max_size == 1


def test_a_kill_before_anything_runs_makes_no_connection(lake: LocalLakebase) -> None:
    LakebaseSqlOperator(task_id="sql", sql="select 1").on_kill()
    assert lake.admin.counters().logins == 0


def test_a_refused_login_is_not_retried(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> None:
    define(monkeypatch, **connection_fields(lake, login="nobody", extra={"client_id": lake.client_id}))
    with pytest.raises(AirflowFailException, match="databricks_create_role") as caught:
        run(sql="select 1")
    assert isinstance(caught.value.__cause__, LoginRejectedError)


def test_what_a_retry_may_help_is_left_as_it_is() -> None:
    waking = EndpointWakingError("The compute is starting.")
    with pytest.raises(EndpointWakingError) as caught, failing_fast():
        raise waking
    assert caught.value is waking
    with pytest.raises(AirflowFailException) as final, failing_fast():
        raise ConfigError("Setting 'x' is wrong.")
    assert isinstance(final.value.__cause__, ConfigError)


def test_what_fails_in_a_task_that_is_asked_to_end_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    refuse_next_statement()
    try:
        # Whichever error a driver makes of it.
        with pytest.raises(psycopg.errors.InvalidTextRepresentation), failing_fast():
            raise psycopg.errors.InvalidTextRepresentation
        assert f"The task is ending because {ASKED_TO_END}" in caplog.text
        # But nobody knows what a second try of this would do.
        with pytest.raises(AirflowFailException), failing_fast():
            raise CommitUnknownError("The connection was lost.")
    finally:
        forget_request_to_end()
    with pytest.raises(AirflowFailException), failing_fast():
        raise psycopg.errors.InvalidTextRepresentation


class Pushed:
    """A task instance that keeps what is pushed."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.values[key] = value


def check(**arguments: Any) -> dict[str, Any]:
    """The report, whether the operator returns or fails with it."""
    pushed = Pushed()
    context: Any = {"ti": pushed}
    try:
        return LakebaseHealthCheckOperator(task_id="health", **arguments).execute(context)
    except HealthCheckError as error:
        return {**pushed.values["return_value"], "raised": str(error)}


def test_a_healthy_report_has_its_figures(lake: LocalLakebase) -> None:
    report = check(
        limits={
            "max_connections_used": 1,
            "min_token_seconds": 60,
            "max_connect_ms": 60_000,
            "max_wake_seconds": 60,
        },
    )
    assert (report["ok"], report["status"], report["breaches"]) == (True, "ok", [])
    assert report["figures"]["max_connections"] > 0


def test_a_limit_that_is_passed_fails_or_warns(lake: LocalLakebase, caplog: pytest.LogCaptureFixture) -> None:
    report = check(checks=["query"], limits={"max_connect_ms": 0.001})
    assert "max_connect_ms=0.001 is not met" in report["raised"]
    assert (report["ok"], report["status"]) == (True, "warn")
    assert [breach["name"] for breach in report["breaches"]] == ["max_connect_ms"]
    report = check(checks=["query"], limits={"max_connect_ms": 0.001}, fail_on="error")
    assert "raised" not in report
    assert report["status"] == "warn"


def test_limits_that_cannot_work_are_refused(lake: LocalLakebase) -> None:
    with pytest.raises(ConfigError, match="max_connections_used"):
        LakebaseHealthCheckOperator(task_id="health", limits={"max_connections_used": 80})
    with pytest.raises(ConfigError, match="fail_on"):
        LakebaseHealthCheckOperator(task_id="health", fail_on="never")
    with pytest.raises(ConfigError, match="needs the stage 'login'"):
        LakebaseHealthCheckOperator(task_id="health", checks=["tls"], limits={"max_connect_ms": 100})
    operator = LakebaseHealthCheckOperator(
        task_id="health", checks="{{ checks }}", limits={"max_connect_ms": 100}
    )  # type: ignore[arg-type] # a template
    operator.checks = ["tls"]
    with pytest.raises(AirflowFailException, match="needs the stage 'login'"):
        operator.execute({})
    assert lake.admin.counters().logins == 0


def operators() -> list[str]:
    info = get_provider_info()
    modules = [
        name for kind in ("operators", "sensors") for row in info[kind] for name in row["python-modules"]
    ]
    return [
        name
        for module in modules
        for name, kind in inspect.getmembers(importlib.import_module(module), inspect.isclass)
        if kind.__module__ == module and issubclass(kind, BaseOperator)
    ]


@pytest.mark.parametrize("name", operators())
def test_each_operator_stands_in_an_example_between_markers(name: str) -> None:
    text = "\n".join(file.read_text() for file in EXAMPLES.glob("*.py"))
    snippets = re.findall(r"# \[START (\w+)\](.*?)# \[END \1\]", text, re.DOTALL)
    assert any(f"{name}(" in body for _marker, body in snippets)


def test_the_session_bears_dag_task_and_run(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = "select current_setting('application_name')"
    monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", "sales")
    monkeypatch.setenv("AIRFLOW_CTX_TASK_ID", "load")
    monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", "scheduled__2026-01-02T03:04:05.678901+00:00")
    assert run(sql=shown) == [("sales.load@2026-01-02T03:04:05",)]
    monkeypatch.setenv("AIRFLOW_CTX_TASK_ID", "x" * 80)
    ((name,),) = run(sql=shown)
    assert name == f"sales.{'x' * 37}@2026-01-02T03:04:05"
    assert len(name) == 63
    monkeypatch.setenv("AIRFLOW_CTX_TASK_ID", "load")
    monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", "by_hand")
    assert run(sql=shown) == [("sales.load@by_hand",)]
