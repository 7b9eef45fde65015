"""Time as an argument: policy, backoff and deadlines read it, so that tests can set the clock."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Protocol

from lakebase_provider.core.base.threads import pause

# Unlike Linux's CLOCK_MONOTONIC, CLOCK_BOOTTIME goes on while the machine is suspended: a token that
# expired during a laptop's sleep must not look alive after it.
_SUSPEND_AWARE = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """Where the time comes from."""

    def wall(self) -> float:
        """Seconds since the epoch; may jump when the clock is set."""

    def elapsed(self) -> float:
        """Seconds since some fixed moment; never jumps, and counts a suspended machine's time."""

    def sleep(self, seconds: float) -> None:
        """Let that many seconds pass."""


class SystemClock:
    """The machine's clocks."""

    def wall(self) -> float:
        """As :meth:`Clock.wall`."""
        return time.time()

    def elapsed(self) -> float:
        """As :meth:`Clock.elapsed`."""
        return time.clock_gettime(_SUSPEND_AWARE)

    def sleep(self, seconds: float) -> None:
        """As :meth:`Clock.sleep`; ends if the thread's caller goes."""
        pause(seconds)


SYSTEM_CLOCK = SystemClock()


class Deadline:
    """A moment after which the caller no longer waits.

    Args:
        seconds: How long from now.
        clock: Where the time comes from.
    """

    __slots__ = ("_clock", "_end", "seconds")

    def __init__(self, seconds: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self.seconds = seconds
        self._clock = clock
        self._end = clock.elapsed() + seconds

    def now(self) -> float:
        """The current moment, by the clock's elapsed time."""
        return self._clock.elapsed()

    def remaining(self) -> float:
        """Seconds left, 0 when it has passed."""
        return max(0.0, self._end - self._clock.elapsed())


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with jitter (AWS Architecture Blog, "Exponential Backoff And Jitter").

    Attributes:
        first: Upper bound of the first wait, in seconds.
        most: Upper bound of any wait, in seconds.
        floor: Lower bound of any wait, in seconds, so that a small random value does not hammer the server.
            Waits are spread evenly above it.
    """

    first: float
    most: float
    floor: float = 0.0

    def seconds(self, attempt: int, rng: random.Random) -> float:
        """Seconds to wait after failed attempt number `attempt`, counted from 0."""
        bound = min(self.most, self.first * 2.0 ** min(attempt, 30))
        return rng.uniform(self.floor, max(self.floor, bound))
