"""The retry policy, where Airflow has one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lakebase_provider.core.errors import (
    ConfigError,
    ControlPlaneThrottledError,
    EndpointWakingError,
    LoginRejectedError,
)
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from lakebase_provider.retries import lakebase_retries, lakebase_retry_policy
from tests.forked import Forks

policies = pytest.importorskip("airflow.sdk.definitions.retry_policy", reason="Airflow 3.3 brought policies")


def decided(error: BaseException) -> Any:
    assert lakebase_retry_policy is not None
    return lakebase_retry_policy.evaluate(error, 1, 3)


def raised(sql: str, **hook: Any) -> BaseException:
    with pytest.raises(psycopg.Error) as caught:
        LakebaseHook(**hook).run(sql)
    return caught.value


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (EndpointWakingError("starting"), "RETRY"),
        (LoginRejectedError("no"), "FAIL"),
        (ConfigError("no"), "FAIL"),
        (psycopg.errors.DeadlockDetected("d"), "RETRY"),
        (psycopg.errors.SerializationFailure("d"), "RETRY"),
        (psycopg.errors.TooManyConnections("d"), "RETRY"),
        (psycopg.errors.AdminShutdown("d"), "RETRY"),
        (psycopg.errors.DiskFull("d"), "FAIL"),
        (psycopg.errors.UniqueViolation("d"), "DEFAULT"),
        (psycopg.errors.QueryCanceled("canceling statement due to user request"), "DEFAULT"),
        (ValueError("mine"), "DEFAULT"),
    ],
)
def test_it_judges_by_what_was_said(error: BaseException, action: str) -> None:
    assert decided(error).action == policies.RetryAction[action]


def test_it_knows_what_the_server_says(lake: LocalLakebase) -> None:
    for sql, hook in (
        ("selekt 1", {}),
        ("select * from no_such_table", {}),
        ("select pg_sleep(9)", {"statement_timeout": 0.05}),
    ):
        decision = decided(raised(sql, **hook))
        assert decision.action == policies.RetryAction.FAIL
        assert "(" in decision.reason


def test_it_waits_as_long_as_the_workspace_asked() -> None:
    decision = decided(ControlPlaneThrottledError("slow down", retry_after=42))
    assert decision.retry_delay == timedelta(seconds=42)
    assert decided(EndpointWakingError("starting")).retry_delay is None


def test_the_reason_shows_no_row() -> None:
    assert decided(psycopg.errors.UndefinedTable("canary")).reason == (
        "Not retried, a retry would not help: UndefinedTable (42P01)"
    )


def test_tasks_take_it() -> None:
    from airflow.sdk import BaseOperator

    assert BaseOperator(task_id="t", **lakebase_retries).retry_policy is lakebase_retry_policy
    assert lakebase_retry_policy is not None
    assert type(lakebase_retry_policy).deserialize(lakebase_retry_policy.serialize()) is not None


def test_without_policies_there_is_nothing_to_pass(forks: Forks, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['airflow.sdk.definitions.retry_policy'] = None;"
        "import lakebase_provider.retries as r; print((r.lakebase_retries, r.lakebase_retry_policy))"
    )
    done = forks.run("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "({}, None)"
