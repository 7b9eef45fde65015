"""A task that is asked to end: its statements end with it, whichever operator it is."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from lakebase_provider.core.connect.cancel import (
    cancel_running_statements,
    forget_request_to_end,
    refuse_next_statement,
)


class _CancelStatements:
    """A handler of SIGTERM that goes before another."""

    def __init__(self, then: Callable[[int, FrameType | None], Any]) -> None:
        self._then = then
        self._pid = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        try:
            if os.getpid() == self._pid:
                # First, lest one begins while others are cancelled.
                refuse_next_statement()
                cancel_running_statements()
        finally:
            self._then(number, frame)


def cancel_statements_on_sigterm() -> None:
    """Let SIGTERM cancel this task's statements on the server before it does what it did so far.

    Airflow answers the signal by the operator's ``on_kill`` alone, and goes on waiting for the statement; a
    ``@task`` function has none. A signal that comes between two statements ends the later one. Nothing is
    done outside of a task, nor where nobody handles the signal: then it ends the process, and with it the
    connection, whose end the server notices within a second.
    """
    if "AIRFLOW_CTX_TASK_ID" not in os.environ or threading.current_thread() is not threading.main_thread():
        return
    handler = signal.getsignal(signal.SIGTERM)
    if callable(handler) and not isinstance(handler, _CancelStatements):
        # Airflow sets its handler for each task, so this is one that nobody has asked to end yet.
        forget_request_to_end()
        signal.signal(signal.SIGTERM, _CancelStatements(handler))
