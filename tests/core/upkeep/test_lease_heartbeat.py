"""Leases that are extended while the work lives, and that are lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import psycopg
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.base.threads import pause
from lakebase_provider.core.errors import (
    LakebaseError,
    LeaseLostError,
)
from lakebase_provider.local import LocalLakebase
from tests.core.fake_clock import FakeClock
from tests.core.upkeep.leases import BRANCHES, left
from tests.eventually import eventually


class HeartClock(FakeClock):
    """A clock that tests turn for the heartbeat; whoever else sleeps turns it by that."""

    def __init__(self) -> None:
        super().__init__(time.time())
        #: Seconds that the heartbeat has slept, or sleeps, one after the other.
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        if threading.current_thread().name != "lakebase-branch-lease":
            super().sleep(seconds)
            return
        end = self.passed + seconds
        self.pauses.append(seconds)
        while self.passed < end:
            pause(0.01)


# The heartbeat.


@pytest.fixture
def clock() -> HeartClock:
    return HeartClock()


@pytest.fixture
def beating(lakebase_env: LocalLakebase, clock: HeartClock) -> Iterator[LakebaseClient]:
    with LakebaseClient(lakebase_env.config(), clock=clock) as client:
        yield client


def beat(clock: HeartClock) -> None:
    """Let the heartbeat's pause pass, and what it does then."""
    count = len(clock.pauses)
    clock.advance(clock.pauses[-1])
    eventually(lambda: len(clock.pauses) > count)


def test_a_heartbeat_moves_the_end_while_the_work_lives(
    lakebase_env: LocalLakebase, beating: LakebaseClient, clock: HeartClock
) -> None:
    with beating.branches.lease("run/1", ttl=3600, heartbeat=300) as lease:
        eventually(lambda: clock.pauses == [300])
        for _ in range(20):
            lakebase_env.admin.advance(300)
            beat(clock)
        # It would have expired after 12.
        found = beating.workspace.branches.get(lease.name)
        assert found.uid == lease.uid
        assert lease.branch.expire_time == found.expire_time
        assert found.create_time is not None
        assert found.expire_time is not None
        passed = found.expire_time - found.create_time - timedelta(seconds=20 * 300 + 3600)
        assert abs(passed.total_seconds()) < 30
    assert left(beating) == []


def test_a_heartbeat_of_a_short_lease_is_short(beating: LakebaseClient, clock: HeartClock) -> None:
    with beating.branches.lease("run/1", ttl=90):
        eventually(lambda: clock.pauses == [30])


def test_an_end_is_never_moved_back(client: LakebaseClient) -> None:
    lease = client.branches.take("run/1", ttl=7200)
    until = lease.branch.expire_time
    assert lease.extend(60).expire_time == until
    longer = lease.extend(9000).expire_time
    assert until is not None
    assert longer is not None
    assert longer > until
    lease.release()


def test_a_heartbeat_is_seen_after_a_long_extension(beating: LakebaseClient, clock: HeartClock) -> None:
    with beating.branches.lease("run/1", ttl=3600, heartbeat=300) as lease:
        eventually(lambda: clock.pauses == [300])
        before = lease.extend(48 * 3600)
        beat(clock)
        found = beating.workspace.branches.get(lease.name)
        assert found.update_time is not None
        assert before.update_time is not None
        assert found.update_time > before.update_time
        assert found.expire_time is not None
        assert before.expire_time is not None
        assert found.expire_time > before.expire_time
        # Nor is it too long for the workspace.
        lease.extend(30 * 86_400)
        lease._extend(3600, always=True)


def test_a_reused_branch_is_extended_by_the_workspaces_clock(
    client: LakebaseClient, beating: LakebaseClient, clock: HeartClock
) -> None:
    client.branches.take("run/1", ttl=3600)
    clock.now -= 7200
    with beating.branches.lease("run/1", ttl=3600, heartbeat=300, if_exists="reuse") as lease:
        eventually(lambda: clock.pauses == [300])
        until = lease.branch.expire_time
        beat(clock)
        beat(clock)
        assert until is not None
        assert lease.branch.expire_time is not None
        assert (lease.branch.expire_time - until).total_seconds() > 250


def test_the_heart_beats_while_the_branch_becomes_ready(
    lakebase_env: LocalLakebase, beating: LakebaseClient, clock: HeartClock
) -> None:
    lakebase_env.admin.fault("GET", f"{BRANCHES}/*/endpoints", status=403, message="no", error_code="NO")
    with pytest.raises(LakebaseError, match="did not"):
        beating.branches.take("run/1", ttl=90, heartbeat=300)
    assert clock.pauses == [30]
    assert left(beating) == []


def test_an_operation_that_is_not_known_is_no_lost_lease(
    lakebase_env: LocalLakebase, client: LakebaseClient
) -> None:
    lease = client.branches.take("run/1", ttl=3600)
    lakebase_env.admin.set(operation_seconds=0.3)
    lakebase_env.admin.fault(
        "GET", f"{BRANCHES}/*/operations/*", status=404, message="no", error_code="NOT_FOUND", times=1
    )
    assert lease.extend(9000).uid == lease.uid
    assert lease.config.branch == lease.branch.id
    lease.release()


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_wrong_clock_does_not_end_a_lease(client: LakebaseClient, hours: int) -> None:
    """The moments are the workspace's, whose clock is hours ahead, or behind."""
    clock = FakeClock(time.time() - 3600 * hours)
    lease = client.branches.take("run/1", ttl=7200)
    lease._leases.clock = clock
    lease._ahead = hours * 3600.0
    extended = lease.extend(9000).expire_time
    assert extended is not None
    assert abs(extended.timestamp() - time.time() - 9000) < 60
    lease.release()


def test_a_heartbeat_that_fails_is_logged_and_repeated(
    lakebase_env: LocalLakebase,
    beating: LakebaseClient,
    clock: HeartClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with beating.branches.lease("run/1", ttl=3600, heartbeat=300) as lease:
        eventually(lambda: clock.pauses == [300])
        lakebase_env.admin.fault("PATCH", f"{BRANCHES}/*", status=403, message="no", error_code="NO")
        beat(clock)
        assert "is not extended, and will be tried again in 30.0 s" in caplog.text
        until = lease.branch.expire_time
        lakebase_env.admin.clear_faults()
        beat(clock)
        assert clock.pauses == [300, 30, 300]
        assert until is not None
        assert lease.branch.expire_time is not None
        assert lease.branch.expire_time > until


def test_a_lost_lease_is_told_at_the_next_use_and_at_the_end(
    beating: LakebaseClient, clock: HeartClock
) -> None:
    def work() -> None:
        with beating.branches.lease("run/1", heartbeat=300) as lease:
            beating.workspace.branches.delete(lease.name, purge=True)
            eventually(lambda: clock.pauses == [300])
            clock.advance(300)
            heart = lease._heart
            assert heart is not None
            heart.join(30)
            uses: tuple[Callable[[], object], ...] = (
                lambda: lease.client,
                lambda: lease.config,
                lease.extend,
            )
            for use in uses:
                with pytest.raises(LeaseLostError):
                    use()

    with pytest.raises(LeaseLostError, match="is gone: it expired or was deleted"):
        work()


def test_work_that_fails_because_the_branch_expired_says_so(
    lakebase_env: LocalLakebase, client: LakebaseClient
) -> None:
    def work() -> None:
        with client.branches.lease("run/1", ttl=600) as lease, lease.client.connection() as connection:
            lakebase_env.admin.advance(601)
            connection.execute("SELECT pg_sleep(10)")

    with pytest.raises(LeaseLostError) as caught:
        work()
    assert isinstance(caught.value.__cause__, (psycopg.Error, LakebaseError))


def test_an_error_of_the_work_itself_is_not_hidden(client: LakebaseClient) -> None:
    def work() -> None:
        with client.branches.lease("run/1") as lease:
            client.workspace.branches.delete(lease.name, purge=True)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        work()
