"""`branch=`: the same connection on another branch, and never on its own by mistake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred
from airflow.sdk import task

from lakebase_provider.core.errors import ConfigError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.health import LakebaseHealthCheckOperator, LakebaseInspectOperator
from lakebase_provider.operators.load import LakebaseLoadOperator
from lakebase_provider.operators.sql import LakebaseSqlOperator
from lakebase_provider.operators.unload import LakebaseUnloadOperator
from lakebase_provider.sensors.health import LakebaseHealthSensor
from lakebase_provider.sensors.sql import LakebaseSqlSensor
from tests.airflow.test_arguments import KINDS, a_dag
from tests.airflow.test_triggers import event_of

TI = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1, max_tries=0)
COUNT = "SELECT count(*) FROM only_there"
#: A synced table is its project's, whichever branch a connection is on.
EACH = pytest.mark.parametrize(
    ("kind", "needed"),
    [
        given
        for given in KINDS
        if not given[0].__module__.startswith(
            ("lakebase_provider.operators.sync", "lakebase_provider.sensors.sync")
        )
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)


@pytest.fixture
def branch(lake: LocalLakebase) -> Iterator[str]:
    """The name of a branch that alone has a table ``only_there``."""
    client = LakebaseHook().client
    name = client.workspace.branches.create("airflow-1", ttl=3600).name
    LakebaseHook(branch=name).run("CREATE TABLE only_there (n int)")
    yield name
    client.workspace.branches.delete(name, purge=True)


def deferred_by(operator: Any) -> Any:
    with pytest.raises(TaskDeferred) as caught:
        operator.execute({})
    return caught.value.trigger


async def test_each_works_on_the_branch(lake: LocalLakebase, branch: str, tmp_path: Path) -> None:
    host = LakebaseHook(branch=branch).client.target().host
    context: Any = {"ti": TI}
    there: dict[str, Any] = {"task_id": "t", "branch": branch}

    rows = tmp_path / "rows.csv"
    rows.write_text("n\n1\n2\n")
    load = LakebaseLoadOperator(source=str(rows), table="only_there", load_id=None, **there)
    assert load.execute(context)["rows"] == 2
    assert LakebaseSqlOperator(sql=COUNT, **there).execute(context) == [(2,)]
    unload = LakebaseUnloadOperator(sql="TABLE only_there", to=str(tmp_path / "out.csv"), **there)
    assert unload.execute(context)["rows"] == 2
    assert LakebaseSqlSensor(sql=COUNT, **there).poke(context) is True
    for report in (
        LakebaseHealthCheckOperator(**there, checks=["dns"]).execute(context),
        LakebaseHealthSensor(**there, checks=["dns"]).poke(context).xcom_value,
    ):
        assert host in json.dumps(report)

    looks: Any = {"ti": SimpleNamespace(map_index=-1, xcom_pull=lambda **_arguments: None)}
    keyless = LakebaseInspectOperator(**there, checks=["tables_without_primary_key"]).execute(looks)
    assert "public.only_there" in keyless["markdown"]

    # In the triggerer, too.
    trigger = deferred_by(LakebaseSqlOperator(sql="TABLE only_there", deferrable=True, **there))
    assert (await event_of(trigger))["rows"] == [2]
    LakebaseHook(branch=branch).run("DELETE FROM only_there")
    sensor = LakebaseSqlSensor(sql=COUNT, deferrable=True, poke_interval=0.1, **there)
    trigger = deferred_by(sensor)
    LakebaseHook(branch=branch).run("INSERT INTO only_there VALUES (1)")
    assert (await event_of(trigger))["status"] == "success"
    health = LakebaseHealthSensor(
        checks=["login"], limits={"max_connect_ms": 0.000001}, deferrable=True, poke_interval=0.1, **there
    )
    assert deferred_by(health).settings == {"branch": branch}


def test_of_what_becomes_nothing_the_connections_own_is_not_made(lake: LocalLakebase) -> None:
    for nothing in (None, "", " "):
        with pytest.raises(ConfigError, match="The branch is") as caught:
            _ = LakebaseHook(branch=nothing).config
        assert "leave 'branch' out" in caught.value.remedy
    operator = LakebaseSqlOperator(task_id="t", sql="DROP TABLE precious", branch="{{ nothing }}")
    operator.render_template_fields({"nothing": ""})
    with pytest.raises(AirflowFailException, match="The branch is empty"):
        operator.execute({})
    # Left out, it is the connection's own.
    assert LakebaseSqlOperator(task_id="t", sql="SELECT 1").execute({}) == [(1,)]


@EACH
def test_each_takes_it(kind: type[Any], needed: dict[str, Any]) -> None:
    operator = kind(task_id="t", **needed, branch="{{ where }}")
    assert "branch" in operator.template_fields
    operator.render_template_fields({"where": "rendered", "ti": TI, "task": operator})
    assert operator.branch == "rendered"
    with a_dag(branch="of_the_dag"):
        assert kind(task_id="default", **needed).branch == "of_the_dag"
        mapped = kind.partial(task_id="mapped", **needed).expand(branch=["a", "b"])
    assert mapped.unmap({"branch": "b"}).branch == "b"
    assert kind(task_id="own", **needed).branch is None


def test_another_tasks_output_is_waited_for() -> None:
    with a_dag():
        first = LakebaseSqlOperator(task_id="first", sql="SELECT 1")
        second = LakebaseSqlOperator(task_id="second", sql="SELECT 1", branch=first.output)  # type: ignore[arg-type]
    assert second.upstream_task_ids == {"first"}


def test_the_decorator_takes_it() -> None:
    with a_dag():

        @task.lakebase_sql(branch="run-1")
        def count() -> str:
            return "SELECT 1"

        operator = count().operator
    assert operator.branch == "run-1"
    assert operator.get_db_hook()._overrides["branch"] == "run-1"


@EACH
@pytest.mark.parametrize(
    ("branch", "message"),
    [("a b", "branch is 'a b'"), ("projects/p", "branch is"), (5, "branch is 5"), ("", "branch is ''")],
)
def test_what_is_no_branch_fails_the_dags_parsing(
    kind: type[Any], needed: dict[str, Any], branch: Any, message: str
) -> None:
    for make in (kind, kind.partial):
        with pytest.raises(ConfigError) as caught:
            make(task_id="t", **needed, branch=branch)
        assert message in caught.value.message


def test_two_branches_are_refused() -> None:
    for other in ({"branch": "b"}, {"endpoint": "projects/p/branches/b/endpoints/primary"}):
        with pytest.raises(ConfigError, match="Both 'branch' and"):
            LakebaseSqlOperator(task_id="t", sql="SELECT 1", branch="a", hook_params=other)
