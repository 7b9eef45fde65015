"""Changes that a person approves between their rehearsal and their run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import ConfigError, RehearsalError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.operators.rehearse import LakebaseRehearseOperator
from tests.airflow.conftest import OLD_AIRFLOW, DagLoader
from tests.airflow.test_links import WITH_RUN
from tests.airflow.test_rehearse_operators import PAID, client, first
from tests.core.upkeep.leases import left

__all__ = ["client"]  # the fixture

USER = SimpleNamespace(get_id=lambda: "ada", get_name=lambda: "Ada")


def asked() -> Any:
    """What a person is asked, once the task waits."""
    from airflow.models.hitl import HITLDetail
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.scalars(select(HITLDetail).where(HITLDetail.responded_at.is_(None))).all()
        waiting = [one for one in found if one.task_instance.state == "awaiting_input"]
        session.expunge_all()
        return waiting[0] if waiting else None


def answer(option: str) -> None:
    """Answer as the interface does."""
    from airflow.api_fastapi.core_api.datamodels.hitl import UpdateHITLDetailPayload
    from airflow.api_fastapi.core_api.routes.public.hitl import update_hitl_detail
    from airflow.utils.session import create_session

    ti = asked().task_instance
    payload = UpdateHITLDetailPayload(chosen_options=[option], params_input={})
    with create_session() as session:
        update_hitl_detail(ti.dag_id, ti.run_id, ti.task_id, payload, USER, session)  # type: ignore[arg-type]


def ran_with(dag: Any, meanwhile: Callable[[], None]) -> Any:
    """The run of a DAG in whose midst, when its task waits for a person, something is done.

    It is done when ``dag.test()`` itself waits, not as soon as the task does: between the two, ``dag.test()``
    writes the state that the task ended with, and would overwrite what an answer has made of it.
    """

    class Waits(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("Waiting for Human-in-the-loop input"):
                # Airflow's sessions are a thread's own; the one of dag.test() is at work.
                with ThreadPoolExecutor(1) as elsewhere:
                    elsewhere.submit(meanwhile).result()

    waits, log = Waits(), logging.getLogger("airflow.sdk.definitions.dag")
    log.addHandler(waits)
    try:
        return dag.test()
    finally:
        log.removeHandler(waits)


@WITH_RUN
@pytest.mark.skipif(OLD_AIRFLOW, reason="Airflow 3.1's dag.test() runs no trigger that waits for a person")
@pytest.mark.parametrize(
    ("option", "meanwhile", "states", "paid"),
    [
        ("Approve", "", {"change": "success", "after": "success"}, 3),
        ("Reject", "", {"change": "skipped", "after": "skipped"}, 0),
        # What was approved is not what would run.
        ("Approve", "HIGHEST", {"change": "failed", "after": "upstream_failed"}, 0),
        # It is tried again on the data of that moment, on which the check fails.
        ("Approve", "PAID", {"change": "failed", "after": "upstream_failed"}, 7),
    ],
)
def test_what_a_person_has_seen_is_what_runs(
    client: LakebaseClient,
    dag_of: DagLoader,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    meanwhile: str,
    states: dict[str, str],
    paid: int,
) -> None:
    monkeypatch.setenv("HIGHEST", "3")
    dag = dag_of("approval")
    seen: list[Any] = []

    def act() -> None:
        seen.append(asked())
        assert (first(PAID), left(client)) == (0, [])
        if meanwhile == "HIGHEST":
            monkeypatch.setenv("HIGHEST", "4")
        if meanwhile == "PAID":
            LakebaseHook().run("UPDATE bills SET paid = true WHERE id > 3")
        answer(option)

    run = ran_with(dag, act)
    assert seen[0].subject == "Pay 3?"
    assert "## Rehearsal: passed" in seen[0].body
    assert {ti.task_id: str(ti.state) for ti in run.get_task_instances()} == states
    assert first(PAID) == paid


def test_what_was_approved_of_one_branch_does_not_run_on_another(client: LakebaseClient) -> None:
    event = {
        "chosen_options": ["Approve"],
        "params_input": {},
        "responded_at": datetime.now(timezone.utc),
        "responded_by_user": {"id": "ada", "name": "Ada"},
    }
    for parent in ("projects/local/branches/other", None):
        operator = LakebaseRehearseOperator(task_id="t", sql="UPDATE bills SET paid = true", then="approve")
        ti = SimpleNamespace(map_index=-1, xcom_pull=lambda **_: parent and {"parent": parent})  # noqa: B023
        with pytest.raises(AirflowFailException) as caught:
            operator.execute_complete({"ti": ti}, event)  # type: ignore[typeddict-item]
        assert isinstance(caught.value.__cause__, RehearsalError)
    assert first(PAID) == 0


def test_without_airflows_own_operator_the_dag_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "airflow.providers.standard.operators.hitl", None)
    for make in (LakebaseRehearseOperator, LakebaseRehearseOperator.partial):
        with pytest.raises(ConfigError, match="needs Airflow's ApprovalOperator") as caught:
            make(task_id="t", sql="SELECT 1", then="approve")
        assert "apache-airflow-providers-standard" in caught.value.remedy
    # Nobody else needs it.
    LakebaseRehearseOperator(task_id="t", sql="SELECT 1", then="run")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"then": "approve", "approval": {"options": ["Yes"]}}, "'approval' has 'options'"),
        ({"then": "approve", "approval": ["ada"]}, "'approval' is given for then='approve', or is no dict"),
        ({"then": "run", "approval": {}}, "'approval' is given for then='run'"),
    ],
)
def test_an_approval_that_cannot_be_asked_for(wrong: dict[str, Any], message: str) -> None:
    for make in (LakebaseRehearseOperator, LakebaseRehearseOperator.partial):
        with pytest.raises(ConfigError) as caught:
            make(task_id="t", sql="SELECT 1", **wrong)
        assert message in caught.value.message
        assert caught.value.remedy


def test_a_long_report_is_cut_where_a_person_is_asked() -> None:
    from lakebase_provider.operators.rehearse import _shortened

    assert _shortened("short") == "short"
    assert len(_shortened("x" * 100_000)) < 20_100
