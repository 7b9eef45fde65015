"""The sensors alone, without a DAG run."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from airflow.exceptions import AirflowRescheduleException
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.shared import close_shared_clients
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.sensors.health import LakebaseHealthSensor
from lakebase_provider.sensors.sql import LakebaseSqlSensor
from lakebase_provider.triggers.polling import LakebaseHealthTrigger, LakebaseSqlSensorTrigger
from tests.airflow.conftest import connection_fields, define
from tests.eventually import eventually


class Rescheduled:
    """A task instance of a sensor that was not rescheduled before."""

    def get_first_reschedule_date(self, _context: Any) -> None:
        return None


def execute(sensor: Any) -> Any:
    context: Any = {"ti": Rescheduled()}
    return sensor.execute(context)


def sql(statement: str = "select count(*) from landed", **arguments: Any) -> LakebaseSqlSensor:
    arguments = {"poke_interval": 0, "timeout": 5, **arguments}
    return LakebaseSqlSensor(task_id="sensor", sql=statement, **arguments)


@pytest.fixture(autouse=True)
def landed(lake: LocalLakebase) -> None:
    LakebaseHook().run(["drop table if exists landed", "create table landed (i int)"])


def test_it_waits_for_a_true_cell_over_one_connection(lake: LocalLakebase) -> None:
    logins = lake.admin.counters().logins
    with pytest.raises(AirflowSensorTimeout):
        execute(sql(timeout=0.2))
    LakebaseHook().run("insert into landed values (1)")
    assert execute(sql()) is None
    assert execute(sql("select %(i)s = i from landed", parameters={"i": 1})) is None
    # The fixture's connection, and none besides.
    assert lake.admin.counters().logins == logins


def test_reschedule_mode_hands_the_slot_back(lake: LocalLakebase) -> None:
    with pytest.raises(AirflowRescheduleException):
        execute(sql(mode="reschedule", poke_interval=60))


def test_its_functions_are_those_of_common_sql(lake: LocalLakebase) -> None:
    LakebaseHook().run("insert into landed values (7)")
    rows = "select i, 'x' from landed"
    assert execute(sql(rows, success=lambda i: i == 7)) is None
    assert execute(sql(rows, selector=lambda row: row[1], success=lambda cell: cell == "x")) is None
    with pytest.raises(AirflowException, match="Failure criteria met"):
        execute(sql(rows, failure=lambda i: i == 7))
    with pytest.raises(AirflowException, match="No rows"):
        execute(sql("select 1 where false", fail_on_empty=True))


def test_what_only_a_change_of_sql_helps_is_not_waited_for(lake: LocalLakebase) -> None:
    with pytest.raises(AirflowFailException, match="no_such_table"):
        execute(sql("select * from no_such_table"))
    with pytest.raises(AirflowSensorTimeout):
        execute(sql("select * from no_such_table", silent_fail=True, timeout=0.2))
    with pytest.raises(AirflowFailException, match="statement timeout"):
        execute(sql("select pg_sleep(30)", statement_timeout=0.1))


def test_deferred_it_polls_once_and_hands_over(lake: LocalLakebase) -> None:
    LakebaseHook().run("insert into landed values (1)")
    assert execute(sql(deferrable=True)) is None
    waiting = sql("select count(*) > 5 from landed", deferrable=True, statement_timeout=2, timeout=77)
    with pytest.raises(TaskDeferred) as deferred:
        execute(waiting)
    trigger = deferred.value.trigger
    assert isinstance(trigger, LakebaseSqlSensorTrigger)
    assert trigger.session["statement_timeout"] == "2000ms"
    assert deferred.value.timeout is not None
    assert deferred.value.timeout.total_seconds() == 77
    assert waiting.execute_complete({}, {"status": "success", "empty": False}) is None


def failed_event(*, retryable: bool) -> dict[str, Any]:
    return {"status": "error", "kind": "X", "message": "m", "remedy": "r", "retryable": retryable}


def test_a_failed_trigger_fails_the_task_as_its_error_says() -> None:
    sensor = sql(deferrable=True)
    with pytest.raises(AirflowFailException, match=r"(?s)m .*\nRemedy: r"):
        sensor.execute_complete({}, failed_event(retryable=False))
    with pytest.raises(AirflowException) as caught:
        sensor.execute_complete({}, failed_event(retryable=True))
    assert not isinstance(caught.value, AirflowFailException)
    with pytest.raises(AirflowException, match="No rows"):
        sensor.execute_complete({}, {"status": "success", "empty": True})
    with pytest.raises(AirflowSkipException):
        sql(deferrable=True, never_fail=True).resume_execution(
            "execute_complete", {"event": failed_event(retryable=True)}, {}
        )


@pytest.mark.parametrize("name", ["success", "failure", "selector"])
def test_a_function_cannot_be_sent_to_the_triggerer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function: Any = bool
    with pytest.raises(ConfigError, match=f"'{name}' is a function"):
        sql(deferrable=True, **{name: function})
    # Where it is the deployment that would rather defer, the sensor still works.
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    assert not sql(**{name: function}).deferrable
    assert sql().deferrable


def health(**arguments: Any) -> LakebaseHealthSensor:
    return LakebaseHealthSensor(task_id="health", **{"poke_interval": 0, "timeout": 5, **arguments})


def test_a_healthy_connection_is_reported(lake: LocalLakebase) -> None:
    report = execute(health(checks=["query"], limits={"max_connections_used": 1}))
    assert (report["status"], report["breaches"]) == ("ok", [])


def test_it_waits_for_what_fails_and_for_limits(lake: LocalLakebase) -> None:
    too_strict: dict[str, Any] = {"checks": ["login"], "limits": {"max_connect_ms": 0.001}, "timeout": 0.1}
    with pytest.raises(AirflowSensorTimeout):
        execute(health(**too_strict))
    assert execute(health(**too_strict, fail_on="error"))["status"] == "warn"
    lake.admin.disable_endpoint()
    with pytest.raises(AirflowSensorTimeout):
        execute(health(checks=["login"], timeout=0.1))
    with pytest.raises(TaskDeferred) as deferred:
        execute(health(checks=["login"], deferrable=True, stage_timeout=3, limits={"max_wake_seconds": 9}))
    trigger = deferred.value.trigger
    assert isinstance(trigger, LakebaseHealthTrigger)
    assert (trigger.checks, trigger.stage_timeout, trigger.fail_on) == (["login"], 3, "warn")
    assert trigger.limits["max_wake_seconds"] == 9


def test_settings_that_cannot_work_end_it_at_once(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor = health(checks="{{ params.checks }}")
    # As a DAG renders it that has native objects rendered.
    sensor.checks = ["tsl"]
    with pytest.raises(AirflowFailException, match="'tsl'"):
        execute(sensor)
    define(monkeypatch, **connection_fields(lake, extra={"endpoint": "projects/p"}))
    with pytest.raises(AirflowFailException, match="endpoint"):
        execute(health())


@pytest.mark.parametrize("kind", ["sql", "health"])
def test_a_sensor_that_polls_in_the_worker_leaves_no_session_between_seldom_polls(
    lake: LocalLakebase, kind: str
) -> None:
    close_shared_clients()
    with psycopg.connect(lake.superuser_dsn, dbname="databricks_postgres", autocommit=True) as observer:
        query = "select count(*) from pg_stat_activity where backend_type = 'client backend'"
        (before,) = observer.execute(query).fetchone() or (0,)
        sensor: Any = sql(poke_interval=60)
        if kind == "health":
            sensor = LakebaseHealthSensor(task_id="sensor", poke_interval=60)
        for _poll in range(2):
            sensor.poke({})
            # It would keep the compute from being suspended until the next poll, and for longer.
            eventually(lambda: observer.execute(query).fetchone() == (before,))
        (often := sql(poke_interval=0.1)).poke({})
        logins = lake.admin.counters().logins
        often.poke({})
        assert lake.admin.counters().logins == logins
