"""One connection for all of a task's calls, closed when the task ends, whatever becomes of it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import psycopg
import pytest

from lakebase_provider._airflow.task import task_end
from lakebase_provider.core.shared import shared_clients
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from tests.airflow.conftest import DagLoader
from tests.airflow.test_dags import pulled, states
from tests.eventually import eventually

# dag.test() runs Airflow's own API server in this process, by starlette's test client.
pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated")

OPEN = "select count(*) from pg_stat_activity where application_name like 'task_ends.%'"


@pytest.fixture
def observer(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> Iterator[psycopg.Connection[tuple[int]]]:
    monkeypatch.setenv("TASK_ENDS_SUPERUSER", lake.superuser_dsn)
    with psycopg.connect(lake.superuser_dsn, autocommit=True) as observer:
        yield observer


def test_without_the_listener_connections_stay(
    dag_of: DagLoader, observer: psycopg.Connection[tuple[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the other tests see gone would be there.
    monkeypatch.setenv("TASK_ENDS", "succeeds")
    monkeypatch.setattr(task_end, "close_shared_clients", lambda: None)
    assert states(dag_of("task_ends").test()) == {"ends": "success"}
    assert observer.execute(OPEN).fetchone() == (1,)


@pytest.mark.parametrize(
    ("kind", "state"), [("succeeds", "success"), ("fails", "failed"), ("is skipped", "skipped")]
)
def test_no_connection_outlives_its_task(
    lake: LocalLakebase,
    dag_of: DagLoader,
    observer: psycopg.Connection[tuple[int]],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    state: str,
) -> None:
    monkeypatch.setenv("TASK_ENDS", kind)
    LakebaseHook().get_first("select 1")
    before = lake.admin.counters()
    assert states(dag_of("task_ends").test()) == {"ends": state}
    eventually(lambda: observer.execute(OPEN).fetchone() == (0,))
    after = lake.admin.counters()
    assert after.logins - before.logins == 1
    assert after.mints == before.mints
    assert all(not client.stats().pool for client in shared_clients())


def test_no_connection_is_open_while_a_task_is_deferred(
    dag_of: DagLoader, observer: psycopg.Connection[tuple[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASK_ENDS", "defers")
    run = dag_of("task_ends").test()
    assert states(run) == {"ends": "success"}
    assert pulled(run, "ends") == 0


def test_no_connection_is_open_between_two_tries(
    lake: LocalLakebase,
    dag_of: DagLoader,
    observer: psycopg.Connection[tuple[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TASK_ENDS", "is retried")
    before = lake.admin.counters().logins
    run = dag_of("task_ends").test()
    assert states(run) == {"ends": "success"}
    # Only the first try has connected; the second one looked what was left of it.
    assert lake.admin.counters().logins - before == 1
    assert pulled(run, "ends") == 0


def test_the_inspector_takes_part_in_the_tasks_pool(lake: LocalLakebase) -> None:
    hook = LakebaseHook()
    before = lake.admin.counters().logins
    hook.run("create table if not exists inspected (id int primary key)")
    assert hook.inspector.has_table("inspected")
    assert [column["name"] for column in hook.get_table_schema("inspected")] == ["id"]
    # Setting it drops the inspector; nothing of it is left to be collected.
    hook.schema = hook.schema
    assert hook.inspector.get_pk_constraint("inspected")["constrained_columns"] == ["id"]
    assert lake.admin.counters().logins - before == 1
    gc.collect()


def test_outside_of_a_task_nothing_listens(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_end, "_listens", False)
    monkeypatch.setattr(task_end, "_listener_manager", lambda: pytest.fail("a listener was added"))
    assert LakebaseHook().get_first("select 1") == (1,)
    assert LakebaseHook().get_first("select 2") == (2,)
