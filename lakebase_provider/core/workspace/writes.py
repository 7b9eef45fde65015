"""Writes to a project: one at a time in a process, and again while the project is busy with another's.

Lakebase runs one operation on a project at a time and refuses a second with 409, as it does while it still
reconciles the last one. Such a request was not accepted, so it is safe to send it again. One that failed, or
whose answer was lost, may have been: it is sent again where that does no harm.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from lakebase_provider.core.base.clock import Backoff, Clock, Deadline
from lakebase_provider.core.base.threads import glance
from lakebase_provider.core.base.waiting_log import WaitingLog
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.errors import (
    AlreadyExistsError,
    ControlPlaneThrottledError,
    ControlPlaneTimeoutError,
    ControlPlaneUnavailableError,
    LakebaseError,
    OperationTimeoutError,
    ProjectBusyError,
)
from lakebase_provider.core.errors.remedy import without_options
from lakebase_provider.core.workspace.http_limits import Limit, within

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")

#: After these nobody knows whether the workspace has done what was asked.
LOST = (ControlPlaneUnavailableError, ControlPlaneTimeoutError)

#: Most operations take seconds.
_BUSY = Backoff(first=0.5, most=4.0, floor=0.2)
#: Seconds that a request may take where the deadline has less left.
_LEAST_REQUEST = 1.0
# Seeded by the system: processes that were forked together must not try in step.
_RNG = random.SystemRandom()


def again_while_busy(
    send: Callable[[], _Result],
    deadline: Deadline,
    clock: Clock,
    lost: list[LakebaseError] | None = None,
) -> _Result:
    """The answer to a request, sent again while the project is busy or the workspace limits the rate.

    Args:
        send: Sends it.
        deadline: Until when.
        clock: Where the pauses are made.
        lost: Gets the errors of :data:`LOST`, after which the request is sent again too: it reads, or does
            the same when it is done twice. None: such an error is raised.

    Raises:
        ProjectBusyError: It was busy until the deadline.
        LakebaseError: The workspace refused or could not be reached.
    """
    waiting = WaitingLog(logger)
    attempt = 0
    while True:
        try:
            # It is the caller's deadline that may pass here, not the budget of a connection.
            with (
                without_options("connect_budget"),
                within(Limit(max(_LEAST_REQUEST, deadline.remaining()))),
            ):
                return send()
        except (ProjectBusyError, ControlPlaneThrottledError, *LOST) as error:
            if isinstance(error, LOST):
                if lost is None:
                    raise
                lost.append(error)
            pause = max(_BUSY.seconds(attempt, _RNG), error.retry_after or 0.0)
            left = deadline.remaining()
            if left <= 0:
                raise _with_budget(error, deadline.seconds) from error.__cause__
            # The last attempt is made when the deadline passes.
            pause = min(pause, left)
            waiting.say(deadline.now(), error, "Trying again in %.1f s: %s", pause, error.message)
            attempt += 1
            clock.sleep(pause)


def created_once(
    send: Callable[[], _Result], is_there: Callable[[], bool], deadline: Deadline, clock: Clock
) -> tuple[_Result | None, bool]:
    """The answer to a request that creates something, sent again only where a lost one has done nothing.

    Args:
        send: Sends it.
        is_there: Looks up what it creates.
        deadline: Until when.
        clock: Where the pauses are made.

    Returns:
        The answer, None if it was lost and what it creates is there; and whether that was not there when it
        was looked up before.

    Raises:
        AlreadyExistsError: It was there before.
        LakebaseError: The workspace refused or could not be reached.
    """
    lost: LakebaseError | None = None
    was_absent = False
    while True:
        try:
            return send(), was_absent
        except (*LOST, AlreadyExistsError) as error:
            refused = isinstance(error, AlreadyExistsError)
            if refused and lost is None:
                raise
            lost = lost if refused else error
            # It may have been accepted. Sent again, it would be refused in that case.
            if is_there():
                return None, was_absent
            pause = error.retry_after or 1.0
            if refused:
                raise
            if pause >= deadline.remaining():
                raise _late(error) from error.__cause__
            was_absent = True
            clock.sleep(pause)


def _late(error: LakebaseError) -> LakebaseError:
    if type(error) is not ControlPlaneTimeoutError:
        return error
    copy = error.again()
    copy.remedy = "Retry; if it persists, check the network path to the workspace, or raise timeout."
    return copy


def _with_budget(error: LakebaseError, seconds: float) -> LakebaseError:
    copy = error.again()
    copy.message = f"{error.message} (tried for {seconds:.1f} s)"
    return copy


#: The locks of projects, by workspace and name.
_locks: dict[tuple[str | None, str | None, str], threading.RLock] = {}
_guard = threading.Lock()


@contextmanager
def alone(config: LakebaseConfig, project: str, deadline: Deadline) -> Iterator[None]:
    """Hold this process's other writes to a project back; may be nested.

    Args:
        config: Says which workspace it is in.
        project: The project's name.
        deadline: Until when to wait for those that are under way.

    Raises:
        OperationTimeoutError: They did not end in time.
    """
    with _guard:
        lock = _locks.setdefault((config.workspace_host, config.profile, project), threading.RLock())
    while not lock.acquire(timeout=min(glance(deadline.remaining()), threading.TIMEOUT_MAX)):
        if deadline.remaining() > 0:
            continue
        late = OperationTimeoutError(
            f"This process's other writes to {project} did not end within {deadline.seconds:.1f} s.",
            remedy="Retry when they are done, or raise timeout.",
        )
        late.name = project
        raise late
    try:
        yield
    finally:
        lock.release()


def _renew_in_child() -> None:
    global _guard
    _guard = threading.Lock()
    _locks.clear()


os.register_at_fork(after_in_child=_renew_in_child)
