"""A worker or a triggerer that is killed (SIGKILL) while a sync runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from tests.airflow.conftest import HOME, OLD_AIRFLOW, DagLoader
from tests.airflow.supervised import START_SECONDS, Supervisors
from tests.core.workspace.lakehouse import Shop, shop
from tests.eventually import eventually

# The runs are made by dag.test(), which has Airflow's own API server in this process.
pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated")


@pytest.fixture
def client(lake: LocalLakebase) -> LakebaseClient:
    return LakebaseHook().client


@pytest.fixture
def trips(lake: LocalLakebase, client: LakebaseClient, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A synced table with version 0."""
    made = shop(lake)
    monkeypatch.setenv("SYNCED_TABLE", made.name)
    made.create(client.workspace.synced_tables)
    client.workspace.synced_tables.wait(made.name, version=0)
    return made


def updates(client: LakebaseClient, trips: Shop) -> list[Any]:
    pipeline = client.workspace.synced_tables.get(trips.name).pipeline_id
    assert pipeline is not None
    return [*client.workspace.pipelines.updates(pipeline)]


def test_the_retry_of_a_sync_that_is_killed_adopts_its_update(
    lake: LocalLakebase, client: LakebaseClient, trips: Shop, dag_of: DagLoader, supervisors: Supervisors
) -> None:
    dag, before = dag_of("syncs"), len(updates(client, trips))
    trips.write({"id": [3], "name": ["c"]})
    lake.admin.set(pipeline_seconds=600)
    killed = supervisors.start(dag, "sync")
    eventually(lambda: len(updates(client, trips)) > before, within=START_SECONDS)
    killed.process.kill()
    assert killed.wait() == "running"
    retry = supervisors.start(dag, "sync", killed.run_id)
    eventually(lambda: "is adopted" in str(retry.log()), within=START_SECONDS)
    lake.admin.advance(1200)
    assert retry.wait() == "success", retry.log()
    assert len(updates(client, trips)) == before + 1
    assert len(trips.rows()) == 3
    [(version, pipeline)] = [(one["version"], one["pipeline_id"]) for one in extras("synced_by_task")]
    assert (version, pipeline) == (1, client.workspace.synced_tables.get(trips.name).pipeline_id)


class Triggerer:
    """A triggerer of the tests' Airflow."""

    def __init__(self) -> None:
        settings = {"JOB_HEARTBEAT_SEC": "1", "TRIGGERER_HEALTH_CHECK_THRESHOLD": "2"}
        env = {**os.environ, **{f"AIRFLOW__TRIGGERER__{name}": value for name, value in settings.items()}}
        with (HOME / "triggerer.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "airflow", "triggerer", "--skip-serve-logs"],
                env=env,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """End it and what it has started, as the kernel does when memory is short."""
        with suppress(psutil.NoSuchProcess):
            started = psutil.Process(self.process.pid)
            for one in (started, *started.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    one.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def triggerers() -> Iterator[list[Triggerer]]:
    started: list[Triggerer] = []
    yield started
    for one in started:
        one.kill()


def told() -> list[Any]:
    """Versions that the asset was told of by its watcher."""
    return [extra["payload"]["version"] for extra in extras("synced_table")]


def extras(name: str) -> list[dict[str, Any]]:
    """What an asset's events say, in their order."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        events = session.scalars(
            select(AssetEvent)
            .join(AssetModel, AssetEvent.asset_id == AssetModel.id)
            .where(AssetModel.name == name)
            .order_by(AssetEvent.id)
        ).all()
        return [event.extra for event in events]


def noted() -> Any:
    """What the asset's state says was told."""
    from airflow.models.asset_state_store import AssetStateStoreModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        return session.scalar(select(AssetStateStoreModel.value))


@pytest.mark.skipif(OLD_AIRFLOW, reason="Airflow 3.1 keeps no state of an asset")
def test_a_triggerer_that_is_killed_tells_each_version_once(
    client: LakebaseClient, trips: Shop, dag_of: DagLoader, triggerers: list[Triggerer]
) -> None:
    dag = dag_of("syncs")
    # An asset's watchers are known once it is in use, which the first run makes it.
    for _ in range(2):
        dag.test(mark_success_pattern=".*")
    tables = client.workspace.synced_tables
    triggerers.append(Triggerer())
    eventually(lambda: noted() is not None, within=START_SECONDS)
    trips.write({"id": [3], "name": ["c"]})
    tables.refresh(trips.name)
    eventually(lambda: told() == [1], within=START_SECONDS)
    triggerers[0].kill()
    # Two versions while there is none; the last one is told.
    for version in (2, 3):
        trips.write({"id": [version + 2], "name": ["d"]})
        assert tables.refresh(trips.name).version == version
    triggerers.append(Triggerer())
    eventually(lambda: told() == [1, 3], within=START_SECONDS)
    # With nothing to do there is nothing to tell.
    tables.refresh(trips.name)
    trips.write({"id": [9], "name": ["e"]})
    tables.refresh(trips.name)
    eventually(lambda: told() == [1, 3, 4], within=START_SECONDS)
