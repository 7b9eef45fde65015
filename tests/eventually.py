"""Waiting for another thread or process to get somewhere, on a machine that is busy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

#: Seconds by which a machine with other work to do may hold up anything. A bound in a test tells a wait
#: that ends from one that does not: what it waits for lasts far longer than this.
BUSY = 4.0


def eventually(condition: Callable[[], bool], *, within: float = 25.0, every: float = 0.01) -> None:
    """Return as soon as the condition holds, looked at every so many seconds; fail after `within` seconds."""
    pause, end = threading.Event(), time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, f"it did not happen within {within:g} seconds"
        pause.wait(every)
