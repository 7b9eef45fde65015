"""What a poll is after, and how long a session may lie idle for the sake of the next one."""

from __future__ import annotations

#: Seconds between two polls from which on each poll connects anew. A compute that is to be suspended must see
#: no session for a minute at least; polls that follow each other faster than this keep it awake anyway.
SELDOM = 5.0


def keeps_session(poke_interval: float) -> bool:
    """Whether the session of a poll is kept for the next one.

    Args:
        poke_interval: Seconds between the end of a poll and the next.
    """
    return poke_interval < SELDOM


def is_true(cell: object) -> bool:
    """Whether a query's cell is neither null, zero, empty nor the text ``0``, as SqlSensor documents it."""
    return bool(cell) and cell != "0"
