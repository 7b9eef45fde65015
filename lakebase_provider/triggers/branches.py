"""Branches that the triggerer makes and waits for, so that no worker waits for the workspace."""

from __future__ import annotations

import asyncio
import functools
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger

from lakebase_provider._airflow.task.arguments import conn_id_of, lease_options
from lakebase_provider._airflow.task.events import failed, succeeded
from lakebase_provider.core.errors import LakebaseError, NotFoundError
from lakebase_provider.triggers.polling import PollingTrigger

if TYPE_CHECKING:
    from airflow.triggers.base import TriggerEvent

    from lakebase_provider.core.client import LakebaseClient
    from lakebase_provider.hooks._branches import Managed


class _ManagingTrigger(BaseTrigger):
    """Works with the objects of a connection's project; its only event is the result or an error.

    Args:
        conn_id: Id of the Airflow connection; nothing else of the connection is sent.
        lakebase_conn_id: An alias of `conn_id`.
        manage_conn_id: Id of the connection that may manage the project; the same one by default.
        timeout: Seconds that it may take.
        settings: Settings that take precedence over the connection's, such as a branch.
    """

    def __init__(
        self,
        *,
        conn_id: str | None = None,
        lakebase_conn_id: str | None = None,
        manage_conn_id: str | None = None,
        timeout: float,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow annotates it not
        self.conn_id: str = conn_id_of(conn_id, lakebase_conn_id)
        self.manage_conn_id = manage_conn_id
        self.timeout = timeout
        self.settings = dict(settings or {})

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """How Airflow recreates this trigger in the triggerer."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "conn_id": self.conn_id,
            "manage_conn_id": self.manage_conn_id,
            "timeout": self.timeout,
            "settings": self.settings,
            **self._arguments(),
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Work; the only event says ``success``, with what was found, or ``error``."""
        # The hook brings the driver; making a trigger must not.
        from lakebase_provider.hooks._branches import amanaged

        try:
            found = await self._work(await amanaged(self.conn_id, self.manage_conn_id, **self.settings))
        except LakebaseError as error:
            self.log.warning("%s", error)
            yield failed(error)
        else:
            yield succeeded(**found)

    @abstractmethod
    def _arguments(self) -> dict[str, Any]:
        """What the subclass serializes in addition."""

    @abstractmethod
    async def _work(self, managed: Managed) -> dict[str, Any]:
        """What was found, in JSON types."""


class LakebaseCreateBranchTrigger(_ManagingTrigger):
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


class LakebaseOperationTrigger(_ManagingTrigger):
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


class LakebaseManageTrigger(_ManagingTrigger):
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


class LakebaseBranchTrigger(PollingTrigger):
    """Waits until a branch is there, ready, and accepts logins.

    Args:
        branch: Name or id of the branch.
        conn_id: Id of the Airflow connection; nothing else of the connection is sent.
        lakebase_conn_id: An alias of `conn_id`.
        manage_conn_id: Id of the connection that may see the project's branches; the same one by default.
        poke_interval: Seconds between the end of a poll and the next.
        silent_fail: Whether a failed poll is only logged.
        settings: Always empty.
    """

    def __init__(
        self,
        *,
        branch: str,
        conn_id: str | None = None,
        lakebase_conn_id: str | None = None,
        manage_conn_id: str | None = None,
        poke_interval: float,
        silent_fail: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            conn_id=conn_id,
            lakebase_conn_id=lakebase_conn_id,
            settings=settings,
            poke_interval=poke_interval,
            silent_fail=silent_fail,
        )
        self.branch = branch
        self.manage_conn_id = manage_conn_id

    def _arguments(self) -> dict[str, Any]:
        return {"branch": self.branch, "manage_conn_id": self.manage_conn_id}

    async def _poll(self, client: LakebaseClient) -> dict[str, Any] | None:
        # The hook brings the driver; making a trigger must not.
        from lakebase_provider.hooks._branches import amanaged, names_of

        managed = await amanaged(self.conn_id, self.manage_conn_id)
        # It blocks, so it runs off the loop.
        found = await asyncio.to_thread(managed.if_ready, self.branch)
        return None if found is None else {"branch": names_of(found)}
