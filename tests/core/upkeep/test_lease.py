"""Branches that are lent to runs: what the holder gets, how the lease lives, and how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.base.clock import Deadline
from lakebase_provider.core.base.threads import pause
from lakebase_provider.core.errors import (
    AlreadyExistsError,
    ConfigError,
    LakebaseError,
    LeaseLostError,
    LimitError,
    ObjectStateError,
)
from lakebase_provider.core.upkeep.branches.budget import BranchLimits
from lakebase_provider.core.upkeep.branches.lease import BranchLease
from lakebase_provider.core.upkeep.branches.lease_options import LeasePlan, branch_id_for
from lakebase_provider.core.workspace.objects.branches import Branch
from lakebase_provider.core.workspace.writes import alone
from lakebase_provider.local import LocalLakebase
from tests.core.fake_clock import FakeClock
from tests.eventually import eventually

BRANCHES = "/api/2.0/postgres/projects/local/branches"
Lease = BranchLease[LakebaseClient]
MAIN = threading.main_thread().ident or 0

#: Holds a lease, says so, and works until it is told to end.
RUN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from lakebase_provider.core import LakebaseClient, LakebaseConfig
with LakebaseClient(LakebaseConfig.from_env()) as client, client.branches.lease("run/1") as lease:
    with lease.client.connection() as connection:
        print("held", flush=True)
        connection.execute("SELECT pg_sleep(60)")
"""


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


class HurriedClock:
    """The machine's clock, on which nobody sleeps for long."""

    def wall(self) -> float:
        return time.time()

    def elapsed(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        pause(min(seconds, 0.05))


@pytest.fixture
def client(lakebase_env: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lakebase_env.config()) as client:
        yield client


def left(client: LakebaseClient) -> list[str]:
    """Ids of the branches that are there, deleted ones included, but for production."""
    found = client.workspace.branches.list(show_deleted=True)
    return [branch.id for branch in found if not branch.is_default]


def has_table(client: LakebaseClient, name: str) -> bool:
    with client.connection() as connection:
        [[found]] = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [name]).fetchall()
        return bool(found)


def make_dirty(lease: Lease) -> None:
    with lease.client.connection() as connection:
        connection.execute("CREATE TABLE dirty (n int)")


# The id.


@given(st.text(min_size=1), st.text("az09", max_size=19).map("r".__add__))
def test_an_id_follows_from_the_run_and_is_one(run_id: str, prefix: str) -> None:
    found = branch_id_for(run_id, prefix)
    assert re.fullmatch("[a-z]([a-z0-9-]{0,61}[a-z0-9])?", found)
    assert found.startswith(f"{prefix}-")
    assert "--" not in found
    assert found == branch_id_for(run_id, prefix)


@given(st.lists(st.text(min_size=1), min_size=2, max_size=20, unique=True))
def test_different_runs_have_different_ids(run_ids: list[str]) -> None:
    assert len({branch_id_for(run_id) for run_id in run_ids}) == len(run_ids)


def test_an_id_can_be_read() -> None:
    found = branch_id_for("scheduled__2027-01-31T00:00:00+00:00")
    assert found == "run-scheduled-2027-01-31t00-00-00-00-00-cb37ad2cc231"
    assert branch_id_for("Über/🚚") != branch_id_for("über/🚚")
    assert len(branch_id_for("x" * 500, "ci")) == 63
    for prefix in ("", "Run", "run-", "1run", "a" * 21):
        with pytest.raises(ConfigError, match="'prefix' is"):
            branch_id_for("x", prefix)
    with pytest.raises(ConfigError, match="run's id is empty"):
        branch_id_for("")


# What the holder gets.


def test_a_leased_branch_is_small_expires_and_is_purged(client: LakebaseClient) -> None:
    with client.branches.lease("nightly/1", ttl=7200) as lease:
        assert lease.branch.id == branch_id_for("nightly/1")
        assert lease.uid == lease.branch.uid
        assert lease.branch.expire_time is not None
        assert lease.branch.create_time is not None
        life = lease.branch.expire_time - lease.branch.create_time
        assert abs(life.total_seconds() - 7200) < 60
        [endpoint] = client.workspace.endpoints.list(lease.name)
        assert (endpoint.min_cu, endpoint.max_cu, endpoint.suspend_timeout) == (0.5, 0.5, 300)
        make_dirty(lease)
        assert lease.client is lease.client
        lease.client.branches.require(lease.uid)
        assert lease.config.branch == lease.branch.id
    assert left(client) == []
    assert not has_table(client, "dirty")
    lease.release()
    with pytest.raises(LeaseLostError, match="has ended"):
        _ = lease.client


def test_a_lease_as_it_was_asked_for(client: LakebaseClient) -> None:
    client.workspace.branches.create("base", no_expiry=True)
    with client.branches.lease(
        branch="ci-7", source="base", heartbeat=None, min_cu=1, max_cu=2, suspend_timeout=60
    ) as lease:
        assert lease.name == "projects/local/branches/ci-7"
        assert lease.branch.source_branch == "projects/local/branches/base"
        [endpoint] = client.workspace.endpoints.list(lease.name)
        assert (endpoint.min_cu, endpoint.max_cu, endpoint.suspend_timeout) == (1, 2, 60)
    assert left(client) == ["base"]


def test_a_restored_snapshot_is_lent_and_replaced(client: LakebaseClient) -> None:
    client.workspace.snapshots.create("s-1", source_branch="production", ttl=3600)
    first = client.branches.take(branch="ci-1", snapshot="s-1")
    with client.branches.lease(branch="ci-1", snapshot="s-1") as lease:
        assert lease.uid != first.uid
        assert lease.branch.source_snapshot == "projects/local/snapshots/s-1"
    assert left(client) == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"ttl": 0}, "'ttl' must be above 0"),
        ({"heartbeat": 3600}, "'heartbeat' must be at most 600 s"),
        ({"wait_for_budget": -1}, "'wait_for_budget' must be above 0"),
        ({"if_exists": "replace"}, "if_exists"),
        ({"limits": {"branches": 1}}, "'limits' must be BranchLimits"),
        ({"no_expiry": True}, "no option 'no_expiry'"),
        ({"branch": "ci-1"}, "and not both"),
        ({"timeout": 0}, "'timeout' must be above 0"),
    ],
)
def test_what_cannot_be_leased(client: LakebaseClient, options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        client.branches.take("run/1", **options)
    assert left(client) == []


# Its end.


class Stop(BaseException):
    """As a front's signal handler raises it."""


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(1), Stop()])
def test_whatever_ends_the_work_the_branch_is_purged(client: LakebaseClient, error: BaseException) -> None:
    def work() -> None:
        with client.branches.lease("run/1"):
            assert left(client) == [branch_id_for("run/1")]
            raise error

    with pytest.raises(type(error)):
        work()
    assert left(client) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_process_that_is_asked_to_end_purges_its_branch(
    client: LakebaseClient, number: signal.Signals, code: int
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUN],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "LAKEBASE_ALLOW_LOOPBACK": "1"},
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "held\n"
        run.send_signal(number)
    assert run.returncode == code
    assert left(client) == []


@pytest.fixture
def interrupts() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also where a shell's background job ignores it."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.usefixtures("interrupts")
def test_a_signal_during_the_end_waits_for_it(lakebase_env: LocalLakebase, client: LakebaseClient) -> None:
    def interrupt() -> None:
        eventually(lambda: any(one.method == "DELETE" for one in lakebase_env.admin.requests()))
        signal.pthread_kill(MAIN, signal.SIGINT)

    def work() -> None:
        with client.branches.lease("run/1"):
            lakebase_env.admin.set(operation_seconds=0.5)
            lakebase_env.admin.reset_counters()
            threading.Thread(target=interrupt).start()

    with pytest.raises(KeyboardInterrupt):
        work()
    assert left(client) == []


@pytest.mark.usefixtures("interrupts")
def test_an_interrupted_creation_leaves_nothing(lakebase_env: LocalLakebase, client: LakebaseClient) -> None:
    lakebase_env.admin.set(operation_seconds=0.5)
    lakebase_env.admin.reset_counters()

    def interrupt() -> None:
        eventually(lambda: any(one.method == "POST" for one in posted(lakebase_env)))
        signal.pthread_kill(MAIN, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        client.branches.take("run/1")
    assert left(client) == []


def posted(lake: LocalLakebase) -> list[Any]:
    return [one for one in lake.admin.requests() if one.method == "POST" and one.path == BRANCHES]


def test_a_creation_that_landed_although_it_failed_leaves_nothing(
    lakebase_env: LocalLakebase, client: LakebaseClient
) -> None:
    lakebase_env.admin.operation_fault("branch", lands=True)
    with pytest.raises(LakebaseError, match="failed"):
        client.branches.take("run/1")
    assert left(client) == []


def test_a_branch_that_cannot_be_made_small_is_not_kept(client: LakebaseClient) -> None:
    with pytest.raises(LakebaseError):
        client.branches.take("run/1", min_cu=100_000)
    assert left(client) == []


def test_an_end_that_fails_is_told(
    lakebase_env: LocalLakebase, client: LakebaseClient, caplog: pytest.LogCaptureFixture
) -> None:
    lakebase_env.admin.fault("DELETE", f"{BRANCHES}/*", status=403, message="no", error_code="NO")
    with pytest.raises(ValueError, match="mine"), client.branches.lease("run/1"):
        raise ValueError("mine")
    assert "was not purged, and goes when it expires" in caplog.text
    with pytest.raises(LakebaseError, match="did not delete"), client.branches.lease("run/2"):
        pass


def test_a_forked_child_purges_nothing(client: LakebaseClient) -> None:
    lease = client.branches.take("run/1")
    lease._pid += 1
    lease.release()
    assert left(client) == [lease.branch.id]
    lease._pid -= 1
    lease.release()
    assert left(client) == []


class Unclosable:
    """A client that cannot be closed."""

    def close(self) -> None:
        raise OSError("cannot close")

    async def aclose(self) -> None:
        raise OSError("cannot close")


def test_a_client_that_cannot_be_closed_does_not_keep_the_branch(client: LakebaseClient) -> None:
    lease: Any = client.branches.take("run/1")
    lease._client = Unclosable()
    with pytest.raises(OSError, match="cannot close"):
        lease.release()
    assert left(client) == []


def test_an_undoing_waits_for_what_lands_late(client: LakebaseClient) -> None:
    class Landing(HurriedClock):
        landed = False

        def sleep(self, seconds: float) -> None:
            if not self.landed:
                self.landed = True
                client.workspace.branches.create("ci-1", ttl=3600)

    late = LakebaseClient(client.config, clock=(clock := Landing()))
    leases: Any = late.branches._leases
    leases._undo("projects/local/branches/ci-1", LeasePlan(), None, KeyboardInterrupt())
    assert (clock.landed, left(client)) == (True, [])


def test_a_call_that_sent_nothing_undoes_nothing(lakebase_env: LocalLakebase, client: LakebaseClient) -> None:
    """This process's other writes hold it back, and another holder makes the branch meanwhile."""
    held, ended = threading.Event(), threading.Event()

    def read() -> bool:
        return ended.is_set() or any("ci-1" in one.path for one in lakebase_env.admin.requests())

    def hold() -> None:
        with alone(client.config, "projects/local", Deadline(60)):
            held.set()
            eventually(read)
            client.workspace.branches.create("ci-1", ttl=3600)
            ended.wait(3)

    lakebase_env.admin.reset_counters()
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    with pytest.raises(LakebaseError, match="This process's other writes"):
        client.branches.take(branch="ci-1", timeout=1)
    ended.set()
    holder.join()
    assert left(client) == ["ci-1"]


# In two halves.


def test_a_branch_is_taken_here_and_given_back_there(client: LakebaseClient) -> None:
    lease = client.branches.take("run/1", ttl=3600)
    with pytest.raises(LeaseLostError, match="another one has its name") as caught:
        client.branches.give_back(lease.branch.id, uid="br-another")
    assert not caught.value.retryable
    client.workspace.branches.update(lease.name, no_expiry=True, is_protected=True)
    with pytest.raises(ObjectStateError, match="is protected now"):
        client.branches.give_back(lease.name, uid=lease.uid)
    client.workspace.branches.update(lease.name, is_protected=False)
    assert client.branches.give_back(lease.name, uid=lease.uid)
    assert not client.branches.give_back(lease.name, uid=lease.uid)
    assert left(client) == []


def test_a_purge_compares_the_uid_before_each_request(
    lakebase_env: LocalLakebase, client: LakebaseClient
) -> None:
    """While the project is busy with the creation of another branch of that name, the purge is sent again."""
    branches = client.workspace.branches
    former = branches.create("ci-1", ttl=3600)
    path, busy = f"{BRANCHES}/ci-1", "Another operation on the project is still running"
    lakebase_env.admin.fault("DELETE", path, status=409, error_code="RESOURCE_CONFLICT", message=busy)

    class Replacing(HurriedClock):
        done = False

        def sleep(self, seconds: float) -> None:
            if not self.done:
                self.done = True
                lakebase_env.admin.clear_faults()
                branches.ensure("ci-1", ttl=3600, on_exists="recreate")

    late = LakebaseClient(client.config, clock=Replacing())
    with pytest.raises(LeaseLostError, match="another one has its name"):
        late.branches.give_back("ci-1", uid=str(former.uid))
    assert branches.get("ci-1").uid != former.uid


# Two holders of one id.


def test_a_retry_replaces_what_was_left(client: LakebaseClient) -> None:
    former = client.branches.take("run/1")
    make_dirty(former)
    with client.branches.lease("run/1") as lease:
        assert lease.uid != former.uid
        assert not has_table(lease.client, "dirty")
        # The one that was replaced, and does not know, leaves the other one alone.
        with pytest.raises(LeaseLostError, match="another one has its name"):
            former.extend()
        with pytest.raises(LeaseLostError, match="another one has its name"):
            former.release()
        former.release()
        assert client.workspace.branches.get(lease.name).uid == lease.uid
    assert left(client) == []


def test_a_retry_reuses_what_was_left_or_refuses_it(client: LakebaseClient) -> None:
    former = client.branches.take("run/1")
    make_dirty(former)
    with pytest.raises(AlreadyExistsError, match="exists"):
        client.branches.take("run/1", if_exists="fail")
    with client.branches.lease("run/1", if_exists="reuse") as lease:
        assert lease.uid == former.uid
        assert has_table(lease.client, "dirty")
    assert left(client) == []


def test_a_branch_that_no_lease_made_is_left_alone(client: LakebaseClient) -> None:
    branches = client.workspace.branches
    branches.create("mine", no_expiry=True)
    branches.create("base", no_expiry=True)
    branches.create("other", ttl=3600, source_branch="base")
    before = {branch.id: branch.uid for branch in branches.list()}
    for name, why in [
        ("production", "is the project's default branch"),
        ("mine", "does not expire"),
        ("other", "was made from projects/local/branches/base, not from projects/local/branches/production"),
    ]:
        for policy in ("recreate", "reuse"):
            with pytest.raises(AlreadyExistsError, match=why):
                client.branches.take(branch=name, if_exists=policy)  # type: ignore[arg-type] # one of them
    assert {branch.id: branch.uid for branch in branches.list()} == before


@pytest.mark.parametrize("state", ["ARCHIVED", "RESETTING", "IMPORTING", "DELETED"])
def test_a_branch_that_no_lease_made_is_refused_in_each_state(client: LakebaseClient, state: str) -> None:
    source, leases = "projects/local/branches/production", client.branches._leases
    mine = Branch(name="projects/local/branches/dev", state=state, source_branch=source)
    with pytest.raises(AlreadyExistsError, match="does not expire, so no lease has left it"):
        leases._require_lent(mine, LeasePlan())


def test_a_deleted_branch_is_purged_only_if_it_was_lent(client: LakebaseClient) -> None:
    branches = client.workspace.branches
    branches.create("mine", no_expiry=True)
    branches.delete("mine")
    with pytest.raises(AlreadyExistsError, match="is deleted, and does not expire") as caught:
        client.branches.take(branch="mine")
    assert "bring it back" in str(caught.value)
    assert branches.undelete("mine").expire_time is None
    former = client.branches.take("run/1")
    branches.delete(former.name)
    with client.branches.lease("run/1") as lease:
        assert lease.uid != former.uid
    assert left(client) == ["mine"]


@pytest.mark.parametrize(
    "options", [{"at_time": datetime(2027, 1, 31)}, {"at_lsn": "0/1", "snapshot": "s-1"}, {"at_lsn": 7}]
)
def test_nothing_is_purged_for_what_cannot_be_made(client: LakebaseClient, options: dict[str, Any]) -> None:
    former = client.branches.take("run/1")
    with pytest.raises(LakebaseError):
        client.branches.take("run/1", **options)
    assert client.workspace.branches.get(former.name).uid == former.uid


def test_what_cannot_be_reused_says_what_a_lease_can(client: LakebaseClient) -> None:
    former = client.branches.take("run/1")
    client.workspace.branches.delete(former.name)
    for policy in ("reuse", "fail"):
        with pytest.raises(AlreadyExistsError) as caught:
            client.branches.take("run/1", if_exists=policy)  # type: ignore[arg-type] # one of them
        assert "if_exists='recreate'" in str(caught.value)


def test_a_branch_that_another_holder_has_just_made_is_not_undone(
    lakebase_env: LocalLakebase, client: LakebaseClient
) -> None:
    busy = "Another operation on the project is still running"
    lakebase_env.admin.fault(
        "POST", BRANCHES, status=409, error_code="RESOURCE_CONFLICT", message=busy, times=1
    )

    class Making(HurriedClock):
        uid: str | None = None

        def sleep(self, seconds: float) -> None:
            if self.uid is None:
                self.uid = client.workspace.branches.create("ci-1", ttl=3600).uid

    late = LakebaseClient(client.config, clock=(clock := Making()))
    with pytest.raises(LakebaseError):
        late.branches.take(branch="ci-1", if_exists="reuse", min_cu=100_000)
    assert client.workspace.branches.get("ci-1").uid == clock.uid


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


# For asyncio.


async def test_a_lease_for_asyncio(client: LakebaseClient) -> None:
    async with client.branches.alease("run/1") as lease, lease.client.aconnection() as connection:
        await connection.execute("CREATE TABLE dirty (n int)")
    assert left(client) == []
    taken = await client.branches.atake("run/2")
    assert await client.branches.agive_back(taken.name, uid=taken.uid)


@pytest.mark.parametrize("when", ["taken", "held", "released"])
async def test_a_cancelled_lease_is_given_back(
    lakebase_env: LocalLakebase, client: LakebaseClient, when: str
) -> None:
    held = asyncio.Event()

    async def work() -> None:
        async with client.branches.alease("run/1"):
            held.set()
            if when == "held":
                await asyncio.sleep(60)
            lakebase_env.admin.set(operation_seconds=0.5)
            lakebase_env.admin.reset_counters()

    def under_way() -> bool:
        method = "POST" if when == "taken" else "DELETE"
        return any(
            one.method == method and one.path.startswith(BRANCHES) for one in lakebase_env.admin.requests()
        )

    if when == "taken":
        lakebase_env.admin.set(operation_seconds=0.5)
        lakebase_env.admin.reset_counters()
    task = asyncio.create_task(work())
    if when == "held":
        await held.wait()
    else:
        if when == "released":
            await held.wait()
        await asyncio.to_thread(eventually, under_way)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left(client) == []


async def test_a_client_that_cannot_be_closed_does_not_keep_the_branch_either(
    client: LakebaseClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(error: Exception | None) -> None:
        async with client.branches.alease("run/1") as lease:
            vars(lease)["_client"] = Unclosable()
            if error is not None:
                raise error

    with pytest.raises(OSError, match="cannot close"):
        await work(None)
    with pytest.raises(ValueError, match="mine"):
        await work(ValueError("mine"))
    assert "was not closed: cannot close" in caplog.text
    assert left(client) == []


@pytest.mark.parametrize("times", [1, 2])
async def test_a_taking_that_is_cancelled_at_its_end_leaves_no_branch(
    client: LakebaseClient, times: int
) -> None:
    branches: Any = client.branches
    ready, ready_at_last, goes_on = branches._leases._wait_ready, threading.Event(), threading.Event()

    def wait_ready(name: str, seconds: float) -> Branch:
        found: Branch = ready(name, seconds)
        ready_at_last.set()
        goes_on.wait(30)
        return found

    branches._leases._wait_ready = wait_ready
    task = asyncio.create_task(branches.atake("run/1", heartbeat=300))
    await asyncio.to_thread(ready_at_last.wait, 30)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(eventually, lambda: left(client) == [])


async def test_a_purge_that_fails_does_not_hide_that_it_was_cancelled(
    lakebase_env: LocalLakebase, client: LakebaseClient, caplog: pytest.LogCaptureFixture
) -> None:
    path = f"{BRANCHES}/*"
    lakebase_env.admin.fault("DELETE", path, status=403, message="no", error_code="NO", hang=0.5)
    lakebase_env.admin.reset_counters()

    async def work() -> None:
        async with client.branches.alease("run/1"):
            pass

    task = asyncio.create_task(work())
    await asyncio.to_thread(
        eventually, lambda: any(one.method == "DELETE" for one in lakebase_env.admin.requests())
    )
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "did not delete" in caplog.text


# With a budget.


async def test_a_fan_out_of_asyncio_does_not_starve_itself(lakebase_env: LocalLakebase) -> None:
    """Those that wait for room hold none of the threads in which the others work."""
    lakebase_env.admin.set(unarchived_branch_limit=3)
    limits, done = BranchLimits(unarchived=3), []

    async def run(number: int) -> None:
        async with (
            client.branches.alease(f"run/{number}", wait_for_budget=60, limits=limits) as lease,
            lease.client.aconnection() as connection,
        ):
            await connection.execute("SELECT 1")
            done.append(number)

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    with LakebaseClient(lakebase_env.config(), clock=HurriedClock()) as client:
        await asyncio.gather(*(run(number) for number in range(5)))
        assert (sorted(done), left(client)) == ([*range(5)], [])


def test_an_operation_that_says_there_is_no_room_is_waited_for(
    lakebase_env: LocalLakebase, client: LakebaseClient
) -> None:
    lakebase_env.admin.operation_fault(
        "branch", error_code="QUOTA_EXCEEDED", message="branches limit exceeded"
    )
    hurried = LakebaseClient(client.config, clock=HurriedClock())
    with hurried.branches.lease("run/1", wait_for_budget=60) as lease:
        assert left(client) == [lease.branch.id]


def test_a_fan_out_beyond_the_limit_completes(lakebase_env: LocalLakebase) -> None:
    limit, runs = 4, 12
    lakebase_env.admin.set(unarchived_branch_limit=limit)
    limits, most, done = BranchLimits(unarchived=limit), 0, []
    guard = threading.Lock()

    def run(number: int) -> None:
        nonlocal most
        with (
            LakebaseClient(lakebase_env.config(), clock=HurriedClock()) as client,
            client.branches.lease(f"run/{number}", wait_for_budget=240, limits=limits) as lease,
        ):
            make_dirty(lease)
            with guard:
                most = max(most, len(client.workspace.branches.list()))
                done.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(runs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with LakebaseClient(lakebase_env.config()) as client:
        assert (sorted(done), left(client)) == ([*range(runs)], [])
        assert most <= limit


@pytest.mark.parametrize("unarchived", [2, 10])
def test_no_room_is_an_error_with_the_numbers(
    lakebase_env: LocalLakebase, client: LakebaseClient, unarchived: int
) -> None:
    """Whether the count says so, or the workspace does, which another holder was faster at."""
    lakebase_env.admin.set(unarchived_branch_limit=2)
    limits = BranchLimits(unarchived=unarchived)
    client.workspace.branches.create("ci-1", ttl=3600)
    told = f"2 of 500 branches, 2 of {unarchived} unarchived branches, 1 of 3 root branches"
    for wait in (None, 0.3):
        with pytest.raises(LimitError, match=told) as caught:
            client.branches.take("run/1", wait_for_budget=wait, limits=limits)
        assert caught.value.retryable
        assert ("waited for 0.3 s" in str(caught.value)) == (wait is not None)
    assert left(client) == ["ci-1"]


@pytest.mark.parametrize("unarchived", [2, 10])
def test_room_is_waited_for(lakebase_env: LocalLakebase, client: LakebaseClient, unarchived: int) -> None:
    lakebase_env.admin.set(unarchived_branch_limit=2)
    client.workspace.branches.create("ci-1", ttl=3600)

    class Freeing(HurriedClock):
        def sleep(self, seconds: float) -> None:
            client.workspace.branches.delete("ci-1", purge=True, missing_ok=True)

    limits = BranchLimits(unarchived=unarchived)
    waiting = LakebaseClient(client.config, clock=Freeing())
    with waiting.branches.lease("run/1", wait_for_budget=60, limits=limits) as lease:
        assert left(client) == [lease.branch.id]
