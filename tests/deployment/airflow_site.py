"""A real Airflow deployment on this machine: API server, scheduler, DAG processor and triggerer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lakebase_provider.local import LocalLakebase
from tests.eventually import eventually
from tests.ui.conftest import Service, free_port

ROOT = Path(__file__).parent.parent.parent
#: Seconds for a run to end, or a task to get somewhere, on a machine with two cores.
PATIENCE = 400.0
_LOOK_EVERY = 0.5
_PASSWORD = "of-the-metadata"  # it opens what ends with the test


class Task(NamedTuple):
    """A task of a run; `map_index` is -1 for one that is not mapped."""

    task_id: str
    state: str | None
    try_number: int
    pid: int | None
    map_index: int


class AirflowSite:
    """An Airflow whose metadata lie in Postgres, and whose tasks a LocalExecutor runs.

    Args:
        home: A folder of its own.
        metadata: Where its metadata go; SQLite does not bear dozens of tasks.
        env: Variables for all processes, connections among them.
        parallelism: How many tasks may run at once.
    """

    def __init__(
        self, home: Path, metadata: LocalLakebase, env: Mapping[str, str], *, parallelism: int
    ) -> None:
        metadata.admin.set_native_password("airflow", _PASSWORD)
        metadata.admin.execute("CREATE DATABASE airflow OWNER airflow")
        self.home = home
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        database = f"://airflow:{_PASSWORD}@{metadata.host}:{metadata.port}/airflow?sslmode=require"
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIRFLOW", "LAKEBASE_", "PG", "DATABRICKS_"))
        }
        self.env = {
            **inherited,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg{database}",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": f"postgresql+psycopg_async{database}",
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(parallelism),
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": str(parallelism),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "120",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "30",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API_AUTH__JWT_SECRET": "made up for this test, " * 4,
            "AIRFLOW__OPENLINEAGE__DISABLED": "True",
            **env,
        }
        self._services: dict[str, Service] = {}
        self._token = ""

    def start(self, *dags: Path) -> None:
        """Migrate, copy the DAGs and start all that a deployment consists of."""
        (self.home / "dags").mkdir()
        for dag in dags:
            shutil.copy(dag, self.home / "dags")
        self.airflow("db", "migrate")
        self.start_service("api-server", "--host", "127.0.0.1", "--port", str(self._port), "--workers", "1")
        self._services["api-server"].wait_for(f"{self.url}/api/v2/monitor/health")
        # Its first answer takes long on a busy machine, and a worker that asks twice is refused.
        self._services["api-server"].wait_for(f"{self.url}/execution/health/ping")
        self._token = self.request("/auth/token")["access_token"]
        self.start_service("dag-processor")
        self.start_service("scheduler", "--skip-serve-logs")
        self.start_service("triggerer", "--skip-serve-logs")

    def stop(self) -> None:
        """End all processes."""
        for service in reversed(list(self._services.values())):
            service.stop()

    def start_service(self, name: str, *arguments: str) -> None:
        """Start a process of the deployment, or start it again."""
        self._services[name] = Service(
            ["-m", "airflow", name, *arguments], self.home / f"{name}.log", self.env
        )

    def kill_service(self, name: str) -> None:
        """End a process and its children as the kernel does when memory is short."""
        self._services.pop(name).kill()

    def airflow(self, *arguments: str) -> str:
        """Run Airflow's command line."""
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=self.env,
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def request(self, path: str, body: object = None, *, method: str | None = None) -> Any:
        """Call Airflow's API; the answer's JSON."""
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(  # noqa: S310 # loopback, http
            f"{self.url}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers=headers,
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 # loopback, http
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.code} {error.read()[:2000]!r}") from None

    def trigger(self, dag_id: str) -> str:
        """Start a run, as soon as the DAG is known; its id."""

        def known() -> bool:
            found = self.request(f"/api/v2/dags?dag_id_pattern={dag_id}")["dags"]
            return any(dag["dag_id"] == dag_id for dag in found)

        eventually(known, within=PATIENCE, every=_LOOK_EVERY)
        return str(self.request(f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None})["dag_run_id"])

    def tasks(self, dag_id: str, run_id: str) -> list[Task]:
        """The tasks of a run."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=100"
        return [Task(*(row[field] for field in Task._fields)) for row in self.request(path)["task_instances"]]

    def task(self, dag_id: str, run_id: str, task_id: str) -> Task:
        """The one task of a run that has this id."""
        (found,) = [task for task in self.tasks(dag_id, run_id) if task.task_id == task_id]
        return found

    def seconds_of(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> float:
        """How long a mapped task has run."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/{map_index}"
        return float(self.request(path)["duration"])

    def end_of(self, dag_id: str, run_id: str) -> str:
        """Wait until a run has ended; its state."""
        state = ""

        def ended() -> bool:
            nonlocal state
            state = self.request(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")["state"]
            return state in ("success", "failed")

        eventually(ended, within=PATIENCE, every=_LOOK_EVERY)
        if state == "failed":
            self._print_failures(dag_id, run_id)
        return state

    def _print_failures(self, dag_id: str, run_id: str) -> None:
        for task in self.tasks(dag_id, run_id):
            if task.state == "failed":
                print(f"--- {dag_id}, {task}")
                print(
                    "\n".join(self.log(dag_id, run_id, task.task_id, task.try_number, task.map_index)[-30:])
                )

    def clear(self, dag_id: str, run_id: str, *task_ids: str) -> None:
        """Clear a run, or some of its tasks, as a person does in the web interface."""
        self.request(
            f"/api/v2/dags/{dag_id}/clearTaskInstances",
            {
                "dag_run_id": run_id,
                "dry_run": False,
                "only_failed": False,
                "reset_dag_runs": True,
                **({"task_ids": list(task_ids)} if task_ids else {}),
            },
        )

    def mark_failed(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Mark a task as failed, as a person does in the web interface."""
        self.request(
            f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}",
            {"new_state": "failed"},
            method="PATCH",
        )

    def wait_for_question(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Wait until a task waits for what a person says."""

        def asks() -> bool:
            return self.task(dag_id, run_id, task_id).state == "awaiting_input"

        eventually(asks, within=PATIENCE, every=_LOOK_EVERY)

    def log(self, dag_id: str, run_id: str, task_id: str, attempt: int = 1, map_index: int = -1) -> list[str]:
        """What a try of a task has logged: level and text of each line."""
        folder = self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        if map_index >= 0:
            folder /= f"map_index={map_index}"
        lines = []
        for line in (folder / f"attempt={attempt}.log").read_text().splitlines():
            entry = json.loads(line)
            lines.append(f"{entry.get('logger', '')}|{entry.get('level', '')}|{entry.get('event', line)}")
        return lines
