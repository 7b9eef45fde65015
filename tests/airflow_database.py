"""A metadata database of Airflow, which takes seconds to make: one of the workers does, and all copy it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import filelock
import pytest


def airflow_database(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The file of a database as `airflow db migrate` leaves it, to be copied."""
    folder = tmp_path_factory.getbasetemp()
    made = (folder if worker_id == "master" else folder.parent) / "airflow.db"
    with filelock.FileLock(f"{made}.lock"):
        if not made.exists():
            home = tmp_path_factory.mktemp("airflow")
            done = subprocess.run(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                env={
                    **os.environ,
                    "AIRFLOW_HOME": str(home),
                    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout=60",
                    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
                },
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            (home / "airflow.db").rename(made)
    return made
