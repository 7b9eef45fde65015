"""Ends what this process runs on the server when the process itself is asked to end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import ref

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.pq.misc import PGnotify

from lakebase_provider.core.base.clock import Deadline
from lakebase_provider.core.errors.server_ends import EndpointGone
from lakebase_provider.core.errors.sqlstates import timed_out

#: The reason given for a statement that ended because of it.
ASKED_TO_END = "this process was asked to end (SIGTERM)"

_Connection = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]


class Holder:
    """Which connection currently has a session: each loan is a different one."""

    __slots__ = ("__weakref__", "ask_why_lost", "connection", "in_steps", "loss")

    def __init__(self, connection: object) -> None:
        self.connection: ref[Any] = ref(connection)
        #: Whether the connection's `wait` is at steps of psycopg's, of which it knows what they are.
        self.in_steps = False
        #: Asks why the session is lost, once it is. Blocks for a few seconds at most.
        self.ask_why_lost: Callable[[], EndpointGone | None] = lambda: None
        #: The answer, where there was one.
        self.loss: EndpointGone | None = None

    def why_lost(self) -> EndpointGone | None:
        """The error for a session that is lost because its endpoint is gone; asked for once. Blocks."""
        if not self._is_lost():
            return None
        if self.loss is not None:
            return self.loss.again()
        # The rollback that follows would ask again.
        ask, self.ask_why_lost = self.ask_why_lost, lambda: None
        self.loss = ask()
        return self.loss

    async def awhy_lost(self) -> EndpointGone | None:
        """:meth:`why_lost` for asyncio."""
        return await asyncio.to_thread(self.why_lost) if self._is_lost() else None

    def _is_lost(self) -> bool:
        connection = self.connection()
        return connection is not None and bool(connection.broken)

    def require_not_lost(self) -> None:
        """Raise the error that :meth:`why_lost` has found, if it has."""
        if self.loss is not None:
            raise self.loss.again()

    def tell_notice(self, result: PGresult) -> None:
        """Hand a notice to who has the session."""
        psycopg.BaseConnection._notice_handler(self.connection, result)

    def tell_notify(self, notify: PGnotify) -> None:
        """Hand a notification to who has the session."""
        psycopg.BaseConnection._notify_handler(self.connection, notify)

    def note_raw_use(self) -> None:
        """libpq's object was used past psycopg, and the session may not be what it was."""
        connection = self.connection()
        if connection is not None:
            connection._touched = connection._used = True


# A dictionary's values are copied in one step; a WeakSet is not, and another thread may add to it meanwhile.
_opened: dict[int, ref[Holder]] = {}
#: Whether this process's next statement must not start.
_next_is_refused = False
#: Whether the process is ending: from then on, that is the reason for every cancellation.
_asked_to_end = False


def remember(holder: Holder) -> None:
    """Register an opened session with :func:`cancel_running_statements`, without keeping it alive."""
    key = id(holder)
    _opened[key] = ref(holder, lambda _: _opened.pop(key, None))


def cancel_running_statements(timeout: float = 3.0) -> int:
    """Cancel the statements of all connections of this process; they raise ``QueryCanceled``.

    Safe in a signal handler: it waits for no lock, which the interrupted code might hold. The running loop
    cancels an asyncio statement as soon as the handler has returned.

    Args:
        timeout: Seconds that it may take in total.

    Returns:
        How many statements it tried to cancel.
    """
    deadline = Deadline(timeout)
    holders = [reference() for reference in list(_opened.values())]
    connections = [holder.connection() for holder in holders if holder is not None]
    running = [c for c in connections if c and c.pgconn.transaction_status == TransactionStatus.ACTIVE]
    for connection in running:
        if isinstance(connection, psycopg.Connection):
            connection.cancel_safe(timeout=max(0.1, deadline.remaining()))
        else:
            _cancel_later(connection, timeout)
    return len(running)


def refuse_next_statement() -> None:
    """End one statement of this process: the running one if it gets cancelled, or else the next to start.

    A process asked to end between two statements has nothing to cancel, and a request to cancel that arrives
    as a statement ends is lost. Safe in a signal handler, before :func:`cancel_running_statements`.
    """
    global _next_is_refused, _asked_to_end
    _next_is_refused = _asked_to_end = True


def asked_to_end() -> bool:
    """Whether this process was asked to end, so that what fails from then on may succeed in another one."""
    return _asked_to_end


def forget_request_to_end() -> None:
    """Start afresh: for a task that was not asked to end, in the process of one that was."""
    global _next_is_refused, _asked_to_end
    _next_is_refused = _asked_to_end = False


def statement_was_canceled(error: psycopg.errors.QueryCanceled) -> None:
    """The request is fulfilled: the next statement may start, and the error says why this one ended.

    Args:
        error: The server's error for a cancelled statement, whatever the reason.
    """
    global _next_is_refused
    _next_is_refused = False
    if ended_by_request(error) and ASKED_TO_END not in str(error):
        said, *context = str(error).split("\n", 1)
        error.args = ("\n".join([f"{said}: {ASKED_TO_END}", *context]),)


def ended_by_request(error: BaseException) -> bool:
    """Whether a cancelled statement (57014) ended because this process was asked to end."""
    return _asked_to_end and not timed_out(error)


def require_may_begin() -> None:
    """Called before each statement.

    Raises:
        psycopg.errors.QueryCanceled: It was refused, with the error that the server gives for a cancelled
            one.
    """
    global _next_is_refused
    if _next_is_refused:
        _next_is_refused = False
        raise psycopg.errors.QueryCanceled(f"canceling statement before it starts: {ASKED_TO_END}")


def _cancel_later(connection: psycopg.AsyncConnection[Any], timeout: float) -> None:
    # Without a running loop, no asyncio statement can be running either.
    with suppress(RuntimeError):
        loop = asyncio.get_running_loop()
        # The loop sleeps until there is something to read, and a signal alone does not wake it.
        loop.call_soon_threadsafe(lambda: _keep(loop.create_task(connection.cancel_safe(timeout=timeout))))


_cancelling: set[asyncio.Task[None]] = set()


def _keep(task: asyncio.Task[None]) -> None:
    # A loop alone does not keep a task from being garbage-collected.
    _cancelling.add(task)
    task.add_done_callback(_cancelling.discard)


# A forked child has its parent's connections in memory, and must leave their statements alone.
os.register_at_fork(after_in_child=_opened.clear)
os.register_at_fork(after_in_child=forget_request_to_end)
