"""Changes that are rehearsed by jobs and as assets, and rows that are put back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_lakebase import (
    LakebaseResource,
    build_lakebase_rehearsal_asset,
    lakebase_rehearse_op,
    lakebase_restore_point_op,
    lakebase_restore_rows_op,
)
from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase
from tests.core.upkeep.leases import left
from tests.dagster.runs import materialize

ROWS = "SELECT id, amount FROM rehearsed ORDER BY id"


@pytest.fixture
def orders(lake: LocalLakebase) -> Iterator[LocalLakebase]:
    with LakebaseClient(lake.config()) as client:
        with client.connection() as connection:
            connection.execute("DROP TABLE IF EXISTS rehearsed, lakebase_migration")
            connection.execute(
                "CREATE TABLE rehearsed (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, amount int)"
            )
            connection.execute("INSERT INTO rehearsed (amount) VALUES (10), (20), (30)")
        yield lake
        assert left(client) == []
        with client.connection() as connection:
            connection.execute("DROP TABLE rehearsed; DROP TABLE IF EXISTS lakebase_migration")


@dg.job(resource_defs={"lakebase": LakebaseResource()})
def rehearsed() -> None:
    lakebase_rehearse_op()


@dg.job(resource_defs={"lakebase": LakebaseResource()})
def noted() -> None:
    lakebase_restore_point_op()


@dg.job(resource_defs={"lakebase": LakebaseResource()})
def restored() -> None:
    lakebase_restore_rows_op()


def run(job: dg.JobDefinition, **config: Any) -> tuple[bool, dict[str, Any], str]:
    """Whether the job's only op succeeds so configured, its metadata, and its error."""
    [node] = job.nodes
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(
            instance=instance,
            run_config={"ops": {node.name: {"config": config}}} if config else None,
            raise_on_error=False,
        )
    if result.success:
        [output] = [event for event in result.all_events if event.is_successful_output]
        found, error = output.step_output_data.metadata, ""
    else:
        [event] = [event for event in result.all_events if event.is_step_failure]
        data = event.step_failure_data
        found = data.user_failure_data.metadata if data.user_failure_data else {}
        error = str(data.user_failure_data.description if data.user_failure_data else data.error)
    return result.success, {key: value.value for key, value in found.items()}, error


def records(metadata: dict[str, Any], name: str) -> list[Any]:
    return [dict(record.data) for record in metadata[f"lakebase/{name}"].records]


def test_a_job_rehearses_and_says_locks_and_milliseconds(orders: LocalLakebase) -> None:
    statements = ["ALTER TABLE rehearsed ADD paid bool", "UPDATE rehearsed SET paid = true"]
    check = "SELECT bool_and(paid) FROM rehearsed"
    success, metadata, _ = run(rehearsed, statements=statements, checks=[check], tables=["rehearsed"])
    assert success
    alter, update = records(metadata, "statements")
    assert (alter["lock"], alter["on"], alter["outcome"]) == ("ACCESS EXCLUSIVE", "public.rehearsed", "done")
    assert alter["held_milliseconds"] >= alter["milliseconds"] > 0
    assert update["rows"] == "3"
    assert records(metadata, "checks")[0]["passed"] is True
    assert "ACCESS EXCLUSIVE" in metadata["lakebase/rehearsal"]
    assert metadata["lakebase/ran"] is False
    assert orders.admin.execute("SELECT * FROM rehearsed WHERE id = 1") == [(1, 10)]


def test_a_check_that_fails_keeps_the_change_from_running(orders: LocalLakebase) -> None:
    change = ["UPDATE rehearsed SET amount = 0"]
    for then in ("run", "stop"):
        given: dict[str, Any] = {"checks": ["SELECT min(amount) > 0 FROM rehearsed"], "then": then}
        success, metadata, error = run(rehearsed, statements=change, **given)
        assert not success
        assert "The rehearsal failed, and nothing has run elsewhere" in error
        assert records(metadata, "checks")[0]["passed"] is False
        assert metadata["lakebase/ran"] is False
    asset = build_lakebase_rehearsal_asset(
        change, asset="zero", checks=[{"sql": "SELECT 1 FROM rehearsed WHERE amount > 0", "min_rows": 1}]
    )
    assert not materialize([asset], resources={"lakebase": LakebaseResource()}, raise_on_error=False).success
    assert orders.admin.execute(ROWS) == [(1, 10), (2, 20), (3, 30)]


def test_an_asset_runs_what_went_well(orders: LocalLakebase) -> None:
    def double(connection: Any) -> None:
        connection.execute("UPDATE rehearsed SET amount = amount * 2")

    asset = build_lakebase_rehearsal_asset(double, asset=["shop", "doubled"], tables={"rehearsed": None})
    result = materialize([asset], resources={"lakebase": LakebaseResource()})
    (event,) = result.get_asset_materialization_events()
    metadata = {key: value.value for key, value in event.materialization.metadata.items()}
    assert metadata["lakebase/ran"] is True
    assert records(metadata, "statements_run")[0]["rows"] == "3"
    assert orders.admin.execute(ROWS) == [(1, 20), (2, 40), (3, 60)]


def test_a_folder_is_rehearsed_and_a_rehearsal_is_of_one_thing(orders: LocalLakebase, tmp_path: Path) -> None:
    (tmp_path / "0001_note.sql").write_text("ALTER TABLE rehearsed ADD note text;")
    success, metadata, _ = run(rehearsed, folder=str(tmp_path), then="run")
    assert (success, metadata["lakebase/ran"]) == (True, True)
    assert orders.admin.execute("SELECT note FROM rehearsed WHERE id = 1") == [(None,)]
    for wrong in ({"then": "run"}, {"statements": ["SELECT 1"], "folder": str(tmp_path)}):
        assert "statements or a folder, and not both" in run(rehearsed, **wrong)[2]


def test_rows_are_put_back_after_a_dry_run(orders: LocalLakebase) -> None:
    success, point, _ = run(noted)
    assert success
    orders.admin.execute("DELETE FROM rehearsed WHERE id > 1")
    orders.admin.execute("UPDATE rehearsed SET amount = 11")
    given = {"table": "rehearsed", "at": point["lakebase/restore_lsn"]}
    success, metadata, _ = run(restored, **given)
    assert (success, metadata["lakebase/dry_run"], metadata["lakebase/put_back"]) == (True, True, 2)
    assert metadata["lakebase/changed_since"] == 1
    assert "2 rows were deleted since; 2 would be put back" in metadata["lakebase/restored"]
    assert orders.admin.execute(ROWS) == [(1, 11)]

    success, metadata, _ = run(restored, **{**given, "at": point["lakebase/restore_time"]}, dry_run=False)
    assert (success, metadata["lakebase/put_back"], metadata["lakebase/overwritten"]) == (True, 2, 0)
    # What has changed since is kept.
    assert orders.admin.execute(ROWS) == [(1, 11), (2, 20), (3, 30)]
    assert run(restored, **given, dry_run=False, overwrite=True)[0]
    assert orders.admin.execute(ROWS) == [(1, 10), (2, 20), (3, 30)]
    assert "none in ISO 8601" in run(restored, table="rehearsed", at="soon")[2]
