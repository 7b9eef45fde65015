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
#: Seconds; this one is kept by those, too, who would give up before the other one ends.
_LEAST_PAUSE = 0.5
#: What part of its time such a borrower waits.
_LAST_CHANCE = 0.75
#: When the last one began, and when the next one is due, on the monotonic clock.
_began, _due = -_LEAST_PAUSE, 0.0


def seconds_until_due(timeout: float) -> float:
    """How long who may wait for `timeout` seconds does so before it looks."""
    return max(min(_due - time.monotonic(), _LAST_CHANCE * timeout), min(_GRACE, timeout / 2))


def find() -> None:
    """Let the finalizers of abandoned connections run, unless this was done a moment ago."""
    global _began, _due
    start = time.monotonic()
    if start < _began + _LEAST_PAUSE:
        return
    # First, so that neither a finalizer that borrows nor another thread begins a second one.
    _began = start
    gc.collect()
    end = time.monotonic()
    _due = end + _PAUSE * (end - start)
