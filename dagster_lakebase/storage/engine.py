"""The engine that Dagster's three storages share in a process."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import TimeoutError as CheckoutTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from dagster_lakebase.resource.step_name import WEB_SERVER, with_storage_name
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.shared import shared_client

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine


class SharedEngine:
    """One SQLAlchemy engine for each configuration, used until the last one who acquired it releases it."""

    def __init__(self, config: LakebaseConfig) -> None:
        self._config = config
        self._users = 0
        self._for_webserver = False
        self.engine = _new_engine(config, max_overflow=0)

    @classmethod
    def acquire(cls, config: LakebaseConfig) -> SharedEngine:
        """This process's engine for that configuration.

        Raises:
            LakebaseError: The workspace did not return the database's host.
        """
        with _lock:
            shared = _engines.get(config)
            if shared is None:
                shared = _engines[config] = cls(config)
            shared._users += 1
            return shared

    def release(self, users: int = 1) -> None:
        """Close the connections if nobody else uses them; whoever still has the engine may keep using it.

        Args:
            users: How many users leave; with 0 the connections are closed if there are none left.
        """
        with _lock:
            self._users -= users
            if self._users > 0:
                return
            if _engines.get(self._config) is self:
                del _engines[self._config]
        self.engine.dispose()

    def optimize_for_webserver(self, statement_timeout: int, pool_recycle: int, max_overflow: int) -> None:
        """Replace the engine by one with the web server's limits; all storages ask, only the first counts.

        Args:
            statement_timeout: Milliseconds for one statement.
            pool_recycle: Seconds after which a connection is replaced.
            max_overflow: Connections beyond the pool's size.
        """
        with _lock:
            if self._for_webserver:
                return
            self._for_webserver = True
            before = self.engine
            limited = with_storage_name(self._config, WEB_SERVER).replace(
                statement_timeout=statement_timeout / 1000
            )
            self.engine = _new_engine(limited, max_overflow=max_overflow, pool_recycle=pool_recycle)
        before.dispose()


class _Borrower(threading.local):
    """A borrowing thread: how many connections it currently holds, in a list that can be shared."""

    def __init__(self) -> None:
        self.count = [0]


class NestingPool(QueuePool):
    """A pool that limits the threads that hold connections, not the connections that one thread nests.

    Dagster asks for a second connection while it holds one. If connections were limited, threads that each
    hold one would wait for one another's second.
    """

    _borrower: _Borrower
    _turns: threading.BoundedSemaphore
    _most = 0

    def lend_to(self, threads: int) -> None:
        """Set how many threads may hold connections at the same time."""
        self._most = threads
        self._turns = threading.BoundedSemaphore(threads)
        self._borrower = _Borrower()
        self._counting = threading.Lock()

    def recreate(self) -> NestingPool:
        """A new pool with the same limits."""
        pool = super().recreate()
        assert isinstance(pool, NestingPool)
        pool.lend_to(self._most)
        return pool

    def _do_get(self) -> ConnectionPoolEntry:
        count = self._borrower.count
        if not count[0] and not self._turns.acquire(timeout=self._timeout):
            raise CheckoutTimeoutError(
                f"{self._most} threads held connections for the whole {self._timeout:g} seconds.\n"
                "Remedy: raise max_size of the storage in dagster.yaml."
            )
        with self._counting:
            count[0] += 1
        try:
            entry = super()._do_get()
        except BaseException:
            self._give_back(count)
            raise
        # Another thread may return it, such as the one that collects garbage. Not in `info`, which is cleared
        # when the entry reconnects: a thread that lost its connection would never release its turn.
        _lasting_info(entry)["borrower"] = count
        return entry

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        count = _lasting_info(record).pop("borrower", None)
        super()._do_return_conn(record)
        if count is not None:
            self._give_back(count)

    def _give_back(self, count: list[int]) -> None:
        with self._counting:
            count[0] -= 1
            last = count[0] == 0
        if last:
            self._turns.release()


def _lasting_info(entry: ConnectionPoolEntry) -> dict[Any, Any]:
    info = entry.record_info
    assert info is not None  # as for every entry of a pool
    return info


def _new_engine(config: LakebaseConfig, max_overflow: int, **arguments: Any) -> Engine:
    import psycopg
    from sqlalchemy import event

    engine = shared_client(config, "storage of dagster.yaml").engine(
        poolclass=NestingPool,
        pool_size=config.max_size,
        max_overflow=-1,
        pool_timeout=config.connect_budget,
        # Last in, first out, so that a quiet process does not keep all of them in use.
        pool_use_lifo=True,
        isolation_level="AUTOCOMMIT",
        **arguments,
    )
    assert isinstance(engine.pool, NestingPool)
    engine.pool.lend_to(config.max_size + max_overflow)

    @event.listens_for(engine, "connect")
    def bind_in_the_client(connection: psycopg.Connection, _record: Any) -> None:
        # dagster-postgres binds a value in NOTIFY, which the server does not accept as a parameter.
        connection.cursor_factory = psycopg.ClientCursor

    return engine


_engines: dict[LakebaseConfig, SharedEngine] = {}
_lock = threading.Lock()


def _forget_in_child() -> None:
    # The sockets belong to the parent; the child leaves them alone and opens its own.
    global _lock
    _lock = threading.Lock()
    for shared in _engines.values():
        shared.engine.dispose(close=False)


os.register_at_fork(after_in_child=_forget_in_child)
