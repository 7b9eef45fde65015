"""How long to wait before trying again."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with jitter (AWS Architecture Blog, "Exponential Backoff And Jitter").

    Attributes:
        first: Upper bound of the first wait, in seconds.
        most: Upper bound of any wait, in seconds.
        floor: Lower bound of any wait, in seconds, so that a lucky draw does not hammer. Waits are spread
            evenly above it.
    """

    first: float
    most: float
    floor: float = 0.0

    def seconds(self, attempt: int, rng: random.Random) -> float:
        """Seconds to wait after failed attempt number `attempt`, counted from 0."""
        bound = min(self.most, self.first * 2.0 ** min(attempt, 30))
        return rng.uniform(self.floor, max(self.floor, bound))
