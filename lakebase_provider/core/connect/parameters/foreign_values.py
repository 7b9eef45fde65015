"""Values of pandas, NumPy and others whose types pass for Python's own, as what they mean.

``NaT`` is a datetime to ``isinstance``, a pandas duration a timedelta that hides its nanoseconds, and an
enum's member with text as its value a str that prints as something else. Types are known by their names: no
library is imported that is not there already.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Any
from uuid import UUID

#: Types that are what they seem, and need no look.
OWN: frozenset[type] = frozenset(
    {
        *(str, int, bool, float, bytes, type(None), dict, tuple),
        *(Decimal, UUID, datetime, date, time, timedelta),
    }
)


#: Types of an enum's values that its members stand for.
_ENUM_VALUES = OWN - {dict, tuple}


class InexactValueError(ValueError):
    """A value that has no equal among Python's own types.

    Args:
        reason: What would be lost, without the value.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def plain(value: Any) -> Any:
    """The value as one of Python's own types, or as it is where it needs no look.

    Args:
        value: Any value.

    Returns:
        None for ``NaT``, ``pandas.NA`` and NumPy's NaT.

    Raises:
        InexactValueError: Python's type would lose something of it, such as nanoseconds.
    """
    kind: Any = type(value)
    convert = _converter(kind)
    return value if convert is None else convert(value)


def without_missing(values: list[Any]) -> list[Any]:
    """The values with None for what means NULL, in lists within the list too; the same list if none does."""
    kinds: set[Any] = set(map(type, values))
    if kinds <= OWN:
        return values
    return [_nested(value) for value in values] if any(map(_looked_into, kinds)) else values


@lru_cache(maxsize=256)
def _looked_into(kind: type) -> bool:
    return issubclass(kind, list) or not _MISSING.isdisjoint(_names(kind))


def _nested(value: Any) -> Any:
    if isinstance(value, list):
        return without_missing(value)
    kind: Any = type(value)
    # NaT equals nothing; the comparison of pandas.NA is pandas.NA again, which has no truth.
    missing = _looked_into(kind) and (kind.__name__ == "NAType" or value != value)
    return None if missing else value


@lru_cache(maxsize=256)
def _converter(kind: type) -> Callable[[Any], Any] | None:
    if kind in OWN:
        return None
    for name in _names(kind):
        if name in _BY_NAME:
            return _BY_NAME[name]
    for base, convert in _BY_BASE:
        if issubclass(kind, base):
            return convert
    return None


def _names(kind: type) -> list[str]:
    return [f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__]


def _null(_value: Any) -> None:
    return None


def _timestamp(value: Any) -> datetime:
    if value.nanosecond:
        raise InexactValueError("a fraction of a microsecond")
    found: datetime = value.to_pydatetime()
    return found


def _timedelta(value: Any) -> timedelta:
    if value.nanoseconds:
        raise InexactValueError("a fraction of a microsecond")
    found: timedelta = value.to_pytimedelta()
    return found


def _numpy_moment(value: Any) -> Any:
    if value != value:
        return None
    return _in_microseconds(value, "datetime64[us]", datetime)


def _numpy_duration(value: Any) -> Any:
    if value != value:
        return None
    if value.dtype.str.endswith(("[Y]", "[M]")):
        raise InexactValueError("a duration in months or years, which has no fixed number of days")
    if not value.dtype.str.endswith("]"):
        raise InexactValueError("a duration without a unit")
    return _in_microseconds(value, "timedelta64[us]", timedelta)


def _in_microseconds(value: Any, unit: str, kind: type) -> Any:
    rounded = value.astype(unit)
    if rounded != value:
        raise InexactValueError("a fraction of a microsecond")
    found = rounded.item()
    if not isinstance(found, kind):  # beyond what Python's type holds, NumPy gives the number
        raise InexactValueError(f"out of range for Python's {kind.__name__}")
    return found


def _pendulum_duration(value: Any) -> timedelta:
    # The months of an interval between two moments are counted in its days already.
    if (value.years or value.months) and not hasattr(value, "start"):
        raise InexactValueError("a duration in months or years, which has no fixed number of days")
    found: timedelta = value.as_timedelta()
    return found


def _items(value: Any) -> Any:
    """An array's values as lists of lists; of an array without dimensions, its value."""
    if not value.ndim:
        return plain(value[()]) if value.dtype.kind in "mM" else value.tolist()
    # As numbers or as Python's own, moments would lose what they are, or their nanoseconds.
    if value.ndim > 1 or value.dtype.kind in "mMO":
        return [_items(one) if _converter(type(one)) is _items else one for one in value]  # type: ignore[arg-type]
    return value.tolist()


def _refused(reason: str) -> Callable[[Any], Any]:
    def refuse(_value: Any) -> Any:
        raise InexactValueError(reason)

    return refuse


def _member(value: Enum) -> Any:
    found = plain(value.value)
    if type(found) not in _ENUM_VALUES:
        raise InexactValueError("a member of an enum whose value is not text, a number, a time or the like")
    return found


def _long_double(value: Any) -> float:
    found = float(value)
    if found != value and value == value:
        raise InexactValueError("more digits than double precision keeps")
    return found


def _moment(value: datetime) -> datetime:
    return datetime(
        value.year,
        value.month,
        value.day,
        value.hour,
        value.minute,
        value.second,
        value.microsecond,
        value.tzinfo,
        fold=value.fold,
    )


# pandas' own name for a type changes with its version; that of the base below does not.
_MISSING = frozenset(
    {
        "pandas._libs.tslibs.nattype._NaT",
        "pandas._libs.missing.C_NAType",
        "numpy.datetime64",
        "numpy.timedelta64",
    }
)
_BY_NAME: dict[str, Callable[[Any], Any]] = {
    "pandas._libs.tslibs.nattype._NaT": _null,
    "pandas._libs.missing.C_NAType": _null,
    "pandas._libs.tslibs.timestamps._Timestamp": _timestamp,
    "pandas._libs.tslibs.timedeltas._Timedelta": _timedelta,
    "numpy.datetime64": _numpy_moment,
    "numpy.timedelta64": _numpy_duration,
    "numpy.bool": bool,
    "numpy.bool_": bool,
    "numpy.integer": operator.index,
    "numpy.ndarray": _items,
    "numpy.longdouble": _long_double,
    "numpy.complexfloating": _refused("a complex number"),
    "pendulum.duration.Duration": _pendulum_duration,
}
#: Names of the types whose values psycopg is to take by :func:`plain`; the others it knows, and knows well.
CONVERTED = (
    *sorted(_MISSING),
    "pandas._libs.tslibs.timestamps._Timestamp",
    "pandas._libs.tslibs.timedeltas._Timedelta",
    "pendulum.duration.Duration",
)
# A subclass may print as anything, so it is asked what its base would say.
_BY_BASE: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, lambda value: bytes(memoryview(value))),
    (datetime, _moment),
    (complex, _refused("a complex number")),
    (Enum, _member),
)
