"""Tokens, and the workspace that mints them."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import (
    ControlPlaneThrottledError,
    ControlPlaneTimeoutError,
    ControlPlaneUnavailableError,
    LoginRejectedError,
)
from lakebase_provider.local import LocalLakebase
from lakebase_provider.local.identity.login_errors import EXPIRED_STYLES
from tests.core.fake_clock import FakeClock

from .conftest import CREDENTIALS, ENDPOINT, obtain, timed


def statuses(lake: LocalLakebase, path: str = CREDENTIALS) -> list[int]:
    return [request.status for request in lake.admin.requests() if request.path == path]


def test_a_token_that_expires_leaves_open_connections_alone(lake: LocalLakebase) -> None:
    with LakebaseClient(lake.config()) as client, client.connection() as pooled, client.connect() as alone:
        lake.admin.expire_tokens()
        for connection in (pooled, alone):
            assert connection.execute("SELECT 1").fetchone() == (1,)
    assert lake.admin.counters().mints == 1


@pytest.mark.parametrize("style", EXPIRED_STYLES)
def test_a_token_that_expired_costs_one_more_mint(lake: LocalLakebase, style: str) -> None:
    lake.admin.set_login_error_style(style)
    client = LakebaseClient(lake.config())
    client.tokens.get()
    lake.admin.expire_tokens()
    client.connect().close()
    counters = lake.admin.counters()
    assert (counters.mints, counters.refused_logins, counters.logins) == (2, 1, 1)


@pytest.mark.parametrize("pooled", [True, False])
def test_a_login_refused_for_good_costs_one_forced_mint(lake: LocalLakebase, pooled: bool) -> None:
    lake.admin.login_fault("role_missing")
    with LakebaseClient(lake.config()) as client, timed(5), pytest.raises(LoginRejectedError) as caught:
        obtain(client, pooled=pooled)
    assert not caught.value.retryable
    assert "databricks_create_role" in caught.value.remedy
    counters = lake.admin.counters()
    assert (counters.mints, counters.refused_logins) == (2, 2)


def test_retry_after_is_waited_for_within_the_deadline(lake: LocalLakebase) -> None:
    lake.admin.fault("POST", CREDENTIALS, status=429, retry_after=1, times=1)
    with timed(5) as watch:
        LakebaseClient(lake.config()).connect(timeout=10).close()
    assert watch.seconds >= 1
    assert statuses(lake) == [429, 200]


def test_retry_after_beyond_the_deadline_is_told_not_waited_for(lake: LocalLakebase) -> None:
    lake.admin.fault("POST", CREDENTIALS, status=429, retry_after=30, message="slow down")
    client = LakebaseClient(lake.config())
    with timed(1), pytest.raises(ControlPlaneThrottledError, match="slow down") as caught:
        client.connect(timeout=1)
    assert caught.value.retryable
    assert caught.value.retry_after == pytest.approx(30, abs=2)
    assert statuses(lake) == [429]


@pytest.mark.parametrize("status", [500, 503])
def test_a_failing_mint_is_tried_again_after_a_pause(lake: LocalLakebase, status: int) -> None:
    lake.admin.fault("POST", CREDENTIALS, status=status, times=2)
    LakebaseClient(lake.config()).connect(timeout=20).close()
    assert statuses(lake) == [status, status, 200]


@pytest.mark.parametrize("status", [500, 503])
def test_the_real_cause_is_shown(lake: LocalLakebase, status: int) -> None:
    lake.admin.fault("POST", CREDENTIALS, status=status, error_code="INTERNAL_ERROR", message="disk on fire")
    client = LakebaseClient(lake.config())
    with (
        timed(2),
        pytest.raises(ControlPlaneUnavailableError, match="INTERNAL_ERROR: disk on fire") as caught,
    ):
        client.connect(timeout=2)
    assert caught.value.retryable
    assert 1 <= len(statuses(lake)) <= 10


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize(
    "path",
    [CREDENTIALS, "/oidc/v1/token", "/.well-known/databricks-config"],
    ids=["mint", "sign-in", "discovery"],
)
def test_a_mint_that_hangs_keeps_nobody(lake: LocalLakebase, path: str, pooled: bool) -> None:
    lake.admin.fault("*", path, hang=30)
    with (
        LakebaseClient(lake.config()) as client,
        timed(1),
        pytest.raises(ControlPlaneTimeoutError) as caught,
    ):
        obtain(client, pooled=pooled, timeout=1)
    assert caught.value.retryable


@pytest.mark.parametrize("skew", [600, -600])
def test_a_wrong_clock_is_reported_and_no_login_is_refused(
    lake: LocalLakebase, skew: float, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock(time.time())
    lake.admin.set_clock_skew(skew)
    client = LakebaseClient(lake.config(), clock=clock)
    with caplog.at_level(logging.WARNING, "lakebase_provider"):
        client.connect().close()
        assert "clock" in caplog.text
    # On both sides ten minutes pass at a time, for three hours.
    for minutes in range(10, 180, 10):
        clock.advance(600)
        lake.admin.set_clock_skew(skew + minutes * 60)
        client.connect().close()
    counters = lake.admin.counters()
    assert counters.refused_logins == 0
    assert counters.mints <= 10


def test_sixty_four_threads_without_a_token_mint_once(lake: LocalLakebase) -> None:
    client = LakebaseClient(lake.config())
    barrier = threading.Barrier(64)
    users: list[object] = []

    def work() -> None:
        barrier.wait()
        with client.connect() as connection:
            users.append(connection.execute("SELECT current_user").fetchone())

    threads = [threading.Thread(target=work) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert users == [(lake.client_id,)] * 64
    assert lake.admin.counters().mints == 1
    assert statuses(lake) == [200]


def test_an_endpoint_lookup_that_hangs_keeps_nobody(lake: LocalLakebase) -> None:
    lake.admin.fault("GET", ENDPOINT, hang=30)
    client = LakebaseClient(lake.config(host=None))
    with timed(1), pytest.raises(ControlPlaneTimeoutError):
        client.connect(timeout=1)
