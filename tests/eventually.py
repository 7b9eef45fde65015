"""Waiting for another thread or process to get somewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def eventually(condition: Callable[[], bool], *, within: float = 25.0, every: float = 0.01) -> None:
    """Return as soon as the condition holds, looked at every so many seconds; fail after `within` seconds."""
    pause, end = threading.Event(), time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, f"it did not happen within {within:g} seconds"
        pause.wait(every)
