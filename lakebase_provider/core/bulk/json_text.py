"""Python values as JSON: by msgspec where it is installed, at a tenth of the standard library's cost."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any


def encode(value: Any) -> bytes:
    """A value as JSON in UTF-8.

    Dates, times and UUIDs become strings, and a Decimal a number with its digits, where msgspec is installed.

    Args:
        value: A dict, list or scalar; psycopg's Json and Jsonb are unwrapped.

    Raises:
        TypeError: It holds something that JSON has no form for.
        ValueError: It holds NaN or an infinity, or a text that is no Unicode.
    """
    try:
        encoded = _encoder()(value)
    except OverflowError:  # an integer beyond 64 bits
        return _by_standard_library(value)
    # msgspec writes NaN and the infinities as null.
    if b"null" in encoded and _has_non_finite(value):
        raise ValueError("JSON has no NaN and no infinity")
    return encoded


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
    if len(encoded) < len(values) or b"null" in b"".join(filter(None, encoded)):
        return [
            None if value is None else value.encode() if type(value) is str else encode(value)
            for value in values
        ]
    return encoded


def encode_lines(values: Sequence[Any]) -> bytes | None:
    """Many dicts and lists as JSON in one call, each with a line feed behind it, which none of them holds.

    Returns:
        None where the values have to be looked at one by one: another type, a null, or no msgspec.

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
    return None if b"null" in encoded else encoded


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


def _has_non_finite(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(map(_has_non_finite, value.values()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(map(_has_non_finite, value))
    return False
