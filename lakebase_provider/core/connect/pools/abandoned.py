"""Connections that nobody holds any more, except a reference cycle that only the garbage collector sees.

An error that was kept in a local variable refers to its traceback, that to the frame, and that to the error
and to whatever else the frame had, such as a borrowed connection. Python breaks such a cycle once enough
other objects have been made, which may be long after everybody waits.
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
#: Seconds past its deadline that a borrower may be kept.
_TOLERATED = 0.4
#: Seconds that a collection takes for each object, at first and at least, and in this process.
_PER_OBJECT = 1e-6
_per_object = _PER_OBJECT
#: When the last one began, and when the next one is due, on the monotonic clock.
_began, _due = -_LEAST_PAUSE, 0.0


def seconds_until_due(timeout: float) -> float:
    """How long a borrower that may wait for `timeout` seconds does so before it looks."""
    return max(min(_due - time.monotonic(), _LAST_CHANCE * timeout), min(_GRACE, timeout / 2))


def find(left: float) -> None:
    """Let the finalizers of abandoned connections run, unless this was done a moment ago.

    In a process of millions of objects a collection takes seconds. It is skipped if it would delay the
    borrower too long.

    Args:
        left: Seconds that the borrower may still wait.
    """
    global _began, _due, _per_object
    start = time.monotonic()
    if start < _began + _LEAST_PAUSE:
        return
    # A list of them takes a tenth of the time that their collection does.
    objects = len(gc.get_objects())
    if objects * _per_object > left + _TOLERATED:
        return
    # First, so that neither a finalizer that borrows nor another thread begins a second one.
    _began = start
    gc.collect()
    end = time.monotonic()
    _per_object = max(_PER_OBJECT, (end - start) / objects)
    # A borrower looks once, and so not before a collection may begin again.
    _due = max(end + _PAUSE * (end - start), start + _LEAST_PAUSE)
