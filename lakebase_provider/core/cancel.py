"""Ending what this process runs on the server, when the process itself is asked to end."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Any
from weakref import ref

import psycopg
from psycopg.pq import TransactionStatus

from lakebase_provider.core.clock import Deadline

_Connection = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]


class Holder:
    """Which connection has a session at the moment: each loan of it is another one."""

    __slots__ = ("__weakref__", "connection")

    def __init__(self, connection: object) -> None:
        self.connection: ref[Any] = ref(connection)


# A dictionary's values are copied in one step; a WeakSet is not, and another thread may add to it meanwhile.
_opened: dict[int, ref[Holder]] = {}
#: Whether the next statement of this process is not to begin.
_next_is_refused = False


def remember(holder: Holder) -> None:
    """Let :func:`cancel_running_statements` know a session that was opened; it does not keep it alive."""
    key = id(holder)
    _opened[key] = ref(holder, lambda _: _opened.pop(key, None))


def cancel_running_statements(timeout: float = 3.0) -> int:
    """Cancel the statements of all connections of this process; they raise ``QueryCanceled``.

    Safe in a signal handler: it waits for no lock, which the interrupted code might hold. A statement of
    asyncio's is cancelled by the running loop, as soon as the handler has returned.

    Args:
        timeout: Seconds that it may take altogether.

    Returns:
        How many statements were to be cancelled.
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
    """Let one statement of this process end: the one that runs if it is cancelled, or else the next to begin.

    Whoever is asked to end between two statements has nothing to cancel, and a request to cancel that meets
    a statement at its end is lost. Safe in a signal handler, before :func:`cancel_running_statements`.
    """
    global _next_is_refused
    _next_is_refused = True


def statement_was_canceled() -> None:
    """What was asked for has happened, or is asked for no longer: the next statement may begin."""
    global _next_is_refused
    _next_is_refused = False


def require_may_begin() -> None:
    """Called before each statement.

    Raises:
        psycopg.errors.QueryCanceled: It was refused; what the server says of one that it has cancelled.
    """
    if _next_is_refused:
        statement_was_canceled()
        raise psycopg.errors.QueryCanceled(
            "canceling statement before it begins: this process was asked to end"
        )


def _cancel_later(connection: psycopg.AsyncConnection[Any], timeout: float) -> None:
    # Without a running loop nothing of asyncio's can be running either.
    with suppress(RuntimeError):
        loop = asyncio.get_running_loop()
        # The loop sleeps until something is there to read, and a signal alone does not wake it.
        loop.call_soon_threadsafe(lambda: _keep(loop.create_task(connection.cancel_safe(timeout=timeout))))


_cancelling: set[asyncio.Task[None]] = set()


def _keep(task: asyncio.Task[None]) -> None:
    # A loop alone does not keep a task from being collected.
    _cancelling.add(task)
    task.add_done_callback(_cancelling.discard)


# A forked child has its parent's connections in memory, and must leave their statements alone.
os.register_at_fork(after_in_child=_opened.clear)
os.register_at_fork(after_in_child=statement_was_canceled)
