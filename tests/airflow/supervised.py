"""Tasks as a worker runs them: a process that is supervised, with a log file and signals of its own.

Only the scheduler and the network are left out: a task instance is put into the queue by hand, and its
supervisor calls an API server of its own process.
"""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tests.forkserver import ForkedProcess, Processes

if TYPE_CHECKING:
    from airflow.sdk import DAG

#: Seconds until a task has begun what it is there for, on a busy machine.
START_SECONDS = 90.0

# A process that has imported Airflow forks the supervisors, as a worker does; importing takes seconds.
FORKS = Processes(
    "airflow.api_fastapi.execution_api.app",
    "airflow.executors.workloads",
    "airflow.providers.common.sql.hooks.sql",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    # What the tasks import.
    "lakebase_provider.hooks.lakebase",
    "lakebase_provider.operators.branches",
    "lakebase_provider.operators.load",
    "lakebase_provider.operators.sql",
    "lakebase_provider.operators.sync",
    "lakebase_provider.operators.transfer",
    "lakebase_provider.operators.unload",
    "tests.airflow.supervised_api",
)


@dataclass
class SupervisedTask:
    """A task instance that a supervisor runs in a process of its own.

    Attributes:
        dag_id: Its DAG.
        task_id: Its task.
        run_id: The run that it belongs to.
        supervisor: Its parent, the worker's process.
        log_file: Where the supervisor writes what the task logs, as JSON lines.
    """

    dag_id: str
    task_id: str
    run_id: str
    supervisor: ForkedProcess
    log_file: Path
    _task: psutil.Process | None = field(default=None, repr=False)

    @property
    def process(self) -> psutil.Process:
        """The process that runs the operator."""
        if self._task is None:
            [self._task] = psutil.Process(self.supervisor.pid).children()
        return self._task

    def log(self) -> list[dict[str, Any]]:
        """What the task has logged."""
        if not self.log_file.exists():
            return []
        return [json.loads(line) for line in self.log_file.read_text().splitlines()]

    def wait(self) -> str:
        """The state in which the task ends."""
        self.supervisor.join(START_SECONDS)
        assert self.supervisor.exitcode is not None, self.log()
        return self.state()

    def state(self) -> str:
        """The state of the task instance, whichever try of it that is."""
        from airflow.utils.session import create_session

        with create_session() as session:
            return str(_task_instance(session, self.dag_id, self.task_id, self.run_id).state)

    def clear(self) -> None:
        """What a user does who clears it, in the web interface or by the command line."""
        from airflow.models.taskinstance import clear_task_instances
        from airflow.utils.session import create_session

        with create_session() as session:
            clear_task_instances([_task_instance(session, self.dag_id, self.task_id, self.run_id)], session)

    def end(self) -> None:
        """Leave no process behind."""
        with suppress(psutil.NoSuchProcess):
            for process in [*psutil.Process(self.supervisor.pid).children(), self.supervisor]:
                process.kill()
        self.supervisor.join()


class Supervisors:
    """Starts supervised tasks of the DAGs in Airflow's folder.

    Args:
        home: Airflow's home.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._started: list[SupervisedTask] = []

    def start(self, dag: DAG, task_id: str, run_id: str | None = None, **env: str) -> SupervisedTask:
        """Run a task of a DAG whose id is its file's name.

        Args:
            dag: The DAG; the task's process parses its file anew.
            task_id: The task.
            run_id: A run in which the task has been tried, to try it again as Airflow does by itself, or as
                it does after the task was cleared; a new run by default.
            env: Environment variables of the worker, besides this process'.
        """
        ti_id, run_id, log_file = _queued(dag, task_id, run_id)
        supervisor = FORKS(_supervise, (ti_id, f"{dag.dag_id}.py", {**os.environ, **env}))
        supervisor.start()
        task = SupervisedTask(dag.dag_id, task_id, run_id, supervisor, self._home / "logs" / log_file)
        self._started.append(task)
        return task

    def end(self) -> None:
        """End what still runs."""
        for task in self._started:
            task.end()


def _task_instance(session: Any, dag_id: str, task_id: str, run_id: str) -> Any:
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select

    # Not by its id, which is another one at each try.
    return session.scalars(
        select(TaskInstance).where(
            TaskInstance.dag_id == dag_id,
            TaskInstance.run_id == run_id,
            TaskInstance.task_id == task_id,
        )
    ).one()


def _queued(dag: DAG, task_id: str, run_id: str | None) -> tuple[str, str, str]:
    """The id of a task instance in the queue, its run and the name of its log file."""
    from airflow.executors.workloads import ExecuteTask
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState, TaskInstanceState

    if run_id is None:
        # The shortest way to a run with its task instances that Airflow offers: none of them is executed.
        run_id = dag.test(mark_success_pattern=".*").run_id
        again = False
    else:
        again = True
    with create_session() as session:
        ti = _task_instance(session, dag.dag_id, task_id, run_id)
        if again:
            # The server has done so where the try's end was told, and whoever has cleared it.
            if ti.state not in (None, TaskInstanceState.UP_FOR_RETRY):
                ti.prepare_db_for_next_try(session)
            ti.try_number += 1
        ti.dag_run.state = DagRunState.RUNNING
        ti.state = TaskInstanceState.QUEUED
        ti.start_date = ti.end_date = None
        session.flush()
        workload = ExecuteTask.make(ti)
        assert workload.log_path is not None
        return str(ti.id), run_id, workload.log_path


def _supervise(ti_id: str, file: str, env: dict[str, str]) -> None:
    """What a worker does with a task; runs in a process of its own."""
    os.environ.clear()
    os.environ.update(env)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    from airflow.executors.workloads import BundleInfo, ExecuteTask
    from airflow.models.taskinstance import TaskInstance
    from airflow.sdk.api.client import Client
    from airflow.sdk.execution_time import supervisor
    from airflow.utils.session import create_session

    from tests.airflow.supervised_api import API

    with create_session() as session:
        # A UUID, and in Airflow 3.1 a string.
        ti = session.get_one(TaskInstance, TaskInstance.id.type.python_type(ti_id))
        workload = ExecuteTask.make(ti, bundle_info=BundleInfo(name="dags-folder"))
    client = Client(base_url=None, token="", dry_run=True, transport=API.transport)
    client.base_url = "http://in-process.invalid./"
    # Airflow 3.1 has it by the shorter name alone, where it now warns.
    supervise = getattr(supervisor, "supervise_task", None) or supervisor.supervise
    supervise(
        ti=workload.ti,
        bundle_info=workload.bundle_info,
        dag_rel_path=file,
        token="",
        log_path=workload.log_path,
        client=client,
    )
