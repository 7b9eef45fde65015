"""A task whose trigger failed fails as if it had not been deferred."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import psycopg
import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, TaskDeferred

from lakebase_provider.core.errors import EndpointWakingError, LakebaseError, LoginRejectedError
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.sql import LakebaseSqlOperator
from lakebase_provider.sensors.sql import LakebaseSqlSensor
from tests.airflow.conftest import connection_fields, define

FINAL = "Not retried: a retry would not help."


def deferred(task: Any) -> Any:
    """Run a task through its trigger, what it sends stored in between."""
    try:
        return task.execute({})
    except TaskDeferred as asked:
        trigger = asked.trigger

    async def first_event() -> Any:
        try:
            async for event in trigger.run():
                return event.payload
        finally:
            await trigger.cleanup()

    return task.execute_complete({}, json.loads(json.dumps(asyncio.run(first_event()))))


def failure_of(run: Any, task: Any) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 # which one is the caller's question
        run(task)
    return caught.value


def operator(sql: str, **arguments: Any) -> LakebaseSqlOperator:
    return LakebaseSqlOperator(task_id="t", sql=sql, **arguments)


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("select * from absent", psycopg.errors.UndefinedTable),
        ("select 1/0", psycopg.errors.DivisionByZero),
        ("do $$ begin raise exception using errcode = '40001'; end $$", psycopg.errors.SerializationFailure),
        ("do $$ begin raise exception using errcode = '23505'; end $$", psycopg.errors.UniqueViolation),
    ],
)
def test_an_error_of_the_server_keeps_its_kind_and_code(
    lake: LocalLakebase, sql: str, kind: type[psycopg.Error]
) -> None:
    here = failure_of(lambda task: task.execute({}), operator(sql))
    there = failure_of(deferred, operator(sql, deferrable=True))
    assert type(there) is type(here)
    error = there.__cause__ if isinstance(there, AirflowFailException) else there
    assert isinstance(error, kind)
    assert error.sqlstate == kind.sqlstate
    assert (FINAL in str(there)) is isinstance(there, AirflowFailException)


def test_an_error_of_connecting_keeps_its_code_and_remedy(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(monkeypatch, **connection_fields(lake, extra={"client_id": lake.client_id}, login="nobody"))
    there = failure_of(deferred, operator("select 1", deferrable=True))
    assert isinstance(there, AirflowFailException)
    error = there.__cause__
    assert isinstance(error, LoginRejectedError)
    assert "databricks_create_role" in error.remedy
    lines = str(there).splitlines()
    assert lines[0].endswith("(Airflow connection 'lakebase_default') [login_rejected]")
    assert lines[1:] == [f"Remedy: {error.remedy}", FINAL]


def test_one_that_passes_is_tried_again_by_airflow(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(monkeypatch, **connection_fields(lake, extra={"connect_budget": 4}))
    lake.admin.login_fault("paused")
    there = failure_of(deferred, operator("select 1", deferrable=True))
    assert isinstance(there, EndpointWakingError)
    assert there.retryable
    assert FINAL not in str(there)


def test_a_sensor_names_the_error_too(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> None:
    sensor = LakebaseSqlSensor(task_id="s", sql="select 1", deferrable=True)
    monkeypatch.setattr(sensor, "poke", lambda context: False)
    define(monkeypatch, **connection_fields(lake, extra={"connect_budget": 4}))
    lake.admin.login_fault("paused")
    there = failure_of(deferred, sensor)
    assert isinstance(there, AirflowException)
    assert isinstance(there.__cause__, EndpointWakingError)
    lake.admin.clear_faults()
    define(monkeypatch, **connection_fields(lake))
    lake.admin.login_fault("not_a_jwt")
    there = failure_of(deferred, sensor)
    assert isinstance(there, AirflowFailException)
    assert isinstance(there.__cause__, LakebaseError)
    assert str(there).endswith(FINAL)
