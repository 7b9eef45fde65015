"""Nothing that a supervised task leaves behind shows a token or a client secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakebase_provider.local import LocalLakebase
from tests.airflow.conftest import HOME, DagLoader, metadata_database
from tests.airflow.supervised import SupervisedTask, Supervisors

# The runs are made by dag.test(), which has Airflow's own API server in this process.
pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated")


class Canary:
    """Runs a task of the DAG and searches what it left behind."""

    def __init__(
        self, lake: LocalLakebase, dag_of: DagLoader, supervisors: Supervisors, folder: Path
    ) -> None:
        self._dag = dag_of("canary")
        self._supervisors = supervisors
        self._secrets = {lake.client_secret}
        self._tokens = folder / "tokens"
        self.lineage = folder / "lineage.jsonl"

    def run(self, task_id: str) -> tuple[SupervisedTask, str]:
        transport = {"type": "file", "log_file_path": str(self.lineage), "append": True}
        task = self._supervisors.start(
            self._dag,
            task_id,
            CANARIES=str(self._tokens),
            CANARY_LOG=str(HOME / "logs" / "stray.log"),
            AIRFLOW__OPENLINEAGE__TRANSPORT=json.dumps(transport),
            AIRFLOW__OPENLINEAGE__DISABLED="False",
        )
        state = task.wait()
        minted = set(self._tokens.read_text().split())
        assert minted, "no token was minted, so nothing is tested"
        self._secrets |= minted
        return task, state

    def found(self, *printed: str) -> Iterator[str]:
        """Where a secret shows: logs, the metadata database with XCom and fields, lineage, output."""
        texts = {str(i): text.encode() for i, text in enumerate(printed)}
        files = [*HOME.rglob("*.log"), self.lineage]
        texts |= {file.name: file.read_bytes() for file in files if file.exists()}
        texts["airflow.db"] = metadata_database()
        for name, text in texts.items():
            if any(secret.encode() in text for secret in self._secrets):
                yield name


@pytest.fixture
def canary(lake: LocalLakebase, dag_of: DagLoader, supervisors: Supervisors, tmp_path: Path) -> Canary:
    return Canary(lake, dag_of, supervisors, tmp_path)


def test_a_task_that_succeeds_shows_no_secret(canary: Canary, capfd: pytest.CaptureFixture[str]) -> None:
    task, state = canary.run("operator")
    assert state == "success"
    assert {line["level"] for line in task.log()} >= {"debug", "info"}
    events = [json.loads(line) for line in canary.lineage.read_text().splitlines()]
    assert {event["eventType"] for event in events} == {"START", "COMPLETE"}
    assert any("canary" in dataset["name"] for event in events for dataset in event["outputs"])
    assert list(canary.found(*capfd.readouterr())) == []


@pytest.mark.parametrize("task_id", ["operator_fails", "fails_with_locals"])
def test_a_task_that_fails_shows_no_secret(
    canary: Canary, capfd: pytest.CaptureFixture[str], task_id: str
) -> None:
    task, state = canary.run(task_id)
    assert state == "failed"
    assert any(line.get("error_detail") for line in task.log())
    assert list(canary.found(*capfd.readouterr())) == []


@pytest.mark.parametrize(
    ("task_id", "where"), [("leaks_to_xcom", "airflow.db"), ("leaks_to_its_log", "stray.log")]
)
def test_a_secret_that_does_show_is_found(canary: Canary, task_id: str, where: str) -> None:
    try:
        _task, state = canary.run(task_id)
        assert state == "success"
        assert any(name.startswith(where) for name in canary.found())
    finally:
        # What leaked here is none of the other tests' tokens, but let nothing remain of it.
        (HOME / "logs" / "stray.log").unlink(missing_ok=True)
