"""Dagster's own storage in Lakebase: real runs, their processes and what the server counts of them."""

# No "from __future__ import annotations": Dagster reads the annotation of `context` as an object.

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

pytest.importorskip("dagster_postgres", reason="LakebaseStorage needs the extra dagster-storage")

from lakebase_provider.local import LocalLakebase

FIVE_STEPS = Path(__file__).parent / "five_steps.py"
DATABASE = "dagster_storage"
DAGSTER_YAML = """
telemetry:
  enabled: false
storage:
  custom:
    module: dagster_lakebase.storage
    class: LakebaseStorage
    config:
      database: {env: DAGSTER_DATABASE}
      client_secret: {env: DATABRICKS_CLIENT_SECRET}
"""


@pytest.fixture(scope="module")
def database(lakebase_server: LocalLakebase) -> Iterator[str]:
    """A database of Dagster's own."""
    owner = lakebase_server.client_id
    lakebase_server.admin.execute(f'CREATE DATABASE {DATABASE} OWNER "{owner}"')
    yield DATABASE
    lakebase_server.admin.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")


@pytest.fixture
def home(tmp_path: Path, lake: LocalLakebase, database: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dagster.yaml").write_text(DAGSTER_YAML)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_DATABASE", database)
    return tmp_path


def execute(job: str, home: Path) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "dagster", "job", "execute", "-f", str(FIVE_STEPS), "-j", job],
        env={**os.environ},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    printed = result.stdout + result.stderr
    assert result.returncode == 0, printed[-4000:]
    return printed


def test_a_job_in_one_process(lake: LocalLakebase, home: Path) -> None:
    with dg.DagsterInstance.get() as instance:
        assert type(instance.run_storage).__name__ == "LakebaseRunStorage"
    lake.admin.reset_counters()
    execute("in_process", home)
    print(lake.admin.counters())
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs(dg.RunsFilter(job_name="in_process"))
        assert run.status is dg.DagsterRunStatus.SUCCESS


def test_a_job_with_a_process_for_each_step(lake: LocalLakebase, home: Path) -> None:
    with dg.DagsterInstance.get() as instance:
        pass
    lake.admin.reset_counters()
    execute("multiprocess", home)
    print(lake.admin.counters())
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs(dg.RunsFilter(job_name="multiprocess"))
        assert run.status is dg.DagsterRunStatus.SUCCESS
