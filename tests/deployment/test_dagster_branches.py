"""The examples of branches and rehearsals in a real Dagster deployment, launched by a browser."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase
from tests.core.upkeep.leases import left
from tests.deployment.airflow_site import ROOT
from tests.deployment.dagster_site import DagsterSite

if TYPE_CHECKING:
    from playwright.sync_api import Page

EXAMPLES = ROOT / "example_dags" / "dagster"
#: Milliseconds for a page to show something.
PAGE_PATIENCE = 120_000
Deployment = Callable[[str, Mapping[str, str]], DagsterSite]

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def lake() -> Iterator[LocalLakebase]:
    with LocalLakebase(token_lifetime=60) as lake:
        lake.admin.execute(
            "CREATE TABLE example_prices (id int PRIMARY KEY, price numeric);"
            "INSERT INTO example_prices SELECT n, 10 FROM generate_series(1, 100) AS n;"
            f'ALTER TABLE example_prices OWNER TO "{lake.client_id}"'
        )
        yield lake


@pytest.fixture(scope="module")
def client(lake: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lake.config()) as client:
        yield client


@pytest.fixture
def deployment(lake: LocalLakebase, tmp_path: Path) -> Iterator[Deployment]:
    """Starts a deployment of an example, which ends with the test."""
    started: list[DagsterSite] = []

    def start(example: str, env: Mapping[str, str]) -> DagsterSite:
        started.append(DagsterSite(EXAMPLES / f"{example}.py", tmp_path, {**lake.env(), **env}))
        started[0].wait()
        return started[0]

    yield start
    for site in started:
        site.stop()


def launch(site: DagsterSite, page: Page, job: str, config: Mapping[str, Any] | None = None) -> str:
    """Press "Launch Run" in the job's Launchpad, wait until the run has succeeded, and return its id."""
    filled_in = f"/setup?{urlencode({'config': json.dumps(config)})}" if config else ""
    page.goto(f"{site.url}/locations/{site.location}/jobs/{job}/playground{filled_in}")
    page.get_by_role("button", name="Launch Run").click()
    page.wait_for_url("**/runs/*")
    run_id = page.url.rpartition("/")[2]
    assert site.ended(run_id) == "SUCCESS", site.failures(run_id)
    return run_id


def test_a_change_is_rehearsed_and_runs(
    deployment: Deployment,
    lake: LocalLakebase,
    client: LakebaseClient,
    page: Page,
    picture: Callable[[str], None],
) -> None:
    page.set_default_timeout(PAGE_PATIENCE)
    site = deployment("rehearse", {})
    launch(site, page, "lakebase_prices_job")
    assert lake.admin.execute("SELECT DISTINCT price::text FROM example_prices") == [("11.0",)]
    assert left(client) == []

    page.goto(f"{site.url}/assets/example_prices_raised?view=events")
    page.get_by_text("Show Markdown").first.click()
    page.get_by_text("Rehearsal: passed").wait_for()
    picture("dagster-rehearsal")


def test_a_pull_request_has_its_branch_and_production_nothing_of_it(
    deployment: Deployment,
    lake: LocalLakebase,
    client: LakebaseClient,
    page: Page,
    picture: Callable[[str], None],
) -> None:
    page.set_default_timeout(PAGE_PATIENCE)
    site = deployment(
        "branches",
        {"DAGSTER_CLOUD_IS_BRANCH_DEPLOYMENT": "1", "DAGSTER_CLOUD_GIT_BRANCH": "faster-pages"},
    )
    launch(site, page, "lakebase_site_job")
    assert len(left(client)) == 1
    assert lake.admin.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'example_site'") == [(0,)]
    page.goto(f"{site.url}/assets/example_site/pages")
    page.get_by_text("lakebase/branch").first.scroll_into_view_if_needed()
    picture("dagster-branch")

    launch(site, page, "pull_request_closed")
    assert left(client) == []


def test_rows_come_back_from_a_restore_point(
    deployment: Deployment, lake: LocalLakebase, client: LakebaseClient, page: Page
) -> None:
    page.set_default_timeout(PAGE_PATIENCE)
    site = deployment("rehearse", {})
    noted = site.output_metadata(launch(site, page, "note_prices"))
    before = lake.admin.execute("SELECT * FROM example_prices ORDER BY id")
    lake.admin.execute("DELETE FROM example_prices WHERE id % 2 = 0")

    op: dict[str, Any] = {"table": "example_prices", "at": noted["lakebase/restore_lsn"]}
    looked_at = launch(site, page, "put_prices_back", {"ops": {"lakebase_restore_rows_op": {"config": op}}})
    assert site.output_metadata(looked_at)["lakebase/put_back"] == 50
    assert lake.admin.execute("SELECT count(*) FROM example_prices") == [(50,)]

    op["dry_run"] = False
    launch(site, page, "put_prices_back", {"ops": {"lakebase_restore_rows_op": {"config": op}}})
    assert lake.admin.execute("SELECT * FROM example_prices ORDER BY id") == before
    assert left(client) == []


def test_the_sweep_leaves_what_is_young(deployment: Deployment, client: LakebaseClient, page: Page) -> None:
    page.set_default_timeout(PAGE_PATIENCE)
    site = deployment("branches", {"DAGSTER_CLOUD_IS_BRANCH_DEPLOYMENT": "0"})
    # As a lease of a run that was just killed leaves it.
    client.workspace.branches.ensure("run-killed", ttl=86_400)
    page.goto(f"{site.url}/locations/{site.location}/sensors/lakebase_sweep_sensor")
    page.locator("label:has(input[type=checkbox])").first.click()
    site.wait_for_ticks("lakebase_sweep_sensor", 0)
    # It is younger than a day, so somebody may be at work on it.
    [tick, *_] = site.ticks("lakebase_sweep_sensor")
    assert tick.message == "0 of 1 branches that begin with run- were deleted."
    assert left(client) == ["run-killed"]
