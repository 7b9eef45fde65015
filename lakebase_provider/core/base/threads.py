"""Threads that work for a caller, in a copy of its context: its log lines and spans are of its task."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")


def in_this_context(work: Callable[..., _Result]) -> Callable[..., _Result]:
    """The same, run in a copy of the present context wherever it is called; once at a time.

    Airflow, Dagster and structlog keep in context variables which task a line of a log is of.
    """
    context = contextvars.copy_context()

    def run(*arguments: object) -> _Result:
        return context.run(work, *arguments)

    return run


def start_for_caller(work: Callable[..., object], *arguments: object, name: str) -> threading.Thread:
    """Start a daemon thread that works for the caller, in a copy of its context.

    Raises:
        RuntimeError: The interpreter is ending, or the machine has no thread left.
    """
    thread = threading.Thread(target=in_this_context(work), args=arguments, name=name, daemon=True)
    thread.start()
    return thread
