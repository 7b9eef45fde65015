"""A worker or a triggerer that is killed (SIGKILL) anywhere: the retry or the sweep leaves no branch."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import random
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from tests.airflow.conftest import DAGS, DagLoader
from tests.airflow.supervised import FORKS
from tests.airflow.test_branch_operators import create, deferred_by, delete, ran
from tests.core.upkeep.leases import contents, is_swept, left, make_kept, run_until
from tests.eventually import eventually

# The runs are made by dag.test(), which has Airflow's own API server in its process.
pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated")

#: The tasks of the DAG, in whose order it says that they begin.
TASKS = ("create", "work", "delete")
WORKER = [("worker", task) for task in TASKS]
TRIGGERER = [("triggerer", "create"), ("triggerer", "delete")]
#: How a run goes on: its retry, or nothing but the sweep.
ENDS = ("retry", "sweep")
RUN = datetime(2027, 1, 31, tzinfo=timezone.utc)

_says: Connection | None = None


def said_by(context: Any) -> None:
    """Say that a task begins, in a process that is to be killed."""
    if _says is not None:
        _says.send(context["ti"].task_id)


def work(says: Connection, environment: Mapping[str, str], file: Path) -> None:
    """Run all tasks of the DAG, as a worker does, always in the same run."""
    os.environ.clear()
    os.environ.update(environment)
    # The DAG's file imports this module by its name, which is another one in a process of multiprocessing.
    from tests.airflow import test_branch_kills

    test_branch_kills._says = says
    spec = importlib.util.spec_from_file_location("dag_branch_kills", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    run = module.dag.test(run_after=RUN, logical_date=RUN)
    says.send("done" if str(run.state) == "success" else f"{run.state}")


def trigger(says: Connection, environment: Mapping[str, str], serialized: tuple[str, dict[str, Any]]) -> None:
    """Run a trigger, as a triggerer does that makes it anew."""
    os.environ.clear()
    os.environ.update(environment)
    path, arguments = serialized
    module, name = path.rsplit(".", 1)
    made = getattr(importlib.import_module(module), name)(**arguments)

    async def first_event() -> Any:
        return await anext(made.run())

    says.send("waits")
    found = asyncio.run(first_event()).payload
    says.send("done" if found["status"] == "success" else str(found))


class Runs:
    """Runs whose worker or triggerer is killed, and what becomes of them."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.seconds = {("worker", task): took for task, took in self._work().items()}
        for task in ("create", "delete"):
            self._begin(task)
            self.seconds["triggerer", task] = self._trigger()["waits"]
            self._end(task)

    def kill(self, who: str, task: str, after: float) -> None:
        """Kill it so many seconds after a task has begun, or its wait in the triggerer."""
        if who == "worker":
            self._work((task, after))
        else:
            self._begin(task)
            self._trigger(("waits", after))

    def retry(self, who: str, task: str) -> None:
        """Do what Airflow does next: the same run again, or the same trigger in another triggerer."""
        if who == "worker":
            self._work()
        else:
            self._trigger()
            self._end(task)

    def _work(self, kill: tuple[str, float] | None = None) -> dict[str, float]:
        return run_until(FORKS, work, [{**os.environ}, self._file], TASKS, kill)

    def _begin(self, task: str) -> None:
        self._operator = (
            create(deferrable=True) if task == "create" else delete(ran(create()), deferrable=True)
        )
        self._trigger_of = deferred_by(self._operator).trigger.serialize()

    def _trigger(self, kill: tuple[str, float] | None = None) -> dict[str, float]:
        return run_until(FORKS, trigger, [{**os.environ}, self._trigger_of], ("waits",), kill)

    def _end(self, task: str) -> None:
        if task == "create":
            # Its uid is known to who finds it: the task after the trigger's event.
            ran(delete(ran(create(if_exists="reuse"))))


@pytest.fixture
def client(lake: LocalLakebase) -> Iterator[LakebaseClient]:
    yield LakebaseHook().client
    LakebaseHook().run("DROP TABLE IF EXISTS kept")


@pytest.mark.parametrize(
    "moments", [3, pytest.param(30, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_a_run_that_is_killed_leaves_no_branch_after_the_retry_or_the_sweep(
    lake: LocalLakebase, client: LakebaseClient, dag_of: DagLoader, moments: int
) -> None:
    production = make_kept(client)
    dag_of("branch_kills")
    # Long enough to be killed in.
    lake.admin.set(operation_seconds=0.1)
    runs = Runs(DAGS / "branch_kills.py")
    assert left(client) == []
    assert contents(client) == production
    cases = [*product([*WORKER, *TRIGGERER], ENDS)]
    chance, found = random.Random(20270131), 0  # noqa: S311 # no secret
    chance.shuffle(cases)
    for moment in range(moments):
        (who, task), end = cases[moment % len(cases)]
        runs.kill(who, task, runs.seconds[who, task] * chance.random())
        found += bool(left(client))
        if end == "retry":
            runs.retry(who, task)
        else:
            eventually(lambda: is_swept(client), within=30)
        assert left(client) == [], (who, task, end)
        assert contents(client) == production, (who, task, end)
    # If few left a branch, nothing was shown.
    assert found >= moments // 2
