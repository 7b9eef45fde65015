"""Changes that tasks try on a branch first, and rows that they put back: what reaches the parent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import BadRowError, ConfigError, RehearsalError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.operators.rehearse import LakebaseRehearseOperator
from lakebase_provider.operators.restore_rows import LakebaseRestorePointOperator, LakebaseRestoreRowsOperator
from tests.airflow.conftest import connection_fields, define
from tests.airflow.test_branch_operators import Pushed, cause_of, ran
from tests.airflow.test_restoring_operators import killed_while
from tests.core.upkeep.leases import left

BRANCHES = "/api/2.0/postgres/projects/local/branches"
PAID = "SELECT count(*) FROM bills WHERE paid"


@pytest.fixture
def client(lake: LocalLakebase) -> Iterator[LakebaseClient]:
    """The client of the connection, with ten bills; no test leaves a branch."""
    client = LakebaseHook().client
    LakebaseHook().run(
        "DROP TABLE IF EXISTS bills, bills_done;"
        "CREATE TABLE bills (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text UNIQUE, paid bool);"
        "INSERT INTO bills (code, paid) SELECT 'c' || n, false FROM generate_series(1, 10) AS n"
    )
    yield client
    lake.admin.set(managers=None, operation_seconds=0)
    assert left(client) == []
    LakebaseHook().run("DROP TABLE IF EXISTS bills, bills_done")


@pytest.fixture
def managed(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> str:
    """A connection whose principal alone may manage the project, and may not log in."""
    manager = lake.admin.add_principal(create_role=False)
    fields = connection_fields(lake, login=manager.client_id, password=manager.client_secret)
    define(monkeypatch, "manager", **fields)
    lake.admin.set(managers=[manager.client_id])
    return "manager"


def rehearse(**arguments: Any) -> LakebaseRehearseOperator:
    return LakebaseRehearseOperator(**{"task_id": "change", "tables": ["bills"], **arguments})


def undo(at: Any, **arguments: Any) -> LakebaseRestoreRowsOperator:
    return LakebaseRestoreRowsOperator(**{"task_id": "undo", "table": "bills", "at": at, **arguments})


def first(query: str) -> Any:
    return LakebaseHook().get_first(query)[0]


# Rehearsals.


def test_a_change_is_rehearsed_and_then_run(client: LakebaseClient) -> None:
    change: dict[str, Any] = {
        "sql": "UPDATE bills SET paid = true WHERE id <= {{ 3 }}",
        "checks": ["SELECT count(*) = 3 FROM bills WHERE paid", {"table": "bills", "max_rows": 10}],
    }
    told = ran(rehearse(**change))
    assert (told["ok"], told["ran"], told["tables"][0]["changed"]) == (True, None, 3)
    assert told["statements"][0]["rows"] == 3
    assert "## Rehearsal: passed" in told["markdown"]
    assert first(PAID) == 0
    done = ran(rehearse(**change, then="run"))
    assert [one["rows"] for one in done["ran"]] == [3]
    assert first(PAID) == 3


@pytest.mark.parametrize("then", ["stop", "run"])
def test_what_fails_its_check_never_reaches_the_parent_and_is_told(client: LakebaseClient, then: str) -> None:
    ti = Pushed()
    change = {"sql": "UPDATE bills SET paid = true", "checks": ["SELECT NOT bool_or(paid) FROM bills"]}
    with pytest.raises(AirflowFailException) as caught:
        ran(rehearse(**change, then=then), ti)
    failure = caught.value.__cause__
    assert isinstance(failure, RehearsalError)
    assert failure.remedy
    assert first(PAID) == 0
    report = ti.values["return_value"]
    assert (report["ok"], report["ran"]) == (False, None)
    assert "## Rehearsal: failed" in report["markdown"]


def test_a_function_and_migrations_are_rehearsed(client: LakebaseClient, tmp_path: Path) -> None:
    def pay(connection: Any) -> None:
        connection.execute("UPDATE bills SET paid = true WHERE id = 1")

    assert ran(rehearse(python_callable=pay, then="run"))["tables"][0]["changed"] == 1
    assert first(PAID) == 1
    (tmp_path / "0001_bills_done.sql").write_text("CREATE TABLE bills_done (n int);")
    LakebaseHook().run("DROP TABLE IF EXISTS lakebase_migration")
    for created in (1, 0):
        # A retry of what has run has nothing to do.
        report = ran(rehearse(folder=str(tmp_path), then="run"))
        tables = [one for one in report["catalog"]["created"] if one["kind"] == "table"]
        assert len(tables) == created
    assert first("SELECT to_regclass('bills_done')") == "bills_done"
    LakebaseHook().run("DROP TABLE lakebase_migration")


def test_a_rehearsal_on_a_branch_leaves_the_connections_own_alone(client: LakebaseClient) -> None:
    client.workspace.branches.create("dev", no_expiry=True)
    report = ran(rehearse(sql="UPDATE bills SET paid = true", branch="{{ 'dev' }}", then="run"))
    assert report["parent"] == "projects/local/branches/dev"
    assert (first(PAID), LakebaseHook(branch="dev").get_first(PAID)) == (0, (10,))
    client.workspace.branches.delete("dev", purge=True)


def test_a_rehearsal_that_is_killed_leaves_no_branch_and_a_retry_runs(
    lake: LocalLakebase, client: LakebaseClient
) -> None:
    operator = rehearse(sql="UPDATE bills SET paid = true", then="run")
    lake.admin.set(operation_seconds=0.5)
    killed_while(lake, operator, "POST", BRANCHES)
    lake.admin.set(operation_seconds=0)
    assert (left(client), first(PAID)) == ([], 0)
    # Nor does a branch that a killed process left hinder it.
    first_try = client.branches.take(operator.run_id, ttl=3600)
    assert first_try.branch.id in left(client)
    assert ran(operator)["ok"]
    assert first(PAID) == 10


def test_the_right_to_manage_may_be_anothers(client: LakebaseClient, managed: str) -> None:
    change: dict[str, Any] = {"sql": "DELETE FROM bills WHERE id = 1", "then": "run"}
    assert cause_of(rehearse(**change)) is not None
    point = ran(LakebaseRestorePointOperator(task_id="before"))
    assert ran(rehearse(**change, manage_conn_id=managed))["ok"]
    assert cause_of(undo(point)) is not None
    assert ran(undo(point, manage_conn_id=managed, dry_run=False))["put_back"] == 1


# Rows that are put back.


def test_what_a_bad_job_deleted_comes_back(client: LakebaseClient) -> None:
    point = ran(LakebaseRestorePointOperator(task_id="before"))
    assert point["branch"] == "projects/local/branches/production"
    LakebaseHook().run("DELETE FROM bills WHERE id > 5; UPDATE bills SET paid = true WHERE id = 1")
    planned = ran(undo(point))
    assert (planned["dry_run"], planned["put_back"], planned["rows"]["changed"]) == (True, 5, 1)
    assert "5 would be put back" in planned["markdown"]
    assert first("SELECT count(*) FROM bills") == 5
    assert ran(undo(point["time"], where="id = {{ 6 }}", dry_run=False))["put_back"] == 1
    for put_back in (4, 0):
        # A retry does what is left.
        assert ran(undo(point, dry_run=False))["put_back"] == put_back
    assert (first("SELECT count(*) FROM bills"), first(PAID)) == (10, 1)
    assert ran(undo(point["lsn"], dry_run=False, overwrite=True))["overwritten"] == 1
    assert first(PAID) == 0


def test_rows_that_cannot_be_put_back_are_not_retried(client: LakebaseClient) -> None:
    point = ran(LakebaseRestorePointOperator(task_id="before"))
    LakebaseHook().run("DELETE FROM bills WHERE id > 8; INSERT INTO bills (code) VALUES ('c9')")
    failure = cause_of(undo(point, dry_run=False))
    assert isinstance(failure, BadRowError)
    assert failure.remedy
    assert first("SELECT count(*) FROM bills WHERE id IN (9, 10)") == 0


def test_a_task_that_is_killed_while_it_puts_back_leaves_no_branch(
    lake: LocalLakebase, client: LakebaseClient
) -> None:
    point = ran(LakebaseRestorePointOperator(task_id="before"))
    LakebaseHook().run("DELETE FROM bills")
    operator = undo(point, dry_run=False)
    lake.admin.set(operation_seconds=0.5)
    killed_while(lake, operator, "POST", BRANCHES)
    lake.admin.set(operation_seconds=0)
    assert (left(client), first("SELECT count(*) FROM bills")) == ([], 0)
    assert ran(operator)["put_back"] == 10


def test_lineage_names_the_table_that_is_written(client: LakebaseClient) -> None:
    assert undo("0/1").get_openlineage_facets_on_complete(None).outputs == []
    [table] = undo("0/1", dry_run=False).get_openlineage_facets_on_complete(None).outputs
    assert table.name == "databricks_postgres.public.bills"


# What is wrong in a DAG file.


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (LakebaseRehearseOperator, {"sql": "x", "then": "ask"}, "then is 'ask'"),
        (LakebaseRehearseOperator, {"sql": "x", "timeout": 0}, "timeout is 0"),
        (LakebaseRehearseOperator, {"sql": "x", "lock_timeout": "5s"}, "lock_timeout is '5s'"),
        (LakebaseRehearseOperator, {"sql": "x", "lease": {"size": 4}}, "'size'"),
        (LakebaseRestoreRowsOperator, {"table": "t", "at": "0/1", "lock_timeout": 0}, "lock_timeout is 0"),
        (LakebaseRestoreRowsOperator, {"table": "t", "at": "0/1", "lease": {"size": 4}}, "'size'"),
        (LakebaseRestorePointOperator, {"branch": "a b"}, "branch is 'a b'"),
    ],
)
def test_a_value_that_there_is_not_fails_the_dags_parsing(
    kind: type[Any], wrong: dict[str, Any], message: str
) -> None:
    for make in (kind, kind.partial):
        with pytest.raises(ConfigError) as caught:
            make(task_id="t", **wrong)
        assert message in caught.value.message
        assert caught.value.remedy


def test_a_rehearsal_is_of_one_change() -> None:
    with pytest.raises(ConfigError, match="There is no change"):
        LakebaseRehearseOperator(task_id="t")
    with pytest.raises(ConfigError, match="Both 'sql' and 'folder'"):
        LakebaseRehearseOperator(task_id="t", sql="SELECT 1", folder="/migrations")
