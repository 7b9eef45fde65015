"""A task that is an async function: its connections end with it."""

from __future__ import annotations

import os

import psycopg
import pytest

from lakebase_provider.local import LocalLakebase
from tests.airflow.conftest import DAGS, OLD_AIRFLOW, DagLoader
from tests.airflow.native_async import run
from tests.airflow.supervised import FORKS, START_SECONDS
from tests.airflow.test_dags import pulled, states
from tests.eventually import eventually


@pytest.mark.skipif(OLD_AIRFLOW, reason="Airflow runs async tasks since 3.2")
def test_tasks_that_are_async_functions(lake: LocalLakebase, dag_of: DagLoader) -> None:
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    dag_of("native_async")
    ours, theirs = FORKS.Pipe()
    child = FORKS.Process(target=run, args=(str(DAGS / "native_async.py"), {**os.environ}, theirs))
    with ours:
        child.start()
        theirs.close()
        assert ours.poll(START_SECONDS)
        run_id, warned = ours.recv()
        # The event loop stays with Airflow; the connections go with the task.
        open_ones = "select count(*) from pg_stat_activity where application_name like 'native_async.%'"
        with psycopg.connect(lake.superuser_dsn, autocommit=True) as observer:
            eventually(lambda: observer.execute(open_ones).fetchone() == (0,))
            assert observer.execute("select to_regclass('never_kept')").fetchone() == (None,)
        assert child.is_alive()
        ours.send("end")
        child.join(START_SECONDS)
    assert child.exitcode == 0
    assert [text for text in warned if not text.startswith("Using `httpx`")] == []
    with create_session() as session:
        found = session.scalars(
            select(DagRun).where(DagRun.dag_id == "native_async", DagRun.run_id == run_id)
        ).one()
    assert states(found) == {"reads": "success", "fails": "failed"}
    assert pulled(found, "reads") == [0, 2, 4, 6, 8, 10, 12, 14]
