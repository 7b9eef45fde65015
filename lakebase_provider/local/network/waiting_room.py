"""Connections that have not authenticated yet: a limited number, each for a limited time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable


class WaitingRoom:
    """Ends a connection that waits too long, and if the room is full the one that has waited longest.

    So neither many connections nor slow ones keep others out: quick ones have left before it is full. Belongs
    to one event loop.

    Args:
        seats: Connections at a time.
    """

    def __init__(self, seats: int) -> None:
        self._seats = seats
        self._guests: dict[Hashable, tuple[asyncio.TimerHandle, Callable[[], object]]] = {}

    def enter(self, guest: Hashable, end: Callable[[], object], *, patience: float) -> None:
        """Start waiting, or restart the wait.

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
        """Stop waiting, if it is waiting."""
        timer, _ = self._guests.pop(guest, (None, None))
        if timer is not None:
            timer.cancel()

    def _end(self, guest: Hashable) -> None:
        timer, end = self._guests.pop(guest)
        timer.cancel()
        end()
