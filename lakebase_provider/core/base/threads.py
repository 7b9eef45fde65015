"""Threads that work for a caller: in a copy of its context, so that log lines and spans belong to its task.

A thread that works for a task of asyncio stops waiting when that task is cancelled.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")

#: Seconds after which a wait that cannot be interrupted looks whether its caller has gone.
_GLANCE = 0.1
_current = threading.local()
#: Seconds until a signal comes again whose exception Python has dropped.
_SOON = 0.05
#: How many blocks SIGTERM ends by SystemExit now; those of asyncio's tasks overlap.
_unwinding = 0
#: What is told of exceptions that nobody can catch, before such blocks.
_unraisable = sys.unraisablehook


class CallerGone(BaseException):
    """Ends the work of a thread whose caller waits for it no longer; no error, so nothing handles it."""


def until_gone(work: Callable[[], _Result], gone: threading.Event) -> _Result:
    """Work in this thread for a caller, whose going ends each wait by :func:`pause` and :func:`glance`.

    Args:
        work: What to do.
        gone: Set when the caller goes.

    Raises:
        CallerGone: The caller went.
    """
    before, _current.gone = getattr(_current, "gone", None), gone
    try:
        return work()
    finally:
        _current.gone = before


def unless_gone(work: Callable[[], _Result], gone: threading.Event) -> _Result | None:
    """:func:`until_gone`, with None for the result of work whose caller went."""
    try:
        return until_gone(work, gone)
    except CallerGone:
        return None


def pause(seconds: float) -> None:
    """Let that many seconds pass.

    Raises:
        CallerGone: The caller of this thread went meanwhile.
    """
    gone: threading.Event | None = getattr(_current, "gone", None)
    if gone is None:
        time.sleep(seconds)
    elif gone.wait(seconds):
        raise CallerGone


def glance(seconds: float) -> float:
    """How long to wait at a stretch: those seconds, or less in a thread whose caller may go.

    Raises:
        CallerGone: The caller of this thread has gone.
    """
    if getattr(_current, "gone", None) is None:
        return seconds
    pause(0)
    return min(seconds, _GLANCE)


def in_this_context(work: Callable[..., _Result]) -> Callable[..., _Result]:
    """The same function, run in a copy of the current context wherever it is called; one call at a time.

    Airflow, Dagster and structlog keep in context variables which task a log line belongs to.
    """
    context = contextvars.copy_context()

    def run(*arguments: object) -> _Result:
        return context.run(work, *arguments)

    return run


def start_for_caller(work: Callable[..., object], *arguments: object, name: str) -> threading.Thread:
    """Start a daemon thread that works for the caller, in a copy of its context.

    Raises:
        RuntimeError: The interpreter is shutting down, or the machine has no thread left.
    """
    thread = threading.Thread(target=in_this_context(work), args=arguments, name=name, daemon=True)
    thread.start()
    return thread


def _settle(work: Callable[[], _Result], outcome: Future[_Result]) -> None:
    if not outcome.set_running_or_notify_cancel():
        return
    try:
        outcome.set_result(work())
    except BaseException as error:
        outcome.set_exception(error)


def started(work: Callable[[], _Result], name: str) -> Future[_Result]:
    """What will become of a function that runs in a thread of its own; see :func:`start_for_caller`."""
    outcome: Future[_Result] = Future()
    start_for_caller(_settle, work, outcome, name=name)
    return outcome


class _Errand(Generic[_Result]):
    """Work that one thread does, whoever comes first, and that another one waits for whom signals interrupt.

    Only by locks of C: a condition and a future take theirs in steps of Python, between which what a signal
    raises leaves it taken for good (CPython, bpo-29988), and then the work never ends.
    """

    def __init__(self, work: Callable[[], _Result]) -> None:
        self._work = work
        self._begun, self._under_way = threading.Lock(), threading.Lock()
        self._under_way.acquire()
        self._results: list[_Result] = []
        self.error: BaseException | None = None

    def do(self) -> bool:
        """Do it, unless another thread has begun to; whether this one did."""
        if not self._begun.acquire(blocking=False):
            return False
        try:
            self._results.append(self._work())
        except BaseException as error:
            self.error = error
        finally:
            self._under_way.release()
        return True

    def wait(self) -> None:
        """Wait for the end."""
        while not self._results and self.error is None:
            self._under_way.acquire()

    def result(self) -> _Result:
        """What the work returned.

        Raises:
            BaseException: What it raised.
        """
        if self.error is not None:
            raise self.error
        [result] = self._results
        return result


def to_its_end(work: Callable[[], _Result], name: str) -> _Result:
    """What a function returns, run in a thread, so that no signal ends it half-way.

    What a signal raises here meanwhile is raised when the work has ended, whose own error is logged then; a
    second one is raised at once.

    Args:
        work: What to do; its errors are raised here.
        name: The thread's.
    """
    errand = _Errand(work)
    try:
        start_for_caller(errand.do, name=name)
        errand.wait()
    except BaseException as error:
        # A thread that could not be started, or has not come so far, leaves it to this one.
        if errand.do() and isinstance(error, RuntimeError):
            return errand.result()
        errand.wait()
        if errand.error is not None:
            _log_failure(errand.error, name)
        raise
    return errand.result()


def _log_failure(failed: BaseException, name: str) -> None:
    logger.error("The thread %s failed: %s", name, failed, exc_info=failed)


def log_failure(outcome: Future[_Result], name: str) -> None:
    """Log the error of work that has ended, where another one is raised."""
    if not outcome.cancelled() and (failed := outcome.exception()) is not None:
        _log_failure(failed, name)


async def outcome_of(outcome: Future[_Result]) -> _Result:
    """What a thread returns, which goes on if this is cancelled."""
    awaited = asyncio.wrap_future(outcome)
    # Whoever is cancelled asks the thread again: asyncio is not to log its error.
    awaited.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(awaited)


async def its_end(work: Callable[[], None], name: str) -> None:
    """:func:`to_its_end` for asyncio: one that is cancelled waits for the end, and logs the work's error.

    Args:
        work: What to do; its errors are raised here.
        name: The thread's.
    """
    working = started(work, name)
    try:
        await outcome_of(working)
    except asyncio.CancelledError:
        with suppress(Exception):
            await outcome_of(working)
        log_failure(working, name)
        raise


@contextmanager
def unwinding_on_sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit in this block, so that it cleans up, unless something else handles it.

    Airflow and Dagster do: their handlers raise errors of their own. Blocks may overlap, as those of tasks of
    asyncio do; the last one to end puts back what was there.
    """
    global _unraisable, _unwinding
    handlers = (signal.SIG_DFL, _exit)
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) not in handlers
    ):
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    if _unwinding == 0 and sys.unraisablehook is not _asked_again:
        _unraisable, sys.unraisablehook = sys.unraisablehook, _asked_again
    _unwinding += 1
    try:
        yield
    finally:
        _unwinding -= 1
        if _unwinding == 0:
            if signal.getsignal(signal.SIGTERM) is _exit:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if sys.unraisablehook is _asked_again:
                sys.unraisablehook = _unraisable


def _exit(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _asked_again(dropped: sys.UnraisableHookArgs) -> None:
    """Have the signal come again whose exception Python has dropped, as it does in a finalizer."""
    lost = dropped.exc_value
    if not isinstance(lost, SystemExit) or lost.code != 128 + signal.SIGTERM:
        _unraisable(dropped)
        return
    # Not from here: the finalizer has not ended.
    main = threading.main_thread().ident or 0
    threading.Timer(_SOON, signal.pthread_kill, (main, signal.SIGTERM)).start()
