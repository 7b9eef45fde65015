"""What tasks meet: a retry beside a task that runs on, conflicts, locks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psutil
import psycopg
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from lakebase_provider.core.errors import ConfigError, LockTimeoutError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.sql import LakebaseSqlOperator
from tests.airflow.conftest import DagLoader
from tests.airflow.supervised import START_SECONDS, Supervisors
from tests.eventually import eventually

# The runs are made by dag.test(), which has Airflow's own API server in this process.
pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated")


@pytest.fixture
def observer(lake: LocalLakebase) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(lake.superuser_dsn, dbname=lake.config().database, autocommit=True) as observer:
        yield observer


def run(**arguments: Any) -> Any:
    context: Any = {}
    return LakebaseSqlOperator(task_id="sql", **arguments).execute(context)


def test_a_retry_ends_the_statement_of_a_task_that_lost_its_heartbeat(
    lake: LocalLakebase,
    dag_of: DagLoader,
    supervisors: Supervisors,
    observer: psycopg.Connection[Any],
) -> None:
    LakebaseHook().run("drop table if exists fenced; create table fenced (try int)", split_statements=True)
    dag = dag_of("supervised")
    zombie = supervisors.start(dag, "fenced", TRY="1")
    waiting = b"""select count(*) from pg_stat_activity
                  where query = 'select pg_sleep(55) /* fenced */' and state = 'active'"""
    eventually(lambda: observer.execute(waiting).fetchone() == (1,), within=START_SECONDS)
    # Its worker answers nobody any more, and the statement goes on.
    lost = [psutil.Process(zombie.supervisor.pid), zombie.process]
    for process in lost:
        process.suspend()
    retry = supervisors.start(dag, "fenced", zombie.run_id, TRY="2")
    assert retry.wait() == "success"
    assert observer.execute(waiting).fetchone() == (0,)
    said = "Ending an earlier session that is working on 'supervised/fenced/manual"
    assert any(line["event"].startswith(said) for line in retry.log())
    for process in lost:
        process.resume()
    zombie.supervisor.join(START_SECONDS)
    assert any("terminating connection" in str(line) for line in zombie.log())
    assert LakebaseHook().get_records("select try from fenced") == [(2,)]


def test_statements_that_bear_it_run_again_after_a_deadlock(lake: LocalLakebase) -> None:
    LakebaseHook().run(
        ["drop table if exists pair", "create table pair as select i, 0 as n from generate_series(1, 2) as i"]
    )
    in_turn = "update pair set n = n + 1 where i = {}"

    def both(first: int, second: int) -> None:
        sql = [in_turn.format(first), "select pg_sleep(0.5)", in_turn.format(second)]
        run(sql=sql, idempotent=True)

    threads = [threading.Thread(target=both, args=pair) for pair in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert LakebaseHook().get_records("select n from pair") == [(2,), (2,)]


def test_a_task_that_waits_for_a_lock_in_vain_says_who_holds_it(
    lake: LocalLakebase, observer: psycopg.Connection[Any]
) -> None:
    LakebaseHook().run("create table if not exists locked ()")
    with observer.transaction():
        observer.execute("lock table locked")
        with pytest.raises(LockTimeoutError, match=rf"pid {observer.info.backend_pid} \("):
            run(sql="select * from locked", lock_timeout=0.5)


def test_a_statement_timeout_is_not_retried(lake: LocalLakebase) -> None:
    with pytest.raises(AirflowFailException, match="statement timeout"):
        run(sql="select pg_sleep(30)", statement_timeout=0.1)


@pytest.mark.parametrize("name", ["fence", "idempotent"])
def test_what_the_triggerer_cannot_do_is_refused(name: str) -> None:
    arguments: dict[str, Any] = {name: True}
    with pytest.raises(ConfigError, match=name):
        LakebaseSqlOperator(task_id="sql", sql="select 1", deferrable=True, **arguments)
