"""Intervals of months and years, which psycopg would count as 30 and 365 days."""

from __future__ import annotations

from datetime import timedelta

from psycopg.adapt import Buffer
from psycopg.types.datetime import IntervalLoader

from lakebase_provider.core.errors import LoadError

#: What is wrong with such an interval.
NO_FIXED_LENGTH = "an interval with months or years, which have no fixed length"


def has_months(text: bytes) -> bool:
    """Whether an interval, as Postgres writes it by default, holds months or years."""
    return b"mon" in text or b"year" in text


class ExactIntervalLoader(IntervalLoader):
    """psycopg's, but for months and years, which it refuses."""

    def load(self, data: Buffer) -> timedelta:
        """The interval, of days and what is less.

        Raises:
            LoadError: It has months or years.
        """
        if has_months(bytes(data)):
            raise LoadError(
                f"A column holds {NO_FIXED_LENGTH}.", remedy="Cast the column to text in the query."
            )
        return super().load(data)
