"""Months, weeks and days as the bounds and names of partitions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

#: How much time a partition holds; a week begins on Monday.
Every = Literal["month", "week", "day"]


@dataclass(frozen=True, order=True)
class Period:
    """Time from `start` to before `end`, both in UTC and without a zone."""

    start: datetime
    end: datetime

    @classmethod
    def of(cls, every: Every, moment: datetime) -> Period:
        """The period in which a moment is.

        Args:
            every: How much time a period is.
            moment: In UTC, without a zone.
        """
        day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        if every == "month":
            first = day.replace(day=1)
            return cls(first, (first + timedelta(days=31)).replace(day=1))
        if every == "week":
            monday = day - timedelta(days=day.weekday())
            return cls(monday, monday + timedelta(days=7))
        return cls(day, day + timedelta(days=1))

    def later(self, every: Every, count: int) -> Iterator[Period]:
        """This period and so many later ones, in order."""
        period = self
        yield period
        for _ in range(count):
            period = Period.of(every, period.end)
            yield period

    def earlier(self, every: Every, count: int) -> Period:
        """The period that is so many earlier."""
        period = self
        for _ in range(count):
            period = Period.of(every, period.start - timedelta(days=1))
        return period

    def suffix(self, every: Every) -> str:
        """What the name of a partition with this period ends in, such as ``_p2027_01``."""
        if every == "week":
            year, week, _ = self.start.isocalendar()
            return f"_p{year:04}w{week:02}"
        return self.start.strftime("_p%Y_%m" if every == "month" else "_p%Y_%m_%d")

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d} to {self.end:%Y-%m-%d}"
