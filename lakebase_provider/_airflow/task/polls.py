"""What a poll looks for, and how long a session may sit idle for the next one."""

from __future__ import annotations

#: Seconds between polls from which each poll connects anew. A compute is suspended only after at least a
#: minute without sessions; more frequent polls keep it awake anyway.
SELDOM = 5.0


def keeps_session(poke_interval: float) -> bool:
    """Whether a poll's session is kept for the next one.

    Args:
        poke_interval: Seconds between the end of a poll and the next.
    """
    return poke_interval < SELDOM


def is_true(cell: object) -> bool:
    """Whether a query's cell is not null, zero, empty or the text ``0``, as documented for SqlSensor."""
    return bool(cell) and cell != "0"
