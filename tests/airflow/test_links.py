"""The link to the Databricks console."""

from __future__ import annotations

from typing import Any

import pytest

from lakebase_provider import get_provider_info
from lakebase_provider.core import LakebaseConfig
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.links import LakebaseConsoleLink, LakebasePipelineLink, console_url
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.branches import (
    LakebaseCreateBranchOperator,
    LakebaseDeleteBranchOperator,
    LakebaseResetBranchOperator,
    LakebaseRestoreOperator,
)
from lakebase_provider.operators.health import LakebaseHealthCheckOperator, LakebaseInspectOperator
from lakebase_provider.operators.migrate import LakebaseMigrateOperator
from lakebase_provider.operators.rehearse import LakebaseRehearseOperator
from lakebase_provider.operators.sql import LakebaseSqlOperator
from lakebase_provider.operators.sync import LakebaseSyncOperator
from lakebase_provider.operators.unload import LakebaseUnloadOperator
from lakebase_provider.sensors.health import LakebaseHealthSensor
from lakebase_provider.sensors.sql import LakebaseSqlSensor
from tests.airflow.conftest import DagLoader, connection_fields, define
from tests.airflow.test_branch_operators import ran

# dag.test() runs Airflow's own API server in this process, by starlette's test client.
WITH_RUN = pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated")


def config(**settings: Any) -> LakebaseConfig:
    return LakebaseConfig.from_mapping(
        {
            "workspace_host": "https://w.cloud.databricks.com",
            "client_id": "c",
            "client_secret": "canary",
            **settings,
        }
    )


def test_it_leads_to_what_the_console_can_show() -> None:
    assert (
        console_url(config(endpoint="projects/p/branches/b/endpoints/e"))
        == "https://w.cloud.databricks.com/lakebase/projects"
    )
    assert (
        console_url(config(instance="my-db"))
        == "https://w.cloud.databricks.com/compute/database-instances/my-db"
    )
    assert (
        console_url(
            LakebaseConfig.from_mapping(
                {"host": "localhost", "auth": "password", "user": "u", "password": "canary"}
            )
        )
        == ""
    )


@pytest.mark.parametrize(
    "operator",
    [
        LakebaseSqlOperator(task_id="sql", sql="select 1"),
        LakebaseHealthCheckOperator(task_id="health"),
        LakebaseInspectOperator(task_id="inspect"),
        LakebaseSqlSensor(task_id="sql_sensor", sql="select 1"),
        LakebaseHealthSensor(task_id="health_sensor"),
    ],
    ids=lambda operator: operator.task_type,
)
def test_each_operator_has_it(lake: LocalLakebase, operator: Any) -> None:
    (link,) = operator.operator_extra_links
    url = link.get_link(operator, ti_key=None)
    assert url.endswith("/lakebase/projects")
    for secret in (lake.client_secret, lake.client_id):
        assert secret not in url
    # Nothing is asked for it: neither a token nor a connection.
    assert (lake.admin.counters().mints, lake.admin.counters().logins) == (0, 0)


@pytest.mark.parametrize(
    "operator",
    [
        LakebaseSqlOperator(task_id="sql", sql="select 1", conn_id="nowhere"),
        LakebaseUnloadOperator(task_id="unload", sql="select 1", to="/x.csv", conn_id="nowhere"),
        LakebaseHealthCheckOperator(task_id="health", lakebase_conn_id="nowhere"),
        LakebaseSqlSensor(task_id="sql_sensor", sql="select 1", conn_id="nowhere"),
        LakebaseHealthSensor(task_id="health_sensor", lakebase_conn_id="nowhere"),
    ],
    ids=lambda operator: operator.task_type,
)
def test_there_is_none_where_the_connection_is_missing(lake: LocalLakebase, operator: Any) -> None:
    # The task's own error is in the log already; Airflow would put a second traceback below it.
    (link,) = operator.operator_extra_links
    assert link.get_link(operator, ti_key=None) == ""


@pytest.mark.parametrize(
    "broken", [{"extra": {"max_size": "many"}}, {"extra": {"unknown": 1}}, {"extra": {"endpoint": "?"}}]
)
def test_nor_where_it_is_wrong(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch, broken: dict[str, Any]
) -> None:
    define(monkeypatch, **connection_fields(lake, **broken))
    operator = LakebaseSqlOperator(task_id="sql", sql="select 1")
    assert LakebaseConsoleLink().get_link(operator, ti_key=None) == ""


def test_airflow_may_show_it() -> None:
    assert get_provider_info()["extra-links"] == [
        f"{link.__module__}.{link.__qualname__}" for link in (LakebaseConsoleLink, LakebasePipelineLink)
    ]


def test_there_is_none_to_a_pipeline_without_an_update(lake: LocalLakebase) -> None:
    for conn_id in ("lakebase_default", "nowhere"):
        operator = LakebaseSyncOperator(task_id="t", table="main.pub.trips", conn_id=conn_id)
        assert LakebasePipelineLink().get_link(operator, ti_key=None) == ""


@WITH_RUN
def test_the_interface_finds_it_after_the_run(lake: LocalLakebase, dag_of: DagLoader) -> None:
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    run = dag_of("lakebase_health").test()
    with create_session() as session:
        query = XComModel.get_many(
            run_id=run.run_id, key=LakebaseConsoleLink().xcom_key, task_ids="check", dag_ids=run.dag_id
        )
        value = XComModel.deserialize_value(session.scalar(query))
    assert value.endswith("/lakebase/projects")


# On a branch.


def test_on_a_branch_it_leads_to_the_branch(lake: LocalLakebase) -> None:
    client = LakebaseHook().client
    made = client.workspace.branches.create("linked", ttl=3600)
    wanted = f"/lakebase/projects/{client.workspace.projects.get('local').uid}/branches/{made.uid}"
    there: dict[str, Any] = {"task_id": "t", "branch": made.name}
    for operator in (
        LakebaseSqlOperator(sql="select 1", **there),
        LakebaseUnloadOperator(sql="select 1", to="/x.csv", **there),
        LakebaseHealthSensor(**there),
        LakebaseMigrateOperator(folder="/x", **there),
        LakebaseRehearseOperator(sql="select 1", **there),
        LakebaseResetBranchOperator(task_id="t", branch="linked"),
    ):
        (link,) = operator.operator_extra_links
        assert link.get_link(operator, ti_key=None).endswith(wanted)
    client.workspace.branches.delete(made.name, purge=True)
    # Of what is gone, the projects are shown.
    operator = LakebaseDeleteBranchOperator(**there)
    assert LakebaseConsoleLink().get_link(operator, ti_key=None).endswith("/lakebase/projects")


def test_a_task_that_makes_a_branch_leads_to_it(lake: LocalLakebase) -> None:
    client = LakebaseHook().client
    create = LakebaseCreateBranchOperator(task_id="create", ttl=3600)
    restore = LakebaseRestoreOperator(task_id="restore", branch_id="linked-2", ttl=3600)
    for operator in (create, restore):
        made = ran(operator)
        assert LakebaseConsoleLink().get_link(operator, ti_key=None).endswith(f"/branches/{made['uid']}")
        client.workspace.branches.delete(made["name"], purge=True)
