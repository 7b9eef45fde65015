"""Clocks on which nobody waits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timezone


class Hurried:
    """The machine's clock, on which nobody sleeps."""

    def wall(self) -> float:
        return datetime.now(timezone.utc).timestamp()

    def elapsed(self) -> float:
        return self.wall()

    def sleep(self, seconds: float) -> None:
        threading.Event().wait(min(seconds, 0.01))


class Meanwhile(Hurried):
    """A clock whose first pause somebody else uses."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work: Callable[[], object] | None = work

    def sleep(self, seconds: float) -> None:
        work, self._work = self._work, None
        if work is not None:
            work()
