"""What a pool lends is a loan of a session: after its end, remaining references have no effect.

A borrower may keep the connection, a cursor, a transaction, a copy, a generator, or libpq's own object, and
use them when the session already belongs to somebody else. So the session itself moves: on return, a new
connection takes it over, and everything that refers to the old one finds it closed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any, TypeVar
from weakref import ref

from psycopg import BaseConnection, Error
from psycopg_pool import PoolTimeout
from psycopg_pool.base import BasePool

from lakebase_provider.core.connect.pools.sessions import closed_session, moved
from lakebase_provider.core.errors import LakebaseError, PoolExhaustedError
from lakebase_provider.core.errors.client_names import Names

logger = logging.getLogger(__name__)

#: A connection of :mod:`lakebase_provider.core.connect.connection`, for threads or for asyncio.
_Lent = TypeVar("_Lent", bound=BaseConnection[Any])
#: The code, and the index of the instruction in it.
Place = tuple[CodeType, int]

#: Modules that borrow on behalf of others.
_GO_BETWEENS = (
    "lakebase_provider.",
    "dagster_lakebase.",
    "psycopg",
    "contextlib",
    "airflow.providers.common.",
)
_KEPT_BY_ERRORS = "An error that is kept keeps its frames, and these the connections that they borrowed."
#: psycopg's defaults: a statement that is executed more often than this is prepared, up to so many of them.
PREPARE_THRESHOLD, PREPARED_MAX = 5, 100
#: Name enough places to find out who keeps connections.
_MOST_PLACES = 3


class PoolExhaustedTimeout(PoolExhaustedError, PoolTimeout):  # noqa: N818 # the other half of its name
    """:class:`PoolExhaustedError` as raised: also psycopg_pool's error for it.

    Defined here, since the errors' own module must not import the driver.
    """


class Lender(BasePool):
    """What the pools for threads and for asyncio share: which connections are lent, and where."""

    _loans: dict[int, Place]
    #: The client's names, from the pool's connector.
    _names: Names

    def _lend(self, connection: _Lent) -> _Lent:
        held: Any = connection
        held._pool = held._lender = self
        self._loans[id(connection)] = place()
        return connection

    def lent_at(self, connection: Any) -> str | None:
        """Where a connection was borrowed, as file and line; None if it is not lent."""
        place = self._loans.get(id(connection))
        return None if place is None else _told(place)

    def _require_lent_before(self, connection: Any) -> None:
        """For a returned connection that is not lent: its loan has ended.

        Raises:
            ValueError: The connection was not lent by this pool. It is left alone.
        """
        if getattr(connection, "_lender", None) is not self:
            raise ValueError(
                f"The pool {self.name!r} was given a connection that it did not lend: {connection!r}.\n"
                "Remedy: close it with its own close()."
            )

    def _note_dropped(self, connection: Any) -> bool:
        """Report a garbage-collected connection that was still lent. Takes no locks."""
        place = self._loans.pop(id(connection), None)
        if place is None:
            return False
        told = (
            f"A connection that was lent at {_told(place)} was dropped without being returned; its "
            "uncommitted work is rolled back.\nRemedy: use `with`, or close it."
        )
        logger.warning("%s", told)
        # Nobody can catch an exception from a finalizer; it is logged.
        with suppress(ResourceWarning):
            warnings.warn(told, ResourceWarning, stacklevel=2)
        return True

    def _may_be_abandoned(self) -> bool:
        """Whether somebody waits for a lent connection because there is no room for another."""
        return bool(self._loans) and self._nconns >= self._max_size

    def _in_use(self) -> str:
        """How many connections are lent, and where the first of them were."""
        places = [_told(place) for place in list(self._loans.values())[:_MOST_PLACES]]
        at = f" (lent at {', '.join(places)})" if places else ""
        return f"{len(self._loans)} of at most {self.max_size} are in use{at}"

    def _not_had(self, seconds: float, last_error: LakebaseError | None) -> LakebaseError:
        """Why a waiting borrower gets none: others hold all of them, or none could be opened."""
        if last_error is not None and len(self._loans) < self.max_size:
            return last_error.again()
        opening = "" if len(self._loans) >= self.max_size else "; another one was still opening"
        error = PoolExhaustedTimeout(
            f"No connection became free within {seconds:.1f} s: {self._in_use()}{opening}.",
            remedy=f"{PoolExhaustedTimeout.default_remedy} {_KEPT_BY_ERRORS}",
        )
        self._names.tell(error)
        return error


def place() -> Place:
    """Where the borrowing code is: the first frame that does not belong to a library in between."""
    frame = sys._getframe(2)
    code = frame.f_code
    if _between.get(code.co_filename) is not False:
        while _is_between(frame) and (further := frame.f_back) is not None:
            frame = further
        code = frame.f_code
    # Finding the line takes as long as all of this; it is done only if something went wrong.
    return code, frame.f_lasti


def _is_between(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    known = _between.get(file)
    if known is None:
        known = _between[file] = frame.f_globals.get("__name__", "").startswith(_GO_BETWEENS)
    return known


#: Whether a file belongs to a library in between.
_between: dict[str, bool] = {}


def _told(place: Place) -> str:
    code, instruction = place
    line = next((line for start, end, line in code.co_lines() if start <= instruction < end), None)
    return f"{code.co_filename}:{line}"


def hand_over(connection: _Lent) -> _Lent:
    """A new connection that takes over the session of `connection`, which is closed from then on.

    The new one is as psycopg makes them: it knows nothing of the old one's cursors, adapters, handlers and
    prepared statements.
    """
    state = connection.__dict__
    heir: Any = object.__new__(connection.__class__)
    connection.__dict__ = {"_ended": True, "_lender": state["_lender"]}
    heir.__dict__ = state
    if state["_pipeline"] is not None:
        # Its block, which continues, must find it.
        connection._pipeline = state["_pipeline"]
    if sys.getrefcount(state["pgconn"]) > _ALONE:
        state["pgconn"] = moved(state["pgconn"])
    if state["_touched"]:
        heir._forget_work(state)
    state.update(heir._settings)
    prepared = state["_prepared"]
    if (
        prepared.prepare_threshold != PREPARE_THRESHOLD
        or prepared.prepared_max != PREPARED_MAX
        or state["_notice_handlers"]
        or state["_notify_handlers"]
        or len(state) != heir._state_size
    ):
        heir._forget_additions(state)
    state["_holder"].connection = ref(heir)
    return heir  # type: ignore[no-any-return] # of the same class


def is_at_work(connection: Any) -> bool:
    """Whether somebody waits for the server on it: another thread, or another task."""
    return bool(connection._holder.in_steps)


def cut_off(connection: Any) -> None:
    """End a session that others may be using this moment, without closing what they use.

    To free libpq's object while another thread is in it crashes the process, and a descriptor that is closed
    becomes the next connection's, which that thread would go on to read. So only the line is cut: whoever
    waits gets an error, and frees the object.
    """
    with suppress(OSError, Error), socket.socket(fileno=os.dup(connection.pgconn.socket)) as line:
        line.shutdown(socket.SHUT_RDWR)
    connection.pgconn = closed_session()


def forget_session(connection: Any) -> None:
    """Clear what a session's server has forgotten: prepared statements, notifications."""
    prepared = connection._prepared
    if not (prepared._names or prepared._to_flush):
        prepared._counts.clear()
    else:
        # Statement names are not reused: behind a pooler in transaction mode, another session may still know
        # them.
        fresh = connection._prepared = type(prepared)()
        fresh._prepared_idx = prepared._prepared_idx
        fresh.prepare_threshold, fresh.prepared_max = prepared.prepare_threshold, prepared.prepared_max
    if connection._notifies_backlog is None or connection._notifies_backlog:
        connection._notifies_backlog = deque()
    if connection.lock.locked():
        # Referenced by what the borrower left behind, such as a generator.
        locked_by_task = isinstance(connection.lock, asyncio.Lock)
        connection.lock = asyncio.Lock() if locked_by_task else threading.Lock()


def _alone() -> int:
    """The reference count of an object that is in only one dictionary, counted as above."""
    state = {"pgconn": object()}
    return sys.getrefcount(state["pgconn"])


_ALONE = _alone()


@lru_cache
def closed_connection(kind: Callable[[Any], Any]) -> Any:
    """A connection of that class that has no session."""
    return kind(closed_session())
