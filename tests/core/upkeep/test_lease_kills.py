"""A holder that is killed wherever it happens to be: the retry or the sweep leaves no branch, each time."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from multiprocessing.connection import Connection

import pytest

from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.local import LocalLakebase
from tests.core.upkeep.leases import BRANCHES, WORK, contents, is_swept, left, make_kept, run_until
from tests.eventually import eventually
from tests.forkserver import Processes

#: What a holder says when it begins to create, to work, and to delete.
PHASES = ("create", "work", "delete")

# Processes that begin with all imports done: what is killed is a lease, and not a start.
_processes = Processes(__name__, "lakebase_provider.core.client")


def hold(says: Connection, environment: Mapping[str, str]) -> None:
    """Hold a lease, in a process of its own."""
    os.environ.update(environment)
    with LakebaseClient(LakebaseConfig.from_env()) as client:
        says.send("create")
        with client.branches.lease("nightly/1") as lease:
            says.send("work")
            with lease.client.connect(autocommit=True) as connection:
                for statement in WORK:
                    connection.execute(statement.encode())
            says.send("delete")
        says.send("done")


@pytest.mark.parametrize(
    "moments", [10, pytest.param(30, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_a_holder_that_is_killed_leaves_nothing_after_the_retry_or_the_sweep(
    lakebase_env: LocalLakebase, client: LakebaseClient, moments: int
) -> None:
    production = make_kept(client)
    # Long enough to be killed in.
    lakebase_env.admin.set(operation_seconds=0.1)
    environment = lakebase_env.env()
    seconds = run_until(_processes, hold, [environment], PHASES)
    assert left(client) == []
    chance, found = random.Random(20270131), 0  # noqa: S311 # no secret
    for moment in range(moments):
        phase = PHASES[moment % len(PHASES)]
        run_until(_processes, hold, [environment], PHASES, (phase, seconds[phase] * chance.random()))
        found += bool(left(client))
        if moment % 2:
            eventually(lambda: is_swept(client), within=30)
        else:
            with client.branches.lease("nightly/1") as lease:
                # None of the rows of the try that was killed.
                assert contents(lease.client) == production
        assert left(client) == []
        assert contents(client) == production
    # If few left a branch, nothing was shown.
    assert found >= moments // 2


def keep_alive(says: Connection, environment: Mapping[str, str]) -> None:
    """Hold a lease whose heart beats often, until it is killed."""
    os.environ.update(environment)
    client = LakebaseClient(LakebaseConfig.from_env())
    with client.branches.lease("nightly/2", ttl=3600, heartbeat=0.05) as lease:
        until = lease.branch.expire_time
        says.send("alive")
        # Nobody asks for more: the branch is as the heartbeat found it.
        eventually(lambda: lease.branch.expire_time != until)
        says.send("beats")
        says.poll(60)


def test_the_heartbeat_dies_with_its_holder(lakebase_env: LocalLakebase, client: LakebaseClient) -> None:
    run_until(_processes, keep_alive, [lakebase_env.env()], ("alive", "beats"), ("beats", 0))
    [branch] = left(client)
    lakebase_env.admin.reset_counters()
    lakebase_env.admin.advance(3601)
    assert left(client) == []
    patched = [one.path for one in lakebase_env.admin.requests() if one.method == "PATCH"]
    assert f"{BRANCHES}/{branch}" not in patched
