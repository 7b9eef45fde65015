"""What a user clears is a new load; what Airflow tries again by itself is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from tests.airflow.conftest import DagLoader
from tests.airflow.supervised import SupervisedTask, Supervisors

# The runs are made by dag.test(), which has Airflow's own API server in this process.
pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated")


def rows() -> list[tuple[Any, ...]]:
    return [tuple(row) for row in LakebaseHook().get_records("select id from cleared order by 1")]


def test_a_run_that_is_cleared_loads_what_its_first_task_has_deleted(
    lake: LocalLakebase, dag_of: DagLoader, supervisors: Supervisors, tmp_path: Path
) -> None:
    LakebaseHook().run(["drop table if exists cleared, lakebase_load", "create table cleared (id int)"])
    (tmp_path / "rows.csv").write_text("id\n1\n2\n")
    dag = dag_of("clears")

    def succeeds(task_id: str, run_id: str | None = None) -> SupervisedTask:
        task = supervisors.start(dag, task_id, run_id, LOADS_FOLDER=str(tmp_path))
        assert task.wait() == "success", task.log()
        return task

    empty = succeeds("empty")
    load = succeeds("load", empty.run_id)
    assert rows() == [(1,), (2,)]
    for task in (empty, load):
        task.clear()
    succeeds("empty", empty.run_id)
    load = succeeds("load", empty.run_id)
    assert "Skipped" not in str(load.log())
    assert rows() == [(1,), (2,)]
    # Airflow did not hear of the success, and tries again.
    retry = succeeds("load", empty.run_id)
    assert rows() == [(1,), (2,)]
    # By whatever name Airflow's version calls the operator's logger.
    said = [line["event"] for line in retry.log() if line["event"].startswith("Skipped")]
    assert said[-1].startswith("Skipped, nothing was loaded: load_id 'clears/load/"), retry.log()
    # One id for each history of tries.
    ids = [
        load_id for (load_id,) in LakebaseHook().get_records("select load_id from lakebase_load order by 1")
    ]
    first = f"clears/load/{empty.run_id}/-1"
    assert len(ids) == 2
    assert ids[0] == first
    assert ids[1].startswith(f"{first}/from-try-")
