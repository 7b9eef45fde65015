"""Threads that work for a caller: in a copy of its context, so that log lines and spans belong to its task.

A thread that works for a task of asyncio stops waiting when that task is cancelled.
"""

from __future__ import annotations

import contextvars
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

_Result = TypeVar("_Result")

#: Seconds after which a wait that cannot be interrupted looks whether its caller has gone.
_GLANCE = 0.1
_current = threading.local()


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


def to_its_end(work: Callable[[], _Result], name: str) -> _Result:
    """What a function returns, run in a thread, so that no signal ends it half-way.

    What a signal raises here meanwhile is raised when the work has ended; a second one is raised at once.

    Args:
        work: What to do; its errors are raised here.
        name: The thread's.
    """
    outcome: Future[_Result] = Future()

    def run() -> None:
        if not outcome.set_running_or_notify_cancel():
            return
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    try:
        start_for_caller(run, name=name)
        # Not by join(): once a signal has interrupted that, the thread counts as ended (CPython, bpo-45274).
        wait([outcome])
    except BaseException as error:
        if not outcome.cancel():
            wait([outcome])
            raise
        # It has not begun.
        result = work()
        if isinstance(error, RuntimeError):
            # There is no thread for it.
            return result
        raise
    return outcome.result()


@contextmanager
def unwinding_on_sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit in this block, so that it cleans up, unless something else handles it.

    Airflow and Dagster do: their handlers raise errors of their own.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is _exit:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
