"""Connections of which nobody knows yet whom they belong to: so many at a time, and each for so long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable


class WaitingRoom:
    """Ends who waits too long, and in a full room who has waited longest.

    So neither many connections nor slow ones keep others out: who is quick has left before it is full.
    Belongs to one event loop.

    Args:
        seats: Connections at a time.
    """

    def __init__(self, seats: int) -> None:
        self._seats = seats
        self._guests: dict[Hashable, tuple[asyncio.TimerHandle, Callable[[], object]]] = {}

    def enter(self, guest: Hashable, end: Callable[[], object], *, patience: float) -> None:
        """Wait, or wait anew.

        Args:
            guest: Who.
            end: Called when it has waited too long.
            patience: Seconds until then.
        """
        self.leave(guest)
        while len(self._guests) >= self._seats:
            self._end(next(iter(self._guests)))
        timer = asyncio.get_running_loop().call_later(patience, self._end, guest)
        self._guests[guest] = timer, end

    def leave(self, guest: Hashable) -> None:
        """Wait no longer, whether it does or not."""
        timer, _ = self._guests.pop(guest, (None, None))
        if timer is not None:
            timer.cancel()

    def _end(self, guest: Hashable) -> None:
        timer, end = self._guests.pop(guest)
        timer.cancel()
        end()
