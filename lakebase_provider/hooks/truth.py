"""What a sensor takes for true, whoever polls."""

from __future__ import annotations


def is_true(cell: object) -> bool:
    """Whether a query's cell is neither null, zero, empty nor the text ``0``, as SqlSensor documents it."""
    return bool(cell) and cell != "0"
