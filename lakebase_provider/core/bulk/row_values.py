"""Columns of binary COPY data as lists of Python values: those that psycopg makes of the type's text.

A reader gets the fields of one column in a batch of rows, none of them NULL, and the batch's bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import MAX_EMAX, MIN_EMIN, ROUND_HALF_EVEN, Context, Decimal
from itertools import repeat
from typing import Any

from lakebase_provider.core.bulk.binary_copy import malformed
from lakebase_provider.core.bulk.fields import Fields, at

Reader = Callable[[Fields, bytes], list[Any]]
Load = Callable[[bytes], Any]

#: The sign words of numbers; greater ones stand for NaN and the infinities.
_POSITIVE, _NEGATIVE = 0, 0x4000
#: Decimal digits that int64 holds whatever they are.
_INT64_DIGITS = 18


def read_column(read: Reader, fields: Fields, raw: bytes) -> list[Any]:
    """The values of a column, None for NULL.

    Args:
        read: Reads what is not NULL.
        fields: The column's fields.
        raw: The bytes in which they lie.
    """
    if fields.nulls is None:
        return read(fields, raw)
    there = ~fields.nulls
    values = iter(read(Fields(fields.data, fields.starts[there], fields.sizes[there]), raw))
    return [None if null else next(values) for null in fields.nulls.tolist()]


def require_width(fields: Fields, width: int) -> None:
    """See that each field has that many bytes.

    Raises:
        LoadError: One has not.
    """
    if (fields.sizes != width).any():
        raise malformed()


def numbers(kind: str, width: int) -> Reader:
    """Reads numbers of one of numpy's types, such as ``">i4"``, as int or float."""

    def read(fields: Fields, raw: bytes) -> list[Any]:
        require_width(fields, width)
        found: list[Any] = fields.read(kind).tolist()
        return found

    return read


def booleans(fields: Fields, raw: bytes) -> list[Any]:
    """Reads bool."""
    require_width(fields, 1)
    found: list[Any] = (fields.read(">i1") != 0).tolist()
    return found


def pieces(fields: Fields, raw: bytes, skip: int = 0) -> list[bytes]:
    """Reads each field's bytes, without the first few."""
    starts, ends = (fields.starts + skip).tolist(), (fields.starts + fields.sizes).tolist()
    return [raw[start:end] for start, end in zip(starts, ends, strict=True)]


def texts(fields: Fields, raw: bytes) -> list[Any]:
    """Reads text in UTF-8."""
    starts, ends = fields.starts.tolist(), (fields.starts + fields.sizes).tolist()
    return [raw[start:end].decode() for start, end in zip(starts, ends, strict=True)]


def loaded(load: Load, skip: int = 0) -> Reader:
    """Has each field's bytes, without the first few, read by one of psycopg's loaders."""

    def read(fields: Fields, raw: bytes) -> list[Any]:
        return list(map(load, pieces(fields, raw, skip)))

    return read


def documents(load: Load, skip: int) -> Reader:
    """Reads JSON that ``json.loads`` reads: a batch as one array, which costs a tenth of one by one.

    Args:
        load: Reads a single one, and raises the error of a text that cannot be read.
        skip: Bytes before the text.
    """

    def read(fields: Fields, raw: bytes) -> list[Any]:
        found = pieces(fields, raw, skip)
        try:
            values = json.loads(b"[%s]" % b",".join(found))
        except (ValueError, RecursionError):
            values = []
        # Each is valid JSON to the server, so that none can run into the next one.
        return values if len(values) == len(found) else list(map(load, found))

    return read


def decimals(load: Load) -> Reader:
    """Reads numeric as Decimals with as many digits behind the point as their text has.

    A value is a row of base-10000 digits, of which the first one stands for 10000 ** weight. What 64 bits
    hold as an integer of units of the last decimal digit is summed up at once.

    Args:
        load: Reads a single value in its binary form.
    """

    def read(fields: Fields, raw: bytes) -> list[Any]:
        import numpy as np

        count, weight, sign, scale = (
            fields.read(kind, 2 * k).astype(np.int64) for k, kind in enumerate((">u2", ">i2", ">u2", ">u2"))
        )
        unit = int(scale.max(initial=0))
        fits = (
            ((sign == _POSITIVE) | (sign == _NEGATIVE))
            # A declared scale is that of every value but NaN.
            & (scale == unit)
            & (4 * (np.maximum(weight, 0) + 1) + scale <= _INT64_DIGITS)
            # A declared scale may cut through the last digit, not leave it out.
            & (4 * (weight - count + 1) + scale > -4)
        )
        if fits.all():
            return _scaled(fields, count, weight, sign, unit)
        chosen = Fields(fields.data, fields.starts[fits], fields.sizes[fits])
        quick = iter(_scaled(chosen, count[fits], weight[fits], sign[fits], unit))
        rest = Fields(fields.data, fields.starts[~fits], fields.sizes[~fits])
        slow = map(load, pieces(rest, raw))
        return [next(quick if fit else slow) for fit in fits.tolist()]

    return read


def _scaled(fields: Fields, count: Any, weight: Any, sign: Any, scale: int) -> list[Any]:
    import numpy as np

    powers = np.array([10**k for k in range(_INT64_DIGITS)], dtype=np.int64)
    words = at(fields.data, ">i2")
    total = np.zeros(len(fields), dtype=np.int64)
    for k in range(int(count.max(initial=0))):
        has = count > k
        digit = np.where(has, words[np.where(has, fields.starts + 8 + 2 * k, fields.starts)], 0)
        exponent = np.where(has, 4 * (weight - k) + scale, 0)
        if (exponent < 0).any():
            digit //= powers[np.maximum(-exponent, 0)]
        total += digit * powers[np.maximum(exponent, 0)]
    np.negative(total, out=total, where=sign == _NEGATIVE)
    # Exact in whatever context the caller computes.
    context = Context(38, ROUND_HALF_EVEN, MIN_EMIN, MAX_EMAX, capitals=1, clamp=0, flags=[], traps=[])
    return list(map(context.multiply, total.tolist(), repeat(Decimal((0, (1,), -scale)))))
