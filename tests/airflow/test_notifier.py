"""The notifier: what it hands on, to whom, and what does not hold it up."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseNotifier

from lakebase_provider import get_provider_info
from lakebase_provider.core.errors import ConfigError, LockTimeoutError
from lakebase_provider.local import LocalLakebase
from lakebase_provider.notifications.diagnosis import LakebaseDiagnosisNotifier


class Chat(BaseNotifier):
    """A notifier of somebody else's, with a template."""

    template_fields = ("text",)

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.sent: list[str] = []

    def notify(self, context: Any) -> None:
        self.sent.append(self.text)


def context_of(error: BaseException | None, **task: Any) -> dict[str, Any]:
    """What Airflow hands to a callback."""
    instance = SimpleNamespace(
        dag_id="nightly", task_id="totals", run_id="r1", try_number=2, log_url="https://airflow/log"
    )
    return {"ti": instance, "task": SimpleNamespace(**task), "exception": error}


LOCKED = LockTimeoutError("A lock was not acquired. It is held by pid 42.", remedy="End it.")


def test_another_notifier_sends_the_diagnosis_on(lake: LocalLakebase) -> None:
    chat = Chat("{{ lakebase_diagnosis.text }}")
    LakebaseDiagnosisNotifier(then=chat)(context_of(LOCKED, conn_id="lakebase_default"))
    [text] = chat.sent
    lines = text.splitlines()
    assert lines[0] == (
        "Task nightly.totals, try 2, of r1 failed: A lock was not acquired. It is held by pid 42."
    )
    assert lines[1] == "What to do: End it."
    assert lines[2].startswith("The database now: All is well: ")
    assert "Log of the task: https://airflow/log" in lines
    assert any(line.startswith("Lakebase console: http") for line in lines)


def test_without_another_one_it_is_logged(
    lake: LocalLakebase, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.ERROR)
    LakebaseDiagnosisNotifier()(context_of(LOCKED))
    # Of which of the two it is, Airflow's own configuration decides.
    assert "What to do: End it." in caplog.text + "".join(capfd.readouterr())


def test_one_that_cannot_tell_it_does_not_hold_up_the_others(lake: LocalLakebase) -> None:
    told: list[Any] = []

    def fails(_context: Any) -> None:
        raise OSError("no such channel")

    notifier = LakebaseDiagnosisNotifier(then=[fails, told.append])
    with pytest.raises(OSError, match="no such channel"):
        notifier(context_of(LOCKED))
    assert told[0]["lakebase_diagnosis"]["code"] == "lock_timeout"
    assert "`End it.`" in told[0]["lakebase_diagnosis"]["markdown"]


def test_a_connection_that_is_missing_is_part_of_the_diagnosis(lake: LocalLakebase) -> None:
    told: list[Any] = []
    LakebaseDiagnosisNotifier(conn_id="{{ 'absent' }}", then=told.append)(context_of(LOCKED))
    found = told[0]["lakebase_diagnosis"]
    assert found["healthy"] is None
    assert "absent" in found["health"]
    assert found["remedy"] == "End it."


def test_a_dag_that_failed_has_no_task(lake: LocalLakebase) -> None:
    told: list[Any] = []
    run = SimpleNamespace(dag_id="nightly")
    LakebaseDiagnosisNotifier(then=told.append)({"dag_run": run, "reason": "task_failure"})
    found = told[0]["lakebase_diagnosis"]
    assert (found["what"], found["message"]) == ("DAG nightly", "task_failure")


def test_a_timeout_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="'timeout' must be above 0"):
        LakebaseDiagnosisNotifier(timeout=0)


def test_airflow_is_told_of_it() -> None:
    kind = LakebaseDiagnosisNotifier
    assert get_provider_info()["notifications"] == [f"{kind.__module__}.{kind.__qualname__}"]
