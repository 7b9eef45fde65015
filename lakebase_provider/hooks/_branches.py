"""What operators, sensors and triggers share that manage branches: whose right it is, what goes by XCom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.config.addresses import ADDRESS
from lakebase_provider.core.errors import OperationTimeoutError
from lakebase_provider.hooks.lakebase import LakebaseHook

if TYPE_CHECKING:
    from lakebase_provider.core.client import LakebaseClient
    from lakebase_provider.core.upkeep.branches.branch_upkeep import BranchUpkeep
    from lakebase_provider.core.workspace.objects.branches import Branch
    from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects

#: Seconds that a look at a branch may take, its login included.
_LOOK = 20.0


@dataclass(frozen=True)
class Managed:
    """The project of a connection, and who may manage it.

    Attributes:
        client: Of the connection: it logs in on branches.
        manager: Of the connection that may manage them; the same one if no other is named.
    """

    client: LakebaseClient
    manager: LakebaseClient

    @property
    def workspace(self) -> WorkspaceObjects:
        """The objects, by the right of who may manage them."""
        return self.manager.workspace

    @cached_property
    def acting(self) -> LakebaseClient:
        """The client, whose requests about objects are made by the right of who may manage them."""
        return self.client if self.manager is self.client else self.client.managed_by(self.workspace)

    @property
    def branches(self) -> BranchUpkeep[LakebaseClient]:
        """What is done with branches, by that right."""
        return self.acting.branches

    def if_ready(self, name: str) -> Branch | None:
        """The branch, if it is there, ready, and accepts logins.

        Args:
            name: Its name, or its id in the connection's project.
        """
        found = self.workspace.branches.find(name)
        if found is None or not found.is_settled:
            return None
        try:
            return self.branches.wait_ready(found.name, timeout=_LOOK)
        except OperationTimeoutError:
            return None


def managed(conn_id: str, manage_conn_id: str | None, **settings: Any) -> Managed:
    """The project of a connection, for a task.

    Args:
        conn_id: Id of the connection: it says which project, and as whom to log in.
        manage_conn_id: Id of the connection whose principal may manage it; None for the same one.
        settings: Settings that take precedence over those of `conn_id`, such as a branch.

    Raises:
        ConfigError: A setting is wrong, or there are no workspace credentials.
    """
    client = LakebaseHook(conn_id, **settings).client
    if manage_conn_id is None:
        return Managed(client, client)
    return Managed(client, LakebaseHook(manage_conn_id, **_place(client.config)).client)


async def amanaged(conn_id: str, manage_conn_id: str | None, **settings: Any) -> Managed:
    """:func:`managed` for a trigger."""
    client = await LakebaseHook(conn_id, **settings).aclient()
    if manage_conn_id is None:
        return Managed(client, client)
    return Managed(client, await LakebaseHook(manage_conn_id, **_place(client.config)).aclient())


def _place(config: LakebaseConfig) -> dict[str, Any]:
    """Where the other connection is to look, whatever it says itself: it is there for its right alone."""
    return {name: value for name in (*ADDRESS, "database") if (value := getattr(config, name)) is not None}


def names_of(branch: Branch) -> dict[str, Any]:
    """What other tasks need to know of a branch, in JSON types."""
    return {
        "name": branch.name,
        "id": branch.id,
        "uid": branch.uid,
        "project": branch.parent,
        "endpoint": f"{branch.name}/endpoints/primary",
        "source_branch": branch.source_branch,
        "source_branch_lsn": branch.source_branch_lsn,
        "source_snapshot": branch.source_snapshot,
        "expire_time": None if branch.expire_time is None else branch.expire_time.isoformat(),
    }


def reset_branch(managed: Managed, *, branch: str, timeout: float) -> dict[str, Any]:
    """Give a branch the data that its source has now; its names and what it has lost, in JSON types.

    Raises:
        LakebaseError: As of :meth:`.BranchUpkeep.reset`.
    """
    done = managed.branches.reset(branch, timeout=timeout)
    return {
        **names_of(done.branch),
        "former_uid": done.former_uid,
        "lost_roles": list(done.lost_roles),
        "lost_grants": None if done.lost_grants is None else [asdict(grant) for grant in done.lost_grants],
    }


def sweep_branches(managed: Managed, *, project: str | None, timeout: float, **rules: Any) -> dict[str, Any]:
    """Delete the branches that killed runs left behind; the report in JSON types.

    Raises:
        LakebaseError: As of :meth:`.BranchUpkeep.sweep`.
    """
    report = managed.branches.sweep(project, timeout=timeout, **rules)
    return {**asdict(report), "branches": [asdict(branch) for branch in report.branches]}


def change_endpoint(
    managed: Managed, *, action: str, name: str, size: Any, tables: Sequence[str], timeout: float
) -> dict[str, Any]:
    """Change an endpoint, whose name is its full one; what it is then, in JSON types.

    Raises:
        LakebaseError: As of the method of :class:`.Endpoints`, or :meth:`.BranchUpkeep.warm`.
    """
    endpoints = managed.workspace.endpoints
    if action == "resize":
        endpoints.update(name, timeout=timeout, **size)
    elif action == "replica":
        endpoints.ensure(name, timeout=timeout, **size)
    elif action == "delete":
        endpoints.delete(name, missing_ok=True, timeout=timeout)
    elif action == "suspend":
        endpoints.suspend(name, timeout=timeout)
    elif action == "enable":
        endpoints.enable(name, timeout=timeout)
    else:
        managed.client.branches.warm(tables, timeout=timeout)
    found = endpoints.find(name) if action == "delete" else endpoints.get(name)
    if found is None:
        return {"name": name, "state": None}
    told = ("name", "state", "disabled", "min_cu", "max_cu", "suspend_timeout", "host")
    return {one: getattr(found, one) for one in told}


#: What a trigger does by name, as an operator does it.
WORK: Mapping[str, Callable[..., dict[str, Any]]] = {
    work.__name__: work for work in (reset_branch, sweep_branches, change_endpoint)
}
