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
from dataclasses import replace
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from numbers import Integral, Number
from typing import Any
from uuid import UUID

from psycopg.types.json import Json, Jsonb

from lakebase_provider.core.bulk.types import json_text, literals
from lakebase_provider.core.bulk.types.postgres_types import (
    BY_NAME,
    BY_OID,
    ELEMENTS,
    FLOATS,
    INTEGERS,
    JSONS,
    KINDS,
    TEXTS,
    ByName,
    oids,
)
from lakebase_provider.core.bulk.types.target_columns import OTHER, BadValueError, Target
from lakebase_provider.core.connect.parameters.foreign_values import OWN, InexactValueError, plain

_UTC = timezone.utc
#: OIDs of types of extensions and users begin here.
_FIRST_OID_OF_USERS = 16_384
#: Types of values that have casts of their own, the narrower ones first.
_GIVEN = (bool, Integral, Decimal, timedelta, time, Number, date, UUID, bytes, bytearray, memoryview)
_READ_ALL = frozenset(kind.oid for kind in KINDS if kind.reads_all)
#: interval and timetz skip braces, and would take an array for its only element.
_BLIND_TO_BRACES = oids("interval", "timetz")
#: "char" and its array: of a longer text it keeps the first byte. A byte above 127 is written in octal.
_CHAR, _CHARS = BY_NAME["char"].oid, BY_NAME["char"].array_oid
_ONE_BYTE = re.compile(r"[\x01-\x7f]?|\\[0-3][0-7]{2}")
_OF_ONE_BYTE = re.compile(
    r"""(\[[-+0-9:\]\[]*=)?([\s{},]|"([^"\\]|\\.)?"|(?<![^\s{},])(NULL|\\.|[^\s",{}\\])(?![^\s{},]))*""",
    re.IGNORECASE,
)
NULL_REFUSED = "NULL, which the column refuses"
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
        number = int(value)
        if number != value:
            raise bad(value, f"a fraction, for {target.type_name}")
    else:
        number = operator.index(value)
    limit = 1 << (INTEGERS[target.kind] - 1)
    if not -limit <= number < limit:
        raise bad(value, f"out of range for {target.type_name}")
    return number


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
    moment = moment.replace(tzinfo=_UTC) if moment.tzinfo is None else moment
    return moment.astimezone(_UTC)


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
    if limited(target):
        refuse_cut(value, target)
    if isinstance(value, str):
        if "\0" in value:
            raise bad(value, _NUL)
        value.encode()
    elif target.oid < _FIRST_OID_OF_USERS:
        # As text, many values would be read as what they are not, such as a number as seconds.
        _refuse_uncast(value, target)
    return value


def limited(target: Target) -> bool:
    """Whether :func:`refuse_cut` has anything to refuse."""
    return target.oid in (_CHAR, _CHARS) or target.fraction < 6


def refuse_cut(value: Any, target: Target) -> None:
    """Refuse what the type of a column of kind ``"other"`` would read, and keep less of.

    Raises:
        BadValueError: A text of several bytes for "char", or a fraction of a second.
    """
    if isinstance(value, list):
        for item in value:
            refuse_cut(item, replace(target, oid=_CHAR) if target.oid == _CHARS else target)
    elif isinstance(value, str) and target.oid in (_CHAR, _CHARS):
        form = _ONE_BYTE if target.oid == _CHAR else _OF_ONE_BYTE
        if not value.isascii() or not form.fullmatch(value):
            raise bad(value, f"longer than the one byte of {target.type_name}")
    elif isinstance(value, str):
        if re.search(rf"[.,][0-9]{{{target.fraction}}}[0-9]*[1-9]", value):
            raise bad(value, f"more digits of a second than {target.type_name} keeps")
    elif isinstance(value, timedelta):
        _keeps(value.microseconds, value, target)
    elif isinstance(value, time):
        _keeps(value.microsecond, value, target)


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
    if not _is_cast(type(value), target.oid):  # type: ignore[arg-type] # a type is hashable
        raise _mismatch(value, target)
    if isinstance(value, Decimal) and Decimal(f"{value:.2f}") != value:
        raise bad(value, f"more digits after the point than {target.type_name} keeps")


@lru_cache(maxsize=256)
def _is_cast(kind: type, oid: int) -> bool:
    """Whether INSERT casts values of that kind to the type, or other types would refuse their text anyway."""
    given = next((base for base in _GIVEN if issubclass(kind, base)), None)
    known = BY_OID.get(ELEMENTS.get(oid, oid))
    return given is None or (known is not None and given in known.casts)
