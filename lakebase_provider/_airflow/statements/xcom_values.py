"""What a statement returned, in a form for XCom: found before the commit, so that no retry writes again.

Airflow stores JSON, and also numbers, dates and UUIDs beyond JSON. A Postgres value that it cannot store, or
that would come back changed, is passed on as text that Postgres can read.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from psycopg.adapt import Buffer
from psycopg.types.datetime import IntervalLoader
from psycopg.types.json import JsonLoader
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from lakebase_provider._airflow.statements.loaders import replace_unreadable
from lakebase_provider.core.bulk.read.rows import register_json
from lakebase_provider.core.bulk.types.intervals import has_months
from lakebase_provider.core.bulk.types.postgres_types import TEMPORAL
from lakebase_provider.core.errors import StatementError

if TYPE_CHECKING:
    from lakebase_provider.core.connect.connection import LakebaseConnection

#: Larger numbers do not get from the task to its supervisor.
_LEAST, _MOST = -(2**63), 2**64 - 1
_ADDRESSES = (IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network)
#: Characters in a range's bound that would be read as the range's own.
_QUOTED = frozenset('(),[]"\\ \t\n\r\f\v')


class _Written:
    """A Python value for a handler to work with, and the text of the value that it stands for."""

    text: str

    @classmethod
    def of(cls, value: Any, text: str) -> Any:
        found = cls(*value) if isinstance(value, tuple) else cls(value)  # type: ignore[call-arg]
        found.text = text
        return found


class _Months(_Written, timedelta):
    """An interval whose months count as 30 days here."""


class _Digits(_Written, float):
    """A JSON number with more digits than a float."""


class _IntervalLoader(IntervalLoader):
    def load(self, data: Buffer) -> timedelta:
        value, text = super().load(data), bytes(data)
        if not has_months(text):
            return value
        found: timedelta = _Months.of((value.days, value.seconds, value.microseconds), text.decode())
        return found


def _json_float(text: str) -> float:
    value = float(text)
    if math.isfinite(value) and Decimal(repr(value)) == Decimal(text):
        return value
    found: float = _Digits.of(value, text)
    return found


class _JsonLoader(JsonLoader):
    _loads = staticmethod(partial(json.loads, parse_float=_json_float))


def keep_texts(connection: LakebaseConnection) -> None:
    """Keep values that Python's types cannot hold as text, or return them as text, for XCom.

    Args:
        connection: Borrowed only for these statements.
    """
    connection.adapters.register_loader("interval", _IntervalLoader)
    replace_unreadable(connection.adapters, TEMPORAL, str)
    register_json(connection.adapters, _JsonLoader)


def as_xcom_takes(result: Any) -> Any:
    """What a handler made of a statement's rows, with text for values that XCom cannot store.

    Args:
        result: Rows or anything else.

    Raises:
        StatementError: It holds something else that Airflow cannot store; a retry would not help.
    """
    try:
        from airflow.sdk.serde import serialize
    except ModuleNotFoundError:  # Airflow 3.1, which does not store UUIDs
        from airflow.serialization.serde import serialize  # type: ignore[import-not-found,no-redef]

        _BY_TYPE[UUID] = str

    taken = _taken(result)
    try:
        json.dumps(serialize(taken), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise StatementError(
            f"XCom cannot store what the statement returned: {error}",
            remedy="Select values that JSON has, such as after a cast to text; or write the rows to a file "
            "with output_path, return something else from handler, or set do_xcom_push=False.",
            retryable=False,
        ) from error
    return taken


def _taken(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool)):
        return value
    convert = _BY_TYPE.get(type(value))
    if convert is not None:
        return convert(value)
    if isinstance(value, dict):
        return {name: _taken(each) for name, each in value.items()}
    if isinstance(value, tuple):
        # A named tuple's own class takes its values one by one.
        values = [_taken(each) for each in value]
        return type(value)(*values) if hasattr(value, "_fields") else tuple(values)
    if isinstance(value, (Range, Multirange)):
        return _text(value)
    return value


def _number(value: int) -> int | str:
    return value if _LEAST <= value <= _MOST else str(value)


def _float(value: float) -> float | str:
    return value if math.isfinite(value) else _text(value)


def _decimal(value: Decimal) -> Decimal | str:
    if not value.is_finite():
        return str(value)
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent >= 0:
        return value if _LEAST <= value <= _MOST else f"{value:f}"
    return value if Decimal(str(float(value))) == value else f"{value:f}"


def _moment(value: datetime) -> datetime | str:
    if value.tzinfo is not None and not isinstance(value.tzinfo, ZoneInfo) and value.tzinfo != timezone.utc:
        return _text(value)
    try:
        same = datetime.fromtimestamp(value.timestamp(), value.tzinfo) == value
    except (ValueError, OverflowError, OSError):
        same = False
    return value if same else _text(value)


def _duration(value: timedelta) -> timedelta | str:
    return value if timedelta(seconds=value.total_seconds()) == value else _text(value)


def _text(value: Any) -> str:
    """As Postgres reads it."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"\\x{bytes(value).hex()}"
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        of_day = timedelta(seconds=value.seconds, microseconds=value.microseconds)
        return f"{value.days} days {of_day}"
    if isinstance(value, float):
        return str(Decimal(value))
    if isinstance(value, Multirange):
        return f"{{{','.join(map(_text, value))}}}"
    if isinstance(value, Range):
        return _range(value)
    return str(value)


def _range(value: Range[Any]) -> str:
    if value.isempty:
        return "empty"
    bounds = ["" if bound is None else _bound(_text(bound)) for bound in (value.lower, value.upper)]
    return f"{value.bounds[0]}{bounds[0]},{bounds[1]}{value.bounds[1]}"


def _bound(text: str) -> str:
    if text and _QUOTED.isdisjoint(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_BY_TYPE: dict[type, Callable[[Any], Any]] = {
    **dict.fromkeys((_Months, _Digits), operator.attrgetter("text")),
    int: _number,
    float: _float,
    Decimal: _decimal,
    datetime: _moment,
    timedelta: _duration,
    list: lambda value: [_taken(each) for each in value],
    **dict.fromkeys((time, bytes, bytearray, memoryview, *_ADDRESSES), _text),
}
