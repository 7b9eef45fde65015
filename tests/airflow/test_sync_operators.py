"""Synced tables as tasks: synced, declared, waited for, and told to assets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.openlineage.extractors.base import DefaultExtractor

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import ConfigError, OperationFailedError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.links import LakebasePipelineLink
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.sync import LakebaseSyncedTableOperator, LakebaseSyncOperator
from lakebase_provider.sensors.sync import LakebaseInDeltaSensor, LakebaseSyncedTableSensor
from tests.airflow.test_branch_operators import cause_of, deferred_by, ran
from tests.airflow.test_triggers import event_of
from tests.core.workspace.lakehouse import Shop, shop


@pytest.fixture
def client(lake: LocalLakebase) -> LakebaseClient:
    return LakebaseHook().client


@pytest.fixture
def trips(lake: LocalLakebase) -> Shop:
    return shop(lake)


def declared(trips: Shop, policy: str = "TRIGGERED", **arguments: Any) -> LakebaseSyncedTableOperator:
    options: Any = trips.declared(policy)
    del options["postgres_database"]
    given = {"task_id": "declare", "action": "ensure", "table": trips.name, "options": options, **arguments}
    return LakebaseSyncedTableOperator(**given)


def sync(trips: Shop, **arguments: Any) -> LakebaseSyncOperator:
    return LakebaseSyncOperator(**{"task_id": "sync", "table": trips.name, **arguments})


def updates(client: LakebaseClient, trips: Shop) -> int:
    pipeline = client.workspace.synced_tables.get(trips.name).pipeline_id
    assert pipeline is not None
    return len(client.workspace.pipelines.updates(pipeline))


@pytest.fixture
def slowly(lake: LocalLakebase) -> Iterator[None]:
    """Updates take a minute, which ``advance`` lets pass."""
    lake.admin.set(pipeline_seconds=60)
    yield
    lake.admin.set(pipeline_seconds=0)


def test_a_table_is_made_and_synced(lake: LocalLakebase, client: LakebaseClient, trips: Shop) -> None:
    made = ran(declared(trips))
    assert (made["name"], made["version"]) == (trips.name, 0)
    assert trips.rows() == [(1, "a"), (2, "b")]
    assert ran(declared(trips)) == made
    version = trips.write({"id": [3], "name": ["c"]})
    operator = sync(trips, version=str(version), source=trips.source)
    done = ran(operator)
    assert (done["version"], done["adopted"], len(trips.rows())) == (1, False, 3)
    assert done["sync_end_time"] > made["sync_end_time"]
    link = LakebasePipelineLink().get_link(operator, ti_key=None)
    assert link.endswith(f"/#joblist/pipelines/{done['pipeline_id']}/updates/{done['update_id']}")

    lineage = DefaultExtractor(operator).extract()
    assert lineage is not None
    host = str(client.config.workspace_host).rpartition("/")[2]
    assert [(one.namespace, one.name) for one in lineage.inputs] == [(f"databricks://{host}", trips.source)]
    target = client.target()
    name = trips.name.replace("main", "databricks_postgres")
    assert [(one.namespace, one.name) for one in lineage.outputs] == [
        (f"postgres://{target.host}:{target.port}", name)
    ]
    # A sync that has nothing to do.
    again = ran(sync(trips, full_refresh=False))
    assert (again["version"], again["sync_end_time"]) == (1, done["sync_end_time"])
    gone = ran(LakebaseSyncedTableOperator(task_id="delete", action="delete", table=trips.name))
    assert gone == {"name": trips.name, "state": None}
    assert ran(LakebaseSyncedTableOperator(task_id="delete", action="delete", table=trips.name)) == gone
    assert LakebaseHook().get_first(f"SELECT to_regclass('pub.{trips.name.split('.')[2]}')") == (None,)
