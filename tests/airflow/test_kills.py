"""Whatever ends a task ends its statement on the server, whoever runs it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import psycopg
import pytest

from lakebase_provider.core.connect.cancel import ASKED_TO_END
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.triggers.sql import LakebaseSqlTrigger
from tests.airflow.conftest import DagLoader
from tests.airflow.supervised import START_SECONDS, SupervisedTask, Supervisors
from tests.eventually import eventually

# The runs are made by dag.test(), which has Airflow's own API server in this process.
pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated")

#: Seconds within which the statement must be gone after the task was asked to end.
ASKED = 2.0
#: Seconds within which the backend must be gone after the task was killed.
KILLED = 5.0
WAYS = ("operator", "hook", "client", "asyncio")


class Statements:
    """The statements on the server, by their marks."""

    def __init__(self, observer: psycopg.Connection[tuple[int]]) -> None:
        self._observer = observer

    def running(self, mark: str) -> int:
        query = f"select pg_sleep(55) /* {mark} */"
        row = self._observer.execute(
            "select count(*) from pg_stat_activity where query = %s and state = 'active'", (query,)
        ).fetchone()
        assert row is not None
        return row[0]

    def begun(self, task: SupervisedTask, mark: str) -> None:
        def runs_or_failed() -> bool:
            assert task.supervisor.is_alive(), [line for line in task.log() if line["level"] == "error"]
            return self.running(mark) == 1

        eventually(runs_or_failed, within=START_SECONDS)

    def gone(self, mark: str, within: float) -> None:
        eventually(lambda: self.running(mark) == 0, within=within)


@pytest.fixture
def statements(lake: LocalLakebase) -> Iterator[Statements]:
    with psycopg.connect(lake.superuser_dsn, autocommit=True) as observer:
        yield Statements(observer)


@pytest.mark.parametrize("way", WAYS)
def test_a_task_that_is_asked_to_end_leaves_no_statement(
    dag_of: DagLoader, supervisors: Supervisors, statements: Statements, way: str
) -> None:
    task = supervisors.start(dag_of("supervised"), way)
    statements.begun(task, way)
    task.process.send_signal(signal.SIGTERM)
    statements.gone(way, within=ASKED)
    assert task.wait() == "up_for_retry", task.log()
    assert f"canceling statement due to user request: {ASKED_TO_END}" in str(task.log())


def test_a_task_that_is_asked_to_end_between_two_statements_begins_no_other(
    lake: LocalLakebase, dag_of: DagLoader, supervisors: Supervisors
) -> None:
    hook = LakebaseHook()
    hook.run(["drop table if exists unfinished", "create table unfinished (i int)"])
    task = supervisors.start(dag_of("supervised"), "between")

    def has_begun() -> bool:
        assert task.supervisor.is_alive(), task.log()
        return hook.get_records("select i from unfinished") == [(1,)]

    eventually(has_begun, within=START_SECONDS)
    task.process.send_signal(signal.SIGTERM)
    assert task.wait() == "up_for_retry"
    assert hook.get_records("select i from unfinished") == [(1,)]
    assert "canceling statement before it starts" in str(task.log())


@pytest.mark.parametrize("way", WAYS)
def test_a_task_that_runs_out_of_time_leaves_no_statement(
    dag_of: DagLoader, supervisors: Supervisors, statements: Statements, way: str
) -> None:
    task = supervisors.start(dag_of("supervised"), way)
    statements.begun(task, way)
    # What the clock sends when the time that Airflow gives a task is over.
    task.process.send_signal(signal.SIGALRM)
    statements.gone(way, within=ASKED)
    assert task.wait() == "up_for_retry"
    assert ASKED_TO_END not in str(task.log())
    assert "Process timed out" in str(task.log())


@pytest.mark.parametrize("way", WAYS)
def test_a_task_that_is_killed_leaves_no_backend(
    dag_of: DagLoader, supervisors: Supervisors, statements: Statements, way: str
) -> None:
    task = supervisors.start(dag_of("supervised"), way)
    statements.begun(task, way)
    task.process.kill()
    statements.gone(way, within=KILLED)
    # The scheduler, which is not there, would see that its process is gone, and try it again.
    assert task.wait() == "running"


@pytest.mark.parametrize("asked_by", ["a user", "the triggerer's end"])
async def test_a_trigger_that_is_cancelled_leaves_no_statement(
    lake: LocalLakebase, statements: Statements, asked_by: str
) -> None:
    from airflow.jobs.triggerer_job_runner import TriggerRunner

    mark = f"trigger, {asked_by.replace(chr(39), '')}"
    trigger = LakebaseSqlTrigger(conn_id="lakebase_default", sql=[f"select pg_sleep(55) /* {mark} */"])
    trigger.task_instance = None  # type: ignore[assignment] # as for a trigger of an asset
    runner = TriggerRunner()
    task = asyncio.create_task(runner.run_trigger(1, trigger))
    runner.triggers[1] = {"task": task, "name": mark, "is_watcher": False, "events": 0}
    await asyncio.to_thread(eventually, lambda: statements.running(mark) == 1, within=START_SECONDS)
    if asked_by == "a user":
        runner.to_cancel.append(1)
        await runner.cancel_triggers()
    else:
        task.cancel()
    await asyncio.to_thread(statements.gone, mark, ASKED)
    with pytest.raises(asyncio.CancelledError):
        await task
