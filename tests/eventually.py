"""Waiting for another thread or process to get somewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable


def eventually(condition: Callable[[], bool]) -> None:
    """Return as soon as the condition holds; fail after ten seconds."""
    pause = threading.Event()
    for _ in range(1000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen within ten seconds")
