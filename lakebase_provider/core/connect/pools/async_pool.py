"""The pool for asyncio: as :mod:`lakebase_provider.core.connect.pools.pool`, one for each event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from contextlib import suppress

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGconn
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from psycopg_pool.pool_async import (
    AddConnection,
    MaintenanceTask,
    ReturnConnection,
    StopWorker,
    WaitingClient,
)

from lakebase_provider.core.base import process
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.connect.attempts import tell_waits_once
from lakebase_provider.core.connect.connection import CANCEL_TIMEOUT, AsyncLakebaseConnection
from lakebase_provider.core.connect.connector import Connector
from lakebase_provider.core.connect.pools import abandoned
from lakebase_provider.core.connect.pools.lending import Lender, cut_off, hand_over, is_at_work
from lakebase_provider.core.connect.pools.pool import CHECK_SECONDS, TRUSTED_IDLE
from lakebase_provider.core.connect.pools.sessions import interrupted
from lakebase_provider.core.errors import LakebaseError

logger = logging.getLogger(__name__)


class AsyncLakebasePool(Lender, AsyncConnectionPool[AsyncLakebaseConnection]):
    """psycopg's pool for asyncio with the differences of the pool for threads.

    * The first connection is opened in the caller's task, within the caller's deadline, so that the caller
      gets the typed error of a failed connect at once instead of a timeout. Further ones are opened while
      their borrowers wait, who take what is returned meanwhile. None is opened without a borrower.
    * A connection is checked only after it has been idle; the first dead one drops all idle ones, since
      they died together when the compute was suspended.
    * A returned connection is rolled back and its session reset.
    * What is lent is a loan of the session, which ends with ``close()``, at the end of ``async with``, or
      with the connection's last reference.

    Make it anywhere; :meth:`open` binds it to the running event loop, the only one that may use it.

    Args:
        config: Sizes and lifetimes.
        connector: Opens the physical connections.
    """

    def __init__(self, config: LakebaseConfig, connector: Connector) -> None:
        tell_waits_once()
        self._connector = connector
        self._names = connector.names
        self._budget = config.connect_budget
        #: The thread whose event loop it serves.
        self.thread = threading.get_ident()
        self._owner = process.number
        self._loans = {}
        self._loop: asyncio.AbstractEventLoop
        self._returning: set[asyncio.Task[None]] = set()
        self._inherited: list[PGconn] = []
        super().__init__(
            kwargs={"opener": self._open_in_background},
            connection_class=AsyncLakebaseConnection,
            min_size=config.min_size,
            max_size=config.max_size,
            max_lifetime=config.max_lifetime,
            max_idle=config.max_idle,
            timeout=config.connect_budget,
            # The connector was patient already; what is still missing then, the next borrower opens.
            reconnect_timeout=0.0,
            reconnect_failed=self._give_up,
            close_returns=True,
            num_workers=1,
            name=config.application_name,
            open=False,
        )

    async def getconn(self, timeout: float | None = None) -> AsyncLakebaseConnection:
        """A loan of a session; it ends by ``putconn``, by its own ``close`` or with its ``async with``.

        Args:
            timeout: Seconds to wait at most; the configuration's `connect_budget` by default.

        Raises:
            PoolExhaustedError: All connections stayed in use until the deadline.
            LakebaseError: A connection was missing and could not be opened.
        """
        self._loop = asyncio.get_running_loop()
        return self._lend(await self._getconn(self._budget if timeout is None else timeout))

    async def _getconn(self, seconds: float) -> AsyncLakebaseConnection:
        self._check_open_getconn()
        self._stats[self._REQUESTS_NUM] += 1
        end = time.monotonic() + seconds
        while True:
            # psycopg_pool reads 0 as "do not even look"; a caller in a hurry still gets a free connection.
            left = max(0.001, end - time.monotonic())
            if not self._nconns:
                # One thread runs the loop: nobody comes between this look and the reservation.
                self._nconns += 1
                return await self._open_here(left)
            connection = await self._first_free(left)
            if connection is None:
                error = self._connector.last_error
                raise self._not_had(seconds, error) from (error and error.__cause__)
            try:
                await self._check_if_idle(connection, end)
            except psycopg.Error:
                self._stats[self._CONNECTIONS_LOST] += 1
                self._lose(connection)
            except BaseException:
                self._lose(connection)
                raise
            else:
                return connection

    async def _first_free(self, seconds: float) -> AsyncLakebaseConnection | None:
        """As psycopg's ``_getconn_unchecked``, but as in the pool for threads nobody stays in the queue."""
        end = time.monotonic() + seconds
        async with self._lock:
            connection = await self._get_ready_connection(seconds)
            if connection is not None:
                return connection
            waiter: WaitingClient[AsyncLakebaseConnection] = WaitingClient()
            self._waiting.append(waiter)
            self._stats[self._REQUESTS_QUEUED] += 1
            self._maybe_grow_pool()
        try:
            if self._may_be_abandoned():
                async with waiter._cond:
                    if not (waiter.conn or waiter.error):
                        await waiter._cond.wait_timeout(abandoned.seconds_until_due(seconds))
                if not (waiter.conn or waiter.error):
                    abandoned.find(end - time.monotonic())
            return await waiter.wait(max(0.001, end - time.monotonic()))
        except BaseException as error:
            self._leave_queue(waiter)
            if not isinstance(error, PoolTimeout):
                raise
            return None
        finally:
            self._stats[self._REQUESTS_WAIT_MS] += int(1000 * (time.monotonic() + seconds - end))

    def _leave_queue(self, waiter: WaitingClient[AsyncLakebaseConnection]) -> None:
        with suppress(ValueError):
            self._waiting.remove(waiter)
        # Not the error that is being raised, whose frames know the waiter.
        waiter.error = PoolTimeout()
        self._stats[self._REQUESTS_ERRORS] += 1
        if waiter.conn is not None:
            self.run_task(ReturnConnection(self, waiter.conn, from_getconn=True))

    async def _open_here(self, seconds: float) -> AsyncLakebaseConnection:
        self._stats[self._CONNECTIONS_NUM] += 1
        start = time.monotonic()
        try:
            connection = await self._connector.aconnect(seconds)
        except BaseException as error:
            self._nconns -= 1
            self._stats[self._REQUESTS_ERRORS] += 1
            self._stats[self._CONNECTIONS_ERRORS] += 1
            await self._tell_the_waiting(error)
            raise
        self._stats[self._CONNECTIONS_MS] += int((time.monotonic() - start) * 1000)
        self._set_connection_expiry_date(connection)
        return connection

    async def putconn(self, conn: AsyncLakebaseConnection) -> None:
        """Take a connection back, rolled back and with its session reset; a second time does nothing.

        Raises:
            ValueError: This pool did not lend it. It is left alone.
        """
        # One step, as in the pool for threads. A forked child leaves its parent's sessions alone.
        if self._loans.pop(id(conn), None) is None:
            self._require_lent_before(conn)
        elif self._owner == process.number:
            # A task of its own: a borrower that is cancelled meanwhile does not take the connection with it.
            await asyncio.shield(asyncio.ensure_future(self._take_back(conn)))

    async def _take_back(self, connection: AsyncLakebaseConnection) -> None:
        # Who is at a statement has it, and with it nobody can begin one.
        lock: asyncio.Lock = vars(connection)["lock"]
        alone = not lock.locked()
        if alone:
            await lock.acquire()
        try:
            await self._clean(connection, alone)
            heir = hand_over(connection)
        finally:
            if alone:
                lock.release()
        if heir.pgconn.transaction_status != TransactionStatus.IDLE:
            self._stats[self._RETURNS_BAD] += 1
            self._lose(heir)
        elif heir._expire_at <= heir.last_used or heir._created_at <= self._drained_at:
            self._lose(heir)
        else:
            # Closes it, should the pool be closed.
            await self._add_to_pool(heir)

    async def _clean(self, connection: AsyncLakebaseConnection, alone: bool) -> None:
        try:
            if not alone and is_at_work(connection):
                await connection.cancel_safe(timeout=CANCEL_TIMEOUT)
                raise interrupted()
            await connection.reset_session()
        except (psycopg.Error, asyncio.CancelledError) as error:
            logger.info("Discarding a returned connection: %s", error or "the event loop is ending")
            if alone:
                connection.pgconn.finish()
            else:
                cut_off(connection)

    def _lose(self, connection: AsyncLakebaseConnection) -> None:
        """Give a connection up; another one is opened only for `min_size`, or for somebody who waits."""
        connection._pool = None
        connection.pgconn.finish()
        if not self._closed:
            self.run_task(AddConnection(self))

    async def close_idle(self) -> None:
        """End the sessions that lie idle, but for `min_size`; what is lent stays.

        Only for callers that come back after a while.
        """
        async with self._lock:
            spare = max(0, self._nconns - self._min_size)
            idle = [self._pool.popleft() for _ in range(min(spare, len(self._pool)))]
        for connection in idle:
            self._lose(connection)

    def run_task(self, task: MaintenanceTask) -> None:
        """Let the worker do a task of psycopg's pool, unless it would open a connection for nobody."""
        # At the beginning there are as many to open as the pool shall have.
        if isinstance(task, AddConnection) and self._nconns > self._min_size and not self._waiting:
            # Where it grows anew somebody waits.
            self._nconns -= 1
            self._growing = self._growing and not task.growing
            return
        super().run_task(task)

    def _take_back_dropped(self, connection: AsyncLakebaseConnection) -> None:
        """What the garbage collector found, in whatever thread: nothing here may wait."""
        if self._owner != process.number:
            self._inherited.append(connection.pgconn)
            return
        heir = hand_over(connection)
        heir._touched = heir._used = True
        try:
            self._loop.call_soon_threadsafe(self._start_to_take_back, heir)
        except RuntimeError:
            # The loop has ended, and the pool with it.
            heir.pgconn.finish()

    def _start_to_take_back(self, connection: AsyncLakebaseConnection) -> None:
        task = self._loop.create_task(self._take_back(connection))
        # A loop alone does not keep a task from being collected.
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)

    async def _tell_the_waiting(self, error: BaseException) -> None:
        """Nobody is opening a connection any more for those who wait: fail them, or continue for them."""
        if isinstance(error, LakebaseError) and not error.retryable:
            await self._fail_the_waiting(error)
        elif self._waiting:
            # The caller that was at it may only have had less time than they have.
            self._maybe_grow_pool()

    async def _fail_the_waiting(self, error: LakebaseError) -> None:
        while self._waiting:
            copy = error.again()
            copy.__cause__ = error.__cause__
            await self._waiting.popleft().fail(copy)

    async def _give_up(self, _pool: object) -> None:
        error = self._connector.last_error
        if error is not None:
            await self._fail_the_waiting(error)
        elif self._waiting:
            self._maybe_grow_pool()

    async def _open_in_background(self) -> AsyncLakebaseConnection:
        """What the pool calls for `min_size`, and to replace a connection that was lost."""
        try:
            return await self._connector.aconnect()
        except LakebaseError as error:
            if not error.retryable:
                await self._fail_the_waiting(error)
            raise
        except asyncio.CancelledError:
            # The loop ends. psycopg's worker takes this for a failed connect and would wait for more work;
            # asyncio.run() would wait for the worker.
            self.run_task(StopWorker(self))
            raise

    async def _check_if_idle(self, connection: AsyncLakebaseConnection, end: float) -> None:
        now = time.monotonic()
        if now - connection.last_used < TRUSTED_IDLE:
            return
        if connection._expire_at <= now:
            # psycopg's pool checks the age of returned connections, not of idle ones.
            raise psycopg.OperationalError("the connection has reached its maximum lifetime")
        # Half of the borrower's remaining time: if the link is silent, the rest is for a new connection.
        try:
            await connection.check(min(CHECK_SECONDS, max((end - now) / 2, 0.0)))
        except psycopg.Error as error:
            logger.info("A pooled connection is dead; dropping all idle ones: %s", error)
            await self.drain()
            raise


class AsyncPools:
    """The async pools of one process, one for each event loop that asks.

    Args:
        config: Sizes and lifetimes.
        connector: Opens the physical connections.
    """

    def __init__(self, config: LakebaseConfig, connector: Connector) -> None:
        self._config = config
        self._connector = connector
        self._checkouts_of_closed_pools = 0
        self._inherited: list[AsyncLakebasePool] = []
        self._pools: dict[asyncio.AbstractEventLoop, AsyncLakebasePool] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()

    async def current(self) -> AsyncLakebasePool:
        """The running event loop's pool, opened at the first use."""
        loop = asyncio.get_running_loop()
        self._abandon_after_fork()
        with self._lock:
            pool = self._pools.get(loop)
            if pool is None:
                self._forget_ended_loops()
                pool = self._pools[loop] = AsyncLakebasePool(self._config, self._connector)
        if pool.closed:
            await pool.open()
        return pool

    async def close_idle(self) -> None:
        """End the idle sessions of the running event loop's pool, but for `min_size`."""
        self._abandon_after_fork()
        with self._lock:
            pool = self._pools.get(asyncio.get_running_loop())
        if pool is not None:
            await pool.close_idle()

    async def close(self) -> None:
        """Close the running event loop's pool and its connections; those of other loops stay."""
        self._abandon_after_fork()
        with self._lock:
            self._forget_ended_loops()
            pool = self._pools.pop(asyncio.get_running_loop(), None)
            if pool is not None:
                self._checkouts_of_closed_pools += _checkouts(pool)
        if pool is not None:
            await pool.close()

    def forget_ended_loops(self) -> None:
        """Close the connections of event loops that are closed, and of this thread's that do not run.

        Airflow leaves the loop of an async task open. Those of loops that run are not touched.
        """
        self._abandon_after_fork()
        if not self._pools:
            # Most processes have none, and each task closes its client.
            return
        with self._lock:
            self._forget_ended_loops()
            paused = self._take_paused_loops()
        for loop, pool in paused:
            loop.run_until_complete(pool.close())

    def _take_paused_loops(self) -> list[tuple[asyncio.AbstractEventLoop, AsyncLakebasePool]]:
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            # No other one can run in this thread.
            return []
        here = threading.get_ident()
        paused = [loop for loop, pool in self._pools.items() if pool.thread == here and not loop.is_running()]
        taken = [(loop, self._pools.pop(loop)) for loop in paused]
        self._checkouts_of_closed_pools += sum(_checkouts(pool) for _, pool in taken)
        return taken

    def checkouts(self) -> int:
        """Connections that the pools lent, since this object was made."""
        return self._checkouts_of_closed_pools + sum(map(_checkouts, tuple(self._pools.values())))

    def _forget_ended_loops(self) -> None:
        for loop in [loop for loop in self._pools if loop.is_closed()]:
            pool = self._pools.pop(loop)
            self._checkouts_of_closed_pools += _checkouts(pool)
            # Closing the pool would need its loop. A socket does not.
            for connection in pool._pool:
                connection.pgconn.finish()

    def _abandon_after_fork(self) -> None:
        if self._pid == os.getpid():
            return
        # As for the pool of threads: kept but never touched again, for the parent uses the same sockets.
        self._lock = threading.Lock()
        self._inherited.extend(self._pools.values())
        self._pools = {}
        self._pid = os.getpid()


def _checkouts(pool: AsyncLakebasePool) -> int:
    return pool.get_stats().get("requests_num", 0)
