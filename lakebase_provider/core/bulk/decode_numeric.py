"""Postgres' binary numeric to Arrow's decimals, many at once and exactly."""

from __future__ import annotations

from decimal import Decimal
from struct import unpack
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.bulk.decimals import decimal_for
from lakebase_provider.core.bulk.fields import Fields, Malformed, ValueRefused, refuse

if TYPE_CHECKING:
    import pyarrow as pa

#: The sign words of a negative number, and of NaN and the infinities.
_NEGATIVE = 0x4000
_SPECIAL = (0xC000, 0xD000, 0xF000)
#: Bytes before the digits: their number, the first one's weight, the sign, the places behind the point.
_HEADER = 8
_MOST_PLACES = 0x3FFF
_MOST_DIGIT = 9999
#: Decimal digits that int64 holds whatever they are.
_INT64_DIGITS = 18


def decode_numeric(fields: Fields, kind: pa.DataType | None) -> pa.Array:
    """Numbers of the decimal type `kind`; of the one that the values need where that is None.

    A value is a row of base-10000 digits, of which the first one stands for 10000 ** weight. Where all of a
    batch's values fit 64 bits as integers of a common scale, they are summed up as such; otherwise they go
    one by one through Python's Decimal.

    Raises:
        ValueRefused: A value is NaN or infinite, or has more digits than the type.
        Malformed: A field is no numeric.
    """
    import numpy as np
    import pyarrow as pa

    fields.refuse(fields.sizes < _HEADER, "a numeric shorter than its header", Malformed)
    count = fields.read(">u2", 0).astype(np.int64)
    fields.refuse(
        fields.sizes != _HEADER + 2 * count, "a numeric of another size than its digits have", Malformed
    )
    # As 32 bits: 16 overflow by what is added to a weight.
    weight = fields.read(">i2", 2).astype(np.int32)
    sign = fields.read(">u2", 4)
    negative = sign == _NEGATIVE
    if (signed := sign != 0).any() and (signed != negative).any():
        refuse(np.isin(sign, _SPECIAL), "NaN or an infinity")
        refuse(signed & ~negative, "a numeric of an unknown sign", Malformed)
    places = fields.read(">u2", 6)
    refuse(places > _MOST_PLACES, "a numeric of too many places", Malformed)
    # Zero has no digits, and a weight without meaning.
    weight[count == 0] = 0
    if kind is None:
        kind = _needed(fields, count, weight, places)
    below = int(max((count - 1 - weight).max(initial=0), 0))
    above = int(max((weight + 1).max(initial=0), 0))
    if 4 * (below + above) > _INT64_DIGITS:
        return _one_by_one(fields, kind)
    total = np.zeros(len(count), dtype=np.int64)
    for k in range(int(count.max(initial=0))):
        has = count > k
        if has.all():
            digit = fields.read(">u2", _HEADER + 2 * k)
            refuse(digit > _MOST_DIGIT, "a digit that is none", Malformed)
            total += digit * _powers(below + weight - k)
        else:
            digit = fields.only(has).read(">u2", _HEADER + 2 * k)
            if (digit > _MOST_DIGIT).any():
                raise Malformed(
                    "a digit that is none", int(np.flatnonzero(has)[(digit > _MOST_DIGIT).argmax()])
                )
            total[has] += digit * _powers(below + weight[has] - k)
    np.negative(total, out=total, where=negative)
    scale = 4 * below
    if scale > kind.scale:
        # A declared scale cuts through a base-10000 digit; what lies behind it is zero.
        total, rest = np.divmod(total, 10 ** (scale - kind.scale))
        refuse(rest != 0, f"more than {kind.scale} digits behind the point")
        scale = kind.scale
    return _to_decimal(total, scale, fields, pa.decimal128(38, scale), kind)


def _needed(fields: Fields, count: Any, weight: Any, places: Any) -> pa.DataType:
    """The decimal that holds all of these."""
    import numpy as np

    first = np.zeros(len(count), dtype=np.int64)
    has = count > 0
    first[has] = fields.only(has).read(">u2", _HEADER)
    digits = np.searchsorted([1, 10, 100, 1000], first, side="right")
    whole = int(np.where(has & (weight >= 0), 4 * weight + digits, 0).max(initial=0))
    behind = int(np.minimum(places, 4 * np.maximum(count - 1 - weight, 0)).max(initial=0))
    kind = decimal_for(whole, behind)
    if kind is None:
        raise ValueRefused(f"{whole} digits before the point and {behind} behind it")
    return kind


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
    if exact and kind.precision < _INT64_DIGITS:
        refuse(np.abs(total) >= 10**kind.precision, f"more than {kind.precision} digits")
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

    values: list[Decimal | None] = []
    for raw in fields.values():
        try:
            values.append(None if raw is None else _decimal(raw, kind))
        except ValueRefused as error:
            error.row = len(values)
            raise
    try:
        return pa.array(values, type=kind)
    except (pa.ArrowException, ValueError):
        raise ValueRefused(f"more digits than {kind}") from None


def _decimal(raw: bytes, kind: pa.DataType) -> Decimal:
    weight = int.from_bytes(raw[2:4], "big", signed=True)
    digits = unpack(f">{(len(raw) - _HEADER) // 2}H", raw[_HEADER:])
    if digits and max(digits) > _MOST_DIGIT:
        raise Malformed("a digit that is none")
    first, end = 0, len(digits)
    while end and digits[end - 1] == 0:
        end -= 1
    while first < end and digits[first] == 0:
        first += 1
    if first == end:
        return Decimal(0)
    exponent = 4 * (weight - end + 1)
    # Before all the digits are put together, which takes long for many: whether one lies too far.
    if exponent + 4 <= -kind.scale:
        raise ValueRefused(f"more than {kind.scale} digits behind the point")
    if 4 * (weight - first) >= kind.precision - kind.scale:
        raise ValueRefused(f"more digits than {kind}")
    number = 0
    for digit in digits[first:end]:
        number = number * 10_000 + digit
    if exponent < -kind.scale:
        number, rest = divmod(number, 10 ** (-kind.scale - exponent))
        if rest:
            raise ValueRefused(f"more than {kind.scale} digits behind the point")
        exponent = -kind.scale
    return Decimal((int(raw[4] == _NEGATIVE >> 8), tuple(map(int, str(number))), exponent))
