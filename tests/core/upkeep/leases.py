"""What tests of leases share."""

from __future__ import annotations

import time

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.base.threads import pause
from lakebase_provider.core.upkeep.branches.lease import BranchLease

BRANCHES = "/api/2.0/postgres/projects/local/branches"
Lease = BranchLease[LakebaseClient]


class HurriedClock:
    """The machine's clock, on which nobody sleeps for long."""

    def wall(self) -> float:
        return time.time()

    def elapsed(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        pause(min(seconds, 0.05))


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


class Unclosable:
    """A client that cannot be closed."""

    def close(self) -> None:
        raise OSError("cannot close")

    async def aclose(self) -> None:
        raise OSError("cannot close")
