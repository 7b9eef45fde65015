"""Branches that are lent to runs: what the holder gets, and how the lease ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.base.clock import Deadline
from lakebase_provider.core.errors import (
    ConfigError,
    LakebaseError,
    LeaseLostError,
)
from lakebase_provider.core.upkeep.branches.lease_options import LeasePlan, branch_id_for
from lakebase_provider.core.workspace.writes import alone
from lakebase_provider.local import LocalLakebase
from tests.core.upkeep.leases import BRANCHES, HurriedClock, Unclosable, has_table, left, make_dirty
from tests.eventually import eventually

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


def sleeps(client: LakebaseClient) -> bool:
    """Whether another session waits in ``pg_sleep``."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND usename = current_user"
    with client.connection() as connection:
        [[found]] = connection.execute(query).fetchall()
    return bool(found)


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
        with LakebaseClient(client.config.on_branch(branch_id_for("run/1"))) as on_branch:
            # Python drops what a signal raises in the midst of a finalizer.
            eventually(lambda: sleeps(on_branch))
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
            ended.wait(60)

    lakebase_env.admin.reset_counters()
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    with pytest.raises(LakebaseError, match="This process's other writes"):
        client.branches.take(branch="ci-1", timeout=2)
    ended.set()
    holder.join()
    assert left(client) == ["ci-1"]
