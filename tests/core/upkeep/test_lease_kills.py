"""A holder that is killed wherever it happens to be: the retry or the sweep leaves no branch, each time."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection

import pytest

from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.local import LocalLakebase
from tests.core.upkeep.leases import left
from tests.eventually import eventually

#: What a holder says when it begins to create, to work, and to delete; and at the end.
PHASES = ("create", "work", "delete")

# Processes that begin with all imports done: what is killed is a lease, and not a start.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__, "lakebase_provider.core.client"])


def hold(says: Connection, environment: Mapping[str, str]) -> None:
    """Hold a lease, in a process of its own."""
    os.environ.update(environment)
    with LakebaseClient(LakebaseConfig.from_env()) as client:
        says.send("create")
        with client.branches.lease("nightly/1") as lease:
            says.send("work")
            with lease.client.connection() as connection:
                connection.execute("CREATE TABLE dirty (n int)")
            says.send("delete")
        says.send("done")


def attempt(environment: Mapping[str, str], kill: tuple[str, float] | None = None) -> dict[str, float]:
    """Hold a lease, killed so many seconds after a phase begins; how long each phase took."""
    mine, its = _processes.Pipe(duplex=False)
    process = _processes.Process(target=hold, args=(its, environment))
    process.start()
    its.close()
    begun: dict[str, float] = {}
    try:
        for phase in (*PHASES, "done"):
            assert mine.recv() == phase
            begun[phase] = time.monotonic()
            if kill is not None and kill[0] == phase:
                mine.poll(kill[1])
                process.kill()
                return {}
    finally:
        process.join()
        process.close()
        mine.close()
    ends = [*begun.values()]
    return {phase: ends[place + 1] - ends[place] for place, phase in enumerate(PHASES)}


@pytest.mark.parametrize(
    "moments", [10, pytest.param(30, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_a_holder_that_is_killed_leaves_nothing_after_the_retry_or_the_sweep(
    lakebase_env: LocalLakebase, client: LakebaseClient, moments: int
) -> None:
    # Long enough to be killed in.
    lakebase_env.admin.set(operation_seconds=0.1)
    environment = lakebase_env.env()
    seconds = attempt(environment)
    assert left(client) == []
    chance, found = random.Random(20270131), 0  # noqa: S311 # no secret

    def is_swept() -> bool:
        # What is being made has no expiration yet; and what an operation goes on with is not deleted.
        client.branches.sweep(older_than=0, held=0)
        return left(client) == []

    for moment in range(moments):
        phase = PHASES[moment % len(PHASES)]
        attempt(environment, (phase, seconds[phase] * chance.random()))
        found += bool(left(client))
        if moment % 2:
            eventually(is_swept, within=30)
        else:
            with client.branches.lease("nightly/1") as lease, lease.client.connection() as connection:
                assert connection.execute("SELECT to_regclass('dirty')").fetchone() == (None,)
        assert left(client) == []
    # If few left a branch, nothing was shown.
    assert found >= moments // 2
    with client.connection() as connection:
        assert connection.execute("SELECT to_regclass('dirty')").fetchone() == (None,)
