"""Runs the example DAG for the demo: ``python -m … FILE DESCRIPTOR``.

A separate process, since Airflow reads its configuration when it is imported.
"""

from __future__ import annotations

import logging
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

from lakebase_provider.demo.progress import Progress


def main(file: str, descriptor: int) -> int:
    """Make a metadata database, run the DAG.

    Args:
        file: The DAG's file.
        descriptor: Where to write progress.

    Returns:
        0 if the run succeeded.
    """
    progress = Progress(descriptor)
    home = os.environ["AIRFLOW_HOME"]
    os.environ.update(
        AIRFLOW__CORE__DAGS_FOLDER=str(Path(file).parent),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{home}/airflow.db",
    )
    progress.message("making Airflow's metadata database")
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True)

    progress.message(f"running the DAG of {Path(file).name}")
    dag = runpy.run_path(file)["dag"]
    _report_tasks(progress)
    # All of logging, unmasked, but not Airflow's structlog: at DEBUG, dag.test()'s in-process supervisor logs
    # each secret that it is told to mask.
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger().addHandler(logging.StreamHandler(sys.stdout))
    run = dag.test()
    progress.counters()
    return 0 if run.state == "success" else 1


def _report_tasks(progress: Progress) -> None:
    from airflow.listeners import hookimpl
    from airflow.sdk.listener import get_listener_manager

    class Reporter:
        @hookimpl
        def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
            self._report(task_instance, "success")

        @hookimpl
        def on_task_instance_failed(self, previous_state: Any, task_instance: Any, error: Any) -> None:
            self._report(task_instance, "failed")

        def _report(self, task_instance: Any, state: str) -> None:
            seconds = (task_instance.end_date - task_instance.start_date).total_seconds()
            progress.step("task", task_instance.task_id, state, seconds)

    get_listener_manager().add_listener(Reporter())  # type: ignore[no-untyped-call] # Airflow annotates it not


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
