"""How operators, sensors, decorators, triggers and the hook are told their connection, and known values."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, task

from lakebase_provider.core.errors import ConfigError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.health import LakebaseHealthCheckOperator, LakebaseInspectOperator
from lakebase_provider.operators.load import LakebaseLoadOperator
from lakebase_provider.operators.migrate import LakebaseMigrateOperator
from lakebase_provider.operators.sql import LakebaseSqlOperator
from lakebase_provider.operators.sync import LakebaseSyncedTableOperator, LakebaseSyncOperator
from lakebase_provider.operators.transfer import LakebaseTransferOperator
from lakebase_provider.operators.unload import LakebaseUnloadOperator
from lakebase_provider.sensors.health import LakebaseHealthSensor
from lakebase_provider.sensors.sql import LakebaseSqlSensor
from lakebase_provider.sensors.sync import LakebaseInDeltaSensor, LakebaseSyncedTableSensor
from lakebase_provider.triggers.polling import LakebaseHealthTrigger, LakebaseSqlSensorTrigger
from lakebase_provider.triggers.sql import LakebaseSqlTrigger
from lakebase_provider.triggers.sync import (
    LakebaseInDeltaTrigger,
    LakebaseSyncEventTrigger,
    LakebaseSyncTrigger,
)
from tests.forked import Forks

#: Each operator and sensor, with what it needs besides its connection.
KINDS: list[tuple[type[Any], dict[str, Any]]] = [
    (LakebaseSqlOperator, {"sql": "select 1"}),
    (LakebaseLoadOperator, {"source": "/x.csv", "table": "t"}),
    (LakebaseTransferOperator, {"source_conn_id": "other", "sql": "select 1", "table": "t"}),
    (LakebaseUnloadOperator, {"sql": "select 1", "to": "/x.csv"}),
    (LakebaseHealthCheckOperator, {}),
    (LakebaseInspectOperator, {"checks": ["bloat"]}),
    (LakebaseSqlSensor, {"sql": "select 1"}),
    (LakebaseHealthSensor, {}),
    (LakebaseMigrateOperator, {"folder": "/x"}),
    (LakebaseSyncOperator, {"table": "main.pub.trips"}),
    (LakebaseSyncedTableOperator, {"action": "delete", "table": "main.pub.trips"}),
    (LakebaseSyncedTableSensor, {"table": "main.pub.trips", "version": 1}),
    (LakebaseInDeltaSensor, {"lsn": "0/1", "cdf_config": "mirror"}),
]
EACH = pytest.mark.parametrize(("kind", "needed"), KINDS, ids=lambda value: getattr(value, "__name__", ""))
NAMES = pytest.mark.parametrize("name", ["conn_id", "lakebase_conn_id"])


def a_dag(**default_args: Any) -> DAG:
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    return DAG("arguments", schedule=None, start_date=start, default_args=default_args)


@EACH
@NAMES
def test_the_connection_goes_by_both_names(kind: type[Any], needed: dict[str, Any], name: str) -> None:
    operator = kind(task_id="t", **needed, **{name: "mine"})
    assert (operator.conn_id, operator.lakebase_conn_id) == ("mine", "mine")
    assert "conn_id" in operator.template_fields
    assert kind(task_id="t", **needed).conn_id == "lakebase_default"
    assert kind(task_id="t", **needed, conn_id="a", lakebase_conn_id="a").conn_id == "a"
    with pytest.raises(ConfigError, match="Two connections are named: 'a' by conn_id") as caught:
        kind(task_id="t", **needed, conn_id="a", lakebase_conn_id="b")
    assert "conn_id" in caught.value.remedy


@EACH
@NAMES
def test_default_args_name_it(kind: type[Any], needed: dict[str, Any], name: str) -> None:
    other = {"conn_id": "lakebase_conn_id", "lakebase_conn_id": "conn_id"}[name]
    with a_dag(**{name: "of_the_dag"}):
        assert kind(task_id="t", **needed).conn_id == "of_the_dag"
        # A task's own argument goes before a default, by whichever name.
        assert kind(task_id="same", **needed, **{name: "own"}).conn_id == "own"
        assert kind(task_id="other", **needed, **{other: "own"}).conn_id == "own"
        own = {"default_args": {other: "own"}}
        assert kind(task_id="defaults", **needed, default_args={name: "own"}).conn_id == "own"
        with pytest.raises(ConfigError, match="Two connections"):
            kind(task_id="both", **needed, **own)


@EACH
@NAMES
def test_a_mapped_task_has_it(kind: type[Any], needed: dict[str, Any], name: str) -> None:
    over = {key: [value, value] for key, value in [*needed.items()][:1]}
    rest = {key: value for key, value in needed.items() if key not in over}
    if not needed:
        over = {"checks": [["query"], ["login"]]}
    with a_dag(lakebase_conn_id="of_the_dag"):
        mapped = kind.partial(task_id="t", **rest, **{name: "own"}).expand(**over)
        plain = kind.partial(task_id="plain", **rest).expand(**over)
        over_ids = kind.partial(task_id="ids", **needed).expand(**{name: ["a", "b"]})
    first = {key: value[0] for key, value in over.items()}
    assert mapped.unmap(first).conn_id == "own"
    assert plain.unmap(first).conn_id == "of_the_dag"
    assert over_ids.unmap({name: "a"}).conn_id == "a"
    with pytest.raises(ConfigError, match="Two connections"):
        kind.partial(task_id="t", **rest, conn_id="a", lakebase_conn_id="b")


def test_a_dag_is_serialized_with_it() -> None:
    # Airflow 3.1 has it by another name.
    serializer: Any = importlib.import_module("airflow.serialization.serialized_objects")
    serialization = getattr(serializer, "DagSerialization", None) or serializer.SerializedDAG
    with a_dag(conn_id="of_the_dag") as dag:
        for number, (kind, needed) in enumerate(KINDS):
            kind(task_id=f"plain_{number}", **needed)
            kind(task_id=f"other_{number}", **needed, lakebase_conn_id="{{ params.where }}")
            kind.partial(task_id=f"mapped_{number}", **needed).expand(lakebase_conn_id=["a", "b"])
    stored = json.loads(json.dumps(serialization.to_dict(dag)))
    found = serialization.from_dict(stored)
    for number in range(len(KINDS)):
        assert found.get_task(f"plain_{number}").conn_id == "of_the_dag"
        assert found.get_task(f"other_{number}").conn_id == "{{ params.where }}"
        assert found.get_task(f"mapped_{number}").is_mapped


@EACH
@NAMES
def test_it_is_rendered(kind: type[Any], needed: dict[str, Any], name: str) -> None:
    operator = kind(task_id="t", **needed, **{name: "{{ where }}"})
    ti = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1, max_tries=0)
    operator.render_template_fields({"where": "rendered", "ti": ti, "task": operator})
    assert operator.conn_id == "rendered"


@NAMES
def test_the_decorator_takes_both(name: str) -> None:
    with a_dag(conn_id="of_the_dag"):

        @task.lakebase_sql
        def plain() -> str:
            return "select 1"

        @task.lakebase_sql(**{name: "own"})
        def named() -> str:
            return "select 1"

        @task.lakebase_sql(**{name: "own"})
        def mapped(number: int) -> str:
            return f"select {number}"

        assert plain().operator.conn_id == "of_the_dag"
        assert named().operator.conn_id == "own"
        assert mapped.expand(number=[1, 2]).operator.unmap({"op_kwargs": {"number": 1}}).conn_id == "own"


@NAMES
@pytest.mark.parametrize(
    "make",
    [
        lambda **conn: LakebaseSqlTrigger(sql=["select 1"], **conn),
        lambda **conn: LakebaseSqlSensorTrigger(sql="select 1", poke_interval=1, **conn),
        lambda **conn: LakebaseHealthTrigger(poke_interval=1, **conn),
        lambda **conn: LakebaseSyncTrigger(table="main.pub.trips", version=1, timeout=1, **conn),
        lambda **conn: LakebaseInDeltaTrigger(lsn="0/1", cdf_config="mirror", poke_interval=1, **conn),
        lambda **conn: LakebaseSyncEventTrigger(table="main.pub.trips", **conn),
    ],
)
def test_triggers_take_both_and_send_one(make: Callable[..., Any], name: str) -> None:
    path, arguments = make(**{name: "mine"}).serialize()
    assert (arguments["conn_id"], "lakebase_conn_id" in arguments) == ("mine", False)
    module, kind = path.rsplit(".", 1)
    assert getattr(importlib.import_module(module), kind)(**arguments).conn_id == "mine"
    with pytest.raises(ConfigError, match="Two connections"):
        make(conn_id="a", lakebase_conn_id="b")


def test_the_hook_takes_both(lake: LocalLakebase) -> None:
    assert LakebaseHook(conn_id="mine").get_conn_id() == "mine"
    assert LakebaseHook(lakebase_conn_id="mine", conn_id="mine").get_conn_id() == "mine"
    assert LakebaseHook(conn_id="lakebase_default").get_first("select 1") == (1,)
    with pytest.raises(ConfigError, match="Two connections are named: 'a' and, by conn_id, 'b'"):
        LakebaseHook("a", conn_id="b")


LOAD = {"source": "/x.csv", "table": "t"}
UNLOAD = {"sql": "select 1", "to": "/x"}
TRANSFER = {"source_conn_id": "o", "sql": "select 1", "table": "t"}
WRONG: list[tuple[type[Any], dict[str, Any], dict[str, Any], str]] = [
    (LakebaseLoadOperator, LOAD, {"mode": "upsert"}, "mode is 'upsert'"),
    (LakebaseTransferOperator, TRANSFER, {"mode": "upsert"}, "mode is 'upsert'"),
    (LakebaseLoadOperator, LOAD, {"schema_evolution": "any"}, "schema_evolution is 'any'"),
    (LakebaseTransferOperator, TRANSFER, {"schema_evolution": "any"}, "schema_evolution is 'any'"),
    (LakebaseLoadOperator, LOAD, {"on_error": "skip"}, "on_error is 'skip'"),
    (LakebaseLoadOperator, LOAD, {"delete": "all"}, "delete is 'all'"),
    (LakebaseLoadOperator, LOAD, {"force": "maybe"}, "force is 'maybe'"),
    (LakebaseLoadOperator, LOAD, {"encoding": "latin-99"}, "encoding"),
    (LakebaseLoadOperator, LOAD, {"null": 5}, "null is 5"),
    (LakebaseLoadOperator, LOAD, {"allow_empty": "yes"}, "allow_empty is a str"),
    (LakebaseLoadOperator, LOAD, {"table": "a.b.c"}, "not a table name"),
    (LakebaseTransferOperator, TRANSFER, {"table": "a.b.c"}, "not a table name"),
    (LakebaseLoadOperator, LOAD, {"source": "/x.xlsx"}, "no known suffix"),
    (LakebaseLoadOperator, LOAD, {"source": "github://x/y.csv"}, "github"),
    (LakebaseLoadOperator, LOAD, {"source": "/x.parquet", "delimiter": ";"}, "delimiter= is for CSV"),
    (LakebaseLoadOperator, LOAD, {"source": "s3://a/*.jsonl", "header": False}, "header= is for CSV"),
    (LakebaseLoadOperator, LOAD, {"hook_params": ["lock_timeout"]}, "hook_params is a list"),
    (LakebaseSqlOperator, {"sql": "x"}, {"hook_params": "x"}, "hook_params is a str"),
    (LakebaseLoadOperator, LOAD, {"conn_id": ""}, "conn_id is ''"),
    (LakebaseHealthSensor, {}, {"lakebase_conn_id": 5}, "lakebase_conn_id is 5"),
    (LakebaseSqlSensor, {"sql": "x"}, {"conn_id": ["a"]}, "conn_id is"),
    (LakebaseUnloadOperator, UNLOAD, {"format": "foo"}, "format is 'foo'"),
    (LakebaseUnloadOperator, UNLOAD, {"numeric": "float"}, "numeric is 'float'"),
    (LakebaseUnloadOperator, UNLOAD, {"parallel": 0}, "parallel is 0"),
    (LakebaseUnloadOperator, UNLOAD, {"batch_rows": "many"}, "batch_rows is 'many'"),
    (
        LakebaseLoadOperator,
        LOAD,
        {"hook_params": {"lock_timout": 3}},
        "'lock_timout', which is not a setting",
    ),
    (LakebaseSqlOperator, {"sql": "x"}, {"hook_params": {"max_size": "many"}}, "'max_size' must be a whole"),
    (LakebaseSqlOperator, {"sql": "x"}, {"statement_timeout": -1}, "statement_timeout is -1"),
    (LakebaseSqlOperator, {"sql": "x"}, {"lock_timeout": "5"}, "lock_timeout is '5'"),
    (LakebaseSqlSensor, {"sql": "x"}, {"statement_timeout": 0}, "statement_timeout is 0"),
    (LakebaseHealthCheckOperator, {}, {"checks": ["foo"]}, "Unknown health check 'foo'"),
    (LakebaseHealthSensor, {}, {"checks": ["foo"]}, "Unknown health check 'foo'"),
    (LakebaseHealthCheckOperator, {}, {"fail_on": "never"}, "fail_on is 'never'"),
    (LakebaseHealthSensor, {}, {"fail_on": "never"}, "fail_on is 'never'"),
    (LakebaseInspectOperator, {}, {"fail_on": "error"}, "fail_on is 'error'"),
    (LakebaseInspectOperator, {}, {"checks": ["bloated"]}, "'bloated'"),
    (LakebaseInspectOperator, {}, {"limits": {"bloat": [0.8, 0.5]}}, "worse than"),
    (LakebaseInspectOperator, {}, {"limits": {"bloat": "half"}}, "'bloat' must be a number"),
    (LakebaseInspectOperator, {}, {"statistics_days": -1}, "statistics_days"),
    (LakebaseInspectOperator, {}, {"timeout": 0}, "timeout is 0"),
    (LakebaseHealthCheckOperator, {}, {"timeout": 0}, "timeout is 0"),
    (LakebaseHealthSensor, {}, {"stage_timeout": "long"}, "stage_timeout is 'long'"),
    (
        LakebaseHealthCheckOperator,
        {},
        {"limits": {"max_connections_used": 80}},
        "max_connections_used' is above",
    ),
]
#: What only several arguments together say; of a mapped task some of them may come later.
CONTRADICTIONS: list[tuple[type[Any], dict[str, Any], dict[str, Any], str]] = [
    (LakebaseLoadOperator, LOAD, {"keys": ["id"]}, "keys= has no meaning"),
    (LakebaseLoadOperator, LOAD, {"reject_to": "bad"}, "need each other"),
    (LakebaseLoadOperator, LOAD, {"on_error": "reject"}, "need each other"),
    (LakebaseLoadOperator, LOAD, {"where": {"day": 1}}, "where= has no meaning"),
    (LakebaseUnloadOperator, UNLOAD, {"parallel": 4}, "which rows go where"),
    (
        LakebaseHealthCheckOperator,
        {},
        {"checks": ["dns"], "limits": {"max_connect_ms": 5}},
        "needs the stage 'login'",
    ),
    (
        LakebaseHealthSensor,
        {},
        {"checks": ["tcp"], "limits": {"max_connections_used": 0.5}},
        "needs the stage 'query'",
    ),
]


@pytest.mark.parametrize(("kind", "needed", "wrong", "message"), [*WRONG, *CONTRADICTIONS])
def test_a_value_that_there_is_not_fails_the_dags_parsing(
    kind: type[Any], needed: dict[str, Any], wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        kind(task_id="t", **{**needed, **wrong})
    assert message in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(("kind", "needed", "wrong", "message"), WRONG)
def test_of_a_mapped_task_too(
    kind: type[Any], needed: dict[str, Any], wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        kind.partial(task_id="t", **{**needed, **wrong})
    assert message in caught.value.message


class TemplatedLoad(LakebaseLoadOperator):
    """An operator of an author's own, which lets a template say the mode."""

    template_fields = (*LakebaseLoadOperator.template_fields, "mode", "on_error")


def test_what_a_template_says_is_looked_at_when_the_task_runs() -> None:
    TemplatedLoad(task_id="t", **LOAD, mode="{{ params.mode }}", keys=["id"])
    TemplatedLoad(task_id="t", **LOAD, on_error="{{ params.bad }}", reject_to="bad_rows")
    LakebaseLoadOperator(task_id="t", **LOAD, mode="merge", keys="{{ params.keys }}")
    LakebaseLoadOperator(task_id="t", **LOAD, force="{{ params.reload }}")
    LakebaseLoadOperator.partial(task_id="t", force="yes", table="t").expand(source=["/x.csv"])
    LakebaseHealthCheckOperator(task_id="t", checks="{{ params.checks }}", limits={"max_connect_ms": 5})
    LakebaseSqlOperator(task_id="t", sql="x", hook_params={"lock_timeout": "{{ params.lock }}"})
    # Where Airflow renders nothing, a template is a text like any other.
    with pytest.raises(ConfigError, match="mode is"):
        LakebaseLoadOperator(task_id="t", **LOAD, mode="{{ params.mode }}")  # type: ignore[arg-type] # wrong


def test_another_tasks_output_is_looked_at_when_the_task_runs() -> None:
    with a_dag():
        first = LakebaseSqlOperator(task_id="first", sql="select 1")
        LakebaseHealthCheckOperator(task_id="t", checks=first.output, limits={"max_connect_ms": 5})  # type: ignore[arg-type]
        LakebaseLoadOperator(task_id="u", **LOAD, mode="merge", keys=first.output)  # type: ignore[arg-type]


def test_looking_at_them_brings_no_driver(forks: Forks, tmp_path: Path) -> None:
    code = """
import sys
from lakebase_provider.operators.health import LakebaseHealthCheckOperator, LakebaseInspectOperator
from lakebase_provider.operators.load import LakebaseLoadOperator
from lakebase_provider.operators.branches import LakebaseCreateBranchOperator, LakebaseRestoreOperator
from lakebase_provider.operators.branches import LakebaseEndpointOperator, LakebaseSnapshotOperator
from lakebase_provider.operators.maintenance import LakebaseIndexOperator, LakebasePartitionsOperator
from lakebase_provider.operators.migrate import LakebaseMigrateOperator
from lakebase_provider.operators.rehearse import LakebaseRehearseOperator
from lakebase_provider.operators.restore_rows import LakebaseRestoreRowsOperator
from lakebase_provider.operators.sql import LakebaseSqlOperator
from lakebase_provider.operators.sync import LakebaseSyncedTableOperator, LakebaseSyncOperator
from lakebase_provider.operators.unload import LakebaseUnloadOperator
from lakebase_provider.sensors.sync import LakebaseSyncedTableSensor
from lakebase_provider.triggers.sync import LakebaseSyncEventTrigger
LakebaseLoadOperator(task_id="l", source="x.csv", table="t", mode="merge", hook_params={"lock_timeout": 3})
LakebaseUnloadOperator(task_id="u", sql="x", to="x")
LakebaseHealthCheckOperator(task_id="h", checks=["query"], limits={"max_connections_used": 0.8})
LakebaseInspectOperator(task_id="i", checks=["bloat"], limits={"bloat": [0.5, 0.8]})
LakebaseSqlOperator(task_id="s", sql="x", lock_timeout=3, branch="run-1")
LakebaseCreateBranchOperator(task_id="c", ttl=3600, at_time="2027-01-31T12:00:00Z", limits={"roots": 3})
LakebaseMigrateOperator(task_id="m", folder="x", hook_params={"lock_timeout": 3})
LakebaseIndexOperator(task_id="i", table="t", on=["a"])
LakebasePartitionsOperator(task_id="p", table="t", every="month", keep=3, archive="/x/{partition}.parquet")
LakebaseSnapshotOperator(task_id="n", source="production", ttl=3600)
LakebaseRestoreOperator(task_id="r", branch_id="before", ttl=3600, at_time="2027-01-31T12:00:00Z")
LakebaseEndpointOperator(task_id="e", action="resize", size={"min_cu": 1})
LakebaseRehearseOperator(task_id="c", sql="x", checks=["y"], tables=["z"], lease={"max_cu": 4}, then="run")
LakebaseRestoreRowsOperator(task_id="b", table="t", at="0/1", lease={"max_cu": 4})
LakebaseSyncOperator(task_id="y", table="main.pub.trips", version="{{ 1 }}")
options = {"source_table": "a.b.c", "primary_key": ["id"], "scheduling_policy": "SNAPSHOT"}
LakebaseSyncedTableOperator(task_id="d", action="ensure", table="main.pub.trips", options=options)
LakebaseSyncedTableSensor(task_id="w", table="main.pub.trips", since="2027-01-31T12:00:00Z")
LakebaseSyncEventTrigger(table="main.pub.trips").serialize()
print([name for name in ("psycopg", "databricks", "pandas", "pyarrow", "polars") if name in sys.modules])
"""
    done = forks.run("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("source", ["/data/orders", "/data/v1.2", "s3://a/{{ ds }}.xlsx", "/x/*", "/x/"])
def test_what_may_be_a_folder_is_looked_at_when_it_is_loaded(source: str) -> None:
    assert LakebaseLoadOperator(task_id="t", source=source, table="t", delimiter=";").source == source
