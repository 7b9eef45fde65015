"""Errors of connecting name the Airflow connection, whichever way the database is reached."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from lakebase_provider.core import shared
from lakebase_provider.core.errors import (
    ConfigError,
    EndpointNotFoundError,
    EndpointWakingError,
    LakebaseError,
    LoginRejectedError,
    NotAuthenticatedError,
    PoolExhaustedError,
)
from lakebase_provider.core.shared import close_shared_clients, shared_clients
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.branches import (
    LakebaseCreateBranchOperator,
    LakebaseDeleteBranchOperator,
    LakebaseResetBranchOperator,
    LakebaseSweepBranchesOperator,
)
from lakebase_provider.operators.health import LakebaseHealthCheckOperator
from lakebase_provider.operators.load import LakebaseLoadOperator
from lakebase_provider.operators.migrate import LakebaseMigrateOperator
from lakebase_provider.operators.sql import LakebaseSqlOperator
from lakebase_provider.operators.sync import LakebaseSyncedTableOperator, LakebaseSyncOperator
from lakebase_provider.operators.transfer import LakebaseTransferOperator
from lakebase_provider.operators.unload import LakebaseUnloadOperator
from lakebase_provider.sensors.branches import LakebaseBranchSensor
from lakebase_provider.sensors.health import LakebaseHealthSensor
from lakebase_provider.sensors.sql import LakebaseSqlSensor
from lakebase_provider.sensors.sync import LakebaseInDeltaSensor, LakebaseSyncedTableSensor
from lakebase_provider.triggers.polling import LakebaseSqlSensorTrigger
from lakebase_provider.triggers.sql import LakebaseSqlTrigger
from tests.airflow.conftest import connection_fields, define

WHOSE = "(Airflow connection 'lakebase_default')"


@pytest.fixture(autouse=True)
def clients_without_names() -> None:
    """Other tests of this process may have named a client of the same settings."""
    close_shared_clients()
    shared._shared.clear()


def wrong_login(lake: LocalLakebase) -> dict[str, Any]:
    return connection_fields(lake, extra={"client_id": lake.client_id}, login="nobody")


def wrong_secret(lake: LocalLakebase) -> dict[str, Any]:
    return connection_fields(lake, password="wrong-secret")


def wrong_endpoint(lake: LocalLakebase) -> dict[str, Any]:
    endpoint = "projects/local/branches/production/endpoints/absent"
    return connection_fields(lake, host=None, extra={"endpoint": endpoint})


def sleeping(lake: LocalLakebase) -> dict[str, Any]:
    lake.admin.login_fault("paused")
    return connection_fields(lake, extra={"connect_budget": 4})


def no_credentials(lake: LocalLakebase) -> dict[str, Any]:
    return connection_fields(lake, password=None, host=None, port=None, extra={"sslrootcert": None})


CASES: dict[str, tuple[Callable[[LocalLakebase], dict[str, Any]], type[LakebaseError]]] = {
    "login": (wrong_login, LoginRejectedError),
    "secret": (wrong_secret, NotAuthenticatedError),
    "endpoint": (wrong_endpoint, EndpointNotFoundError),
    "wake": (sleeping, EndpointWakingError),
    "credentials": (no_credentials, ConfigError),
}


@pytest.fixture(params=CASES)
def kind(
    request: pytest.FixtureRequest, lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> Iterator[type[LakebaseError]]:
    fields, kind = CASES[request.param]
    define(monkeypatch, **fields(lake))
    yield kind
    lake.admin.clear_faults()


def test_the_hook_names_it(kind: type[LakebaseError]) -> None:
    with pytest.raises(kind) as caught:
        LakebaseHook().get_first("select 1")
    assert caught.value.message.count(WHOSE) == 1


def test_the_asking_for_the_address_names_it(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> None:
    define(monkeypatch, **wrong_endpoint(lake))
    with pytest.raises(EndpointNotFoundError) as caught:
        LakebaseHook().client.target()
    assert WHOSE in caught.value.message


@pytest.fixture
async def no_open_pool(lake: LocalLakebase) -> AsyncIterator[None]:
    yield
    for client in shared_clients():
        await client.aclose()


async def test_asyncio_names_it(kind: type[LakebaseError], no_open_pool: None) -> None:
    with pytest.raises(kind) as caught:
        await LakebaseHook().aget_conn()
    assert caught.value.message.count(WHOSE) == 1


async def test_triggers_name_it(kind: type[LakebaseError], no_open_pool: None) -> None:
    for trigger in (
        LakebaseSqlTrigger(conn_id="lakebase_default", sql=["select 1"]),
        LakebaseSqlSensorTrigger(conn_id="lakebase_default", sql="select 1", poke_interval=1),
    ):
        [event] = [event async for event in trigger.run()]
        assert (event.payload["kind"], event.payload["message"].count(WHOSE)) == (kind.__name__, 1)


def test_the_operator_names_it(kind: type[LakebaseError]) -> None:
    with pytest.raises((kind, AirflowFailException)) as caught:
        LakebaseSqlOperator(task_id="t", sql="select 1").execute({})
    assert str(caught.value).count(WHOSE) == 1


@pytest.mark.parametrize(
    "operator",
    [
        LakebaseSqlOperator(task_id="sql", sql="select 1"),
        LakebaseSqlOperator(task_id="to_file", sql="select 1", output_path="{folder}/out.csv"),
        LakebaseLoadOperator(task_id="load", source="{folder}/rows.csv", table="t", load_id=None),
        LakebaseTransferOperator(
            task_id="transfer", source_conn_id="lakebase_default", sql="select 1", table="t", load_id=None
        ),
        LakebaseUnloadOperator(task_id="unload", sql="select 1", to="{folder}/out.parquet"),
        LakebaseMigrateOperator(task_id="migrate", folder="{folder}/migrations"),
        LakebaseCreateBranchOperator(task_id="create", branch_id="b"),
        LakebaseResetBranchOperator(task_id="reset", branch="b"),
        LakebaseDeleteBranchOperator(task_id="delete", branch="b"),
        LakebaseSweepBranchesOperator(task_id="sweep"),
        LakebaseBranchSensor(task_id="branch_sensor", branch="b", timeout=1),
        LakebaseSyncOperator(task_id="sync", table="main.pub.trips"),
        LakebaseSyncedTableOperator(task_id="drop", action="delete", table="main.pub.trips"),
        LakebaseSyncedTableSensor(task_id="synced", table="main.pub.trips", version=1, timeout=1),
        LakebaseInDeltaSensor(task_id="mirrored", lsn="0/1", cdf_config="mirror", timeout=1),
        LakebaseSqlSensor(task_id="sensor", sql="select 1", timeout=1),
    ],
    ids=lambda operator: operator.task_id,
)
def test_a_failure_that_no_retry_helps_says_so(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, operator: Any
) -> None:
    (tmp_path / "rows.csv").write_text("a\n1\n")
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "0001_t.sql").write_text("create table t (a int)")
    for name in ("source", "output_path", "to", "folder"):
        if isinstance(place := getattr(operator, name, None), str):
            setattr(operator, name, place.format(folder=tmp_path))
    define(monkeypatch, **wrong_secret(lake))
    with pytest.raises(AirflowFailException) as caught:
        operator.execute({"ti": Mock(), "task": operator})
    first, *_, last = str(caught.value).splitlines()
    assert WHOSE in first
    assert last == "Not retried: a retry would not help."


def test_health_checks_name_it(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> None:
    define(monkeypatch, **wrong_login(lake))
    ok, message = LakebaseHook().test_connection()
    assert not ok
    assert message.count(WHOSE) == 1
    with pytest.raises((LakebaseError, AirflowFailException)) as caught:
        LakebaseHealthCheckOperator(task_id="t").execute({"ti": Mock()})
    assert WHOSE in str(caught.value)
    stages = LakebaseHealthSensor(task_id="s").poke({}).xcom_value["stages"]
    assert any(WHOSE in stage["detail"] for stage in stages)


def test_two_connections_of_one_client_are_both_named(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = wrong_login(lake)
    # Of no other test's client.
    fields["extra"]["application_name"] = "of-two"
    for conn_id in ("first", "second"):
        define(monkeypatch, conn_id, **fields)
    assert LakebaseHook("first").client is LakebaseHook("second").client
    with pytest.raises(LoginRejectedError) as caught:
        LakebaseHook("second").get_first("select 1")
    assert "(Airflow connection 'first' or Airflow connection 'second')" in caught.value.message


def test_an_exhausted_pool_names_it(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> None:
    define(monkeypatch, **connection_fields(lake, extra={"max_size": 1}))
    pool = LakebaseHook().client.pool
    with pool.connection(), pytest.raises(PoolExhaustedError) as caught:
        pool.getconn(timeout=0.05)
    assert WHOSE in caught.value.message


def test_a_client_without_a_name_says_nothing(lake: LocalLakebase) -> None:
    from lakebase_provider.core import LakebaseClient

    lake.admin.login_fault("paused")
    with pytest.raises(EndpointWakingError) as caught:
        asyncio.run(LakebaseClient(lake.config()).aconnect(timeout=0.5))
    assert "Airflow" not in caught.value.message
