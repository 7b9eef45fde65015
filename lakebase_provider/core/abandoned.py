"""Connections that nobody holds any more, but for a cycle of references that only the collector sees.

An error that was kept in a local variable refers to its traceback, that to the frame, and that to the error
and to whatever else the frame had, such as a borrowed connection. Python ends such a cycle when enough other
objects have been made, which may be long after everybody waits.
"""

from __future__ import annotations

import gc
import time

#: Seconds that a borrower waits before it looks: longer than most loans take, for a busy pool is no reason.
_GRACE = 0.05
#: After a collection comes a pause of so many times its duration, for it stops all threads of the process.
_PAUSE = 20
#: Should a collection be under way.
_AT_MOST = 1.0
#: When the next one is due, on the monotonic clock.
_due = 0.0


def seconds_until_due(timeout: float) -> float:
    """How long who may wait for `timeout` seconds does so before it looks."""
    return max(_due - time.monotonic(), min(_GRACE, timeout / 2))


def find() -> None:
    """Let the finalizers of abandoned connections run, unless this was done a moment ago."""
    global _due
    start = time.monotonic()
    if start < _due:
        return
    # A finalizer that borrows, or another thread, does not begin a second one.
    _due = start + _AT_MOST
    gc.collect()
    end = time.monotonic()
    _due = end + _PAUSE * (end - start)
