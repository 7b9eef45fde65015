"""The server is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import PoolExhaustedError, TooManyConnectionsError
from lakebase_provider.local import LocalLakebase
from tests.core.fake_clock import FakeClock
from tests.eventually import eventually

from .conftest import obtain, timed

#: Of which the superuser keeps three.
MAX_CONNECTIONS = 6


@pytest.fixture(scope="module")
def small_lake() -> Iterator[LocalLakebase]:
    with LocalLakebase(max_connections=MAX_CONNECTIONS) as lake:
        yield lake


@pytest.fixture
def full(small_lake: LocalLakebase) -> Iterator[ExitStack]:
    """Hold every connection that the server has for the role."""
    client = LakebaseClient(small_lake.config())
    with ExitStack() as held:
        for _ in range(MAX_CONNECTIONS - 3):
            held.enter_context(client.connect())
        yield held
    eventually(lambda: small_lake.admin.counters().open_connections == 0)


@pytest.mark.parametrize("pooled", [True, False])
def test_a_full_server_keeps_nobody(small_lake: LocalLakebase, full: ExitStack, pooled: bool) -> None:
    with (
        LakebaseClient(small_lake.config()) as client,
        timed(1.5),
        pytest.raises(TooManyConnectionsError) as caught,
    ):
        obtain(client, pooled=pooled, timeout=1.5)
    assert caught.value.retryable
    assert "max_size" in caught.value.remedy


def test_the_pools_own_budget_is_named(small_lake: LocalLakebase) -> None:
    with (
        LakebaseClient(small_lake.config(max_size=1)) as client,
        client.connection(),
        timed(0.5),
        pytest.raises(PoolExhaustedError, match=r"within 0\.5 s: 1 of at most 1") as caught,
    ):
        client.pool.getconn(timeout=0.5)
    assert "max_size" in caught.value.remedy


def test_the_error_names_the_budget(small_lake: LocalLakebase, full: ExitStack) -> None:
    with pytest.raises(TooManyConnectionsError, match=r"1\.5 s"):
        LakebaseClient(small_lake.config()).connect(timeout=1.5)


def test_a_slot_that_becomes_free_is_taken(lake: LocalLakebase) -> None:
    for name in ("endpoint_full", "too_many_clients", "reserved_slots"):
        lake.admin.login_fault(name, times=1)
    LakebaseClient(lake.config(), clock=FakeClock()).connect(timeout=60).close()
