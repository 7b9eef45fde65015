"""Dates, times and intervals of binary COPY data as psycopg's Python values.

What Python's types cannot hold, psycopg refuses when it reads the server's text, or reads in a way of its
own. Such rare values become that text here, and psycopg's loader has the last word.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from lakebase_provider.core.bulk.fields import Fields
from lakebase_provider.core.bulk.row_values import Load, Reader, require_width

_DAY = 86_400_000_000
#: 2000-01-01, from which Postgres counts: since 1970, and as Python counts days.
_EPOCH_DAYS = 10_957
_EPOCH_ORDINAL = dt.date(2000, 1, 1).toordinal()
_FIRST_DAY = dt.date.min.toordinal() - _EPOCH_ORDINAL
_LAST_DAY = dt.date.max.toordinal() - _EPOCH_ORDINAL
#: After this many days the Gregorian calendar, weekdays included, begins anew.
_CYCLE_DAYS, _CYCLE_YEARS = 146_097, 400
_INFINITE = {2**31 - 1: b"infinity", -(2**31): b"-infinity", 2**63 - 1: b"infinity", -(2**63): b"-infinity"}


def dates(load: Load) -> Reader:
    """Reads date."""

    def read(fields: Fields, raw: bytes) -> list[Any]:
        import numpy as np

        require_width(fields, 4)
        days = fields.read(">i4").astype(np.int64)
        odd = _outside(days, _FIRST_DAY, _LAST_DAY)
        found = (np.where(odd, 0, days) + _EPOCH_DAYS).view("M8[D]").tolist()
        return _with_odd(found, odd, lambda index: load(date_text(int(days[index]))))

    return read


def times(load: Load) -> Reader:
    """Reads time."""

    def read(fields: Fields, raw: bytes) -> list[Any]:
        import numpy as np

        require_width(fields, 8)
        ticks = fields.read(">i8")
        odd = _outside(ticks, 0, _DAY - 1)
        seconds, micros = np.divmod(np.where(odd, 0, ticks), 1_000_000)
        minutes, seconds = np.divmod(seconds, 60)
        hours, minutes = np.divmod(minutes, 60)
        found = list(map(dt.time, *(part.tolist() for part in (hours, minutes, seconds, micros))))
        return _with_odd(found, odd, lambda index: load(_clock(int(ticks[index])).encode()))

    return read


def timestamps(load: Load) -> Reader:
    """Reads timestamp."""

    def read(fields: Fields, raw: bytes) -> list[Any]:
        import numpy as np

        require_width(fields, 8)
        ticks = fields.read(">i8")
        odd = _outside(ticks, _FIRST_DAY * _DAY, (_LAST_DAY + 1) * _DAY - 1)
        found = (np.where(odd, 0, ticks) + _EPOCH_DAYS * _DAY).view("M8[us]").tolist()
        return _with_odd(found, odd, lambda index: load(timestamp_text(int(ticks[index]))))

    return read


def zoned_timestamps(load: Load, zone: dt.tzinfo) -> Reader:
    """Reads timestamptz as time in that zone."""
    epoch = dt.datetime(2000, 1, 1, tzinfo=zone)

    def read(fields: Fields, raw: bytes) -> list[Any]:
        import numpy as np

        require_width(fields, 8)
        ticks = fields.read(">i8")
        # A day from either end no zone's offset leads out of what datetime holds.
        odd = _outside(ticks, (_FIRST_DAY + 1) * _DAY, _LAST_DAY * _DAY - 1)
        # As astimezone() does it: the time in UTC, of which the zone makes its own.
        found = map(epoch.__add__, np.where(odd, 0, ticks).view("m8[us]").tolist())
        local = list(found) if zone is dt.timezone.utc else list(map(zone.fromutc, found))
        return _with_odd(local, odd, lambda index: load(timestamp_text(int(ticks[index]), zone)))

    return read


def intervals(load: Load) -> Reader:
    """Reads interval: a year has 365 days and a month 30, as psycopg counts."""

    def read(fields: Fields, raw: bytes) -> list[Any]:
        import numpy as np

        require_width(fields, 16)
        ticks = fields.read(">i8")
        days, months = (fields.read(">i4", offset).astype(np.int64) for offset in (8, 12))
        sign = np.sign(months)
        years, rest = np.divmod(np.abs(months), 12)
        total = days + sign * (365 * years + 30 * rest)
        # 64 bits hold 10**8 days in microseconds.
        odd = _outside(total, -(10**7), 10**7) | _outside(ticks, -(10**7) * _DAY, 10**7 * _DAY)
        found = np.where(odd, 0, total * _DAY + ticks).view("m8[us]").tolist()
        return _with_odd(
            found, odd, lambda at: load(interval_text(int(ticks[at]), int(days[at]), int(months[at])))
        )

    return read


def _outside(numbers: Any, first: int, last: int) -> Any:
    return (numbers < first) | (numbers > last)


def _with_odd(values: list[Any], odd: Any, read_one: Callable[[int], Any]) -> list[Any]:
    """The values, with those that are marked read one by one."""
    if odd.any():
        for index in odd.nonzero()[0].tolist():
            values[index] = read_one(index)
    return values


def date_text(days: int) -> bytes:
    """What Postgres writes, in ISO style, for a date that many days after 2000-01-01."""
    if days in (2**31 - 1, -(2**31)):
        return _INFINITE[days]
    day, era = _day(days)
    return (day + era).encode()


def timestamp_text(ticks: int, zone: dt.tzinfo | None = None) -> bytes:
    """What Postgres writes, in ISO style, for a time that many microseconds after 2000-01-01.

    Args:
        ticks: The microseconds.
        zone: For a timestamptz, the session's time zone.
    """
    if ticks in (2**63 - 1, -(2**63)):
        return _INFINITE[ticks]
    offset = ""
    if zone is not None:
        seconds = _offset(ticks, zone)
        ticks += seconds * 1_000_000
        minutes, second = divmod(abs(seconds), 60)
        hour, minute = divmod(minutes, 60)
        offset = f"{'-' if seconds < 0 else '+'}{hour:02}"
        offset += f":{minute:02}:{second:02}" if second else f":{minute:02}" if minute else ""
    days, rest = divmod(ticks, _DAY)
    day, era = _day(days)
    return f"{day} {_clock(rest)}{offset}{era}".encode()


def interval_text(ticks: int, days: int, months: int) -> bytes:
    """What Postgres writes, in its own style, for an interval.

    Args:
        ticks: Its microseconds.
        days: Its days.
        months: Its months.
    """
    if (ticks, days, months) in ((2**63 - 1, 2**31 - 1, 2**31 - 1), (-(2**63), -(2**31), -(2**31))):
        return _INFINITE[ticks]
    years, rest = divmod(abs(months), 12)
    sign = -1 if months < 0 else 1
    parts: list[str] = []
    negative = False
    for number, unit in ((sign * years, "year"), (sign * rest, "mon"), (days, "day")):
        if number:
            plus = "+" if negative and number > 0 else ""
            parts.append(f"{plus}{number} {unit}{'' if number == 1 else 's'}")
            negative = number < 0
    if ticks or not parts:
        parts.append(("-" if ticks < 0 else "+" if negative else "") + _clock(abs(ticks)))
    return " ".join(parts).encode()


def _day(days: int) -> tuple[str, str]:
    """A date's year, month and day, and what follows them in years before Christ."""
    cycles, rest = divmod(days + _EPOCH_ORDINAL - 1, _CYCLE_DAYS)
    found = dt.date.fromordinal(rest + 1)
    year = found.year + _CYCLE_YEARS * cycles
    era = "" if year > 0 else " BC"
    return f"{year if year > 0 else 1 - year:04}-{found.month:02}-{found.day:02}", era


def _clock(ticks: int) -> str:
    seconds, micros = divmod(ticks, 1_000_000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    fraction = f".{micros:06}".rstrip("0") if micros else ""
    return f"{hour:02}:{minute:02}:{second:02}{fraction}"


def _offset(ticks: int, zone: dt.tzinfo) -> int:
    """Seconds that the zone is ahead of UTC at a time that datetime does not hold, or hardly."""
    days, rest = divmod(ticks, _DAY)
    if days < _FIRST_DAY + 1:
        days = _FIRST_DAY + 1
    elif days > _LAST_DAY - 1:
        days -= -(-(days - _LAST_DAY + 1) // _CYCLE_DAYS) * _CYCLE_DAYS
    utc = dt.datetime(2000, 1, 1, tzinfo=zone) + dt.timedelta(days, microseconds=rest)
    offset = zone.fromutc(utc).utcoffset()
    return 0 if offset is None else int(offset.total_seconds())
