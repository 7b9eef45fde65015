"""Waiting for a server that is full or wakes: how often it is asked, and what the log says meanwhile."""

from __future__ import annotations

import asyncio
import logging
from itertools import pairwise

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import (
    ControlPlaneUnavailableError,
    EndpointWakingError,
    TooManyConnectionsError,
)
from lakebase_provider.local import LocalLakebase
from tests.core.fake_clock import FakeClock

#: Seconds between two lines of one that waits.
QUIET = 15.0


class LoggedClock(FakeClock):
    """Notes when each line was written."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[float, str]] = []

    def note(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.INFO:
            self.lines += [(self.passed, line) for line in record.getMessage().splitlines()]
        return True


@pytest.fixture
def logged() -> LoggedClock:
    return LoggedClock()


@pytest.fixture
def client(
    lakebase_env: LocalLakebase, logged: LoggedClock, caplog: pytest.LogCaptureFixture
) -> LakebaseClient:
    client = LakebaseClient(lakebase_env.config(), clock=logged)
    client.connect().close()
    logged.advance(-logged.passed)
    lakebase_env.admin.reset_counters()
    caplog.set_level(logging.INFO, "lakebase_provider")
    caplog.handler.addFilter(logged.note)
    return client


@pytest.mark.parametrize("fault", ["endpoint_full", "too_many_clients", "reserved_slots"])
def test_a_full_server_is_asked_every_5_to_10_seconds(
    client: LakebaseClient, lakebase_env: LocalLakebase, logged: LoggedClock, fault: str
) -> None:
    lakebase_env.admin.login_fault(fault)
    with pytest.raises(TooManyConnectionsError, match=r"\(tried for 60\.0 s\)"):
        client.connect(timeout=60)
    *pauses, last = logged.slept
    assert all(5.0 <= pause <= 10.0 for pause in pauses), pauses
    assert len(set(pauses)) == len(pauses), "no jitter"
    assert last <= 10.0
    assert lakebase_env.admin.counters().refused_logins <= 60 / 5
    # Until shortly before the deadline, not until the first pause that does not fit into what is left.
    assert 55.0 <= logged.passed < 60.0


def test_a_short_deadline_leaves_time_for_a_last_attempt(
    client: LakebaseClient, lakebase_env: LocalLakebase, logged: LoggedClock
) -> None:
    lakebase_env.admin.login_fault("endpoint_full", times=1)
    client.connect(timeout=3).close()
    assert len(logged.slept) == 1
    assert 0.5 <= logged.slept[0] <= 2.9


def test_a_compute_that_takes_long_to_wake_is_asked_less_often(
    client: LakebaseClient, lakebase_env: LocalLakebase, logged: LoggedClock
) -> None:
    lakebase_env.admin.login_fault("paused")
    with pytest.raises(EndpointWakingError):
        client.connect(timeout=120)
    assert max(logged.slept[:8]) <= 1.0
    assert all(2.0 <= pause <= 5.0 for pause in logged.slept[-10:-1])
    assert lakebase_env.admin.counters().refused_logins <= 70


@pytest.mark.parametrize(("fault", "says"), [("endpoint_full", "is full"), ("paused", "not up")])
def test_the_log_says_why_at_once_and_then_every_15_seconds(
    client: LakebaseClient, lakebase_env: LocalLakebase, logged: LoggedClock, fault: str, says: str
) -> None:
    lakebase_env.admin.login_fault(fault)
    with pytest.raises((EndpointWakingError, TooManyConnectionsError)):
        client.connect(timeout=60)
    reasons = [(at, line) for at, line in logged.lines if says in line]
    assert reasons[0] == logged.lines[0]
    assert reasons[0][0] == 0.0
    # First of the line, where it is read.
    assert all(says in line[:40] for _, line in reasons)
    assert all(after - before >= QUIET for (before, _), (after, _) in pairwise(reasons))
    assert len(reasons) >= 3
    remedies = [line for _, line in logged.lines if "Remedy" in line]
    assert len(remedies) == 1
    assert remedies[0].startswith("Remedy: ")
    assert len(logged.lines) <= 8


async def test_with_asyncio_a_full_server_is_asked_as_rarely(
    client: LakebaseClient, lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch, logged: LoggedClock
) -> None:
    async def sleep(seconds: float) -> None:
        logged.sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    lakebase_env.admin.login_fault("endpoint_full")
    with pytest.raises(TooManyConnectionsError):
        await client.aconnect(timeout=60)
    assert all(5.0 <= pause <= 10.0 for pause in logged.slept[:-1])
    assert len(logged.lines) <= 8


def test_a_workspace_that_fails_is_told_as_rarely(
    lakebase_env: LocalLakebase, logged: LoggedClock, caplog: pytest.LogCaptureFixture
) -> None:
    lakebase_env.admin.fault("POST", "/api/2.0/postgres/credentials", status=503, message="at work")
    caplog.set_level(logging.INFO, "lakebase_provider")
    caplog.handler.addFilter(logged.note)
    with pytest.raises(ControlPlaneUnavailableError):
        LakebaseClient(lakebase_env.config(), clock=logged).connect(timeout=120)
    told = [at for at, line in logged.lines if line.startswith("No token yet: ")]
    assert len(told) >= 2
    assert all(after - before >= QUIET for before, after in pairwise(told))
    assert sum(line.startswith("Remedy: ") for _, line in logged.lines) == 1


def test_what_a_pool_opens_beside_is_told_once(
    lakebase_env: LocalLakebase, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lakebase_provider")
    with LakebaseClient(lakebase_env.config(max_size=2)) as client, client.connection():
        caplog.clear()
        lakebase_env.admin.login_fault("endpoint_full")
        for _ in range(2):
            with pytest.raises(TooManyConnectionsError):
                client.pool.getconn(timeout=4)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "The server is full",
        "Remedy",
    ]
