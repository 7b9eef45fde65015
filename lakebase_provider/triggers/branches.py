"""Branches that the triggerer makes and waits for, so that no worker waits for the workspace."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lakebase_provider._airflow.task.arguments import lease_options
from lakebase_provider.core.errors import NotFoundError
from lakebase_provider.triggers._managing import ManagedPolls, ManagingTrigger

if TYPE_CHECKING:
    from lakebase_provider.hooks._branches import Managed


class LakebaseCreateBranchTrigger(ManagingTrigger):
    """Makes a branch, and waits until logins succeed there.

    If it is cancelled, what it made is purged. If the triggerer dies, its successor meets the branch by its
    name, and does with it what `if_exists` says.

    Args:
        branch: Id or name of the branch.
        options: Options of a lease by name, in JSON types.
        kwargs: As above.
    """

    def __init__(self, *, branch: str, options: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.branch = branch
        self.options = dict(options)

    def _arguments(self) -> dict[str, Any]:
        return {"branch": self.branch, "options": self.options}

    async def _work(self, managed: Managed) -> dict[str, Any]:
        from lakebase_provider.hooks._branches import names_of

        self.log.info("Making the branch %s.", self.branch)
        taken = await managed.branches.atake(
            branch=self.branch, timeout=self.timeout, **lease_options(self.options)
        )
        return {"branch": names_of(taken.branch)}


class LakebaseOperationTrigger(ManagingTrigger):
    """Waits for an operation of the workspace, which goes on whatever becomes of this; resumed by its name.

    Args:
        operation: The operation's name.
        missing_ok: Whether one that the workspace does not know any more has succeeded, as that of a
            deletion, which is named after what it deletes.
        kwargs: As above.
    """

    def __init__(self, *, operation: str, missing_ok: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.operation = operation
        self.missing_ok = missing_ok

    def _arguments(self) -> dict[str, Any]:
        return {"operation": self.operation, "missing_ok": self.missing_ok}

    async def _work(self, managed: Managed) -> dict[str, Any]:
        self.log.info("Waiting for %s.", self.operation)
        try:
            return {"result": dict(await managed.workspace.operation(self.operation).await_(self.timeout))}
        except NotFoundError:
            if not self.missing_ok:
                raise
            return {"result": {}}


class LakebaseManageTrigger(ManagingTrigger):
    """Does with a project's objects what an operator does, in a thread of the triggerer.

    What is cancelled meanwhile ends what it has begun. If the triggerer dies, its successor does the work
    again, which may be repeated.

    Args:
        work: Name of the function that does it.
        arguments: Its arguments, in JSON types.
        kwargs: As above.
    """

    def __init__(self, *, work: str, arguments: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.work = work
        self.arguments = dict(arguments)

    def _arguments(self) -> dict[str, Any]:
        return {"work": self.work, "arguments": self.arguments}

    async def _work(self, managed: Managed) -> dict[str, Any]:
        from lakebase_provider.hooks._branches import WORK

        work = functools.partial(WORK[self.work], managed, timeout=self.timeout, **self.arguments)
        return {"result": await asyncio.to_thread(work)}


class LakebaseBranchTrigger(ManagedPolls):
    """Waits until a branch is there, ready, and accepts logins.

    Args:
        branch: Name or id of the branch.
        kwargs: ``conn_id``, ``lakebase_conn_id``, ``manage_conn_id``, ``poke_interval`` and ``silent_fail``
            as for :class:`~lakebase_provider.triggers._managing.ManagedPolls`.
    """

    def __init__(self, *, branch: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.branch = branch

    def _own_arguments(self) -> dict[str, Any]:
        return {"branch": self.branch}

    def _look(self, managed: Managed) -> dict[str, Any] | None:
        # The hook brings the driver; making a trigger must not.
        from lakebase_provider.hooks._branches import names_of

        found = managed.if_ready(self.branch)
        return None if found is None else names_of(found)
