"""Texts that Python's parsers and Postgres' input functions read alike, as Python values.

Python's own take more: digits of other scripts, fractions of an hour, weeks of a year, any character between
a date and a time, and numbers that become 0 or infinite for their size.
"""

from __future__ import annotations

import math
import re
from datetime import date, datetime, time
from decimal import Decimal
from uuid import UUID

from lakebase_provider.core.bulk.types.target_columns import BadValueError

#: What Postgres skips around a value.
_SPACE = " \t\n\r\v\f"
#: Postgres' words.
_TRUE = frozenset({"t", "true", "y", "yes", "on", "1"})
_FALSE = frozenset({"f", "false", "n", "no", "off", "0"})
_INTEGER = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]+)?", re.IGNORECASE)
_NO_NUMBER = re.compile(r"nan|[-+]?inf(?:inity)?", re.IGNORECASE)
_UUID = re.compile(r"(\{)?[0-9a-f]{4}(?:-?[0-9a-f]{4}){7}(?(1)\})", re.IGNORECASE)
_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8}"
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?P<fraction>\.[0-9]+)?)?"
_ZONE = r"(?P<zone>z|[-+](?:0[0-9]|1[0-5])(?::?[0-5][0-9](?::[0-5][0-9])?)?)?"
_DATE = re.compile(_DAY)
_TIME = re.compile(_CLOCK + _ZONE, re.IGNORECASE)
_MOMENT = re.compile(rf"(?:{_DAY})(?:[ t]{_CLOCK}{_ZONE})?", re.IGNORECASE)


def boolean(text: str) -> bool:
    """True or false; like all of these functions, ValueError for a text that is none."""
    word = text.strip(_SPACE).lower()
    if word not in _TRUE | _FALSE:
        raise ValueError
    return word in _TRUE


def integer(text: str) -> int:
    """Digits, with or without a sign."""
    return int(_matched(text, _INTEGER))


def numeric(text: str) -> Decimal:
    """A number as it stands, NaN or an infinity."""
    word = text.strip(_SPACE)
    return Decimal(word if _NO_NUMBER.fullmatch(word) else _matched(word, _NUMBER))


def double(text: str) -> float:
    """The nearest float, but 0 and the infinities only for texts that say so."""
    word = text.strip(_SPACE)
    if _NO_NUMBER.fullmatch(word):
        return float(word)
    number = float(_matched(word, _NUMBER))
    if math.isinf(number) or (not number and Decimal(word)):
        raise BadValueError("out of range for double precision", kind="str")
    return number


def uuid(text: str) -> UUID:
    """Sixteen bytes in hexadecimal digits, hyphens between groups of four, braces around all."""
    if _UUID.fullmatch(text) is None:
        raise ValueError
    return UUID(text)


def day(text: str) -> date:
    """A date in ISO 8601."""
    return date.fromisoformat(_hyphenated(_matched(text, _DATE)))


def clock(text: str) -> time:
    """A time of day in ISO 8601, with a zone or without."""
    return time.fromisoformat(_iso(text, _TIME))


def moment(text: str) -> datetime:
    """A date in ISO 8601, with a time and a zone or without."""
    return datetime.fromisoformat(_hyphenated(_iso(text, _MOMENT)))


#: The bounds before an array; then what stands between its braces and commas: in quotes, or as it is.
_BOUNDS = re.compile(r"\s*(\[[^\]]*\]\s*)+=")
_ELEMENT = re.compile(r'"((?:[^"\\]|\\.)*)"|((?:[^{},"\\]|\\.)+)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
#: A range or a record, of which quotes hold any part; what stands between its commas; and what quotes do.
_QUOTED = r'\\.|"(?:[^"\\]|\\.|"")*"'
_RANGE = re.compile(rf'[\[(](?:[^\])"\\]|{_QUOTED})*[\])]', re.DOTALL)
_BETWEEN = re.compile(rf'((?:[^,"\\]|{_QUOTED})*)(?:,|$)', re.DOTALL)
_QUOTES = re.compile(r'\\(.)|"(")?', re.DOTALL)


def elements(text: str) -> list[str]:
    """The elements of an array as Postgres writes it, of whatever dimensions, without NULLs.

    Args:
        text: The array; where it is none, the server says so.
    """
    bounds = _BOUNDS.match(text)
    found = []
    for match in _ELEMENT.finditer(text, bounds.end() if bounds else 0):
        quoted, plain = match.groups()
        if quoted is not None:
            found.append(_ESCAPED.sub(r"\1", quoted))
        elif (stripped := plain.strip()) and stripped.upper() != "NULL":
            found.append(_ESCAPED.sub(r"\1", stripped))
    return found


def ranges(text: str) -> list[str]:
    """The ranges of a multirange."""
    return [match.group() for match in _RANGE.finditer(text)]


def fields(text: str) -> list[str]:
    """The bounds of a range or the fields of a record, an empty text for what is missing."""
    body = text.strip(_SPACE)[1:-1]
    found = [_QUOTES.sub(lambda match: match[1] or match[2] or "", one[1]) for one in _BETWEEN.finditer(body)]
    # Behind what ends with the text there is a match of nothing; a comma at the end has a field behind it.
    return found if not body or body.endswith(",") else found[:-1]


def _matched(text: str, pattern: re.Pattern[str]) -> str:
    word = text.strip(_SPACE)
    if pattern.fullmatch(word) is None:
        raise ValueError
    return word


def _hyphenated(word: str) -> str:
    """A date as Python 3.10 reads it, too."""
    return word if word[4] == "-" else f"{word[:4]}-{word[4:6]}-{word[6:]}"


def _iso(text: str, pattern: re.Pattern[str]) -> str:
    """A time with the fraction and the zone that Python 3.10 reads, too."""
    found = pattern.fullmatch(text.strip(_SPACE))
    if found is None:
        raise ValueError
    word, fraction, zone = found.group(), found["fraction"] or "", found["zone"] or ""
    if fraction[7:].strip("0"):
        raise BadValueError("a fraction of a microsecond", kind="str")
    if zone:
        digits = zone[1:].replace(":", "") or "00"
        pairs = [digits[place : place + 2] for place in range(0, len(digits), 2)]
        sign = "-" if zone[0] == "-" else "+"
        word = word.removesuffix(zone) + sign + ":".join(pairs if len(pairs) > 1 else [*pairs, "00"])
    return word.replace(fraction, f"{fraction[:7]:0<7}") if fraction else word
