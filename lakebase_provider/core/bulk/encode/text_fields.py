"""A column of Python values as the fields of text COPY, with psycopg alone.

It takes, refuses and stores what :mod:`lakebase_provider.core.bulk.encode.from_python` does. A value costs
more, but nothing has to be imported.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timezone
from decimal import Decimal
from typing import Any

import psycopg

from lakebase_provider.core.bulk.encode.from_python import checked, literal, takes_as_it_is
from lakebase_provider.core.bulk.types import json_text
from lakebase_provider.core.bulk.types.postgres_types import INTEGERS, JSONS, TEXTS, ByName
from lakebase_provider.core.bulk.types.target_columns import OTHER, Target
from lakebase_provider.core.bulk.types.values import bad, in_utc
from lakebase_provider.core.connect.parameters.adaptation import text_dumper

NULL = "\\N"
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
#: What a field has to escape, and what no text may hold: NUL, and half a surrogate pair.
_SPECIAL = re.compile("[\\\\\n\r\t\0\ud800-\udfff]")
_FLOAT4 = struct.Struct(">f")

_Text = Callable[[Any], str]
#: From a value as :func:`.values.check` gives it, or of a type that its column takes as it is.
_TEXTS_OF = ByName[_Text]()


class TextColumn:
    """Turns columns of Python values into fields.

    Args:
        target: The column.
        strict: True to find now what the server would refuse, so that the row can be rejected.
    """

    def __init__(self, target: Target, *, strict: bool) -> None:
        self._target = target
        self._strict = strict
        self._text_of = _text_of(target)

    def encode(self, values: Sequence[Any]) -> list[str]:
        """The values as fields.

        Raises:
            BadValueError: One of them does not fit the column; its index says which.
        """
        # Of a numeric, only the look at each one tells whether it keeps all digits.
        if self._target.kind != "numeric" and takes_as_it_is(self._target, values, strict=self._strict):
            try:
                return self._fields(values)
            except (TypeError, ValueError, OverflowError):
                pass  # Whether it is an error, and of which value, the look at each one tells.
        return self._fields(checked(values, self._target))

    def _fields(self, values: Sequence[Any]) -> list[str]:
        target = self._target
        if target.kind in INTEGERS:
            _require_range(values, INTEGERS[target.kind])
        if target.kind in JSONS:
            texts = [None if line is None else line.decode() for line in json_text.encode_all(values)]
        elif target.kind in TEXTS:
            texts = list(values)
        elif target.kind in (OTHER, "array"):
            texts = self._each(values)
        else:
            # Of what these are written with, only the backslash before bytes has to be escaped.
            escape = "\\" if target.kind == "bytea" else ""
            return [NULL if value is None else escape + self._text_of(value) for value in values]
        return _escaped(texts)

    def _each(self, values: Sequence[Any]) -> list[str | None]:
        found: list[str | None] = []
        for index, value in enumerate(values):
            try:
                found.append(None if value is None else self._text_of(value))
            except (psycopg.Error, ValueError, TypeError):
                error = bad(value, f"no {self._target.type_name}")
                error.index = index
                raise error from None
        return found


def _require_range(values: Sequence[Any], bits: int) -> None:
    limit = 1 << (bits - 1)
    numbers = [value for value in values if value is not None]
    if numbers and not -limit <= min(numbers) <= max(numbers) < limit:
        raise OverflowError


def _escaped(texts: list[Any]) -> list[str]:
    # One search in all of them: hardly any column has such a character.
    if not _SPECIAL.search("".join([text for text in texts if text is not None])):
        return [NULL if text is None else text for text in texts] if None in texts else texts
    found = []
    for text in texts:
        if text is None:
            found.append(NULL)
            continue
        text.encode()  # UnicodeEncodeError, a ValueError, for a lone surrogate
        if "\0" in text:
            raise ValueError("NUL")
        found.append(text.translate(_ESCAPES))
    return found


def _text_of(target: Target) -> Any:
    if target.kind == "array":
        assert target.element is not None
        return _array_text(_text_of(target.element))
    if target.kind == OTHER:
        dump = text_dumper()
        return lambda value: literal(value, target, dump)
    return _TEXTS_OF.get(target.kind, str)


def _array_text(text_of: _Text) -> _Text:
    def item(value: Any) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, list):
            return array(value)
        return '"' + text_of(value).replace("\\", "\\\\").replace('"', '\\"') + '"'

    def array(value: list[Any]) -> str:
        return "{" + ",".join(map(item, value)) + "}"

    return array


@_TEXTS_OF.of(*TEXTS, *JSONS)
def _itself(value: str) -> str:
    return value


@_TEXTS_OF.of("bool")
def _bool(value: bool) -> str:
    return "t" if value else "f"


@_TEXTS_OF.of("float8")
def _float8(value: float) -> str:
    return float.__repr__(value)


@_TEXTS_OF.of("float4")
def _float4(value: float) -> str:
    # The nearest one as the server casts a float8, which its digits need not be nearest to.
    near: float = _FLOAT4.unpack(_FLOAT4.pack(value))[0]  # OverflowError beyond its range
    if value and not near:
        raise OverflowError
    return repr(near)


@_TEXTS_OF.of("numeric")
def _numeric(value: Decimal) -> str:
    return "NaN" if value.is_nan() else Decimal.__str__(value)  # never -NaN


@_TEXTS_OF.of("bytea")
def _bytea(value: bytes) -> str:
    return "\\x" + value.hex()


@_TEXTS_OF.of("date")
def _date(value: date) -> str:
    return date.isoformat(value)


@_TEXTS_OF.of("time")
def _time(value: time) -> str:
    if value.tzinfo is not None:
        raise ValueError("time zone")
    return time.isoformat(value)


@_TEXTS_OF.of("timestamp")
def _timestamp(value: datetime) -> str:
    if value.tzinfo is not None:
        raise ValueError("time zone")
    return datetime.isoformat(value)


@_TEXTS_OF.of("timestamptz")
def _timestamptz(value: datetime) -> str:
    if value.tzinfo is None or value.tzinfo is timezone.utc:
        # Half the time that Python needs to write an offset.
        return datetime.isoformat(datetime.replace(value, tzinfo=None)) + "Z"
    return datetime.isoformat(in_utc(value))
