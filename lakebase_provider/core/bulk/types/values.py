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
from contextlib import suppress
from datetime import date, datetime, time, timedelta, timezone
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction
from functools import lru_cache
from numbers import Integral, Number
from typing import Any
from uuid import UUID

from psycopg.types.json import Json, Jsonb
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from lakebase_provider.core.bulk.types import intervals, json_text, literals
from lakebase_provider.core.bulk.types.postgres_types import (
    BY_OID,
    ELEMENTS,
    FLOATS,
    INTEGERS,
    JSONS,
    KINDS,
    TEXTS,
    ByName,
    of_family,
    oids,
)
from lakebase_provider.core.bulk.types.target_columns import OTHER, UNSIGNED, BadValueError, Target
from lakebase_provider.core.connect.parameters.foreign_values import OWN, InexactValueError, plain

_UTC = timezone.utc
#: OIDs of types of extensions and users begin here.
_FIRST_OID_OF_USERS = 16_384
#: Types of values that have casts of their own, the narrower ones first.
_GIVEN = (
    *(bool, Integral, Decimal, timedelta, time, Number, date, UUID, bytes, bytearray, memoryview),
    *(Json, Jsonb, Range, Multirange),
)
_RANGES = frozenset(kind.oid for kind in of_family("range"))
_READ_ALL = frozenset(kind.oid for kind in KINDS if kind.reads_all)
#: interval and timetz skip braces, and would take an array for its only element.
_BLIND_TO_BRACES = oids("interval", "timetz")
#: Of a longer text "char" keeps the first byte. A byte above 127 is written in octal.
_CHAR, _INTERVAL, _MONEY, _TIMETZ = oids("char", "interval", "money", "timetz")
_ONE_BYTE = re.compile(r"[\x01-\x7f]?|\\[0-3][0-7]{2}")
#: A zone after a time of day, which timestamp and time ignore; the era or the year may follow.
_ZONE = re.compile(
    r":[0-9.,]+\s*([ap]m\s*)?(z|[-+][0-9:]+|[a-z_/]{3,})\s*(bc|ad|[0-9]{4,})?\s*$", re.IGNORECASE
)
NULL_REFUSED = "NULL, which the column refuses"
#: Of all digits of a float there are fewer.
_MANY_DIGITS = Context(prec=1_100)
#: The power of ten from which on a number is beyond every integer type, and beyond money.
_HUGE = 20
_NUL = "text with a NUL character, which Postgres cannot store"
_NO_NULL_JSON = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")

_CHECKS = ByName[Callable[[Any, Target], Any]]()


def check(value: Any, target: Target) -> Any:
    """The value as the encoder of the target's kind takes it.

    Args:
        value: Any Python value but None.
        target: The column.

    Returns:
        None for what pandas and NumPy call missing.

    Raises:
        BadValueError: The column cannot hold it unchanged.
    """
    meant = value
    try:
        if type(value) not in OWN:
            meant = plain(value)
        return None if meant is None else _CHECKS[target.kind](meant, target)
    except BadValueError as error:
        if meant is not value:
            error.kind = type(value).__name__
        raise
    except InexactValueError as error:
        raise bad(value, error.reason) from None
    except (TypeError, ValueError, OverflowError, InvalidOperation, RecursionError):
        raise _mismatch(value, target) from None


def check_column(value: Any, target: Target) -> Any:
    """:func:`check` of a column's own value, which may be NULL where the column may be.

    Raises:
        BadValueError: The column cannot hold it unchanged.
    """
    if value is None:
        return None
    found = check(value, target)
    if found is None and target.not_null:
        raise bad(value, NULL_REFUSED)
    return found


def _mismatch(value: Any, target: Target) -> BadValueError:
    return bad(value, f"no {target.type_name}")


def bad(value: Any, reason: str) -> BadValueError:
    """The error of a value: its type's name, and what is wrong with it."""
    return BadValueError(reason, kind=type(value).__name__)


@_CHECKS.of("bool")
def _bool(value: Any, target: Target) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return literals.boolean(value)
    raise _mismatch(value, target)


@_CHECKS.of(*INTEGERS)
def _integer(value: Any, target: Target) -> int:
    if isinstance(value, bool):
        raise _mismatch(value, target)
    if isinstance(value, str):
        number = literals.integer(value)
    elif isinstance(value, (float, Decimal)):
        if _is_huge(value):
            raise bad(value, f"out of range for {target.type_name}")
        number = int(value)
        if number != value:
            raise bad(value, f"a fraction, for {target.type_name}")
    else:
        number = operator.index(value)
    limit = 1 << (INTEGERS[target.kind] - 1)
    if not -limit <= number < limit:
        raise bad(value, f"out of range for {target.type_name}")
    return number


def _is_huge(value: float | Decimal) -> bool:
    """Whether a number is beyond all integer types, and may have more digits than there is memory."""
    return isinstance(value, Decimal) and value.is_finite() and value.adjusted() > _HUGE


@_CHECKS.of(*FLOATS)
def _float(value: Any, target: Target) -> float:
    if isinstance(value, bool):
        raise _mismatch(value, target)
    if isinstance(value, str):
        number = literals.double(value)
    elif isinstance(value, (int, float, Decimal)) or type(value).__module__ == "numpy":
        number = float(value)
    else:  # such as a fraction, of which a float is but the nearest
        raise _mismatch(value, target)
    if isinstance(value, int) and number != value:
        raise bad(value, f"an integer with more digits than {target.type_name} keeps")
    if isinstance(value, str):
        refuse_cut(value, target)
    if isinstance(value, Decimal) and value.is_finite() and Decimal(repr(number)) != value:
        raise bad(value, f"more digits than {target.type_name} keeps")
    if target.kind == "float4" and math.isfinite(number):
        near: float = struct.unpack(">f", struct.pack(">f", number))[0]  # OverflowError beyond its range
        if isinstance(value, int) and near != value:
            raise bad(value, f"an integer with more digits than {target.type_name} keeps")
        if number and not near:
            raise bad(value, f"out of range for {target.type_name}")
    return number


@_CHECKS.of("numeric")
def _numeric(value: Any, target: Target) -> Decimal:
    if isinstance(value, bool):
        raise _mismatch(value, target)
    if isinstance(value, Decimal):
        number = value
    elif isinstance(value, float):
        number = Decimal(repr(float(value)))  # the shortest digits that mean this float
    elif isinstance(value, str):
        number = literals.numeric(value)
    else:
        number = Decimal(operator.index(value))
    if not number.is_finite():
        if number.is_snan() or (number.is_infinite() and target.precision):
            raise _mismatch(value, target)
        return number
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    if not number and not -16383 <= exponent < 131072:
        raise bad(value, f"out of range for {target.type_name}")
    if target.precision:
        excess = -exponent - target.scale
        if excess > 0 and any(digits[max(len(digits) - excess, 0) :]):
            raise bad(value, f"more digits after the point than {target.type_name} keeps")
        if number and number.adjusted() >= target.precision - target.scale:
            raise bad(value, f"out of range for {target.type_name}")
    elif number and not -16383 <= number.adjusted() < 131072:
        raise bad(value, f"out of range for {target.type_name}")
    return number


@_CHECKS.of(*TEXTS)
def _text(value: Any, target: Target) -> str:
    if isinstance(value, str):
        text = value
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


@_CHECKS.of("bytea")
def _bytea(value: Any, target: Target) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise _mismatch(value, target)


@_CHECKS.of("uuid")
def _uuid(value: Any, target: Target) -> UUID:
    if isinstance(value, UUID):
        return value
    if isinstance(value, str):
        return literals.uuid(value)
    if isinstance(value, bytes) and len(value) == 16:
        return UUID(bytes=value)
    raise _mismatch(value, target)


@_CHECKS.of(*JSONS)
def _json(value: Any, target: Target) -> str:
    if isinstance(value, (str, bytes)):  # JSON as text
        text = value if isinstance(value, str) else value.decode()
        json.loads(text, parse_constant=_no_constant)
    else:
        inner = value.obj if isinstance(value, (Json, Jsonb)) else value
        try:
            text = json_text.encode(inner).decode()
        except (TypeError, ValueError, RecursionError):
            where = json_text.unspeakable(inner)
            if where is None:
                raise
            raise bad(value, f"no {target.type_name}: {where}") from None
    text.encode()
    if target.kind == "jsonb" and _NO_NULL_JSON.search(text):
        raise bad(value, _NUL)
    if "\0" in text:
        raise bad(value, _NUL)
    return text


def _no_constant(name: str) -> Any:
    raise ValueError(name)


@_CHECKS.of("date")
def _date(value: Any, target: Target) -> date:
    if isinstance(value, str):
        return literals.day(value)
    if isinstance(value, datetime):
        if value.tzinfo is not None or value.time() != time():
            raise bad(value, "a time of day, for date")
        return value.date()
    if isinstance(value, date):
        return value
    raise _mismatch(value, target)


@_CHECKS.of("time")
def _time(value: Any, target: Target) -> time:
    moment = literals.clock(value) if isinstance(value, str) else value
    if not isinstance(moment, time):
        raise _mismatch(value, target)
    if moment.tzinfo is not None:
        raise bad(value, f"a time zone, for {target.type_name}")
    _keeps(moment.microsecond, value, target)
    return moment


@_CHECKS.of("timestamp")
def _timestamp(value: Any, target: Target) -> datetime:
    moment = _any_moment(value, target)
    if moment.tzinfo is not None:
        raise bad(value, f"a time zone, for {target.type_name}")
    return moment


@_CHECKS.of("timestamptz")
def _timestamptz(value: Any, target: Target) -> datetime:
    moment = _any_moment(value, target)
    # Without a zone it is UTC, whatever the session's zone.
    return moment.replace(tzinfo=_UTC) if moment.tzinfo is None else in_utc(moment)


def in_utc(moment: datetime) -> datetime:
    """The moment in UTC, or in its own zone where UTC's year is one that Python does not have."""
    try:
        return moment.astimezone(_UTC)
    except OverflowError:
        return moment


def _any_moment(value: Any, target: Target) -> datetime:
    if isinstance(value, str):
        moment = literals.moment(value)
    elif isinstance(value, datetime):
        moment = value
    elif isinstance(value, date):
        moment = datetime(value.year, value.month, value.day)
    else:
        raise _mismatch(value, target)
    _keeps(moment.microsecond, value, target)
    return moment


def _keeps(microsecond: int, value: Any, target: Target) -> None:
    if microsecond % 10 ** (6 - target.fraction):
        raise bad(value, f"more digits of a second than {target.type_name} keeps")


@_CHECKS.of("array")
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


@_CHECKS.of(OTHER)
def _other(value: Any, target: Target) -> Any:
    if isinstance(value, list):
        if target.oid in _BLIND_TO_BRACES:
            raise _mismatch(value, target)
        value = _meant(value)
    if target.limited:
        refuse_cut(value, target)
    if isinstance(value, str):
        if "\0" in value:
            raise bad(value, _NUL)
        value.encode()
    elif target.oid < _FIRST_OID_OF_USERS:
        # As text, many values would be read as what they are not, such as a number as seconds.
        _refuse_uncast(value, target)
    return value


def refuse_cut(value: Any, target: Target) -> None:
    """Refuse what the type's input function would take, and keep less of.

    Args:
        value: A text for a column of any kind; another value for one of kind ``"other"``.
        target: The column.

    Raises:
        BadValueError: It would keep less.
    """
    if isinstance(value, str):
        _refuse_cut_text(value, target)
    elif isinstance(value, list) and target.form == "array":
        for item in value:
            _refuse_cut_part(item, target if isinstance(item, list) else target.parts[0])
    elif isinstance(value, tuple) and target.form == "record" and len(value) == len(target.parts):
        for item, part in zip(value, target.parts, strict=True):
            _refuse_cut_part(item, part)
    elif isinstance(value, Range) and target.form == "range":
        for bound in (value.lower, value.upper):
            _refuse_cut_part(bound, target.parts[0])
    elif isinstance(value, Multirange) and target.form == "multirange":
        for one in value:
            _refuse_cut_part(one, target.parts[0])
    elif target.oid == _INTERVAL and isinstance(value, timedelta):
        seconds = value.seconds * 1_000_000 + value.microseconds
        _refuse_cut_span(intervals.Span(Fraction(0), Fraction(value.days), Fraction(seconds)), value, target)
    elif target.oid == _INTERVAL and isinstance(value, time):
        _refuse_cut_text(value.isoformat(), target)
    elif isinstance(value, time):
        _keeps(value.microsecond, value, target)
    elif isinstance(value, Integral) and target.oid in UNSIGNED and int(value) >> 32:
        raise bad(value, f"out of range for {target.type_name}")


def _refuse_cut_part(value: Any, target: Target) -> None:
    if value is None or not target.limited:
        return
    if target.kind == OTHER or isinstance(value, str):
        refuse_cut(value, target)
    else:
        check(value, target)


def _refuse_cut_text(text: str, target: Target) -> None:
    if target.suspect is None or not target.suspect.search(text):
        return
    if target.form == "array" or target.form == "multirange":
        for inner in (literals.elements if target.form == "array" else literals.ranges)(text):
            _refuse_cut_text(inner, target.parts[0])
    elif target.form:
        inners = literals.fields(text)
        for inner, part in zip(inners, target.parts * (2 if target.form == "range" else 1), strict=False):
            if inner:
                _refuse_cut_text(inner, part)
    elif target.kind == "float8":
        _refuse_cut_float(text, target)
    elif target.kind in TEXTS or target.kind == "numeric":
        check(text, target)
    elif target.oid == _CHAR:
        if not text.isascii() or not _ONE_BYTE.fullmatch(text):
            raise bad(text, f"longer than the one byte of {target.type_name}")
    elif target.oid == _MONEY:
        if "," not in text.rpartition(".")[2]:  # where a comma follows, the point groups digits
            raise bad(text, f"more digits after the point than {target.type_name} keeps")
    elif target.oid == _INTERVAL:
        try:
            found = intervals.span(text, target.field)
        except ValueError:
            raise bad(text, f"no {target.type_name} whose parts are known") from None
        _refuse_cut_span(found, text, target)
    elif target.kind == "date":
        raise bad(text, "a time of day, for date")
    else:
        _refuse_cut_moment(text, target)


def _refuse_cut_moment(text: str, target: Target) -> None:
    if re.search(rf"[.,][0-9]{{{target.fraction}}}[0-9]*[1-9]", text):
        raise bad(text, f"more digits of a second than {target.type_name} keeps")
    if target.kind in ("time", "timestamp") and _ZONE.search(text):
        raise bad(text, f"a time zone, for {target.type_name}")


def _refuse_cut_span(found: intervals.Span, value: Any, target: Target) -> None:
    if found.fits(target.field, target.fraction):
        return
    if target.field != "second":
        raise bad(value, f"more than the fields of {target.type_name}")
    raise bad(value, f"more digits of a second than {target.type_name} keeps")


def _refuse_cut_float(text: str, target: Target) -> None:
    """Refuse a number whose digits are neither those of the nearest float nor some of its exact ones."""
    try:
        number = literals.numeric(text)
        near = Decimal(float(number))
    except (ValueError, InvalidOperation, OverflowError):
        return  # the server tells whether it is one
    if not number.is_finite() or not near.is_finite() or Decimal(repr(float(number))) == number:
        return
    with suppress(InvalidOperation):  # more digits than any float has
        if near.quantize(number, context=_MANY_DIGITS) == number:
            return
    raise bad(text, f"more digits than {target.type_name} keeps")


def _meant(values: list[Any]) -> list[Any]:
    return [_meant(value) if isinstance(value, list) else plain(value) for value in values]


def _refuse_uncast(value: Any, target: Target) -> None:
    """Refuse what INSERT refuses for want of a cast, though the type would read its text."""
    if target.oid in _READ_ALL:
        raise _mismatch(value, target)
    if isinstance(value, list):
        for item in value:
            _refuse_uncast(item, target)
        return
    if isinstance(value, (Range, Multirange)) and ELEMENTS.get(target.oid, target.oid) in _RANGES:
        return
    if not _is_cast(type(value), target.oid):  # type: ignore[arg-type] # a type is hashable
        raise _mismatch(value, target)
    if isinstance(value, Decimal) and not _is_huge(value) and Decimal(f"{value:.2f}") != value:
        raise bad(value, f"more digits after the point than {target.type_name} keeps")


@lru_cache(maxsize=256)
def _is_cast(kind: type, oid: int) -> bool:
    """Whether INSERT casts values of that kind to the type, or other types would refuse their text anyway."""
    given = next((base for base in _GIVEN if issubclass(kind, base)), None)
    known = BY_OID.get(ELEMENTS.get(oid, oid))
    return given is None or (known is not None and given in known.casts)
