"""Python values for a column: the same value in the type that the column's encoder knows, or an error.

Nothing is changed to make it fit: a float that is a whole number may go to an integer, a float with a
fraction may not; a numeric is never rounded; a time zone is never dropped.
"""

from __future__ import annotations

import json
import math
import operator
import re
import struct
from collections.abc import Callable
from datetime import date, datetime, time, timezone
from decimal import Decimal, InvalidOperation
from numbers import Integral, Number
from typing import Any
from uuid import UUID

from psycopg.types.json import Json, Jsonb

from lakebase_provider.core.bulk import json_text
from lakebase_provider.core.bulk.target import INTEGERS, JSONS, TEXTS, BadValueError, Target

_UTC = timezone.utc
#: OIDs of types of extensions and users begin here.
_FIRST_OID_OF_USERS = 16_384
#: OIDs of types, and of arrays of them, that take numbers by a cast: money; oid and regclass.
_MONEY = frozenset({790, 791})
_OIDS = frozenset({26, 1028, 2205, 2210, *_MONEY})
_TIMETZ = frozenset({1266, 1270})
#: "char", xml, tsvector, tsquery and jsonpath read nearly any text, and nothing is cast to them.
_TEXT_ALONE = frozenset({18, 142, 3614, 3615, 4072})
#: Postgres' words.
_TRUE = frozenset({"t", "true", "y", "yes", "on", "1"})
_FALSE = frozenset({"f", "false", "n", "no", "off", "0"})
#: Texts that Python's parsers and Postgres' input functions read alike. Python's own take more: digits of
#: other scripts, fractions of an hour, weeks of a year, and (in dates) any character for a separator.
_SPACE = " \t\n\r\v\f"
_INTEGER = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]+)?", re.IGNORECASE)
_NO_NUMBER = re.compile(r"nan|[-+]?inf(?:inity)?", re.IGNORECASE)
_UUID = re.compile(r"(\{)?[0-9a-f]{4}(?:-?[0-9a-f]{4}){7}(?(1)\})", re.IGNORECASE)
_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8}"
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?P<fraction>\.[0-9]+)?)?"
_ZONE = r"(?:z|[-+](?:0[0-9]|1[0-5])(?::?[0-5][0-9](?::[0-5][0-9])?)?)?"
_DATE = re.compile(_DAY)
_TIME = re.compile(_CLOCK + _ZONE, re.IGNORECASE)
_MOMENT = re.compile(rf"(?:{_DAY})(?:[ t]{_CLOCK}{_ZONE})?", re.IGNORECASE)
_NUL = "text with a NUL character, which Postgres cannot store"
_NO_NULL_JSON = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def check(value: Any, target: Target) -> Any:
    """The value as the encoder of the target's kind takes it.

    Args:
        value: Any Python value but None.
        target: The column.

    Raises:
        BadValueError: The column cannot hold it unchanged.
    """
    try:
        return _CHECKS[target.kind](value, target)
    except BadValueError:
        raise
    except (TypeError, ValueError, OverflowError, InvalidOperation, RecursionError):
        raise _mismatch(value, target) from None


def _mismatch(value: Any, target: Target) -> BadValueError:
    return bad(value, f"no {target.type_name}")


def bad(value: Any, reason: str) -> BadValueError:
    """The error of a value: its type's name, and what is wrong with it."""
    return BadValueError(reason, kind=type(value).__name__)


def _bool(value: Any, target: Target) -> bool:
    if isinstance(value, bool):
        return value
    if type(value).__name__ in ("bool_", "bool"):  # numpy's
        return bool(value)
    if isinstance(value, str) and (word := value.strip(_SPACE).lower()) in _TRUE | _FALSE:
        return word in _TRUE
    raise _mismatch(value, target)


def _integer(value: Any, target: Target) -> int:
    if isinstance(value, bool):
        raise _mismatch(value, target)
    if isinstance(value, str):
        number = int(_read(value, _INTEGER))
    elif isinstance(value, (float, Decimal)):
        number = int(value)
        if number != value:
            raise bad(value, f"a fraction, for {target.type_name}")
    else:
        number = operator.index(value)
    limit = 1 << (INTEGERS[target.kind] - 1)
    if not -limit <= number < limit:
        raise bad(value, f"out of range for {target.type_name}")
    return number


def _float(value: Any, target: Target) -> float:
    if isinstance(value, bool):
        raise _mismatch(value, target)
    number = _float_of(value, target) if isinstance(value, str) else float(value)
    if isinstance(value, int) and number != value:
        raise bad(value, f"an integer with more digits than {target.type_name} keeps")
    if isinstance(value, Decimal) and value.is_finite() and Decimal(repr(number)) != value:
        raise bad(value, f"more digits than {target.type_name} keeps")
    if target.kind == "float4" and math.isfinite(number):
        near: float = struct.unpack(">f", struct.pack(">f", number))[0]  # OverflowError beyond its range
        if isinstance(value, int) and near != value:
            raise bad(value, f"an integer with more digits than {target.type_name} keeps")
        if number and not near:
            raise bad(value, f"out of range for {target.type_name}")
    return number


def _float_of(text: str, target: Target) -> float:
    """The number that a text says, where it is none that becomes 0 or infinite for its size."""
    word = text.strip(_SPACE)
    if _NO_NUMBER.fullmatch(word):
        return float(word)
    number = float(_read(word, _NUMBER))
    if math.isinf(number) or (not number and Decimal(word)):
        raise bad(text, f"out of range for {target.type_name}")
    return number


def _read(text: str, pattern: re.Pattern[str]) -> str:
    """The text without spaces around it, where it is one that Postgres reads as Python does.

    Raises:
        ValueError: It is not.
    """
    word = text.strip(_SPACE)
    if pattern.fullmatch(word) is None:
        raise ValueError
    return word


def _numeric(value: Any, target: Target) -> Decimal:
    if isinstance(value, bool):
        raise _mismatch(value, target)
    if isinstance(value, Decimal):
        number = value
    elif isinstance(value, float):
        number = Decimal(repr(float(value)))  # the shortest digits that mean this float
    elif isinstance(value, str):
        special = _NO_NUMBER.fullmatch(value.strip(_SPACE))
        number = Decimal(_read(value, _NUMBER) if special is None else special.group())
    else:
        number = Decimal(operator.index(value))
    if not number.is_finite():
        if number.is_snan() or (number.is_infinite() and target.precision):
            raise _mismatch(value, target)
        return number
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    if target.precision:
        excess = -exponent - target.scale
        if excess > 0 and any(digits[max(len(digits) - excess, 0) :]):
            raise bad(value, f"more digits after the point than {target.type_name} keeps")
        if number and number.adjusted() >= target.precision - target.scale:
            raise bad(value, f"out of range for {target.type_name}")
    elif number and not -16383 <= number.adjusted() < 131072:
        raise bad(value, f"out of range for {target.type_name}")
    return number


def _text(value: Any, target: Target) -> str:
    if isinstance(value, str):
        text = str(value)
    elif isinstance(value, int) and not isinstance(value, bool) and target.kind != "enum":
        text = str(int(value))
    else:
        raise _mismatch(value, target)
    if "\0" in text:
        raise bad(value, _NUL)
    if target.length and len(text) > target.length:
        raise bad(value, f"longer than {target.type_name}")
    if target.labels and text not in target.labels:
        raise bad(value, f"no label of the enum {target.type_name}")
    size = len(text.encode())  # UnicodeEncodeError, a ValueError, for a lone surrogate
    if target.max_bytes and size > target.max_bytes:
        raise bad(value, f"longer than the {target.max_bytes} bytes of {target.type_name}")
    return text


def _bytea(value: Any, target: Target) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise _mismatch(value, target)


def _uuid(value: Any, target: Target) -> UUID:
    if isinstance(value, UUID):
        return value
    if isinstance(value, str) and _UUID.fullmatch(value):
        return UUID(value)
    if isinstance(value, bytes) and len(value) == 16:
        return UUID(bytes=value)
    raise _mismatch(value, target)


def _json(value: Any, target: Target) -> str:
    if isinstance(value, (str, bytes)):  # JSON as text
        text = value if isinstance(value, str) else value.decode()
        json.loads(text, parse_constant=_no_constant)
    else:
        inner = value.obj if isinstance(value, (Json, Jsonb)) else value
        text = json_text.encode(inner).decode()
    text.encode()
    if target.kind == "jsonb" and _NO_NULL_JSON.search(text):
        raise bad(value, _NUL)
    if "\0" in text:
        raise bad(value, _NUL)
    return text


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _date(value: Any, target: Target) -> date:
    if isinstance(value, str):
        return date.fromisoformat(_read(value, _DATE))
    if isinstance(value, datetime):
        moment = _moment(value)
        if moment.tzinfo is not None or moment.time() != time():
            raise bad(value, "a time of day, for date")
        return moment.date()
    if isinstance(value, date):
        return value
    raise _mismatch(value, target)


def _time(value: Any, target: Target) -> time:
    moment = time.fromisoformat(_iso(value, _TIME)) if isinstance(value, str) else value
    if not isinstance(moment, time):
        raise _mismatch(value, target)
    if moment.tzinfo is not None:
        raise bad(value, f"a time zone, for {target.type_name}")
    _keeps(moment.microsecond, value, target)
    return moment


def _timestamp(value: Any, target: Target) -> datetime:
    moment = _any_moment(value, target)
    if moment.tzinfo is not None:
        raise bad(value, f"a time zone, for {target.type_name}")
    return moment


def _timestamptz(value: Any, target: Target) -> datetime:
    moment = _any_moment(value, target)
    # Without a zone it is UTC, whatever the session's zone.
    moment = moment.replace(tzinfo=_UTC) if moment.tzinfo is None else moment
    return moment.astimezone(_UTC)


def _any_moment(value: Any, target: Target) -> datetime:
    if isinstance(value, str):
        moment = datetime.fromisoformat(_iso(value, _MOMENT))
    elif isinstance(value, datetime):
        moment = _moment(value)
    elif isinstance(value, date):
        moment = datetime(value.year, value.month, value.day)
    else:
        raise _mismatch(value, target)
    _keeps(moment.microsecond, value, target)
    return moment


def _iso(text: str, pattern: re.Pattern[str]) -> str:
    """A time as all versions of Python read it."""
    word = _read(text, pattern)
    found = pattern.fullmatch(word)
    assert found is not None
    fraction = found["fraction"] or ""
    if fraction[7:].strip("0"):
        raise bad(text, "a fraction of a microsecond")
    if fraction:
        word = word.replace(fraction, f"{fraction[:7]:0<7}")
    return word[:-1] + "+00:00" if word.endswith(("Z", "z")) else word


def _moment(value: datetime) -> datetime:
    """A plain datetime; pandas' own has nanoseconds too."""
    if getattr(value, "nanosecond", 0):
        raise bad(value, "a fraction of a microsecond")
    plain = getattr(value, "to_pydatetime", None)
    return plain() if plain is not None else value


def _keeps(microsecond: int, value: Any, target: Target) -> None:
    if microsecond % 10 ** (6 - target.fraction):
        raise bad(value, f"more digits of a second than {target.type_name} keeps")


def _array(value: Any, target: Target) -> list[Any]:
    element = target.element
    assert element is not None
    if hasattr(value, "tolist") and not isinstance(value, memoryview):  # numpy's
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        raise _mismatch(value, target)
    dimensions = _dimensions(value)
    if len(dimensions) > 6:
        raise bad(value, "an array of more than six dimensions")
    if len(dimensions) > 1 and 0 in dimensions:
        raise bad(value, "an empty array within an array")
    return _elements(value, dimensions, element)


def _dimensions(value: Any) -> list[int]:
    found = []
    while isinstance(value, (list, tuple)):
        found.append(len(value))
        if not value:
            break
        value = value[0]
    return found


def _elements(value: Any, dimensions: list[int], element: Target) -> list[Any]:
    if not isinstance(value, (list, tuple)) or len(value) != dimensions[0]:
        raise bad(value, "an array whose rows differ in length")
    if len(dimensions) > 1:
        return [_elements(inner, dimensions[1:], element) for inner in value]
    return [None if inner is None else check(inner, element) for inner in value]


def _other(value: Any, target: Target) -> Any:
    if isinstance(value, str):
        if "\0" in value:
            raise bad(value, _NUL)
        value.encode()
    elif target.oid < _FIRST_OID_OF_USERS:
        # As text, many values would be read as what they are not, such as a number as seconds.
        _refuse_uncast(value, target)
    return value


def _refuse_uncast(value: Any, target: Target) -> None:
    """Refuse what INSERT refuses for want of a cast, though the type would read its text."""
    if target.oid in _TEXT_ALONE:
        raise _mismatch(value, target)
    if isinstance(value, list):
        for item in value:
            _refuse_uncast(item, target)
    elif isinstance(value, Number):
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if not (target.oid in _OIDS if whole else isinstance(value, Decimal) and target.oid in _MONEY):
            raise _mismatch(value, target)
        if isinstance(value, Decimal) and Decimal(f"{value:.2f}") != value:
            raise bad(value, f"more digits after the point than {target.type_name} keeps")
    elif target.oid in _TIMETZ and value is not None and not isinstance(value, time):
        raise _mismatch(value, target)


_CHECKS: dict[str, Callable[[Any, Target], Any]] = {
    "bool": _bool,
    "float4": _float,
    "float8": _float,
    "numeric": _numeric,
    "bytea": _bytea,
    "uuid": _uuid,
    "date": _date,
    "time": _time,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
    "array": _array,
    "other": _other,
    **dict.fromkeys(INTEGERS, _integer),
    **dict.fromkeys(TEXTS, _text),
    **dict.fromkeys(JSONS, _json),
}
