"""What an engineer sees of a table and of its database's health in Dagster's web interface."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lakebase_provider.core.upkeep.health.stage_names import STAGES
from lakebase_provider.local import LocalLakebase
from tests.ui.conftest import Service, free_port

if TYPE_CHECKING:
    from playwright.sync_api import Page

#: Runs start at once; by default they would wait for the daemon.
CONFIG = """
telemetry: {enabled: false}
nux: {enabled: false}
run_coordinator: {module: dagster.core.run_coordinator, class: DefaultRunCoordinator}
"""
SITE = Path(__file__).parent / "dagster_site.py"
RUNS = 4


@pytest.fixture(scope="module")
def dagster_url(lakebase_server: LocalLakebase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A web server on an instance in which the asset was materialized and checked some times."""
    home = tmp_path_factory.mktemp("dagster")
    (home / "dagster.yaml").write_text(CONFIG)
    port = free_port()
    env = {**os.environ, **lakebase_server.env(), "DAGSTER_HOME": str(home)}
    # In a process of its own, for the browser's driver keeps an event loop in this one.
    subprocess.run([sys.executable, SITE, str(RUNS)], env=env, check=True, capture_output=True, timeout=120)
    web = Service(
        ["-m", "dagster_webserver", "-f", str(SITE), "-h", "127.0.0.1", "-p", str(port)],
        home / "web.log",
        env,
    )
    try:
        web.wait_for(f"http://127.0.0.1:{port}/server_info")
        yield f"http://127.0.0.1:{port}"
    finally:
        web.stop()


def test_the_health_check_is_plotted_over_time(
    dagster_url: str, page: Page, picture: Callable[[str], None]
) -> None:
    page.set_viewport_size({"width": 1280, "height": 1500})
    page.goto(f"{dagster_url}/assets/shop/orders?view=checks&checkDetail=lakebase_health")
    page.get_by_text("Plots", exact=True).wait_for(timeout=60_000)

    for stage in STAGES:
        # Once in the table of the latest execution, once above its plot.
        page.get_by_text(f"lakebase/{stage}_ms", exact=True).nth(1).wait_for()
    assert page.locator("canvas").count() >= len(STAGES)
    picture("dagster-health-plot")


def test_the_table_shows_its_columns_and_rows(
    dagster_url: str, page: Page, picture: Callable[[str], None]
) -> None:
    page.goto(f"{dagster_url}/assets/shop/orders?view=overview")
    page.get_by_text("Row count", exact=True).wait_for(timeout=60_000)

    shown = page.inner_text("body")
    for column in ("order_id", "item", "price"):
        assert column in shown
    for column_type in ("bigint", "text", "double precision"):
        assert column_type in shown
    picture("dagster-table-metadata")


def test_a_job_runs_as_the_launchpad_opens(dagster_url: str, page: Page) -> None:
    page.goto(f"{dagster_url}/locations/dagster_site.py/jobs/count_tables_job/playground")
    page.get_by_text("No errors").wait_for(timeout=60_000)
    # What made the run fail: the masks are there, and are sent.
    assert "********" in page.inner_text("body")
    page.get_by_role("button", name="Launch Run").click()
    page.wait_for_url("**/runs/*", timeout=60_000)
    page.get_by_text(re.compile("^(Success|Failure)$")).first.wait_for(timeout=120_000)
    assert page.get_by_text("Success", exact=True).count()
