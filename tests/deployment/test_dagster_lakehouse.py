"""The example of synced tables and the mirror in a real Dagster deployment, launched by a browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase
from tests.core.workspace.lakehouse import DATABASE, FEED
from tests.deployment.test_dagster_branches import PAGE_PATIENCE, Deployment, launch
from tests.deployment.test_dagster_branches import deployment as deployment

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def lake() -> Iterator[LocalLakebase]:
    """The Delta tables of the example, of which one has a synced table, and a schema that is mirrored."""
    with LocalLakebase(token_lifetime=60) as lake:
        for name in ("trips", "stations"):
            place = lake.table_path(f"main.src.example_{name}")
            place.mkdir(parents=True)
            write_deltalake(str(place), pa.table({"id": [1, 2]}), configuration=FEED)
        lake.admin.set(cdf_seconds=0.1)
        lake.admin.execute(
            "CREATE TABLE example_bookings (id bigserial PRIMARY KEY, booked_at timestamptz);"
            "ALTER TABLE example_bookings REPLICA IDENTITY FULL;"
            f'ALTER TABLE example_bookings OWNER TO "{lake.client_id}";'
            "INSERT INTO example_bookings (booked_at) VALUES (now())"
        )
        with LakebaseClient(lake.config()) as client:
            tables, mirrors = client.workspace.synced_tables, client.workspace.cdf_configs
            tables.create(
                "main.public.example_stations",
                source_table="main.src.example_stations",
                primary_key=["id"],
                scheduling_policy="TRIGGERED",
                postgres_database=DATABASE,
            )
            tables.wait("main.public.example_stations", version=0)
            mirrors.create("example_mirror", catalog="main", schema="mirror", postgres_schema="public")
        yield lake


def test_what_delta_has_is_served_and_what_is_written_is_mirrored(
    deployment: Deployment, lake: LocalLakebase, page: Page
) -> None:
    page.set_default_timeout(PAGE_PATIENCE)
    place = str(lake.table_path("main.src.example_trips"))
    site = deployment("synced_tables", {"EXAMPLE_TRIPS": place})
    count = "SELECT count(*) FROM example_trips"

    launch(site, page, "sync_trips")
    assert lake.admin.execute(count) == [(2,)]
    write_deltalake(place, pa.table({"id": [3]}), mode="append")
    launch(site, page, "sync_alone")
    assert lake.admin.execute(count) == [(3,)]
    launch(site, page, "book")
    launch(site, page, "observe_trips")
    assert site.observed_version("raw_trips") == "1"
    page.goto(f"{site.url}/assets/trips?view=events")
    page.get_by_text("lakebase/source_version").first.wait_for()
