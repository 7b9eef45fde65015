"""Threads that work for a caller in a copy of its context, so that log lines and spans belong to its task."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")


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
