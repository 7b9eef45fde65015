from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyarrow import parquet

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase
from tests.dagster.runs import open_connections
from tests.eventually import eventually
from tests.forked import Forks

EXAMPLE = Path(__file__).parents[2] / "example_dags" / "lakebase_dagster.py"
TWO_STEPS = Path(__file__).parent / "two_steps.py"

EXAMPLES = EXAMPLE.parent / "dagster"
PYPROJECT = """
[project]
name = "fresh"
version = "0.1.0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "fresh"
"""
DEFINITIONS = """
from pathlib import Path

from dagster import definitions, load_from_defs_folder


@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
"""

IN_PROCESS = """
from dagster import Definitions, in_process_executor

defs = Definitions(executor=in_process_executor)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    return tmp_path


def execute(forks: Forks, job: str, file: Path, home: Path) -> str:
    """Run a job by Dagster's command, and return what it printed."""
    command = ("-m", "dagster", "job", "execute", "-f", str(file), "-j", job)
    result = forks.run(*command, cwd=home, env={**os.environ, "DAGSTER_HOME": str(home)})
    printed = result.stdout + result.stderr
    assert result.returncode == 0, printed[-4000:]
    assert "RUN_SUCCESS" in printed
    return printed


def dg(forks: Forks, *arguments: str, cwd: Path, home: Path) -> str:
    """Run Dagster's command for projects, and return what it printed."""
    env = {**os.environ, "DAGSTER_HOME": str(home), "COLUMNS": "200", "PYTHONPATH": str(cwd / "src")}
    result = forks.run(str(Path(sys.executable).with_name("dg")), *arguments, cwd=cwd, env=env)
    printed = result.stdout + result.stderr
    assert result.returncode == 0, printed[-4000:]
    return printed


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project as Dagster's template lays it out, without definitions yet."""
    root = tmp_path / "fresh"
    defs = root / "src" / "fresh" / "defs"
    defs.mkdir(parents=True)
    for package in (defs.parent, defs):
        (package / "__init__.py").touch()
    (root / "pyproject.toml").write_text(PYPROJECT)
    (defs.parent / "definitions.py").write_text(DEFINITIONS)
    return root


def assert_no_secret(lake: LocalLakebase, printed: str, home: Path) -> None:
    assert lake.client_secret not in printed
    stored = [file for file in home.rglob("*") if file.is_file()]
    # Dagster's databases are there: events, runs, schedules.
    assert any(file.suffix == ".db" for file in stored)
    for file in stored:
        assert lake.client_secret.encode() not in file.read_bytes(), file


def test_the_example_as_it_stands(
    lake: LocalLakebase, forks: Forks, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEBASE_EXAMPLE_ORDERS", "120")
    lake.admin.execute("DROP SCHEMA IF EXISTS etl_dagster CASCADE")
    printed = execute(forks, "lakebase_etl_job", EXAMPLE, home)
    assert lake.admin.execute("SELECT count(*) FROM etl_dagster.orders") == [(120,)]
    assert lake.admin.execute("SELECT count(*) FROM etl_dagster.customer_revenue") == [(50,)]
    counters = lake.admin.counters()
    # One for all assets and checks, and one for each of the two health checks, which test logging in.
    assert (counters.mints, counters.logins) == (1, 3)
    assert_no_secret(lake, printed, home)


def test_each_step_in_a_process_of_its_own_has_one_pool(
    lake: LocalLakebase, forks: Forks, home: Path
) -> None:
    printed = execute(forks, "two_steps", TWO_STEPS, home)
    assert lake.admin.execute("SELECT count(*) FROM dagster_two_steps") == [(2,)]
    counters = lake.admin.counters()
    assert (counters.mints, counters.logins) == (2, 2)
    eventually(lambda: open_connections(lake) == 0)
    assert_no_secret(lake, printed, home)


def test_an_example_by_dagsters_default_executor(lake: LocalLakebase, forks: Forks, home: Path) -> None:
    printed = execute(forks, "lakebase_health_job", EXAMPLES / "health.py", home)
    assert "STEP_WORKER_STARTED" in printed
    eventually(lambda: open_connections(lake) == 0)
    assert_no_secret(lake, printed, home)


def test_dg_in_a_fresh_project(lake: LocalLakebase, forks: Forks, project: Path, home: Path) -> None:
    listed = dg(forks, "list", "components", cwd=project, home=home)
    names = ("Branch", "Connection", "Health", "IOManager", "Load", "Migration", "Observation", "Sql")
    for name in (*names, "SyncedTable", "Unload"):
        assert f"Lakebase{name}Component" in listed
    dg(forks, "scaffold", "defs", "dagster_lakebase.LakebaseSqlComponent", "totals", cwd=project, home=home)
    # The first one brings the connection that dg check asks for; a second one finds it.
    dg(
        forks,
        "scaffold",
        "defs",
        "dagster_lakebase.LakebaseHealthComponent",
        "health",
        cwd=project,
        home=home,
    )
    made = {str(file.relative_to(project / "src/fresh/defs")) for file in project.rglob("defs.yaml")}
    assert made == {"totals/defs.yaml", "lakebase/defs.yaml", "health/defs.yaml"}
    assert "validated successfully" in dg(forks, "check", "yaml", cwd=project, home=home)
    assert "loaded successfully" in dg(forks, "check", "defs", cwd=project, home=home)
    dg(forks, "launch", "--assets", "totals", cwd=project, home=home)
    assert lake.admin.counters().logins == 1
    eventually(lambda: open_connections(lake) == 0)


def test_the_components_of_the_example(lake: LocalLakebase, forks: Forks, project: Path, home: Path) -> None:
    shutil.copytree(EXAMPLES / "components", project / "src/fresh/defs", dirs_exist_ok=True)
    # A process for each step is the business of the tests above, and takes seconds.
    (project / "src/fresh/defs/executor.py").write_text(IN_PROCESS)
    assert "validated successfully" in dg(forks, "check", "yaml", cwd=project, home=home)
    lake.admin.execute("DROP TABLE IF EXISTS example_daily_revenue")
    # A definition file beside the components.
    shutil.copy(EXAMPLES / "io_manager.py", project / "src/fresh/defs")
    lake.admin.execute("DROP SCHEMA IF EXISTS example_shop CASCADE")
    printed = dg(forks, "launch", "--assets", 'key:"example_shop/*"', cwd=project, home=home)
    assert lake.admin.execute("SELECT count(*), max(id) FROM example_shop.offers") == [(1, 1)]
    arguments = ("--assets", "daily_revenue", "--partition", "2026-03-29")
    printed += dg(forks, "launch", *arguments, cwd=project, home=home)
    landing = project / "src/fresh/defs/landed_orders/landing"
    landing.mkdir()
    parquet.write_table(pa.table({"id": [1, 2]}), landing / "first.parquet")
    lake.admin.execute("DROP TABLE IF EXISTS example_landed_orders, lakebase_load")
    printed += dg(forks, "launch", "--assets", "landed_orders", cwd=project, home=home)
    assert lake.admin.execute("SELECT count(*) FROM example_landed_orders") == [(2,)]
    lake.admin.execute("DROP TABLE IF EXISTS example_prices")
    printed += dg(forks, "launch", "--assets", "prices_raised", cwd=project, home=home)
    assert lake.admin.execute("SELECT count(*) FROM example_prices") == [(0,)]
    orders = project / "src/fresh/defs/delta_orders/lake/orders"
    feed: Any = {"configuration": {"delta.enableChangeDataFeed": "true"}}
    two = pa.table({"id": [1, 2], "name": ["a", "b"]})
    for place in (orders, lake.table_path("main.src.example_trips")):
        shutil.rmtree(place, ignore_errors=True)  # another test's, with other columns
        place.mkdir(parents=True)
        write_deltalake(str(place), two, **feed)
    lake.admin.execute("DROP TABLE IF EXISTS example_delta_orders, lakebase_load, lakebase_synced_table")
    selected = 'key:"delta_orders" or key:"orders_in_delta" or key:"trips"'
    printed += dg(forks, "launch", "--assets", selected, cwd=project, home=home)
    assert lake.admin.execute("SELECT id, name FROM example_trips ORDER BY 1") == [(1, "a"), (2, "b")]
    assert DeltaTable(str(project / "src/fresh/defs/orders_in_delta/lake/orders")).count() == 2
    with LakebaseClient(lake.config()) as client:
        client.synced_tables.delete("main.public.example_trips")
    lake.admin.execute("DROP TABLE example_delta_orders, lakebase_load, lakebase_synced_table")
    assert lake.client_secret not in printed
    rows = "SELECT day AT TIME ZONE 'Europe/Berlin', currency, revenue FROM example_daily_revenue"
    [(day, currency, revenue)] = lake.admin.execute(rows)
    assert (day.isoformat(), currency, revenue) == ("2026-03-29T00:00:00", "EUR", 100)
    eventually(lambda: open_connections(lake) == 0)
