"""The pool: few connections, opened late, checked after being idle, returned clean."""

from __future__ import annotations

import _thread
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGconn
from psycopg_pool import ConnectionPool, PoolTimeout
from psycopg_pool.pool import AddConnection, MaintenanceTask, ShrinkPool, StopWorker, WaitingClient

from lakebase_provider.core.base import process, telemetry
from lakebase_provider.core.base.threads import in_this_context
from lakebase_provider.core.base.waiting_log import WaitingLog
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.connect.attempts import tell_waits_once
from lakebase_provider.core.connect.connection import CANCEL_TIMEOUT, LakebaseConnection
from lakebase_provider.core.connect.connector import Connector
from lakebase_provider.core.connect.pools import abandoned
from lakebase_provider.core.connect.pools.lending import Lender, cut_off, hand_over, is_at_work, place
from lakebase_provider.core.connect.pools.sessions import interrupted
from lakebase_provider.core.errors import ForkedPoolError, LakebaseError

logger = logging.getLogger(__name__)

#: A connection used less than this many seconds ago is not checked: a check costs a round trip.
TRUSTED_IDLE = 0.5
#: Seconds that a check may take at most; a live server answers in milliseconds.
CHECK_SECONDS = 5.0
#: Seconds for an attempt to connect for which no borrower or several borrowers wait.
_BACKGROUND_SECONDS = 3.0
#: Seconds that the end of a pool waits for the first turn of a thread that is starting.
_TURN = 1.0
_IDLE = TransactionStatus.IDLE


class LakebasePool(Lender, ConnectionPool[LakebaseConnection]):
    """psycopg's pool with these differences.

    * The first connection is opened in the caller's thread, within the caller's deadline, so that the caller
      gets the typed error of a failed connect at once instead of a timeout; an error that a retry cannot help
      also reaches other waiters at once. Further ones are opened while their borrowers wait, who take what is
      returned meanwhile. None is opened without a borrower.
    * A connection is checked only after it has been idle; the first dead one drops all idle ones, since
      they died together when the compute was suspended.
    * A returned connection is rolled back and its session reset.
    * What is lent is a loan of the session (:mod:`.lending`). It ends with ``close()``, so that
      ``closing(hook.get_conn())`` works, at the end of ``with``, or with the last reference to it.
    * Its threads start when they have something to do: one that watches for idle connections when there is
      one to watch, one that replaces broken connections with the first of these.

    psycopg's pool has no hooks for these: what it counts, whom it lets wait, what it lends and what it starts
    is internal. This class relies on attributes and methods that begin with an underscore, which is why
    pyproject.toml pins psycopg-pool to one minor version.

    Args:
        config: Sizes and lifetimes.
        connector: Opens the physical connections.
    """

    def __init__(self, config: LakebaseConfig, connector: Connector) -> None:
        tell_waits_once()
        self._connector = connector
        self._names = connector.names
        self._budget = config.connect_budget
        self._owner = process.number
        self._loans = {}
        self._dropped: deque[LakebaseConnection] = deque()
        self._inherited: list[PGconn] = []
        self._starting = threading.Lock()
        self._scheduling = False
        self._turn = threading.Lock()
        # For all attempts together: each is short, and finds the same as the previous one.
        self._background_log = WaitingLog(logger)
        super().__init__(
            kwargs={"opener": self._open_in_background},
            connection_class=LakebaseConnection,
            min_size=config.min_size,
            max_size=config.max_size,
            max_lifetime=config.max_lifetime,
            max_idle=config.max_idle,
            timeout=config.connect_budget,
            reconnect_timeout=config.connect_budget,
            reconnect_failed=self._background_gave_up,
            close_returns=True,
            num_workers=1,
            name=config.application_name,
            open=True,
        )

    def getconn(self, timeout: float | None = None) -> LakebaseConnection:
        """A loan of a session; it ends by ``putconn``, by its own ``close`` or with its ``with`` block.

        Args:
            timeout: Seconds to wait at most; the configuration's `connect_budget` by default.

        Raises:
            ForkedPoolError: Another process opened the pool.
            PoolExhaustedError: All connections stayed in use until the deadline.
            LakebaseError: A connection was missing and could not be opened.
        """
        if self._owner != process.number:
            raise ForkedPoolError("A connection was requested from a pool that a parent process opened.")
        if self._dropped:
            self._collect_dropped()
        # The common case takes microseconds, less than a span does: an idle connection, used a moment ago.
        idle = None
        with self._lock:
            ready = self._pool
            if ready and time.monotonic() - ready[0].last_used < TRUSTED_IDLE:
                idle = ready.popleft()
                if len(ready) < self._nconns_min:
                    self._nconns_min = len(ready)
                self._stats[self._REQUESTS_NUM] += 1
        if idle is not None:
            state = idle.__dict__
            state["_pool"] = state["_lender"] = self
            self._loans[id(idle)] = place()
            return idle
        with telemetry.span("checkout"):
            return self._lend(self._getconn(self._budget if timeout is None else timeout))

    def _getconn(self, seconds: float) -> LakebaseConnection:
        self._check_open_getconn()
        self._stats[self._REQUESTS_NUM] += 1
        end = time.monotonic() + seconds
        while True:
            # psycopg_pool reads 0 as "do not even look"; a caller in a hurry still gets a free connection.
            left = max(0.001, end - time.monotonic())
            if self._reserve_first():
                return self._open_here(left)
            connection = self._first_free(left)
            if connection is None:
                error = self._connector.last_error
                raise self._not_had(seconds, error) from (error and error.__cause__)
            try:
                self._check_if_idle(connection, end)
            except psycopg.Error:
                self._stats[self._CONNECTIONS_LOST] += 1
                self._lose(connection)
            else:
                return connection

    def _first_free(self, seconds: float) -> LakebaseConnection | None:
        """Like psycopg's ``_getconn_unchecked``, which leaves borrowers that stopped waiting in its queue.

        The queue would keep their error, the error their frames, and the frames their connections, so that
        they would never get another one.
        """
        end = time.monotonic() + seconds
        with self._lock:
            connection = self._get_ready_connection(seconds)
            if connection is not None:
                return connection
            waiter: WaitingClient[LakebaseConnection] = WaitingClient()
            self._waiting.append(waiter)
            self._stats[self._REQUESTS_QUEUED] += 1
            self._maybe_grow_pool()
        try:
            if self._may_be_abandoned():
                with waiter._cond:
                    if not (waiter.conn or waiter.error):
                        waiter._cond.wait(abandoned.seconds_until_due(seconds))
                if not (waiter.conn or waiter.error):
                    abandoned.find(end - time.monotonic())
                    self._collect_dropped()
            return waiter.wait(max(0.001, end - time.monotonic()))
        except BaseException as error:
            self._leave_queue(waiter)
            if not isinstance(error, PoolTimeout):
                raise
            return None
        finally:
            self._stats[self._REQUESTS_WAIT_MS] += int(1000 * (time.monotonic() + seconds - end))

    def _leave_queue(self, waiter: WaitingClient[LakebaseConnection]) -> None:
        with self._lock:
            with suppress(ValueError):
                self._waiting.remove(waiter)
            # Not the error that is being raised, whose frames know the waiter.
            waiter.error = PoolTimeout()
        self._stats[self._REQUESTS_ERRORS] += 1
        if waiter.conn is not None:
            self._add_to_pool(waiter.conn)

    def _open_here(self, seconds: float) -> LakebaseConnection:
        self._stats[self._CONNECTIONS_NUM] += 1
        start = time.monotonic()
        try:
            connection = self._connector.connect(seconds)
            # Its first turn comes while a statement waits, and not in the way of the connection's return.
            self._start_scheduler()
        except BaseException as error:
            self._release_reservation(error)
            raise
        self._stats[self._CONNECTIONS_MS] += int((time.monotonic() - start) * 1000)
        self._set_connection_expiry_date(connection)
        return connection

    def putconn(self, conn: LakebaseConnection) -> None:
        """Take a connection back, rolled back and with its session reset; a second time does nothing.

        Raises:
            ValueError: This pool did not lend it. It is left alone.
        """
        # One step, so that only one of two threads returns it.
        if self._loans.pop(id(conn), None) is None:
            self._require_lent_before(conn)
            return
        if self._owner != process.number:
            # A child that was forked leaves its parent's sessions alone.
            return
        if conn._touched or conn.pgconn.transaction_status != _IDLE:
            self._take_back(conn)
            return
        # The common case without detours, as above: nothing was sent.
        now = conn.last_used = time.monotonic()
        expires, opened = conn._expire_at, conn._created_at
        heir = hand_over(conn)
        if expires > now and opened > self._drained_at:
            self._add_to_pool(heir)
        else:
            self._lose(heir)

    def _take_back(self, conn: LakebaseConnection) -> None:
        # Who is at a statement has it, and with it nobody can begin one.
        lock: threading.Lock = vars(conn)["lock"]
        alone = lock.acquire(blocking=False)
        try:
            self._clean(conn, alone)
            heir = hand_over(conn)
        finally:
            if alone:
                lock.release()
        if heir.pgconn.transaction_status == _IDLE:
            self._keep(heir)
        else:
            self._stats[self._RETURNS_BAD] += 1
            self._lose(heir)

    def _clean(self, conn: LakebaseConnection, alone: bool) -> None:
        try:
            if not alone and is_at_work(conn):
                conn.cancel_safe(timeout=CANCEL_TIMEOUT)
                raise interrupted()
            conn.reset_session()
        except psycopg.Error as error:
            logger.info("Discarding a returned connection: %s", error)
            if alone:
                conn.pgconn.finish()
            else:
                cut_off(conn)
        except BaseException:
            # Such as a task's timeout: nobody knows what the session does.
            if not alone:
                cut_off(conn)
            self._lose(conn)
            raise

    def _keep(self, conn: LakebaseConnection) -> None:
        if conn._expire_at > conn.last_used and conn._created_at > self._drained_at:
            self._add_to_pool(conn)
        else:
            self._lose(conn)

    def _lose(self, conn: LakebaseConnection) -> None:
        """Give a connection up; another one is opened only for `min_size`, or for somebody who waits."""
        conn._pool = None
        conn.pgconn.finish()
        if not self._closed:
            self.run_task(AddConnection(self))

    def _take_back_dropped(self, connection: LakebaseConnection) -> None:
        """What the garbage collector found, in the middle of this thread's work: nothing here may wait."""
        if self._owner != process.number:
            self._inherited.append(connection.pgconn)
            return
        # The object being collected cannot be returned any more.
        heir = hand_over(connection)
        heir._touched = heir._used = True
        self._dropped.append(heir)
        try:
            if sys.is_finalizing():
                raise RuntimeError  # as Python 3.12 does
            _thread.start_new_thread(self._collect_dropped, ())
        except RuntimeError:
            # The interpreter ends, and the session with it.
            heir.pgconn.finish()

    def _collect_dropped(self) -> None:
        with suppress(IndexError):
            while True:
                self._take_back(self._dropped.popleft())

    @contextmanager
    def connection(self, timeout: float | None = None) -> Iterator[LakebaseConnection]:
        """Lend a session for a block, at whose end it is committed, or rolled back on an error.

        Args:
            timeout: As for :meth:`getconn`.
        """
        connection = self.getconn(timeout)
        start = time.monotonic()
        try:
            with connection:
                yield connection
        finally:
            self._stats[self._USAGE_MS] += int((time.monotonic() - start) * 1000)

    def run_task(self, task: MaintenanceTask) -> None:
        """Let the worker do a task of psycopg's pool; the first one starts it."""
        if isinstance(task, AddConnection) and not self._is_due(task):
            return
        self._run_task(task)

    def _is_due(self, task: AddConnection) -> bool:
        """Whether a connection that replaces one, or failed to open before, is still wanted."""
        if task.growing and task.attempt is None:
            return True
        with self._lock:
            if self._nconns <= self._min_size or self._waiting:
                return True
            self._nconns -= 1
            if task.growing:
                self._growing = False
            return False

    def _run_task(self, task: MaintenanceTask) -> None:
        if not self._workers and not isinstance(task, StopWorker):
            with self._starting:
                if not self._workers and not self._closed:
                    worker = threading.Thread(
                        target=self.worker, args=(self._tasks,), name=f"{self.name}-worker", daemon=True
                    )
                    worker.start()
                    self._workers.append(worker)
        _keep_context(task)
        super().run_task(task)

    def schedule_task(self, task: MaintenanceTask, delay: float) -> None:
        """Let the worker do a task of psycopg's pool in `delay` seconds."""
        self._start_scheduler()
        _keep_context(task)
        super().schedule_task(task, delay)

    def _start_workers(self) -> None:
        """Not yet."""

    def _start_initial_tasks(self) -> None:
        for _ in range(self._nconns):
            self._run_task(AddConnection(self))
        # Started with the scheduler, which starts with the first connection that can be idle.
        self._sched.enter(self.max_idle, ShrinkPool(self).tick)

    def _start_scheduler(self) -> None:
        with self._starting:
            if not self._scheduling and not self._closed:
                self._scheduling = True
                # Not by threading, which waits until the new thread has had its turn: in a task of a single
                # statement that takes as long as the statement. close() waits for that, and no more.
                self._turn.acquire()
                _thread.start_new_thread(self._schedule, ())

    def _schedule(self) -> None:
        self._turn.release()
        self._sched.run()

    def _add_to_pool(self, conn: LakebaseConnection) -> None:
        with self._lock:
            nobody_asks = not (self._waiting or self._closed or self._pool_full_event)
            if nobody_asks:
                self._pool.append(conn)
        if not nobody_asks:
            super()._add_to_pool(conn)  # which closes it, should the pool be closed
        if not self._scheduling:
            self._start_scheduler()

    def _signal_stop_worker(self) -> list[threading.Thread]:
        # A thread that is starting is either stopped with the others, or finds the pool closed.
        with self._starting:
            stopped = super()._signal_stop_worker()
        # Python 3.11.2 crashes if it ends while a thread of it begins.
        if self._turn.acquire(timeout=_TURN):
            self._turn.release()
        return stopped

    def _reserve_first(self) -> bool:
        """Count a connection that the caller is about to open, if the pool has none.

        If it has some, those who wait get the first free one, whether returned or opened.
        """
        with self._lock:
            if self._nconns:
                return False
            self._nconns += 1
            return True

    def _release_reservation(self, error: BaseException) -> None:
        with self._lock:
            self._nconns -= 1
            self._stats[self._REQUESTS_ERRORS] += 1
            self._stats[self._CONNECTIONS_ERRORS] += 1
        self._tell_the_waiting(error)

    def _open_in_background(self) -> LakebaseConnection:
        try:
            # Shorter than what close() waits for: a pool that is closed leaves no thread behind.
            connection = self._connector.connect(
                min(self._budget, _BACKGROUND_SECONDS), waiting=self._background_log
            )
        except LakebaseError as error:
            if not error.retryable:
                self._fail_the_waiting(error)
            raise
        self._background_log.is_over()
        return connection

    def _background_gave_up(self, _pool: object) -> None:
        error = self._connector.last_error
        if error is not None:
            self._fail_the_waiting(error)

    def _tell_the_waiting(self, error: BaseException) -> None:
        """Nobody is opening a connection any more for those who wait: fail them, or continue for them."""
        if isinstance(error, LakebaseError) and not error.retryable:
            self._fail_the_waiting(error)
            return
        with self._lock:
            if self._waiting:
                # The caller that was at it may only have had less time than they have.
                self._maybe_grow_pool()

    def _fail_the_waiting(self, error: LakebaseError) -> None:
        with self._lock:
            waiting = list(self._waiting)
            self._waiting.clear()
        for client in waiting:
            copy = error.again()
            copy.__cause__ = error.__cause__
            client.fail(copy)

    def _check_if_idle(self, connection: LakebaseConnection, end: float) -> None:
        now = time.monotonic()
        if now - connection.last_used < TRUSTED_IDLE:
            return
        if connection._expire_at <= now:
            # psycopg's pool checks the age of returned connections, not of idle ones.
            raise psycopg.OperationalError("the connection has reached its maximum lifetime")
        # Half of the borrower's remaining time: if the link is silent, the rest is for a new connection.
        try:
            connection.check(min(CHECK_SECONDS, max((end - now) / 2, 0.0)))
        except psycopg.Error as error:
            logger.info("A pooled connection is dead; dropping all idle ones: %s", error)
            self.drain()
            raise


def _keep_context(task: MaintenanceTask) -> None:
    """Open a connection in the waiting borrower's context, also when the scheduler retries it."""
    if isinstance(task, AddConnection) and "run" not in task.__dict__:
        task.run = in_this_context(task.run)  # type: ignore[method-assign]
