"""When a task is asked to end, its statements end too, whatever its operator."""

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
    """A SIGTERM handler that runs before another one."""

    def __init__(self, then: Callable[[int, FrameType | None], Any]) -> None:
        self._then = then
        self._pid = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        try:
            if os.getpid() == self._pid:
                # First, so that none begins while others are being cancelled.
                refuse_next_statement()
                cancel_running_statements()
        finally:
            self._then(number, frame)


def cancel_statements_on_sigterm() -> None:
    """Make SIGTERM cancel this task's statements on the server before its previous handler runs.

    Airflow only calls the operator's ``on_kill`` on the signal, and keeps waiting for the statement; a
    ``@task`` function has none. A signal between two statements ends the later one. Nothing is done if
    nothing handles the signal: then it ends the process and its connection, which the server notices within a
    second.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    handler = signal.getsignal(signal.SIGTERM)
    if callable(handler) and not isinstance(handler, _CancelStatements):
        # Airflow sets its handler for each task, so this task has not been asked to end yet.
        forget_request_to_end()
        signal.signal(signal.SIGTERM, _CancelStatements(handler))
