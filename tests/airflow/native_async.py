"""A task that is an async function: its connections end with it.

Run by test_native_async.py in a process of its own: Airflow's event loop for such tasks stays in the process,
and meets there what earlier tests have left of theirs.
"""

from __future__ import annotations

import psycopg
import pytest

from lakebase_provider.local import LocalLakebase
from tests.airflow.conftest import OLD_AIRFLOW, DagLoader
from tests.airflow.test_dags import pulled, states
from tests.eventually import eventually


@pytest.mark.skipif(OLD_AIRFLOW, reason="Airflow runs async tasks since 3.2")
@pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated")
def test_a_task_that_is_an_async_function(lake: LocalLakebase, dag_of: DagLoader) -> None:
    run = dag_of("native_async").test()
    # The event loop stays with Airflow; the connections go with the task.
    ours = "select count(*) from pg_stat_activity where application_name like 'native_async.%'"
    with psycopg.connect(lake.superuser_dsn, autocommit=True) as observer:
        eventually(lambda: observer.execute(ours).fetchone() == (0,))
        assert observer.execute("select to_regclass('never_kept')").fetchone() == (None,)
    assert states(run) == {"reads": "success", "fails": "failed"}
    assert pulled(run, "reads") == [0, 2, 4, 6, 8, 10, 12, 14]
