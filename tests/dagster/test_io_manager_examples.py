"""The examples of the resource and of the I/O manager, as they stand."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lakebase_provider.local import LocalLakebase

# Dagster calls its own deprecated method when it sets up a nested resource.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")

EXAMPLES = Path(__file__).parents[2] / "example_dags" / "dagster"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def definitions(name: str) -> Any:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["defs"]


def test_the_resource(lake: LocalLakebase, instance: dg.DagsterInstance) -> None:
    job = definitions("resource").resolve_job_def("lakebase_resource_job")
    assert job.execute_in_process(instance=instance).success
    assert lake.admin.execute("SELECT name FROM example_events ORDER BY id") == [("start",), ("stop",)]


def test_the_io_manager(lake: LocalLakebase, instance: dg.DagsterInstance) -> None:
    lake.admin.execute("DROP SCHEMA IF EXISTS example_shop CASCADE")
    job = definitions("io_manager").resolve_job_def("lakebase_io_manager_job")
    for _ in range(2):
        assert job.execute_in_process(instance=instance).success
    assert lake.admin.execute("SELECT count(*), max(id) FROM example_shop.offers") == [(1, 1)]


def test_the_partitions(lake: LocalLakebase, instance: dg.DagsterInstance) -> None:
    lake.admin.execute("DROP SCHEMA IF EXISTS example_sales CASCADE")
    defs = definitions("io_manager_partitions")
    for key, name in (
        ("2026-03-08", "sales"),
        ("2026-03-08", "sales"),
        ("2026-03-08|east", "regional_sales"),
    ):
        asset = defs.resolve_assets_def(["example_sales", name])
        dg.materialize([asset], instance=instance, resources=dict(defs.resources), partition_key=key)
    assert lake.admin.execute("SELECT count(*) FROM example_sales.sales") == [(23,)]
    assert lake.admin.execute("SELECT region FROM example_sales.regional_sales") == [("east",)]
