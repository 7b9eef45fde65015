from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase
from tests.core.workspace.lakehouse import DATABASE, FEED
from tests.eventually import eventually

EXAMPLE = Path(__file__).parents[2] / "example_dags" / "lakebase_dagster.py"

EXAMPLES = EXAMPLE.parent / "dagster"
DOCS = EXAMPLE.parents[1] / "docs"


@pytest.fixture
def fresh(lake: LocalLakebase) -> Iterator[LocalLakebase]:
    """Without the example's tables."""
    lake.admin.execute("DROP SCHEMA IF EXISTS etl_dagster CASCADE")
    yield lake
    lake.admin.execute("DROP SCHEMA IF EXISTS etl_dagster CASCADE")


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lakebase_dagster", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(example: ModuleType, job: str = "lakebase_etl_job") -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return example.defs.resolve_job_def(job).execute_in_process(instance=instance, raise_on_error=False)  # type: ignore[no-any-return] # a module loaded from a path has no types


def orders(lake: LocalLakebase) -> list[tuple[Any, ...]]:
    return lake.admin.execute(
        "SELECT order_id, customer, amount, ordered_at FROM etl_dagster.orders ORDER BY order_id"
    )


def revenue(lake: LocalLakebase) -> list[tuple[Any, ...]]:
    return lake.admin.execute(
        "SELECT customer, orders, revenue FROM etl_dagster.customer_revenue ORDER BY customer"
    )


def failed_checks(result: dg.ExecuteInProcessResult) -> set[str]:
    return {e.check_name for e in result.get_asset_check_evaluations() if not e.passed}


def test_rows_are_exact_and_a_second_run_changes_none(fresh: LocalLakebase, example: ModuleType) -> None:
    result = run(example)
    assert result.success
    assert {e.check_name: e.passed for e in result.get_asset_check_evaluations()} == {
        "orders_are_complete": True,
        "orders_have_no_negative_amount": True,
        "revenue_adds_up": True,
        "lakebase_health": True,
    }
    first = orders(fresh), revenue(fresh)
    assert len(first[0]) == 1000
    assert first[0][0] == (
        1,
        "customer-001",
        Decimal("0.37"),
        datetime(2026, 1, 1, 0, 1, tzinfo=timezone.utc),
    )
    assert first[0][-1] == (
        1000,
        "customer-000",
        Decimal("70.00"),
        datetime(2026, 1, 1, 16, 40, tzinfo=timezone.utc),
    )
    assert len(first[1]) == 50
    assert sum(row[1] for row in first[1]) == 1000
    assert sum(row[2] for row in first[1]) == sum(row[2] for row in first[0]) == Decimal("47185.00")

    assert run(example).success
    assert (orders(fresh), revenue(fresh)) == first
    assert fresh.admin.counters().mints == 1


def test_a_run_repairs_what_somebody_changed(fresh: LocalLakebase, example: ModuleType) -> None:
    assert run(example).success
    before = orders(fresh), revenue(fresh)
    fresh.admin.execute(
        "UPDATE etl_dagster.orders SET amount = 1; DELETE FROM etl_dagster.orders WHERE order_id > 900"
    )
    assert run(example).success
    assert (orders(fresh), revenue(fresh)) == before


@pytest.mark.parametrize("count", ["0", "1", "77"])
def test_the_number_of_orders_is_up_to_the_environment(
    fresh: LocalLakebase, example: ModuleType, monkeypatch: pytest.MonkeyPatch, count: str
) -> None:
    monkeypatch.setenv("LAKEBASE_EXAMPLE_ORDERS", count)
    assert run(example).success
    assert len(orders(fresh)) == int(count)


def test_a_negative_amount_stops_the_run_before_revenue(fresh: LocalLakebase, example: ModuleType) -> None:
    assert run(example).success
    before = revenue(fresh)
    # An order that the example does not know, so that its upsert leaves it alone.
    fresh.admin.execute("INSERT INTO etl_dagster.orders VALUES (9999, 'customer-001', -5, now())")
    result = run(example)
    assert not result.success
    assert failed_checks(result) == {"orders_have_no_negative_amount"}
    assert revenue(fresh) == before


def test_the_health_job(lake: LocalLakebase, example: ModuleType) -> None:
    result = run(example, "lakebase_health_job")
    assert result.output_for_node("lakebase_health_check_op")["ok"] is True


def test_the_schedule_asks_for_a_run_each_night(example: ModuleType) -> None:
    schedule = example.defs.resolve_schedule_def("lakebase_etl_job_schedule")
    assert schedule.cron_schedule == "0 3 * * *"
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(
            instance=instance, scheduled_execution_time=datetime(2026, 1, 2, 3, tzinfo=timezone.utc)
        )
        (request,) = schedule.evaluate_tick(context).run_requests
    assert request.job_name in (None, "lakebase_etl_job")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_health(lake: LocalLakebase) -> None:
    module = load("health")
    assert run(module, "lakebase_health_job").output_for_node("lakebase_health_check_op")["ok"] is True
    with dg.DagsterInstance.ephemeral() as instance:
        job = module.defs.resolve_implicit_global_asset_job_def()
        found = job.execute_in_process(instance=instance).get_asset_check_evaluations()
    checks = {check.check_name: check for check in found}
    assert checks["lakebase_health"].passed
    assert "lakebase/report" in checks["lakebase_inspection"].metadata
    lake.admin.execute("DROP TABLE example_customers")


def test_observation(lake: LocalLakebase) -> None:
    events = run(load("observation"), "observe_tables").get_asset_observation_events()
    assert {event.asset_key.to_user_string() for event in events if event.asset_key} == {
        "pg_catalog/pg_class",
        "column_catalog",
    }


@pytest.fixture
def visits(lake: LocalLakebase) -> Iterator[LocalLakebase]:
    """The table of the example of freshness, with a visit of today."""
    lake.admin.execute(
        "DROP TABLE IF EXISTS example_visits;"
        "CREATE TABLE example_visits (page text, seen_at timestamptz NOT NULL DEFAULT now());"
        "INSERT INTO example_visits VALUES ('/');"
        f'GRANT SELECT ON example_visits TO "{lake.client_id}"'
    )
    inserted = "SELECT pg_stat_get_tuples_inserted('example_visits'::regclass)"
    eventually(lambda: lake.admin.execute(inserted) == [(1,)])
    yield lake
    lake.admin.execute("DROP TABLE example_visits")


@pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning")
# By policies, which know nothing of observations.
@pytest.mark.filterwarnings("ignore:.*build_last_update_freshness_checks.* is superseded")
def test_from_observation_to_freshness_to_automation(visits: LocalLakebase) -> None:
    defs = load("freshness").defs
    with dg.DagsterInstance.ephemeral() as instance:
        cursor = None

        def observe_and_automate() -> int:
            """One observation, and the runs that automation then asks for and that are made."""
            nonlocal cursor
            assert defs.resolve_job_def("observe_visits").execute_in_process(instance=instance).success
            tick = dg.evaluate_automation_conditions(defs, instance, cursor=cursor)
            cursor = tick.cursor
            if tick.total_requested:
                make_report()
            return tick.total_requested

        def make_report() -> None:
            job = defs.resolve_implicit_global_asset_job_def()
            made = job.execute_in_process(
                instance=instance, asset_selection=[dg.AssetKey("example_visit_report")]
            )
            assert made.success

        def is_fresh() -> bool:
            checked = defs.resolve_job_def("judge_visits").execute_in_process(instance=instance)
            (check,) = checked.get_asset_check_evaluations()
            return check.passed

        make_report()
        observe_and_automate()
        assert [observe_and_automate() for _ in range(3)] == [0, 0, 0]
        assert is_fresh()

        # Neither a crash nor another loss of statistics is a write…
        visits.admin.crash_postgres()
        assert observe_and_automate() == 0
        # …and neither hides one.
        visits.admin.execute("UPDATE example_visits SET page = '/shop', seen_at = now()")
        visits.admin.crash_postgres()
        assert [observe_and_automate() for _ in range(3)] == [1, 0, 0]

        visits.admin.execute("UPDATE example_visits SET seen_at = now() - interval '3 hours'")
        visits.admin.execute("SELECT pg_stat_reset()")
        assert observe_and_automate() == 1
        assert not is_fresh()


# Dagster's own, of a nested resource.
@pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")
def test_branches(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.admin.execute("DROP TABLE IF EXISTS lakebase_migration; DROP SCHEMA IF EXISTS example_site CASCADE")
    monkeypatch.setenv("DAGSTER_CLOUD_IS_BRANCH_DEPLOYMENT", "1")
    monkeypatch.setenv("DAGSTER_CLOUD_GIT_BRANCH", "faster-pages")
    module = load("branches")
    for job in ("pull_request_opened", "lakebase_site_job", "pull_request_closed"):
        assert run(module, job).success
    assert lake.admin.execute("SELECT to_regnamespace('example_site')") == [(None,)]


def test_maintenance(lake: LocalLakebase) -> None:
    with LakebaseClient(lake.config()) as client, client.connection() as connection:
        connection.execute("DROP TABLE IF EXISTS example_events")
        connection.execute("CREATE TABLE example_events (at date, what text) PARTITION BY RANGE (at)")
    module = load("maintenance")
    config = {"action": "analyze", "options": {"tables": ["example_events"]}}
    with dg.DagsterInstance.ephemeral() as instance:
        assert module.defs.resolve_job_def("nightly").execute_in_process(instance=instance).success
        done = module.defs.resolve_job_def("maintain").execute_in_process(
            instance=instance, run_config={"ops": {"lakebase_maintenance_op": {"config": config}}}
        )
    assert done.success
    partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'example_events'::regclass"
    assert lake.admin.execute(partitions) == [(4,)]
    lake.admin.execute("DROP TABLE example_events")


def test_rehearse(lake: LocalLakebase) -> None:
    lake.admin.execute("DROP TABLE IF EXISTS example_prices")
    module = load("rehearse")
    lake.admin.execute(
        "CREATE TABLE example_prices AS SELECT n AS id, n::numeric AS price FROM generate_series(1, 3) n"
    )
    lake.admin.execute("ALTER TABLE example_prices ADD PRIMARY KEY (id)")
    lake.admin.execute(f'ALTER TABLE example_prices OWNER TO "{lake.client_id}"')
    assert run(module, "lakebase_prices_job").success
    prices = "SELECT sum(price) FROM example_prices"
    assert lake.admin.execute(prices) == [(Decimal("6.60"),)]
    before = datetime.now(timezone.utc).isoformat()
    lake.admin.execute("DELETE FROM example_prices WHERE id = 2")
    job = module.defs.resolve_job_def("put_prices_back")
    config = {"table": "example_prices", "at": before, "dry_run": False}
    with dg.DagsterInstance.ephemeral() as instance:
        done = job.execute_in_process(
            instance=instance, run_config={"ops": {"lakebase_restore_rows_op": {"config": config}}}
        )
    assert done.success
    assert lake.admin.execute(prices) == [(Decimal("6.60"),)]
    lake.admin.execute("DROP TABLE example_prices")


@pytest.fixture
def delta(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> Iterator[LakebaseClient]:
    """The Delta tables of the example, of which one has a synced table, and a schema that is mirrored."""
    for name in ("trips", "stations"):
        place = lake.table_path(f"main.src.example_{name}")
        shutil.rmtree(place, ignore_errors=True)  # another test's, with other columns
        place.mkdir(parents=True)
        write_deltalake(str(place), pa.table({"id": [1, 2]}), configuration=FEED)
    monkeypatch.setenv("EXAMPLE_TRIPS", str(lake.table_path("main.src.example_trips")))
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
        yield client
        mirrors.delete("example_mirror", force=True)
        for name in ("trips", "stations"):
            client.synced_tables.delete(f"main.public.example_{name}", missing_ok=True)
    lake.admin.execute("DROP TABLE example_bookings, lakebase_synced_table")


@pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning")
# Dagster's own, of an observable source asset.
@pytest.mark.filterwarnings("ignore:Property .OpDefinition.version. is deprecated:DeprecationWarning")
def test_synced_tables(lake: LocalLakebase, delta: LakebaseClient) -> None:
    module = load("synced_tables")
    sync, stations = run(module, "sync_trips"), "main.public.example_stations"
    assert {one.check_name: one.passed for one in sync.get_asset_check_evaluations()} == {
        "lakebase_sync_succeeded": True,
        "lakebase_sync_fresh": True,
    }
    place = str(lake.table_path("main.src.example_trips"))
    write_deltalake(place, pa.table({"id": [3]}), mode="append")
    assert run(module, "sync_alone").success
    assert lake.admin.execute("SELECT count(*) FROM example_trips") == [(3,)]
    booked = run(module, "book")
    (check,) = booked.get_asset_check_evaluations()
    assert check.passed
    assert booked.success
    defs = module.defs
    with dg.DagsterInstance.ephemeral() as instance:
        cursor = None

        def observe_and_automate() -> set[str]:
            """What automation asks for, and has made, after an observation of both tables."""
            nonlocal cursor
            for job in ("observe_trips", "observe_stations"):
                assert defs.resolve_job_def(job).execute_in_process(instance=instance).success
            tick = dg.evaluate_automation_conditions(defs, instance, cursor=cursor)
            cursor = tick.cursor
            wanted = [
                name for name in ("trips", "station_report") if tick.get_num_requested(dg.AssetKey(name))
            ]
            if wanted:
                whole = defs.resolve_implicit_global_asset_job_def()
                keys = [dg.AssetKey(name) for name in wanted]
                assert whole.execute_in_process(instance=instance, asset_selection=keys).success
            return set(wanted)

        def add(name: str) -> None:
            place = str(lake.table_path(f"main.src.example_{name}"))
            write_deltalake(place, pa.table({"id": [4]}), mode="append")

        assert observe_and_automate() == set()
        # A sync with nothing to do, and a full refresh under way, are no news…
        delta.workspace.synced_tables.refresh(stations)
        assert observe_and_automate() == set()
        lake.admin.set(pipeline_seconds=600)
        delta.workspace.synced_tables.trigger(stations, full_refresh=True)
        assert observe_and_automate() == set()
        lake.admin.advance(600)
        lake.admin.set(pipeline_seconds=0)
        assert observe_and_automate() == set()
        # …but one that has brought a row is, once; and so is a row to sync.
        add("stations")
        delta.workspace.synced_tables.refresh(stations)
        assert [observe_and_automate() for _ in range(2)] == [{"station_report"}, set()]
        add("trips")
        assert [observe_and_automate() for _ in range(2)] == [{"trips"}, set()]
        assert lake.admin.execute("SELECT count(*) FROM example_trips") == [(4,)]


#: Where each example of this folder is run.
RUN_BY = {
    "synced_tables": "test_example.py",
    "rehearse": "test_example.py",
    "maintenance": "test_example.py",
    "branches": "test_example.py",
    "migrations": "test_example.py",
    "health": "test_example.py",
    "observation": "test_example.py",
    "freshness": "test_example.py",
    "components": "test_command_line.py",
    "storage": "test_storage.py",
}


def test_no_example_goes_untested_and_undocumented() -> None:
    """Those of the resource and of the I/O managers are held by their own tests."""
    documented = "".join(page.read_text() for page in DOCS.rglob("*.md"))
    for entry in EXAMPLES.iterdir():
        if entry.name.startswith(("__", "resource", "io_manager")):
            continue
        assert entry.stem in RUN_BY, f"{entry.name} is run by no test"
        files = [entry] if entry.is_file() else [file for file in entry.rglob("*") if file.is_file()]
        for file in files:
            lines = [line.strip() for line in file.read_text().splitlines()]
            starts = [line.split("START ")[1].rstrip("]") for line in lines if "[START " in line]
            ends = [line.split("END ")[1].rstrip("]") for line in lines if "[END " in line]
            assert starts == ends != [], file
            for marker in starts:
                assert f"[START {marker}]" in documented, f"no page includes {marker} of {file.name}"


def test_the_markers_that_the_documentation_includes_come_in_pairs() -> None:
    lines = EXAMPLE.read_text().splitlines()
    starts = [line.split("START ")[1].rstrip("]") for line in lines if line.startswith("# [START")]
    ends = [line.split("END ")[1].rstrip("]") for line in lines if line.startswith("# [END")]
    assert starts == ends
    assert starts == ["dagster_assets", "dagster_asset_checks", "dagster_health", "dagster_definitions"]
