"""Each of Airflow's examples runs as it stands, and the documentation shows it."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lakebase_provider.core.upkeep.branches.branch_upkeep import BranchUpkeep
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from tests.airflow.conftest import EXAMPLES, OLD_AIRFLOW, DagLoader
from tests.airflow.test_approval import answer, ran_with
from tests.airflow.test_dags import pulled, states
from tests.core.conftest import empty_database
from tests.core.workspace.lakehouse import Shop

# dag.test() runs Airflow's own API server in this process, by starlette's test client.
pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated")

DOCS = EXAMPLES.parent / "docs"


def sql(run: Any, reports: Path) -> None:
    assert len(pulled(run, "read_only")) == 10
    report = pulled(run, "report")
    assert report["rows"] == 50_000
    lines = Path(report["path"].removeprefix("file://")).read_text().splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("id,amount", "50000,25000.0", 50_001)
    assert str(reports) in report["path"]


def deferrable(run: Any, reports: Path) -> None:
    assert pulled(run, "rebuild")["rows"][-1] == 1000
    assert pulled(run, "report") == 1000
    assert LakebaseHook().get_first("select max(square) from deferrable_squares") == (1_000_000,)


def sensors(run: Any, reports: Path) -> None:
    assert pulled(run, "healthy")["ok"] is True


def decorator(run: Any, reports: Path) -> None:
    assert pulled(run, "numbers") == [(2, 4), (3, 9), (4, 16)]


def assets(run: Any, reports: Path) -> None:
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        uris = session.scalars(
            select(AssetModel.uri).join(AssetEvent, AssetEvent.asset_id == AssetModel.id)
        ).all()
    host = "ep-example.database.us-east-1.cloud.databricks.com:5432"
    assert f"lakebase://{host}/databricks_postgres/public/totals" in uris


def retries(run: Any, reports: Path) -> None:
    assert pulled(run, "count_tables") > 0


def health(run: Any, reports: Path) -> None:
    assert pulled(run, "check")["status"] == "ok"


def inspect(run: Any, reports: Path) -> None:
    report = pulled(run, "inspect")
    assert report["status"] in ("ok", "warn")
    assert report["markdown"].startswith("## Inspection: ")


def etl(run: Any, reports: Path) -> None:
    assert pulled(run, "load_orders") == 100


def checks(run: Any, reports: Path) -> None:
    pass


def load(run: Any, reports: Path) -> None:
    assert pulled(run, "load")["load_id"].startswith("lakebase_load/load/manual__")
    assert (pulled(run, "tolerant")["inserted"], pulled(run, "tolerant")["rejected"]) == (100, 0)
    assert LakebaseHook().get_first("select count(*), max(amount) from load_orders") == (
        100,
        Decimal("37.00"),
    )


def transfer(run: Any, reports: Path) -> None:
    assert pulled(run, "transfer")["inserted"] == 20_000
    assert LakebaseHook().get_first("select count(*), sum(amount) from transferred") == (20_000, 100_005_000)


def mapped_load(run: Any, reports: Path) -> None:
    parts = [ti for ti in run.get_task_instances() if ti.task_id == "load_part"]
    assert sorted(ti.map_index for ti in parts) == [0, 1, 2, 3]
    assert LakebaseHook().get_first("select count(*), sum(amount) from mapped_orders") == (
        100,
        Decimal("1262.50"),
    )
    left = "select count(*) from pg_namespace where nspname like 'staging%%'"
    assert LakebaseHook().get_first(left) == (0,)


def unload(run: Any, reports: Path) -> None:
    done = pulled(run, "unload")
    assert (done["rows"], done["path"]) == (50_000, f"file://{reports}/amounts.parquet")
    assert (reports / "amounts.parquet").stat().st_size == done["bytes"]


def branches(run: Any, reports: Path) -> None:
    assert pulled(run, "try_it.look") == 1
    assert LakebaseHook().get_first("SELECT to_regclass('tried'), to_regclass('orders_kept')") == (
        None,
        "orders_kept",
    )
    [there, here] = [pulled(run, task) for task in ("migrate_there", "migrate")]
    assert [one["files"][0]["state"] for one in (there, here)] == ["applied", "applied"]
    assert pulled(run, "again")["former_uid"] == pulled(run, "create")["uid"]
    assert [one.id for one in LakebaseHook().client.workspace.branches.list()] == ["production"]


def rehearse(run: Any, reports: Path) -> None:
    assert [one["rows"] for one in pulled(run, "change")["ran"]] == [10]
    assert (pulled(run, "look")["put_back"], pulled(run, "undo")["put_back"]) == (49, 10)
    assert LakebaseHook().get_first("SELECT count(*), count(*) FILTER (WHERE paid) FROM bills") == (61, 10)
    LakebaseHook().run("DROP TABLE bills")


def restore(run: Any, reports: Path) -> None:
    taken, month_end, before = [pulled(run, task) for task in ("snapshot", "month_end", "before")]
    assert (month_end["source_snapshot"], before["id"]) == (taken["name"], "before")
    assert [pulled(run, task)["max_cu"] for task in ("grow", "reader", "shrink")] == [4, 2, 1]
    assert pulled(run, "warm")["state"] == "ACTIVE"
    workspace = LakebaseHook().client.workspace
    assert [one.id for one in workspace.endpoints.list()] == ["primary"]
    assert [one.id for one in workspace.branches.list()] == ["production"]


def approve(run: Any, reports: Path) -> None:
    assert [one["rows"] for one in pulled(run, "raise_prices")["ran"]] == [100]
    assert pulled(run, "undo")["put_back"] == 10
    assert LakebaseHook().get_first("SELECT count(*), max(cents) FROM prices") == (100, 10_200)
    LakebaseHook().run("DROP TABLE prices")


def sync(run: Any, reports: Path) -> None:
    assert pulled(run, "declare")["action"] in ("created", "unchanged", "noted")
    done = pulled(run, "sync")
    assert done["name"] == "main.served.trips"
    assert done["version"] == pulled(run, "synced_by_others")["version"]
    assert pulled(run, "use") == [(3,)]
    LakebaseHook().run("DROP VIEW public.trips")
    LakebaseHook().client.synced_tables.delete("main.served.trips")


def sync_watcher(run: Any, reports: Path) -> None:
    # No event has triggered this run; test_sync_kills.py has a triggerer that does.
    assert pulled(run, "versions") == []


def mirror(run: Any, reports: Path) -> None:
    [table] = pulled(run, "in_delta")
    assert (table["uc_table"], table["state"]) == ("main.shop_mirror.lb_orders_history", "STREAMING")
    LakebaseHook().client.workspace.cdf_configs.delete("orders_mirror", force=True)
    LakebaseHook().run("DROP SCHEMA shop CASCADE")


def maintenance(run: Any, reports: Path) -> None:
    made = [step["target"] for step in pulled(run, "partitions")["steps"]]
    assert len(made) == 4
    assert "public.kept_events_what_day_idx" in [step["target"] for step in pulled(run, "index")["steps"]]
    assert pulled(run, "refresh")["steps"][0]["did"] == "refreshed concurrently"
    LakebaseHook().run("DROP TABLE kept_events CASCADE")


#: What holds after a run of each example, besides that all of its tasks succeeded.
CASES: dict[str, Callable[[Any, Path], None]] = {
    "lakebase_approve": approve,
    "lakebase_assets": assets,
    "lakebase_branches": branches,
    "lakebase_checks": checks,
    "lakebase_decorator": decorator,
    "lakebase_deferrable": deferrable,
    "lakebase_etl": etl,
    "lakebase_health": health,
    "lakebase_inspect": inspect,
    "lakebase_load": load,
    "lakebase_maintenance": maintenance,
    "lakebase_mapped_load": mapped_load,
    "lakebase_mirror": mirror,
    "lakebase_rehearse": rehearse,
    "lakebase_restore": restore,
    "lakebase_retries": retries,
    "lakebase_sensors": sensors,
    "lakebase_sql": sql,
    "lakebase_sync": sync,
    "lakebase_sync_watcher": sync_watcher,
    "lakebase_transfer": transfer,
    "lakebase_unload": unload,
}


@pytest.mark.parametrize("name", CASES)
def test_the_example_runs(
    lake: LocalLakebase, dag_of: DagLoader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setenv("LAKEBASE_EXAMPLE_ORDERS", "100")
    monkeypatch.setenv("LAKEBASE_EXAMPLE_REPORTS", f"file://{tmp_path}")
    migrations = tmp_path / "migrations"
    migrations.mkdir()
    (migrations / "0001_orders_kept.sql").write_text("CREATE TABLE orders_kept (n int);")
    monkeypatch.setenv("LAKEBASE_EXAMPLE_MIGRATIONS", str(migrations))
    monkeypatch.setattr(BranchUpkeep, "plans_folder", tmp_path / "plans")
    if name == "lakebase_sync":
        trips = {"id": [1, 2, 3, 4], "fare": [4.0, 11.0, 12.0, 13.0]}
        Shop(lake, "", "main.samples.trips").write(trips, mode="overwrite")
    if name == "lakebase_inspect":
        # It fails for what is bad, which may be what other tests have left.
        empty_database(LakebaseHook().client)
    lake.admin.set(cdf_seconds=0.1)
    LakebaseHook().run(
        "drop schema if exists etl_airflow cascade; drop table if exists orders_kept, lakebase_migration"
    )
    dag = dag_of(name)
    if name != "lakebase_approve":
        run = dag.test()
    elif OLD_AIRFLOW:
        pytest.skip("Airflow 3.1's dag.test() runs no trigger that waits for a person")
    else:
        run = ran_with(dag, lambda: answer("Approve"))
    assert set(states(run).values()) == {"success"}
    CASES[name](run, tmp_path)


def examples() -> list[Path]:
    return [file for file in sorted(EXAMPLES.glob("lakebase_*.py")) if "from airflow" in file.read_text()]


def test_no_example_is_without_a_test() -> None:
    assert {file.stem for file in examples()} == set(CASES)


@pytest.mark.parametrize("file", examples(), ids=lambda file: file.stem)
def test_each_marked_part_is_in_the_documentation(file: Path) -> None:
    markers = re.findall(r"# \[START (\w+)\]", file.read_text())
    assert markers
    pages = "\n".join(page.read_text() for page in (DOCS / "how-to").glob("*.md"))
    for marker in markers:
        assert f"# [END {marker}]" in file.read_text()
        assert f"{{literalinclude}} ../../example_dags/{file.name}" in pages
        assert f'"# [START {marker}]"' in pages, f"{marker} of {file.name} is on no page"


def test_no_example_takes_a_connection_from_who_triggers_it() -> None:
    for file in examples():
        assert "Param(" not in file.read_text()
        assert not re.search(r"conn_id=.*(params|dag_run\.conf)", file.read_text())
