"""Intervals: what a text of one says, and those of months, which psycopg would count as 30 days."""

from __future__ import annotations

import re
from datetime import timedelta
from fractions import Fraction
from typing import NamedTuple

from psycopg.adapt import Buffer
from psycopg.types.datetime import IntervalLoader

from lakebase_provider.core.errors import LoadError

#: What is wrong with such an interval.
NO_FIXED_LENGTH = "an interval with months or years, which have no fixed length"


def has_months(text: bytes) -> bool:
    """Whether an interval, as Postgres writes it by default, holds months or years."""
    return b"mon" in text or b"year" in text


class Span(NamedTuple):
    """An interval's three numbers, which Postgres keeps apart; exact, so perhaps of no interval."""

    months: Fraction
    days: Fraction
    microseconds: Fraction

    def fits(self, field: str, fraction: int) -> bool:
        """Whether a type keeps all of it.

        Args:
            field: The smallest field of the type (:data:`FIELDS`).
            fraction: Digits of a second that the type keeps.
        """
        unit = {"second": 10 ** (6 - fraction), "minute": _SECOND * 60, "hour": _SECOND * 3600}.get(field, 0)
        kept = not self.microseconds % unit if unit else not self.microseconds
        whole = self.months.denominator == self.days.denominator == 1
        if field in ("year", "month"):
            kept = kept and not self.days and not self.months % (12 if field == "year" else 1)
        return kept and whole


#: An interval's fields as its type can be restricted to them, and their bits in the type's modifier.
FIELDS = {"second": 12, "minute": 11, "hour": 10, "day": 3, "month": 1, "year": 2}
_SECOND = 1_000_000
_DAY = 86_400 * _SECOND
#: Months, days and microseconds of a unit by the beginnings of its names, of which none is another's.
_UNITS: dict[str, tuple[int, int, int]] = {
    r"us|usecs?|useconds?|microsec\w*": (0, 0, 1),
    r"ms|msecs?|mseconds?|millisec\w*": (0, 0, 1_000),
    r"s|secs?|seconds?": (0, 0, _SECOND),
    r"m|mins?|minutes?": (0, 0, 60 * _SECOND),
    r"h|hrs?|hours?": (0, 0, 3_600 * _SECOND),
    r"d|days?": (0, 1, 0),
    r"w|weeks?": (0, 7, 0),
    r"mons?|months?": (1, 0, 0),
    r"y|yrs?|years?": (12, 0, 0),
    r"dec|decs|decades?": (120, 0, 0),
    r"c|cent|century|centuries": (1_200, 0, 0),
    r"mil|mils|millenni\w*": (12_000, 0, 0),
}
_NUMBER = r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
_TERM = re.compile(
    rf"""\s*(?:(?P<clock>[-+]?[0-9]+(?::[0-9]+){{1,2}}(?:\.[0-9]*)?)(?![0-9:])
    | (?P<years>[-+]?[0-9]+)-(?P<months>[0-9]+)(?![0-9-])
    | (?P<number>{_NUMBER})\s*(?P<unit>[a-z]+)?
    | @ | ago\b)\s*""",
    re.VERBOSE,
)
_ISO_TERM = re.compile(rf"({_NUMBER})([ymwd])")
_ISO = re.compile(rf"p((?:{_NUMBER}[ymwd])*)(?:t((?:{_NUMBER}[hms])*))?")


def span(text: str, field: str) -> Span:
    """What a text says, by the forms that Postgres writes and most of those that it reads.

    Args:
        text: The text, of the styles ``postgres``, ``postgres_verbose``, ``sql_standard`` or ``iso_8601``.
        field: What a number without a unit counts: the smallest field of the type.

    Raises:
        ValueError: It is of none of these forms.
    """
    words = text.strip().lower()
    found = Span(Fraction(0), Fraction(0), Fraction(0))
    if words.lstrip("-+") in ("infinity", "inf"):
        return found
    iso = _ISO.fullmatch(words)
    if iso is not None:
        terms = [(number, "mon" if unit == "m" else unit) for number, unit in _ISO_TERM.findall(iso[1])]
        terms += re.findall(rf"({_NUMBER})([hms])", iso[2] or "")
    else:
        terms = _terms(words, field)
    for number, unit in terms:
        found = _plus(found, Fraction(number), unit)
    return found


def _terms(words: str, field: str) -> list[tuple[str, str]]:
    """Numbers with their units."""
    found: list[tuple[str, str]] = []
    place = 0
    while place < len(words):
        match = _TERM.match(words, place)
        if match is None:
            raise ValueError
        place = match.end()
        if match["clock"]:
            if found and not found[-1][1]:
                found[-1] = (found[-1][0], "d")  # of "1 12:00" the day
            found += _clock(match["clock"])
        elif match["years"]:
            sign = "-" if match["years"].startswith("-") else ""
            found += [(match["years"], "y"), (sign + match["months"], "mon")]
        elif match["number"]:
            found.append((match["number"], match["unit"] or ""))
    if not found:
        raise ValueError
    return [(number, unit or field) for number, unit in found]


def _clock(clock: str) -> list[tuple[str, str]]:
    sign = "-" if clock.startswith("-") else ""
    numbers = clock.lstrip("-+").split(":")
    # Of two numbers with a fraction the first are minutes.
    units = "hms"[-len(numbers) :] if "." in clock else "hms"
    return [(sign + number, unit) for number, unit in zip(numbers, units, strict=False)]


def _plus(found: Span, number: Fraction, unit: str) -> Span:
    """The span with so many of a unit: fractions of months are days, those of days a time."""
    counts = next((counts for names, counts in _UNITS.items() if re.fullmatch(names, unit)), None)
    if counts is None:
        raise ValueError
    months, days, microseconds = (number * count for count in counts)
    if unit.startswith("mon"):
        days, months = (months - int(months)) * 30, Fraction(int(months))
    microseconds, days = microseconds + (days - int(days)) * _DAY, Fraction(int(days))
    return Span(found.months + months, found.days + days, found.microseconds + microseconds)


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
