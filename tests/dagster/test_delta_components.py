"""Delta tables loaded, written and synced by components."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from dagster.components.testing.utils import DefsFolderSandbox
from deltalake import DeltaTable, write_deltalake

from dagster_lakebase import (
    LakebaseLoadComponent,
    LakebaseSyncedTableComponent,
    LakebaseUnloadComponent,
)
from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase
from tests.core.workspace.lakehouse import FEED, shop
from tests.dagster.test_components import failure_of, loaded, metadata_of, problem_of, run, write
from tests.dagster.test_components import pytestmark as pytestmark
from tests.dagster.test_components import sandbox as sandbox


@pytest.fixture
def copied(lake: LocalLakebase) -> Iterator[LocalLakebase]:
    """A schema for tables that are loaded."""
    lake.admin.execute("DROP SCHEMA IF EXISTS copied CASCADE")
    lake.admin.execute(f'CREATE SCHEMA copied AUTHORIZATION "{lake.client_id}"')
    yield lake
    lake.admin.execute("DROP SCHEMA copied CASCADE")


@pytest.fixture
def orders(sandbox: DefsFolderSandbox) -> Path:
    """A Delta table in the component's folder, with two rows."""
    path = sandbox.defs_folder_path / "orders" / "lake" / "orders"
    put(path, {"id": [1, 2], "v": ["a", "b"]})
    return path


def put(path: Path, rows: Mapping[str, Any], **options: Any) -> None:
    path.mkdir(parents=True, exist_ok=True)
    options = {"mode": "append", "configuration": FEED, **options}
    write_deltalake(str(path), pa.table(dict(rows)), **options)


def write_load(sandbox: DefsFolderSandbox, **attributes: Any) -> None:
    given = {"source": "delta:lake/orders", "asset": {"key": "copied/orders"}, **attributes}
    write(sandbox, "orders", LakebaseLoadComponent, given)


def rows(lake: LocalLakebase) -> list[tuple[Any, ...]]:
    return lake.admin.execute("SELECT id, v FROM copied.orders ORDER BY 1, 2")


def version_of(result: dg.ExecuteInProcessResult) -> str:
    (event,) = result.get_asset_materialization_events()
    return str((event.materialization.tags or {})["dagster/data_version"])


# Loaded.


def test_what_has_changed_is_loaded_once(
    copied: LocalLakebase, sandbox: DefsFolderSandbox, orders: Path
) -> None:
    write_load(sandbox, mode="merge", keys=["id"], since="ledger")
    first = run(sandbox)
    assert metadata_of(first)["lakebase/inserted"] == 2
    put(orders, {"id": [3], "v": ["c"]})
    table = DeltaTable(str(orders))
    table.delete("id = 1")
    table.update(updates={"v": "'z'"}, predicate="id = 2")
    second = run(sandbox)
    values = metadata_of(second)
    assert [values[f"lakebase/{name}"] for name in ("inserted", "updated", "deleted")] == [1, 1, 1]
    assert rows(copied) == [(2, "z"), (3, "c")]
    assert values["lakebase/load_id"].endswith("@3")
    # Nothing new: skipped, and of the same data version.
    third = run(sandbox)
    assert metadata_of(third)["lakebase/files_skipped"] == 1
    assert version_of(first) != version_of(second) == version_of(third)


def test_a_table_that_was_made_anew_is_replaced_only_if_that_is_said(
    copied: LocalLakebase, sandbox: DefsFolderSandbox, orders: Path
) -> None:
    write_load(sandbox, mode="merge", keys=["id"], since="ledger")
    metadata_of(run(sandbox))
    shutil.rmtree(orders)
    put(orders, {"id": [9], "v": ["i"]})
    told = failure_of(run(sandbox))
    assert "replaced since" in told
    assert "fallback" in told
    write_load(sandbox, mode="merge", keys=["id"], since="ledger", fallback="replace")
    metadata_of(run(sandbox))
    assert rows(copied) == [(9, "i")]


def test_a_version_a_filter_and_each_run_anew(
    copied: LocalLakebase, sandbox: DefsFolderSandbox, orders: Path
) -> None:
    put(orders, {"id": [3], "v": ["c"]})
    write_load(sandbox, source="delta:lake/orders?version=0&filter=id > 1", lsn=True)
    for count in (1, 2):
        values = metadata_of(run(sandbox))
        assert values["lakebase/inserted"] == 1
        reached = "SELECT pg_current_wal_lsn() >= %s::pg_lsn"
        assert copied.admin.execute(reached, [values["lakebase/lsn"]]) == [(True,)]
        assert rows(copied) == [(2, "b")] * count


def test_a_table_for_each_partition(copied: LocalLakebase, sandbox: DefsFolderSandbox, orders: Path) -> None:
    put(orders.parent / "north" / "orders", {"id": [7], "v": ["n"]})
    keys = ["north", "../other", "north/orders?filter=1"]
    asset = {"key": "copied/orders", "partitions_def": {"type": "static", "partition_keys": keys}}
    write_load(sandbox, source="delta:lake/{partition_key}/orders", asset=asset)
    assert metadata_of(run(sandbox, "north"))["lakebase/inserted"] == 1
    assert rows(copied) == [(7, "n")]
    assert "another folder" in failure_of(run(sandbox, "../other"))
    # A key is a part of the path, and nothing else.
    assert "There is no Delta table" in failure_of(run(sandbox, "north/orders?filter=1"))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"since": "ledger"}, "since= has no meaning with mode='append'"),
        ({"since": "ledger", "mode": "merge", "source": "a.parquet"}, "without a Delta table"),
        ({"since": "ledger", "mode": "merge", "load_id": "{file}"}, "load_id= cannot be combined"),
        ({"since": "ledger", "mode": "merge", "reject_to": "r"}, "cannot be combined with since="),
        ({"fallback": "replace", "mode": "merge"}, "fallback= has no meaning without since="),
        ({"since": "always", "mode": "merge"}, "since"),
        ({"source": "delta:lake?version=x"}, "version of the Delta table"),
        (
            {
                "source": "delta:{partition_key}?filter=day='{partition_key}'",
                "asset": {
                    "key": "o",
                    "partitions_def": {"type": "static", "partition_keys": ["a"]},
                },
            },
            "filter of the Delta table in source names a partition",
        ),
    ],
)
def test_a_load_that_cannot_be_meant_is_refused_when_it_is_loaded(
    sandbox: DefsFolderSandbox, attributes: dict[str, Any], message: str
) -> None:
    write_load(sandbox, **attributes)
    assert message in problem_of(sandbox)


# Written.


def write_unload(sandbox: DefsFolderSandbox, **attributes: Any) -> Path:
    given = {
        "sql": "SELECT 1 AS id, 'a%' AS v",
        "to": "delta:lake/out",
        "asset": {"key": "out"},
        **attributes,
    }
    write(sandbox, "out", LakebaseUnloadComponent, given)
    return sandbox.defs_folder_path / "out"


def test_rows_become_a_delta_table(lake: LocalLakebase, sandbox: DefsFolderSandbox) -> None:
    path = write_unload(sandbox) / "lake/out"
    result = run(sandbox)
    assert metadata_of(result)["lakebase/rows_written"] == 1
    assert version_of(result) == "0"
    second = run(sandbox)
    assert version_of(second) == "1"
    assert DeltaTable(str(path)).to_pyarrow_table().to_pylist() == [{"id": 1, "v": "a%"}] * 2
    # Once for an id; a query of the same id is not run again.
    for skipped in (0, 1):
        write_unload(sandbox, unload_id="january", mode="merge", keys=["id"])
        values = metadata_of(run(sandbox))
        assert (values["lakebase/skipped"], values["lakebase/delta_version"]) == (skipped, 2)


def test_a_partition_is_bound_and_named(lake: LocalLakebase, sandbox: DefsFolderSandbox) -> None:
    folder = write_unload(
        sandbox,
        sql="SELECT %(partition_key)s::text AS k, 'a%' AS v",
        to="{partition_key}.jsonl",
        asset={"key": "out", "partitions_def": {"type": "static", "partition_keys": ["north"]}},
    )
    assert "lakebase/delta_version" not in metadata_of(run(sandbox, "north"))
    assert (folder / "north.jsonl").read_text() == '{"k": "north", "v": "a%"}\n'


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"to": "delta:{day}"}, "to names {day}"),
        ({"to": "delta:lake?version=1x"}, "version of the Delta table"),
        ({"to": "*.parquet"}, "to is the pattern"),
        ({"to": "a.parquet", "mode": "append"}, "mode= has no meaning for files"),
        ({"mode": "merge"}, "mode='merge' and keys= need each other"),
        ({"sql": "SELECT %(day)s"}, "sql: Parameter missing: %(day)s"),
        ({"unload_id": "{file}"}, "unload_id names {file}"),
    ],
)
def test_an_unload_that_cannot_be_meant_is_refused_when_it_is_loaded(
    sandbox: DefsFolderSandbox, attributes: dict[str, Any], message: str
) -> None:
    write_unload(sandbox, **attributes)
    assert message in problem_of(sandbox)


# Synced.


def test_a_synced_table_in_yaml(lake: LocalLakebase, sandbox: DefsFolderSandbox) -> None:
    trips = shop(lake)
    plain = trips.name.split(".")[2]
    write(
        sandbox,
        "trips",
        LakebaseSyncedTableComponent,
        {
            "connection": "{{ context.load_component('lakebase') }}",
            "synced_table": trips.name,
            "asset": {"key": "trips", "deps": ["raw_trips"]},
            "source": trips.path,
            "declared": trips.declared(),
            "max_age": 3600,
            "cron_schedule": "@hourly",
        },
    )
    with loaded(sandbox) as defs, dg.DagsterInstance.ephemeral() as instance:
        schedule = defs.resolve_schedule_def("lakebase_sync_trips_schedule")
        assert (schedule.cron_schedule, schedule.job_name) == ("@hourly", "lakebase_sync_trips_job")
        job = defs.resolve_job_def("lakebase_sync_trips_job")
        for version in ("0", "1"):
            result = job.execute_in_process(instance=instance)
            assert version_of(result) == version
            trips.write({"id": [3 + int(version)], "name": ["c"]})
            assert {one.check_name: one.passed for one in result.get_asset_check_evaluations()} == {
                "lakebase_sync_succeeded": True,
                "lakebase_sync_fresh": True,
            }
    assert len(trips.rows()) == 3
    write(
        sandbox,
        "trips",
        LakebaseSyncedTableComponent,
        {"synced_table": trips.name, "sync": False, "name": "t"},
    )
    with loaded(sandbox) as defs, dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def("t_job").execute_in_process(instance=instance)
    (event,) = result.get_asset_observation_events()
    assert event.asset_key == dg.AssetKey(["pub", plain])
    with LakebaseClient(lake.config()) as client:
        client.synced_tables.delete(trips.name)
    lake.admin.execute("DROP TABLE lakebase_synced_table")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"synced_table": "pub.trips"}, "The synced table of asset trips is 'pub.trips'"),
        ({"synced_table": "a.b.trips", "declared": {"keys": ["id"]}}, "unknown option 'keys'"),
        ({"synced_table": "a.b.trips", "sync": False, "source": "x"}, "source has no meaning"),
        ({}, "synced_table"),
    ],
)
def test_a_synced_table_that_cannot_be_meant_is_refused_when_it_is_loaded(
    sandbox: DefsFolderSandbox, attributes: dict[str, Any], message: str
) -> None:
    write(sandbox, "trips", LakebaseSyncedTableComponent, attributes)
    assert message in problem_of(sandbox)


def test_what_is_scaffolded_loads(sandbox: DefsFolderSandbox) -> None:
    for component in (LakebaseUnloadComponent, LakebaseSyncedTableComponent):
        sandbox.scaffold_component(component_cls=component, defs_path=f"my-{component.__name__}")
    with loaded(sandbox) as defs:
        keys = defs.resolve_all_asset_keys()
    assert {key.to_user_string() for key in keys} == {
        "my-LakebaseUnloadComponent",
        "my-LakebaseSyncedTableComponent",
    }
