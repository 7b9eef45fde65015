"""How long to wait before trying again."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter").

    Attributes:
        first: Upper bound of the first wait, in seconds.
        most: Upper bound of any wait, in seconds.
        floor: Lower bound of any wait, in seconds, so that a lucky draw does not hammer.
    """

    first: float
    most: float
    floor: float = 0.0

    def seconds(self, attempt: int, rng: random.Random) -> float:
        """Seconds to wait after failed attempt number `attempt`, counted from 0."""
        bound = min(self.most, self.first * 2.0 ** min(attempt, 30))
        return max(self.floor, rng.uniform(0, bound))
