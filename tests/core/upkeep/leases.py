"""What tests of leases share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.base.threads import pause
from lakebase_provider.core.upkeep.branches.lease import BranchLease
from tests.forkserver import Processes

BRANCHES = "/api/2.0/postgres/projects/local/branches"
Lease = BranchLease[LakebaseClient]


class HurriedClock:
    """The machine's clock, on which nobody sleeps for long.

    Args:
        longest: Seconds of a sleep, at most.
    """

    def __init__(self, longest: float = 0.05) -> None:
        self._longest = longest

    def wall(self) -> float:
        return time.time()

    def elapsed(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        pause(min(seconds, self._longest))


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


#: What work on a branch does that would be seen on production: each statement by itself.
WORK = ("DELETE FROM kept WHERE n % 2 = 0", "UPDATE kept SET n = -n", "CREATE TABLE dirty (n int)")


def make_kept(client: LakebaseClient) -> dict[str, str]:
    """Rows on production that :data:`WORK` changes; what :func:`contents` says of them."""
    with client.connection() as connection:
        connection.execute("DROP TABLE IF EXISTS kept")
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    return contents(client)


def contents(client: LakebaseClient) -> dict[str, str]:
    """MD5 of the rows of each table that the client's principal has, by its name."""
    found = {}
    with client.connection() as connection:
        names = connection.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE tableowner = current_user"
        ).fetchall()
        for (name,) in names:
            query = f"SELECT md5(coalesce(string_agg(t::text, ',' ORDER BY t::text), '')) FROM {name} t"
            [[found[name]]] = connection.execute(query.encode()).fetchall()
    return found


def is_swept(client: LakebaseClient) -> bool:
    """Sweep; again where something goes on: what is being made has no expiration yet, and is not deleted."""
    client.branches.sweep(older_than=0, held=0)
    return left(client) == []


def run_until(
    processes: Processes,
    target: Callable[..., None],
    arguments: Sequence[Any],
    phases: Sequence[str],
    kill: tuple[str, float] | None = None,
) -> dict[str, float]:
    """Run a function in a process of its own, killed so many seconds after a phase begins.

    Args:
        processes: Make it.
        target: The function. Its first argument is a connection, on which it says each phase as it begins,
            and ``"done"`` at its end.
        arguments: Its further arguments.
        phases: What it says, in order.
        kill: A phase, and seconds; by default it runs to its end.

    Returns:
        Seconds that each phase took; nothing of a process that was killed.
    """
    mine, its = processes.pipe()
    process = processes(target, (its, *arguments))
    process.start()
    its.close()
    begun: dict[str, float] = {}
    try:
        for phase in (*phases, "done"):
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
    return {phase: ends[place + 1] - ends[place] for place, phase in enumerate(phases)}


class Unclosable:
    """A client that cannot be closed."""

    def close(self) -> None:
        raise OSError("cannot close")

    async def aclose(self) -> None:
        raise OSError("cannot close")
