"""Python values as JSON: by msgspec where it is installed, at a tenth of the standard library's cost."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from itertools import chain
from typing import Any
from uuid import UUID

#: What msgspec writes in base64, which no reader could tell from a text: JSON has no form for bytes.
_BINARY = (bytes, bytearray, memoryview)
#: What msgspec writes with its offset from UTC rounded to minutes.
_ZONED = (datetime, time)
_SCALARS = (str, int, float, Decimal, UUID, date, timedelta, type(None))
_PLAIN = frozenset({*_SCALARS, bool})


def encode(value: Any) -> bytes:
    """A value as JSON in UTF-8.

    Dates, times and UUIDs become strings, and a Decimal a number with its digits, where msgspec is installed.

    Args:
        value: A dict, list or scalar; psycopg's Json and Jsonb are unwrapped.

    Raises:
        TypeError: It holds something that JSON has no form for, such as bytes.
        ValueError: It holds NaN or an infinity, or a text that is no Unicode.
    """
    try:
        encoded = _encoder()(value)
    except OverflowError:  # an integer beyond 64 bits
        return _by_standard_library(value)
    # msgspec writes NaN and the infinities as null.
    if b"null" in encoded and _has_non_finite(value):
        raise ValueError("JSON has no NaN and no infinity")
    if _look_through((value,)):
        encoded = _encoder()(_with_exact_offsets(value))
    return encoded


def written(text: str) -> Any:
    """JSON as text, as a value that :func:`encode` writes with all its digits and keys.

    Raises:
        ValueError: It is no JSON, or needs msgspec, which is not installed, to stay as it is.
    """

    def refuse(name: str) -> Any:
        raise ValueError(name)

    value = json.loads(text, parse_constant=refuse)
    if _msgspec() is not None:
        import msgspec

        # A line break, which is only space in it, would end its row.
        return msgspec.Raw(text.replace("\n", " ").replace("\r", " ").encode())
    if json.dumps(value, ensure_ascii=False, separators=(",", ":")) != text:
        raise ValueError("JSON that Python's values do not keep as it is")
    return value


def encode_all(values: Sequence[Any]) -> list[bytes | None]:
    """Many values as :func:`encode` does, None as None and a str as the JSON that it is.

    Raises:
        TypeError, ValueError: As :func:`encode`.
    """
    encoder = _encoder()
    try:
        encoded = [
            None if value is None else value.encode() if type(value) is str else encoder(value)
            for value in values
        ]
    except OverflowError:
        encoded = []
    # One search in all of them: hardly any document is looked at on its own.
    alone = len(encoded) < len(values) or b"null" in b"".join(filter(None, encoded))
    if alone or _look_through(values):
        return [
            None if value is None else value.encode() if type(value) is str else encode(value)
            for value in values
        ]
    return encoded


def encode_lines(values: Sequence[Any]) -> bytes | None:
    """Many dicts and lists as JSON in one call, each with a line feed behind it, which none of them holds.

    Returns:
        None where the values have to be looked at one by one: another type, a null, a time whose offset has
        seconds, or no msgspec.

    Raises:
        TypeError, ValueError: As :func:`encode`.
    """
    encoder = _msgspec()
    if encoder is None or not {*map(type, values)} <= {dict, list}:
        return None
    try:
        encoded: bytes = encoder.encode_lines(values)
    except OverflowError:
        return None
    return None if b"null" in encoded or _look_through(values) else encoded


@cache
def _encoder() -> Callable[[Any], bytes]:
    encoder = _msgspec()
    return _by_standard_library if encoder is None else encoder.encode


@cache
def _msgspec() -> Any:
    try:
        import msgspec
    except ImportError:
        return None
    return msgspec.json.Encoder(decimal_format="number")


def _by_standard_library(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def _look_through(values: Iterable[Any]) -> bool:
    """Refuse bytes in what was encoded, however deep: level by level, and each level at the speed of C.

    Returns:
        Whether there is a time whose offset from UTC has seconds.

    Raises:
        TypeError: There are bytes.
    """
    found_offset = False
    level = list(values)
    while not (kinds := set(map(type, level))) <= _PLAIN:
        below: list[Any] = []
        for kind in kinds - _PLAIN:
            if issubclass(kind, _BINARY):
                raise TypeError("JSON has no form for bytes")
            found: list[Any] = level if len(kinds) == 1 else [one for one in level if type(one) is kind]
            if kind is dict:
                below.extend(chain.from_iterable(map(dict.values, found)))
                keys = set(map(type, chain.from_iterable(found)))
                if keys != {str}:
                    below.extend(chain.from_iterable(found))
            elif issubclass(kind, _ZONED):
                found_offset = found_offset or any(map(_has_seconds, found))
            elif kind in (list, tuple, set, frozenset):
                below.extend(chain.from_iterable(found))
            elif not issubclass(kind, _SCALARS):
                below.extend(map(_fields, found))
        level = below
    return found_offset


def _has_seconds(value: datetime | time) -> bool:
    offset = None if value.tzinfo is None else value.utcoffset()
    return offset is not None and bool(offset % timedelta(minutes=1))


def _with_exact_offsets(value: Any) -> Any:
    """The value with ISO 8601's text for a time whose offset has seconds, however deep."""
    if isinstance(value, _ZONED):
        return value.isoformat() if _has_seconds(value) else value
    if isinstance(value, dict):
        return {_with_exact_offsets(key): _with_exact_offsets(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(map(_with_exact_offsets, value))
    inner = None if type(value) in _PLAIN else _fields(value)
    return value if inner is None else _with_exact_offsets(inner)


def _fields(value: Any) -> Any:
    """What a dataclass, an enum's member or the like holds; None where only msgspec knows."""
    try:
        import msgspec

        found = msgspec.to_builtins(value, builtin_types=(*_BINARY, datetime, date, time, UUID, Decimal))
    except (ImportError, TypeError):
        return None
    return None if type(found) is type(value) else found


def _has_non_finite(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(map(_has_non_finite, value.values()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(map(_has_non_finite, value))
    return False


#: Characters of a path that an error shows, and levels that are looked into.
_SHOWN, _LEVELS = 100, 50


def unspeakable(value: Any) -> str | None:
    """What JSON cannot say of a value that :func:`encode` refuses, and at which key: its type, not the value.

    Returns:
        Such as ``"set at key 'a.tags[2]'"``, or None where it was not found.
    """
    found = _first_unspeakable(value, "", _LEVELS)
    if found is None:
        return None
    path, kind = found
    path = path.removeprefix(".")
    shown = path if len(path) <= _SHOWN else f"...{path[-_SHOWN:]}"
    return f"{kind} at key {shown!r}" if path else kind


def _first_unspeakable(value: Any, path: str, levels: int) -> tuple[str, str] | None:
    if not levels:
        return None
    items: Iterable[tuple[str, Any]] | None = None
    if isinstance(value, Mapping):
        items = ((f"{path}.{key}", inner) for key, inner in value.items())
    elif isinstance(value, (list, tuple)):
        items = ((f"{path}[{number}]", inner) for number, inner in enumerate(value))
    if items is not None:
        inside = (_first_unspeakable(inner, at, levels - 1) for at, inner in items)
        found = next(filter(None, inside), None)
        if found is not None:
            return found
    return None if _is_spoken(value) else (path, _kind(value))


def _is_spoken(value: Any) -> bool:
    try:
        encode(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _kind(value: Any) -> str:
    if isinstance(value, float):
        return "NaN or an infinity"
    if isinstance(value, str):
        return "a text with half a surrogate pair"
    return f"a key of {type(value).__name__}" if isinstance(value, Mapping) else type(value).__name__
