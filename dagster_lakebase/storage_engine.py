"""The engine that Dagster's three storages share in a process."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.client import shared_client
from lakebase_provider.core.config import LakebaseConfig

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
            LakebaseError: The workspace did not say where the database is.
        """
        with _lock:
            shared = _engines.get(config)
            if shared is None:
                shared = _engines[config] = cls(config)
            shared._users += 1
            return shared

    def release(self) -> None:
        """Close the connections if nobody else uses them; whoever still has the engine may go on with it."""
        with _lock:
            self._users -= 1
            if self._users <= 0:
                _engines.pop(self._config, None)
                self.engine.dispose()

    def optimize_for_webserver(self, statement_timeout: int, pool_recycle: int, max_overflow: int) -> None:
        """Replace the engine by one with the web server's limits; all storages ask, the first one is heard.

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
            limited = self._config.replace(statement_timeout=statement_timeout / 1000)
            self.engine = _new_engine(limited, max_overflow=max_overflow, pool_recycle=pool_recycle)
        before.dispose()


def _new_engine(config: LakebaseConfig, **arguments: Any) -> Engine:
    import psycopg
    from sqlalchemy import event

    engine = shared_client(config).engine(
        pool_size=config.max_size,
        pool_timeout=config.connect_budget,
        # The last one used first, so that a quiet process does not keep all of them in use.
        pool_use_lifo=True,
        isolation_level="AUTOCOMMIT",
        **arguments,
    )

    @event.listens_for(engine, "connect")
    def bind_in_the_client(connection: psycopg.Connection, _record: Any) -> None:
        # dagster-postgres binds a value in NOTIFY, which the server does not take as a parameter.
        connection.cursor_factory = psycopg.ClientCursor

    return engine


_engines: dict[LakebaseConfig, SharedEngine] = {}
_lock = threading.Lock()


def _forget_in_child() -> None:
    # The sockets are the parent's; the child leaves them alone and opens its own.
    global _lock
    _lock = threading.Lock()
    for shared in _engines.values():
        shared.engine.dispose(close=False)


os.register_at_fork(after_in_child=_forget_in_child)
