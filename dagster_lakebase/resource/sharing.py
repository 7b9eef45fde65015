"""Who is using the shared client: the last one to leave closes its pool."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

from dagster_lakebase.resource.loans import can_run
from lakebase_provider.core.config import LakebaseConfig

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from lakebase_provider.core.client import LakebaseClient


class Lease:
    """One client and what belongs to it, shared by all instances of a resource with the same settings.

    Dagster sets a resource up once for each place in which it is bound (at top level, in an IO manager, in a
    component), so an instance cannot know whether it is the last one.
    """

    def __init__(self, client: LakebaseClient) -> None:
        self.client = client
        self._users = 0
        self._engine: Engine | None = None
        self._loops: set[asyncio.AbstractEventLoop] = set()

    @classmethod
    def acquire(cls, config: LakebaseConfig, name: str | None = None) -> Lease:
        """This process's lease for that configuration, held until :meth:`release`.

        Args:
            config: What to connect to, and as whom.
            name: What errors call it.

        Raises:
            ConfigError: There are no workspace credentials. No network call has been made.
        """
        # Imported late: loading a code location must not cost the driver.
        from lakebase_provider.core.shared import shared_client

        with _lock:
            lease = _leases.get(config)
            client = shared_client(config, name)
            if lease is None:
                lease = _leases[config] = cls(client)
            lease._users += 1
            return lease

    def release(self) -> None:
        """Close the pool and the engine if nobody else holds the lease; the token is kept."""
        # Closing happens under the lock, so that whoever acquires next opens a new pool instead of getting a
        # connection from one that is being closed.
        with _lock:
            self._users -= 1
            if self._users > 0:
                return
            _leases.pop(self.client.config, None)
            engine, self._engine = self._engine, None
            loops, self._loops = self._loops, set()
            try:
                if engine is not None:
                    engine.dispose()
                for loop in loops:
                    _close_pool_of(loop, self.client)
            finally:
                self.client.close()

    def join_running_loop(self) -> None:
        """Close the running event loop's pool too, when the last one leaves."""
        with _lock:
            self._loops.add(asyncio.get_running_loop())

    def engine(self) -> Engine:
        """The one engine that all lease holders share."""
        with _lock:
            if self._engine is None:
                self._engine = new_engine(self.client)
            return self._engine


def new_engine(client: LakebaseClient) -> Engine:
    """An engine limited to the number of connections that the settings allow a process."""
    return client.engine(pool_size=client.config.max_size, max_overflow=0)


def _close_pool_of(loop: asyncio.AbstractEventLoop, client: LakebaseClient) -> None:
    # Dagster tears resources down between the last step of its event loop and the loop's end.
    if can_run(loop):
        loop.run_until_complete(client.aclose())


_leases: dict[LakebaseConfig, Lease] = {}
_lock = threading.Lock()


def _forget_in_child() -> None:
    # Users and sockets belong to the parent; the child starts with none.
    global _lock
    _lock = threading.Lock()
    _leases.clear()


os.register_at_fork(after_in_child=_forget_in_child)
