"""The pool: few connections, opened late, checked when they have been idle, handed back clean."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.connection import LakebaseConnection
from lakebase_provider.core.connector import Connector
from lakebase_provider.core.errors import ForkedPoolError, PoolExhaustedError

logger = logging.getLogger(__name__)

#: A connection that was used less than this many seconds ago is not checked: a check costs a round trip.
_TRUSTED_IDLE = 0.5
#: Seconds that a check may take at most; a server that lives answers in milliseconds.
_CHECK_SECONDS = 5.0


class LakebasePool(ConnectionPool[LakebaseConnection]):
    """psycopg's pool with four differences.

    * A connection that is missing is opened in the caller's thread, within the caller's deadline, so that
      the caller gets the typed error of a failed connect at once instead of a timeout.
    * A connection is checked only after it has been idle; the first dead one drops all idle ones, since
      they died together when the compute was suspended.
    * A connection that is handed back is rolled back and its session reset.
    * ``close()`` of a borrowed connection hands it back, so ``closing(hook.get_conn())`` works.

    Args:
        config: Sizes and lifetimes.
        connector: Opens the physical connections.
    """

    def __init__(self, config: LakebaseConfig, connector: Connector) -> None:
        self._connector = connector
        self._budget = config.connect_budget
        self._opened_by_callers: deque[LakebaseConnection] = deque()
        self._owner = os.getpid()
        self._opening = 0
        self._borrower = threading.local()
        self._changed = threading.Condition()
        super().__init__(
            kwargs={"opener": self._open_next},
            connection_class=LakebaseConnection,
            min_size=config.min_size,
            max_size=config.max_size,
            max_lifetime=config.max_lifetime,
            max_idle=config.max_idle,
            timeout=config.connect_budget,
            reconnect_timeout=config.connect_budget,
            check=self._check_if_idle,
            close_returns=True,
            num_workers=1,
            name=config.application_name,
            open=True,
        )

    def getconn(self, timeout: float | None = None) -> LakebaseConnection:
        """A connection of the pool; hand it back by ``putconn`` or by its own ``close``.

        Args:
            timeout: Seconds to wait at most; the configuration's `connect_budget` by default.

        Raises:
            ForkedPoolError: Another process opened the pool.
            PoolExhaustedError: All connections stayed in use until the deadline.
            LakebaseError: A connection was missing and could not be opened.
        """
        if self._owner != os.getpid():
            raise ForkedPoolError("A pool that a parent process opened was asked for a connection.")
        seconds = self._budget if timeout is None else timeout
        # Looking is not locking: if another borrower is faster, psycopg's pool waits or grows as it always
        # does. Its own statistics say the same as this attribute, at a third of a checkout's cost.
        if self._pool or not self._reserve_opening():
            return self._getconn_within(seconds)
        end = time.monotonic() + seconds
        opened = self._open_reserved(seconds)
        try:
            return self._getconn_within(end - time.monotonic())
        finally:
            self._close_if_unused(opened)

    def _reserve_opening(self) -> bool:
        """Whether the caller may open a connection; the pool never holds more than `max_size` in all."""
        with self._changed:
            if self._nconns + self._opening + len(self._opened_by_callers) >= self.max_size:
                return False
            self._opening += 1
            return True

    def _open_reserved(self, seconds: float) -> LakebaseConnection:
        opened: LakebaseConnection | None = None
        try:
            opened = self._connector.connect(seconds)
            return opened
        finally:
            with self._changed:
                self._opening -= 1
                if opened is not None:
                    self._opened_by_callers.append(opened)
                self._changed.notify_all()

    def _getconn_within(self, seconds: float) -> LakebaseConnection:
        self._borrower.end = time.monotonic() + seconds
        try:
            # psycopg_pool reads 0 as "do not even look"; a caller in a hurry still gets a free connection.
            return super().getconn(max(0.001, seconds))
        except PoolTimeout:
            raise PoolExhaustedError(
                f"No connection became free within {seconds:.1f} s: "
                f"{self._nconns} of at most {self.max_size} are in use."
            ) from self._connector.last_error

    def putconn(self, conn: LakebaseConnection) -> None:
        """Take a connection back, rolled back and with its session reset."""
        try:
            conn.reset_session()
        except psycopg.Error as error:
            logger.info("A connection is discarded on return: %s", error)
            conn.pgconn.finish()
        super().putconn(conn)

    def close(self, timeout: float = 5.0) -> None:
        """Close the pool and its connections."""
        super().close(timeout)
        while self._opened_by_callers:
            self._opened_by_callers.popleft().close()

    def _close_if_unused(self, connection: LakebaseConnection) -> None:
        # Another connection came back first and served the caller: the one that was opened is not needed.
        with self._changed:
            try:
                self._opened_by_callers.remove(connection)
            except ValueError:
                return
        connection.close()

    def _open_next(self) -> LakebaseConnection:
        """What the pool calls for each physical connection."""
        with self._changed:
            # Somebody is at it: opening another one beside would exceed the maximum.
            self._changed.wait_for(lambda: self._opened_by_callers or not self._opening, self._budget)
            if self._opened_by_callers:
                return self._opened_by_callers.popleft()
        return self._connector.connect()

    def _check_if_idle(self, connection: LakebaseConnection) -> None:
        now = time.monotonic()
        if now - connection.last_used < _TRUSTED_IDLE:
            return
        # Half of what the borrower has left: should the link be silent, the rest is for a new connection.
        left = getattr(self._borrower, "end", now + self._budget) - now
        try:
            connection.check(min(_CHECK_SECONDS, max(left / 2, 0.0)))
        except psycopg.Error as error:
            logger.info("A pooled connection is dead, all idle ones are dropped: %s", error)
            self.drain()
            raise
