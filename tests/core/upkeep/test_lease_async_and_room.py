"""Leases for asyncio, and leases that wait for room."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import ConfigError, LeaseLostError, LimitError
from lakebase_provider.core.upkeep.branches.budget import BranchLimits
from lakebase_provider.core.workspace.objects.branches import Branch
from lakebase_provider.local import LocalLakebase
from tests.core.upkeep.leases import BRANCHES, HurriedClock, Unclosable, has_table, left, make_dirty
from tests.eventually import eventually

# For asyncio.


async def test_a_lease_for_asyncio(client: LakebaseClient) -> None:
    async with client.branches.alease("run/1") as lease, lease.client.aconnection() as connection:
        await connection.execute("CREATE TABLE dirty (n int)")
    assert left(client) == []
    taken = await client.branches.atake("run/2")
    assert await client.branches.agive_back(taken.name, uid=taken.uid)


async def test_a_lease_is_extended_and_given_back_without_holding_up_the_loop(
    lakebase_env: LocalLakebase, client: LakebaseClient
) -> None:
    lakebase_env.admin.set(operation_seconds=0.3)
    lease = await client.branches.atake("run/1", ttl=600)
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    turning = asyncio.create_task(turn())
    due = (await lease.aextend(7200)).expire_time
    assert due is not None
    assert due.timestamp() > time.time() + 7000
    async with lease.client.aconnection() as connection:
        await connection.execute("CREATE TABLE dirty (n int)")
    before = turns
    await lease.arelease()
    assert turns > before + 5
    turning.cancel()
    assert left(client) == []
    await lease.arelease()
    with pytest.raises(LeaseLostError, match="has ended"):
        await lease.aextend()


async def test_a_giving_back_that_is_cancelled_goes_on(
    lakebase_env: LocalLakebase, client: LakebaseClient
) -> None:
    lease = await client.branches.atake("run/1", ttl=600)
    lakebase_env.admin.set(operation_seconds=0.3)
    lakebase_env.admin.reset_counters()
    task = asyncio.create_task(lease.arelease())
    await asyncio.to_thread(
        eventually, lambda: any(one.method == "DELETE" for one in lakebase_env.admin.requests())
    )
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left(client) == []


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


@pytest.mark.parametrize(
    ("limit", "runs"),
    [(4, 12), pytest.param(10, 50, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
def test_a_fan_out_beyond_the_limit_completes(lakebase_env: LocalLakebase, limit: int, runs: int) -> None:
    """Each run has a branch of its own, as those of a backfill do."""
    lakebase_env.admin.set(unarchived_branch_limit=limit)
    limits, most, done = BranchLimits(unarchived=limit), 0, []
    # Whoever waits leaves the machine to those that work.
    clock = HurriedClock(longest=runs / 100)
    guard = threading.Lock()

    def run(number: int) -> None:
        nonlocal most
        with (
            LakebaseClient(lakebase_env.config(), clock=clock) as client,
            client.branches.lease(f"run/{number}", wait_for_budget=20 * runs, limits=limits) as lease,
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


@pytest.mark.parametrize("workers", [6, pytest.param(30, marks=pytest.mark.slow)])
def test_many_workers_share_the_branch_of_their_run(
    lakebase_env: LocalLakebase, client: LakebaseClient, workers: int
) -> None:
    def work(name: str, uid: str, number: int) -> None:
        with LakebaseClient(lakebase_env.config().on_branch(name)) as own, own.connection() as connection:
            own.branches.require(uid, connection)
            connection.execute("INSERT INTO dirty VALUES (%s)", [number])

    with client.branches.lease("dag/run") as lease, ThreadPoolExecutor(workers) as pool:
        make_dirty(lease)
        for done in [pool.submit(work, lease.name, lease.uid, number) for number in range(workers)]:
            done.result()
        with lease.client.connection() as connection:
            found = connection.execute("SELECT n FROM dirty ORDER BY n").fetchall()
        assert (found, left(client)) == ([(number,) for number in range(workers)], [lease.branch.id])
    assert not has_table(client, "dirty")


def test_a_fan_out_waits_until_there_is_room_for_all_of_it(
    lakebase_env: LocalLakebase, client: LakebaseClient
) -> None:
    class Freeing(HurriedClock):
        def sleep(self, seconds: float) -> None:
            for name in left(client)[:1]:
                client.workspace.branches.delete(name, purge=True)

    for number in range(3):
        client.workspace.branches.create(f"ci-{number}", ttl=3600)
    waiting, limits = LakebaseClient(client.config, clock=Freeing()), BranchLimits(unarchived=5, computes=4)
    with pytest.raises(LimitError, match=r"no room for 3 more: .*4 of 5 unarchived .* \(waited for 0.2 s\)"):
        client.branches.wait_for_room(branches=3, limits=limits, timeout=0.2)
    found = waiting.branches.wait_for_room(branches=3, limits=limits, timeout=60)
    assert (found.unarchived.left, len(left(client))) == (3, 1)
    # Computes are counted for themselves.
    found = waiting.branches.wait_for_room(branches=0, computes=4, limits=limits, timeout=60)
    assert (found.computes and found.computes.left, left(client)) == (4, [])
    with pytest.raises(ConfigError, match="'timeout' must be above 0"):
        client.branches.wait_for_room(timeout=0)


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
