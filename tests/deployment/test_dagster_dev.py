"""A night in a real Dagster deployment, with tokens of a minute, by a browser where an engineer uses one."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lakebase_provider.local import LocalLakebase
from tests.deployment.dagster_site import PATIENCE, DagsterSite
from tests.eventually import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Page

SHOP = Path(__file__).parent / "dagster_shop.py"
TOKEN_SECONDS = 60
#: Milliseconds for a page to show something.
PAGE_PATIENCE = 120_000
PARTITIONS = 50
#: Seconds for all its runs, each of them a process that imports Dagster.
BACKFILL_PATIENCE = 1500.0

ORDERS, REPORT, SALES = "warehouse/orders", "shop/report", "shop/sales"

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def lake() -> Iterator[LocalLakebase]:
    """A local Lakebase of its own, for its server crashes."""
    with LocalLakebase(token_lifetime=TOKEN_SECONDS) as lake:
        for schema in ("shop", "warehouse"):
            lake.admin.execute(f'CREATE SCHEMA {schema} AUTHORIZATION "{lake.client_id}"')
        lake.admin.execute(
            "CREATE TABLE shop.noted (run_id text);"
            "CREATE TABLE shop.reports (run_id text, total numeric);"
            "CREATE TABLE warehouse.orders (id bigint PRIMARY KEY, amount numeric, changed_at timestamptz);"
            "INSERT INTO warehouse.orders SELECT n, 10, now() FROM generate_series(1, 3) n"
        )
        for schema in ("shop", "warehouse"):
            lake.admin.execute(f'GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO "{lake.client_id}"')
        yield lake


@pytest.fixture(scope="module")
def site(lake: LocalLakebase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterSite]:
    env = lake.env()
    env["SHOP_CLIENT_ID"] = env.pop("DATABRICKS_CLIENT_ID")
    env["SHOP_CLIENT_SECRET"] = env.pop("DATABRICKS_CLIENT_SECRET")
    site = DagsterSite(SHOP, tmp_path_factory.mktemp("dagster"), env)
    try:
        site.wait()
        yield site
    finally:
        site.stop()


@pytest.fixture(autouse=True)
def patient(page: Page) -> None:
    page.set_default_timeout(PAGE_PATIENCE)


@pytest.mark.parametrize(
    ("job", "masked", "written"),
    [
        ("note", True, "noted"),
        # Dagster fills in the I/O manager's own configuration alone.
        ("stocktaking", False, "counted"),
        ("stocktaking_apart", False, "counted_apart"),
    ],
    ids=["resource", "io_manager", "io_manager_with_its_own_resource"],
)
def test_a_job_is_launched_from_the_launchpad_as_it_opens(
    site: DagsterSite, lake: LocalLakebase, page: Page, job: str, masked: bool, written: str
) -> None:
    page.goto(f"{site.url}/locations/{site.location}/jobs/{job}/playground")
    page.get_by_text("No errors", exact=True).wait_for()
    filled_in = page.locator(".CodeMirror").first.inner_text()
    assert ("client_secret: '********'" in filled_in) == masked
    page.get_by_role("button", name="Launch Run").click()
    page.wait_for_url("**/runs/*")
    run_id = page.url.rpartition("/")[2]

    assert site.ended(run_id) == "SUCCESS", site.failures(run_id)
    assert lake.admin.execute(f"SELECT run_id FROM shop.{written}") == [(run_id,)]
    page.get_by_text("Success", exact=True).first.wait_for()


def observe_warehouse(page: Page, site: DagsterSite) -> str | None:
    """Press "Observe" on the asset's page, wait for the run to end, and return the data version."""
    earlier = {run.run_id for run in site.runs()}
    page.goto(f"{site.url}/assets/{ORDERS}")
    page.get_by_role("button").filter(has_text="Observe").first.click()
    started: list[str] = []

    def starts() -> bool:
        started[:] = [run.run_id for run in site.runs() if run.run_id not in earlier and ORDERS in run.assets]
        return bool(started)

    eventually(starts, within=PATIENCE, every=0.5)
    (run_id,) = started
    assert site.ended(run_id) == "SUCCESS", site.failures(run_id)
    return site.observed_version("warehouse", "orders")


def test_an_eager_automation_fires_once_from_a_write_that_crashes_hide(
    site: DagsterSite, lake: LocalLakebase, page: Page
) -> None:
    def reported() -> list[int]:
        """The totals of all reports that the automation made, once it has had the time to."""
        site.wait_for_ticks("automation")
        for run in site.runs():
            if run.assets == (REPORT,):
                assert site.ended(run.run_id) == "SUCCESS", site.failures(run.run_id)
        rows = lake.admin.execute("SELECT total::int FROM shop.reports ORDER BY total")
        return [total for (total,) in rows]

    first = observe_warehouse(page, site)
    assert reported() == [30]

    # The statistics are lost, the rows are not: nothing has changed.
    lake.admin.crash_postgres()
    assert observe_warehouse(page, site) == first
    assert reported() == [30]

    # A write between two losses, which leaves the statistics as they were.
    lake.admin.execute("UPDATE warehouse.orders SET amount = 20, changed_at = clock_timestamp()")
    lake.admin.crash_postgres()
    second = observe_warehouse(page, site)
    assert second != first
    assert reported() == [30, 60]

    assert observe_warehouse(page, site) == second
    assert reported() == [30, 60]


def test_a_backfill_of_fifty_partitions(site: DagsterSite, lake: LocalLakebase, page: Page) -> None:
    page.goto(f"{site.url}/assets/{SALES}")
    page.get_by_role("button").filter(has_text="Materialize").first.click()
    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_text(f"{PARTITIONS} partitions").first.wait_for()
    page.get_by_role("button", name="Launch backfill").click()

    eventually(lambda: site.backfill_status() not in (None, "REQUESTED"), within=BACKFILL_PATIENCE, every=2.0)

    runs = [run for run in site.runs() if run.assets == (SALES,)]
    failed = [site.failures(run.run_id) for run in runs if run.status != "SUCCESS"]
    assert not failed, failed[0]
    assert site.backfill_status() == "COMPLETED_SUCCESS"
    assert Counter(run.partition for run in runs).most_common(1)[0][1] == 1
    assert len(runs) == PARTITIONS
    stored = lake.admin.execute("SELECT day::text, run_id, count(*) FROM shop.sales GROUP BY 1, 2")
    assert sorted(stored) == sorted((run.partition, run.run_id, 2) for run in runs)
    page.goto(f"{site.url}/assets/{SALES}?view=partitions")
    page.get_by_text(f"Materialized ({PARTITIONS})").wait_for()


def test_a_sensor_outlives_its_tokens(site: DagsterSite, lake: LocalLakebase) -> None:
    """The code server's process, which lives as long as the deployment, through both crashes."""

    def lived() -> bool:
        ticks = site.ticks("reports_observed")
        return bool(ticks) and ticks[0].ended - ticks[-1].began > 3 * TOKEN_SECONDS

    eventually(lived, within=PATIENCE, every=1.0)
    for tick in site.ticks("reports_observed"):
        assert tick.status in ("SUCCESS", "SKIPPED"), tick
        assert "observed" in (tick.message or ""), tick


def test_no_run_leaves_a_session_or_a_secret(site: DagsterSite, lake: LocalLakebase) -> None:
    sessions = "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'dagster:%'"
    eventually(lambda: lake.admin.execute(sessions) == [], within=60.0, every=0.5)
    assert lake.client_secret not in site.log()
    for file in site.home.rglob("*"):
        # The processes are at work, and SQLite's journals come and go.
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            assert lake.client_secret.encode() not in file.read_bytes(), file
