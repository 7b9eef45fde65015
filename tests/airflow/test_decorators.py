"""``@task.lakebase_sql`` by dag.test(); the example shows it with parameters."""

from __future__ import annotations

import pytest

from lakebase_provider.local import LocalLakebase
from tests.airflow.conftest import DagLoader
from tests.airflow.test_dags import pulled, states

# dag.test() runs Airflow's own API server in this process, by starlette's test client.
pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated")


@pytest.fixture(scope="module")
def run() -> dict[str, object]:
    return {}


CASES = {
    "templated": [("decorators",)],
    "several": [[(1,)], [(2,)]],
    "mapped": None,
    "deferred": {"rows": [3]},
    "no_statement": "failed",
    "empty": "failed",
}


@pytest.mark.parametrize("task_id", CASES)
def test_what_the_function_returns_is_run(
    lake: LocalLakebase, dag_of: DagLoader, run: dict[str, object], task_id: str
) -> None:
    # One run serves all cases: running a DAG is what takes the time.
    if "run" not in run:
        run["run"] = dag_of("decorators").test()
    expected = CASES[task_id]
    state = states(run["run"])[task_id]
    assert state == ("failed" if expected == "failed" else "success")
    if expected not in (None, "failed"):
        assert pulled(run["run"], task_id) == expected


def test_the_interface_shows_the_statement_that_ran(
    lake: LocalLakebase, dag_of: DagLoader, run: dict[str, object]
) -> None:
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.utils.session import create_session
    from sqlalchemy import select

    if "run" not in run:
        run["run"] = dag_of("decorators").test()
    with create_session() as session:
        fields = session.scalars(
            select(RenderedTaskInstanceFields).where(
                RenderedTaskInstanceFields.dag_id == "decorators",
                RenderedTaskInstanceFields.task_id == "templated",
            )
        ).all()
        assert "select 'decorators'" in str(fields[-1].rendered_fields["sql"])
