from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lakebase_provider.local import LocalLakebase
from tests.dagster.runs import open_connections
from tests.eventually import eventually

EXAMPLE = Path(__file__).parents[2] / "example_dags" / "lakebase_dagster.py"
TWO_STEPS = Path(__file__).parent / "two_steps.py"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    return tmp_path


def execute(job: str, file: Path, home: Path) -> str:
    """Run a job by Dagster's command, and return what it printed."""
    result = subprocess.run(
        [sys.executable, "-m", "dagster", "job", "execute", "-f", str(file), "-j", job],
        env={**os.environ, "DAGSTER_HOME": str(home)},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    printed = result.stdout + result.stderr
    assert result.returncode == 0, printed[-4000:]
    assert "RUN_SUCCESS" in printed
    return printed


def assert_no_secret(lake: LocalLakebase, printed: str, home: Path) -> None:
    assert lake.client_secret not in printed
    stored = [file for file in home.rglob("*") if file.is_file()]
    # Dagster's databases are there: events, runs, schedules.
    assert any(file.suffix == ".db" for file in stored)
    for file in stored:
        assert lake.client_secret.encode() not in file.read_bytes(), file


def test_the_example_as_it_stands(lake: LocalLakebase, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEBASE_EXAMPLE_ORDERS", "120")
    lake.admin.execute("DROP SCHEMA IF EXISTS etl_dagster CASCADE")
    printed = execute("lakebase_etl_job", EXAMPLE, home)
    assert lake.admin.execute("SELECT count(*) FROM etl_dagster.orders") == [(120,)]
    assert lake.admin.execute("SELECT count(*) FROM etl_dagster.customer_revenue") == [(50,)]
    counters = lake.admin.counters()
    # One for all assets and checks, and one for each of the two health checks, which test logging in.
    assert (counters.mints, counters.logins) == (1, 3)
    assert_no_secret(lake, printed, home)


def test_each_step_in_a_process_of_its_own_has_one_pool(lake: LocalLakebase, home: Path) -> None:
    printed = execute("two_steps", TWO_STEPS, home)
    assert lake.admin.execute("SELECT count(*) FROM dagster_two_steps") == [(2,)]
    counters = lake.admin.counters()
    assert (counters.mints, counters.logins) == (2, 2)
    eventually(lambda: open_connections(lake) == 0)
    assert_no_secret(lake, printed, home)
