"""Every operator, sensor, trigger and decorator of common-sql on a connection of type lakebase."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, AirflowSensorTimeout
from airflow.providers.common.sql.get_provider_info import get_provider_info
from airflow.providers.common.sql.operators.sql import (
    SQLCheckOperator,
    SQLColumnCheckOperator,
    SQLExecuteQueryOperator,
    SQLInsertRowsOperator,
    SQLIntervalCheckOperator,
    SQLTableCheckOperator,
    SQLThresholdCheckOperator,
    SQLValueCheckOperator,
)
from airflow.providers.common.sql.sensors.sql import SqlSensor
from airflow.providers.common.sql.triggers.sql import SQLExecuteQueryTrigger
from airflow.sdk import BaseOperator
from airflow.sdk.execution_time import macros

from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from tests.airflow.conftest import HOME, DagLoader
from tests.airflow.test_dags import pulled, states

# dag.test() runs Airflow's own API server in this process, by starlette's test client.
pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated")

#: Each task of the DAG, and what it returns or leaves behind, as a statement with its rows.
TASKS: dict[str, Any] = {
    "execute": (
        "select count(*) from pg_class where relname like 'common\\_sql%%' and relkind = 'r'",
        [(4,)],
    ),
    "insert_rows": ("select tags from common_sql where id = 1", [([1, 2],)]),
    "replace_rows": ("select id, tags from common_sql where id > 1 order by 1", [(2, [4]), (3, [])]),
    "query": [(1, [1, 2]), (2, [4]), (3, [])],
    "column_check": None,
    "table_check": None,
    "check": None,
    "value_check": None,
    "threshold_check": None,
    "interval_check": None,
    "sensor": None,
    "transfer": ("select id from common_sql_copy order by 1", [(1,), (2,), (3,)]),
    "transfer_by_pages": ("select id from common_sql_pages order by 1", [(1,), (2,), (3,), (4,), (5,)]),
    "bulk_load": ("select id, name from common_sql_file order by 1", [(1, "one"), (2, None)]),
    "other_database": [("postgres",)],
    "decorated": [(3,)],
    "branch": None,
    "followed": None,
    "not_followed": None,
}
#: What common-sql ships and a database connection has no part in.
NOT_ON_A_CONNECTION = {
    "AnalyticsOperator": "reads files on object storage with DataFusion",
    "_AnalyticsDecoratedOperator": "as AnalyticsOperator",
}


@pytest.fixture(scope="module")
def common_sql() -> dict[str, Any]:
    return {}


@pytest.mark.parametrize("task_id", TASKS)
def test_common_sql(lake: LocalLakebase, dag_of: DagLoader, common_sql: dict[str, Any], task_id: str) -> None:
    # One run serves all cases: running a DAG is what takes the time.
    if "run" not in common_sql:
        (HOME / "common_sql.tsv").write_text("1\tone\n2\t\\N\n")
        common_sql["run"] = dag_of("common_sql").test()
    run, expected = common_sql["run"], TASKS[task_id]
    assert states(run)[task_id] == ("skipped" if task_id == "not_followed" else "success")
    if isinstance(expected, list):
        assert pulled(run, task_id) == expected
    elif expected is not None:
        statement, rows = expected
        assert LakebaseHook().get_records(statement) == rows


def shipped(*kinds: str) -> Iterator[type]:
    """The classes of common-sql's public modules of these kinds."""
    info = get_provider_info()
    modules = [name for kind in kinds for row in info[kind] for name in row["python-modules"]]
    modules += [row["class-name"].rpartition(".")[0] for row in info["task-decorators"]]
    for module in modules:
        for _name, kind in inspect.getmembers(importlib.import_module(module), inspect.isclass):
            if kind.__module__ == module and issubclass(kind, BaseOperator):
                yield kind


def test_nothing_that_common_sql_ships_is_left_out(dag_of: DagLoader) -> None:
    dag = dag_of("common_sql")
    assert dag.task_dict.keys() == TASKS.keys()
    tested = {type(task).__name__ for task in dag.tasks} | set(NOT_ON_A_CONNECTION)
    # Each of the operators extends it, and it does nothing by itself.
    assert {kind.__name__ for kind in shipped("operators", "sensors")} - tested == {"BaseSQLOperator"}


def execute(kind: type[BaseOperator], **arguments: Any) -> Any:
    context: Any = {"ds": "2025-01-08", "macros": macros}
    operator = kind(task_id="task", conn_id="lakebase_default", **arguments)
    operator.render_template_fields(context)
    return operator.execute(context)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (SQLCheckOperator, {"sql": "select false"}),
        (SQLValueCheckOperator, {"sql": "select 2", "pass_value": 3}),
        (SQLThresholdCheckOperator, {"sql": "select 5", "min_threshold": "select 1", "max_threshold": 4}),
        (
            SQLColumnCheckOperator,
            {
                "table": "(select null::int as id) as t",
                "column_mapping": {"id": {"null_check": {"equal_to": 0}}},
            },
        ),
        (
            SQLTableCheckOperator,
            {"table": "(select 1 as id) as t", "checks": {"two": {"check_statement": "count(*) = 2"}}},
        ),
        (
            SQLIntervalCheckOperator,
            {
                "table": "(values (date '2025-01-08', 9), (date '2025-01-01', 1)) as t (ds, n)",
                "metrics_thresholds": {"max(n)": 1.5},
            },
        ),
        (SQLExecuteQueryOperator, {"sql": "select no_such_column"}),
        (SQLInsertRowsOperator, {"table_name": "no_such_table", "rows": [(1,)]}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_wrong_fails(
    lake: LocalLakebase, kind: type[BaseOperator], arguments: dict[str, Any]
) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 # which one differs by operator: see below
        execute(kind, **arguments)
    if kind in (SQLExecuteQueryOperator, SQLInsertRowsOperator):
        assert "no_such" in str(caught.value)
    else:
        assert isinstance(caught.value, AirflowException | AirflowFailException)


def test_a_sensor_waits_for_what_is_not_there(lake: LocalLakebase) -> None:
    with pytest.raises(AirflowSensorTimeout):
        execute(SqlSensor, sql="select false", poke_interval=0.01, timeout=0.05)


@pytest.mark.parametrize(
    ("sql", "status"), [("select 1, 'one'", "success"), ("select no_such_column", "failure")]
)
def test_the_trigger(lake: LocalLakebase, sql: str, status: str) -> None:
    async def event() -> Any:
        return await anext(aiter(SQLExecuteQueryTrigger(sql=sql, conn_id="lakebase_default").run()))

    payload = asyncio.run(event()).payload
    assert payload["status"] == status
    assert payload.get("results", "none") == ([(1, "one")] if status == "success" else "none")
