"""What the triggers share that work with objects of a project, by the right of who may manage them."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger

from lakebase_provider._airflow.task.arguments import conn_id_of
from lakebase_provider._airflow.task.events import failed, succeeded
from lakebase_provider.core.errors import LakebaseError
from lakebase_provider.triggers.polling import PollingTrigger

if TYPE_CHECKING:
    from airflow.triggers.base import TriggerEvent

    from lakebase_provider.core.client import LakebaseClient
    from lakebase_provider.hooks._branches import Managed


class ManagingTrigger(BaseTrigger):
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


class ManagedPolls(PollingTrigger):
    """Looks at objects of a project until there is what is waited for.

    Args:
        conn_id: Id of the Airflow connection; nothing else of the connection is sent.
        lakebase_conn_id: An alias of `conn_id`.
        manage_conn_id: Id of the connection that may see the project's objects; the same one by default.
        poke_interval: Seconds between the end of a poll and the next.
        silent_fail: Whether a failed poll is only logged.
        settings: Always empty.
    """

    def __init__(
        self,
        *,
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
        self.manage_conn_id = manage_conn_id

    def _arguments(self) -> dict[str, Any]:
        return {"manage_conn_id": self.manage_conn_id, **self._own_arguments()}

    async def _poll(self, client: LakebaseClient) -> dict[str, Any] | None:
        # The hook brings the driver; making a trigger must not.
        from lakebase_provider.hooks._branches import amanaged

        managed = await amanaged(self.conn_id, self.manage_conn_id)
        # It blocks, so it runs off the loop.
        found = await asyncio.to_thread(self._look, managed)
        return None if found is None else {"found": found}

    @abstractmethod
    def _own_arguments(self) -> dict[str, Any]:
        """What the subclass serializes in addition."""

    @abstractmethod
    def _look(self, managed: Managed) -> Any:
        """What was found, in JSON types; None to continue."""
