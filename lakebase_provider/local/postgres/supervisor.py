"""Watches Postgres: restarts it after a deliberate crash, and ends the service if it stops otherwise.

A branch's is restarted likewise; if it stops otherwise, the next login starts it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

from lakebase_provider.local.contract.errors import LocalLakebaseError
from lakebase_provider.local.postgres.clusters import Clusters
from lakebase_provider.local.postgres.postgres import Postgres


class Supervisor:
    """Belongs to one event loop.

    Args:
        postgres: A started server.
        tell_watchdog: Receives `watch <process group> <pid file>` and `forget <process group>`.
        stop: Called when Postgres has ended for good.
    """

    def __init__(
        self, postgres: Postgres, tell_watchdog: Callable[[str], None], stop: Callable[[], None]
    ) -> None:
        self._postgres = postgres
        self._tell_watchdog = tell_watchdog
        self._stop = stop
        self._restart: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._crashing = False
        #: Of branches that have crashed: what cuts the wait short, and the restart.
        self._revivals: dict[str, tuple[asyncio.Event, asyncio.Task[None]]] = {}

    def watch(self) -> None:
        """Notice when the present server process ends."""
        loop = asyncio.get_running_loop()

        def wait() -> None:
            self._postgres.wait()
            with contextlib.suppress(RuntimeError):  # The loop is closed: we ended Postgres ourselves.
                loop.call_soon_threadsafe(self._ended)

        threading.Thread(target=wait, name="watch-postgres", daemon=True).start()

    def _ended(self) -> None:
        if not self._crashing:
            self._stop()

    async def crash(self, downtime: float) -> None:
        """End the server as `pg_ctl -m immediate` does, and start it again.

        Args:
            downtime: Seconds until then; returns at once, but with 0 only when the server is back.
        """
        await self.settle()
        self._crashing = True
        self._hurry.clear()
        await asyncio.to_thread(self._postgres.crash)
        self._tell_watchdog(f"forget {self._postgres.group}")
        self._restart = asyncio.create_task(self._start_again(downtime))
        if not downtime:
            await self._restart

    async def crash_branch(self, clusters: Clusters, key: str, downtime: float) -> None:
        """The same for a branch's server.

        Args:
            clusters: All of them.
            key: The cluster's.
            downtime: As of :meth:`crash`.
        """
        await self._hurried(key)
        await asyncio.to_thread(clusters.crash, key)
        hurry = asyncio.Event()
        restart = asyncio.create_task(self._revive(clusters, key, downtime, hurry))
        self._revivals[key] = (hurry, restart)
        if not downtime:
            await self._hurried(key)

    async def _revive(self, clusters: Clusters, key: str, downtime: float, hurry: asyncio.Event) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(hurry.wait(), downtime)
        # One that does not start is started at the next login, which says why it cannot be.
        with contextlib.suppress(LocalLakebaseError, OSError):
            await asyncio.to_thread(clusters.revive, key)

    async def _hurried(self, key: str) -> None:
        if key in self._revivals:
            hurry, restart = self._revivals.pop(key)
            hurry.set()
            await restart

    async def settle(self) -> None:
        """Start crashed servers now, and return when they are back."""
        for key in [*self._revivals]:
            await self._hurried(key)
        if self._restart is not None:
            self._hurry.set()
            await self._restart

    async def _start_again(self, downtime: float) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), downtime)
        try:
            await asyncio.to_thread(self._start)
        except (LocalLakebaseError, OSError):
            self._stop()
            raise
        self._crashing = False
        self.watch()

    def _start(self) -> None:
        self._tell_watchdog(f"watch {self._postgres.begin_start()} {self._postgres.pid_file}")
        self._postgres.finish_start()
