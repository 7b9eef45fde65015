"""DAGs by dag.test(), all in this process, against the local Lakebase."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from tests.airflow.conftest import DagLoader, connection_fields, define
from tests.core.conftest import empty_database

# dag.test() runs Airflow's own API server in this process, by starlette's test client.
pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated")


def states(run: Any) -> dict[str, str]:
    return {ti.task_id: str(ti.state) for ti in run.get_task_instances()}


def pulled(run: Any, task_id: str) -> Any:
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    try:
        from airflow.sdk.serde import deserialize
    except ModuleNotFoundError:  # Airflow 3.1
        from airflow.serialization.serde import deserialize

    with create_session() as session:
        row = session.scalar(
            XComModel.get_many(run_id=run.run_id, key="return_value", task_ids=task_id, dag_ids=run.dag_id)
        )
        return deserialize(XComModel.deserialize_value(row))


def test_the_etl_example_gives_the_same_rows_when_it_is_run_again(
    lake: LocalLakebase, dag_of: DagLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEBASE_EXAMPLE_ORDERS", "200")
    dag = dag_of("lakebase_etl")
    serving = "select customer, orders, revenue from etl_airflow.customer_revenue order by 1"
    LakebaseHook().run("drop schema if exists etl_airflow cascade")
    found = []
    for _ in range(2):
        run = dag.test()
        assert set(states(run).values()) == {"success"}
        assert pulled(run, "load_orders") == 200
        found.append(LakebaseHook().get_records(serving))
    assert found[0] == found[1]
    assert len(found[0]) == 50
    total = sum(Decimal(n * 37 % 10_000) / 100 for n in range(1, 201))
    assert sum(row[2] for row in found[0]) == total


def test_the_health_example(lake: LocalLakebase, dag_of: DagLoader) -> None:
    run = dag_of("lakebase_health").test()
    assert states(run) == {"check": "success"}
    assert pulled(run, "check")["ok"] is True


def test_a_failed_health_check_pushes_its_report(
    lake: LocalLakebase, dag_of: DagLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(monkeypatch, **connection_fields(lake, password="wrong-secret"))
    dag = dag_of("lakebase_health")
    dag.task_dict["check"].retries = 0
    run = dag.test()
    assert states(run) == {"check": "failed"}
    report = pulled(run, "check")
    assert report["ok"] is False
    by_name = {stage["name"]: stage for stage in report["stages"]}
    assert by_name["credential"]["status"] == "failed"
    assert "client id and secret" in by_name["credential"]["remedy"]
    assert by_name["login"]["status"] == "skipped"


def test_an_inspection_is_compared_with_that_of_the_run_before(
    lake: LocalLakebase, dag_of: DagLoader
) -> None:
    # It fails for what is bad, which may be what other tests have left.
    empty_database(LakebaseHook().client)
    dag = dag_of("lakebase_inspect")
    growth = []
    for day in (2, 3, 4):
        run = dag.test(logical_date=datetime(2026, 1, day, tzinfo=timezone.utc))
        assert states(run) == {"inspect": "success"}
        found = pulled(run, "inspect")["findings"]
        growth += [finding["status"] for finding in found if finding["check"] == "growth"]
    # The third run has two before it, and takes the latest.
    assert growth == ["skipped", "ok", "ok"]


def test_a_wrong_setting_is_not_retried(
    lake: LocalLakebase, dag_of: DagLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(monkeypatch, **connection_fields(lake, extra={"endpoint": "projects/p"}))
    # The example retries once after a minute: this would take that long if it did.
    run = dag_of("lakebase_health").test()
    assert states(run) == {"check": "failed"}


def test_a_task_that_times_out_leaves_no_statement_on_the_server(
    lake: LocalLakebase, dag_of: DagLoader
) -> None:
    LakebaseHook().get_first("select 1")  # the first mint imports the SDK, which takes the task's time
    start = time.monotonic()
    run = dag_of("kills").test()
    assert states(run) == {"too_long": "failed"}
    assert time.monotonic() - start < 40
    running = "select count(*) from pg_stat_activity where query = 'select pg_sleep(55)' and state = 'active'"
    assert LakebaseHook().get_first(running) == (0,)


@pytest.fixture
def sigterm_restored() -> Iterator[None]:
    """Airflow's runner installs a handler of its own and leaves it there."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def test_a_task_that_is_killed_leaves_no_statement_on_the_server(
    lake: LocalLakebase, dag_of: DagLoader, sigterm_restored: None
) -> None:
    dag = dag_of("kills")
    dag.task_dict["too_long"].execution_timeout = None
    running = "select count(*) from pg_stat_activity where query = 'select pg_sleep(55)' and state = 'active'"
    observer = LakebaseHook().client.connect(autocommit=True)

    def kill_when_it_runs() -> None:
        deadline = time.monotonic() + 50
        while observer.execute(running.encode()).fetchone() != (1,):
            assert time.monotonic() < deadline
        os.kill(os.getpid(), signal.SIGTERM)

    killer = threading.Thread(target=kill_when_it_runs)
    killer.start()
    start = time.monotonic()
    run = dag.test()
    killer.join()
    assert time.monotonic() - start < 40
    assert states(run) == {"too_long": "failed"}
    assert observer.execute(running.encode()).fetchone() == (0,)
    observer.close()


def test_one_entry_of_what_an_operator_returns(
    lake: LocalLakebase, dag_of: DagLoader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ONE_ENTRY_FOLDER", str(tmp_path))
    LakebaseHook().run("drop table if exists one_entry, lakebase_load")
    run = dag_of("one_entry").test()
    assert set(states(run).values()) == {"success"}
    assert pulled(run, "told") == [1, 1, True, 1]
    assert pulled(run, "unload")["path"] == str(tmp_path / "rows.parquet")  # all of it, too
