"""Postgres' binary numeric to Arrow's decimals, many at once and exactly."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.bulk.fields import Fields, ValueRefused

if TYPE_CHECKING:
    import pyarrow as pa

#: The sign word of a negative number; greater words stand for NaN and the infinities.
_NEGATIVE = 0x4000
_SPECIAL = 0xC000
#: Decimal digits that int64 holds whatever they are.
_INT64_DIGITS = 18


def decode_numeric(fields: Fields, kind: pa.DataType) -> pa.Array:
    """Numbers of the decimal type `kind`.

    A value is a row of base-10000 digits, of which the first one stands for 10000 ** weight. Where all of a
    batch's values fit 64 bits as integers of a common scale, they are summed up as such; otherwise they go
    one by one through Python's Decimal.

    Raises:
        ValueRefused: A value is NaN or infinite, or has more digits than the type.
    """
    import numpy as np
    import pyarrow as pa

    count = fields.read(">i2", 0)
    weight = fields.read(">i2", 2)
    sign = fields.read(">u2", 4)
    if (sign >= _SPECIAL).any():
        raise ValueRefused("NaN or an infinity")
    # Zero has no digits, and a weight without meaning.
    weight[count == 0] = 0
    below = int(max((count - 1 - weight).max(initial=0), 0))
    above = int(max((weight + 1).max(initial=0), 0))
    if 4 * (below + above) > _INT64_DIGITS:
        return _one_by_one(fields, kind)
    total = np.zeros(len(count), dtype=np.int64)
    for k in range(int(count.max(initial=0))):
        has = count > k
        if has.all():
            total += fields.read(">i2", 8 + 2 * k).astype(np.int64) * _powers(below + weight - k)
        else:
            chosen = fields.only(has)
            digit = chosen.read(">i2", 8 + 2 * k).astype(np.int64)
            total[has] += digit * _powers(below + weight[has] - k)
    np.negative(total, out=total, where=sign == _NEGATIVE)
    scale = 4 * below
    if scale > kind.scale:
        # A declared scale cuts through a base-10000 digit; what lies behind it is zero.
        total, rest = np.divmod(total, 10 ** (scale - kind.scale))
        if rest.any():
            raise ValueRefused(f"more than {kind.scale} digits behind the point")
        scale = kind.scale
    return _to_decimal(total, scale, fields, pa.decimal128(38, scale), kind)


def _powers(exponents: Any) -> Any:
    import numpy as np

    return np.array([1, 10**4, 10**8, 10**12, 10**16], dtype=np.int64)[exponents]


def _to_decimal(total: Any, scale: int, fields: Fields, whole: pa.DataType, kind: pa.DataType) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    words = np.empty((len(total), 2), dtype=np.int64)
    words[:, 0] = total
    words[:, 1] = total >> 63
    exact = whole.scale == kind.scale and pa.types.is_decimal128(kind)
    if exact and kind.precision < _INT64_DIGITS and (np.abs(total) >= 10**kind.precision).any():
        raise ValueRefused(f"more than {kind.precision} digits")
    array = pa.Array.from_buffers(
        kind if exact else whole, len(total), [fields.validity(), pa.py_buffer(words)], fields.null_count
    )
    return array if exact else _cast(array, kind)


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    try:
        return array.cast(kind)
    except pa.ArrowInvalid:
        raise ValueRefused(f"more digits than {kind}") from None


def _one_by_one(fields: Fields, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    values = [None if raw is None else _decimal(raw, kind.scale) for raw in fields.values()]
    try:
        return pa.array(values, type=kind)
    except (pa.ArrowException, ValueError):
        raise ValueRefused(f"more digits than {kind}") from None


def _decimal(raw: bytes, scale: int) -> Decimal:
    count = int.from_bytes(raw[0:2], "big")
    weight = int.from_bytes(raw[2:4], "big", signed=True)
    number = 0
    for k in range(count):
        number = number * 10_000 + int.from_bytes(raw[8 + 2 * k : 10 + 2 * k], "big")
    exponent = 4 * (weight - count + 1) if count else 0
    if exponent < -scale:
        number, rest = divmod(number, 10 ** (-scale - exponent))
        if rest:
            raise ValueRefused(f"more than {scale} digits behind the point")
        exponent = -scale
    digits = tuple(map(int, str(number)))
    return Decimal((int(raw[4] == _NEGATIVE >> 8), digits, exponent))
