"""Deadlines that are kept in real time, as a test sees them on a machine that has other work, too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

#: Seconds that a busy machine may add to anything. A deadline that nobody heeds costs tens of seconds.
BUSY = 3.0


@dataclass
class Stopwatch:
    seconds: float = 0.0


@contextmanager
def timed(at_most: float) -> Iterator[Stopwatch]:
    """Fail if the block takes longer, whether or not it raises what the test expects inside of it.

    Args:
        at_most: Seconds on a machine that has nothing else to do.
    """
    watch, began = Stopwatch(), time.monotonic()
    yield watch
    watch.seconds = time.monotonic() - began
    assert watch.seconds <= at_most + BUSY, (
        f"took {watch.seconds:.2f} s, {at_most:g} s are allowed, and {BUSY:g} s more on a busy machine"
    )
