"""`restore_point=True`: the moment before a task's work, from which its rows come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred
from airflow.sdk import DAG

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.load import LakebaseLoadOperator
from lakebase_provider.operators.migrate import LakebaseMigrateOperator
from lakebase_provider.operators.restore_rows import LakebaseRestoreRowsOperator
from lakebase_provider.operators.sql import LakebaseSqlOperator
from lakebase_provider.operators.transfer import LakebaseTransferOperator
from tests.airflow.conftest import connection_fields, define
from tests.airflow.test_arguments import a_dag
from tests.airflow.test_branch_operators import Pushed, ran

ALL = [(1, "one"), (2, "two"), (3, "three")]


@pytest.fixture(autouse=True)
def rows(lake: LocalLakebase) -> Iterator[None]:
    LakebaseHook().run(
        "DROP TABLE IF EXISTS risky, risky_done, lakebase_load;"
        "CREATE TABLE risky (id int PRIMARY KEY, name text);"
        "INSERT INTO risky VALUES (1, 'one'), (2, 'two'), (3, 'three')"
    )
    yield
    LakebaseHook().run("DROP TABLE IF EXISTS risky, risky_done, lakebase_load")


class Instance(Pushed):
    try_number, max_tries = 1, 0


def done(operator: Any, ti: Any) -> Any:
    context: Any = {"ti": ti, "task": operator}
    operator.render_template_fields(context)
    return operator.execute(context)


def contents() -> Any:
    return LakebaseHook().get_records("SELECT id, name FROM risky ORDER BY id")


def sql(_: Path) -> Any:
    return LakebaseSqlOperator(task_id="t", sql="DELETE FROM risky WHERE id > 1", restore_point=True)


def load(folder: Path) -> Any:
    (folder / "rows.csv").write_text("id,name\n1,one\n")
    source = str(folder / "rows.csv")
    return LakebaseLoadOperator(task_id="t", source=source, table="risky", mode="replace", restore_point=True)


def transfer(_: Path) -> Any:
    return LakebaseTransferOperator(
        task_id="t",
        source_conn_id="lakebase_default",
        sql="SELECT 1 AS id, 'one' AS name",
        table="risky",
        mode="replace",
        restore_point=True,
    )


def migrate(folder: Path) -> Any:
    (folder / "0001_clean.sql").write_text("DELETE FROM risky WHERE id > 1;")
    return LakebaseMigrateOperator(
        task_id="t", folder=str(folder), ledger="public.risky_done", restore_point=True
    )


@pytest.mark.parametrize("make", [sql, load, transfer, migrate])
def test_what_a_task_removed_comes_back(make: Callable[[Path], Any], tmp_path: Path) -> None:
    ti = Instance()
    done(make(tmp_path), ti)
    assert contents() == ALL[:1]
    point = ti.values["restore_point"]
    assert point["branch"] == "projects/local/branches/production"
    undo = LakebaseRestoreRowsOperator(
        task_id="undo", table="risky", at=point, dry_run=False, restore_point=True
    )
    undone = Instance()
    assert ran(undo, undone)["put_back"] == 2
    assert contents() == ALL
    # What is put back can be undone, too.
    assert undone.values["restore_point"]["lsn"] > point["lsn"]


def test_it_is_noted_before_the_triggerer_works(lake: LocalLakebase) -> None:
    ti = Instance()
    operator = LakebaseSqlOperator(task_id="t", sql="DELETE FROM risky", deferrable=True, restore_point=True)
    with pytest.raises(TaskDeferred):
        done(operator, ti)
    assert ti.values["restore_point"]["lsn"]


def test_of_a_load_that_took_place_before_no_later_moment_is_told(tmp_path: Path) -> None:
    first, retry = Instance(), Instance()
    done(load(tmp_path), first)
    assert first.values["restore_point"]
    assert done(load(tmp_path), retry)["skipped"]
    assert retry.values["restore_point"] is None
    undo = LakebaseRestoreRowsOperator(task_id="undo", table="risky", at=retry.values["restore_point"])
    with pytest.raises(AirflowFailException, match="no point"):
        ran(undo)


def test_on_a_branch_it_is_the_branchs(lake: LocalLakebase) -> None:
    client: LakebaseClient = LakebaseHook().client
    name = client.workspace.branches.create("risky-1", ttl=3600).name
    ti = Instance()
    done(LakebaseSqlOperator(task_id="t", sql="DELETE FROM risky", branch="risky-1", restore_point=True), ti)
    assert ti.values["restore_point"]["branch"] == name
    client.workspace.branches.delete(name, purge=True)


def test_nothing_is_noted_unless_it_is_asked_for(tmp_path: Path) -> None:
    ti = Instance()
    done(LakebaseSqlOperator(task_id="t", sql="SELECT 1"), ti)
    assert ti.values == {}


def test_another_task_takes_it_by_its_key() -> None:
    dag: DAG
    with a_dag() as dag:
        clean = LakebaseSqlOperator(task_id="clean", sql="DELETE FROM risky", restore_point=True)
        LakebaseRestoreRowsOperator(task_id="undo", table="risky", at=clean.output["restore_point"])
    assert dag.get_task("undo").upstream_task_ids == {"clean"}


def test_a_connection_that_names_no_branch_says_so(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = {"instance": "prod", "endpoint": None, "project": None, "branch": None}
    fields = connection_fields(lake)
    fields["extra"] = {k: v for k, v in {**fields["extra"], **instance}.items() if v is not None}
    define(monkeypatch, "prod", **fields)
    operator = LakebaseSqlOperator(task_id="t", sql="SELECT 1", conn_id="prod", restore_point=True)
    with pytest.raises(AirflowFailException) as caught:
        done(operator, SimpleNamespace())
    assert isinstance(caught.value.__cause__, ConfigError)
    assert "names no branch" in caught.value.__cause__.message
