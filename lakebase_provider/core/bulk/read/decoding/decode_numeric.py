"""Postgres' binary numeric to Arrow's decimals, many at once and exactly."""

from __future__ import annotations

from decimal import Decimal
from struct import unpack
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.bulk.read.decoding.fields import Fields, Malformed, ValueRefused, refuse
from lakebase_provider.core.bulk.types.decimals import cast, decimal_for

if TYPE_CHECKING:
    import pyarrow as pa

#: The sign words of a negative number, and of NaN and the infinities.
_NEGATIVE = 0x4000
_SPECIAL = (0xC000, 0xD000, 0xF000)
#: Bytes before the digits: their number, the first one's weight, the sign, the places behind the point.
_HEADER = 8
_MOST_PLACES = 0x3FFF
#: Bits of the header that are set in no number: of signs but minus, and of too many places.
_UNUSUAL = (0xFFFF & ~_NEGATIVE) << 16 | (0xFFFF & ~_MOST_PLACES)
_MOST_DIGIT = 9999
#: Decimal digits that int64 holds whatever they are.
_INT64_DIGITS = 18
#: Base-10000 digits that are summed up in one int64, and in several of them that Arrow then puts together.
_LIMB, _MOST_LIMBS = 4, 3


def decode_numeric(fields: Fields, kind: pa.DataType | None) -> pa.Array:
    """Numbers of the decimal type `kind`; of the one that the values need where that is None.

    A value is a row of base-10000 digits, of which the first one stands for 10000 ** weight. They are summed
    up as integers of a scale that all values of the batch have in common, in one, two or three times 64 bits;
    only larger ones go one by one through Python's Decimal.

    Raises:
        ValueRefused: A value is NaN or infinite, or has more digits than the type.
        Malformed: A field is no numeric.
    """
    import numpy as np
    import pyarrow as pa

    # All of the header at once; what is read behind a shorter field's end shows by its size.
    head = fields.read(">u8")
    count = (head >> 48).view(np.int64)
    fields.refuse(
        fields.sizes != _HEADER + 2 * count, "a numeric of another size than its digits have", Malformed
    )
    weight = (head << 16).view(np.int64) >> 48
    if (head & _UNUSUAL).any():
        sign = (head >> 16) & 0xFFFF
        refuse(np.isin(sign, _SPECIAL), "NaN or an infinity")
        refuse((sign != 0) & (sign != _NEGATIVE), "a numeric of an unknown sign", Malformed)
        refuse((head & 0xFFFF) > _MOST_PLACES, "a numeric of too many places", Malformed)
    negative = (head & (_NEGATIVE << 16)) != 0
    # Zero has no digits, and a weight without meaning.
    weight[count == 0] = 0
    if kind is None:
        kind = _needed(fields, count, weight, head & 0xFFFF)
    below = int(max((count - 1 - weight).max(initial=0), 0))
    above = int(max((weight + 1).max(initial=0), 0))
    limbs = -(-(below + above) // _LIMB) or 1
    if limbs > _MOST_LIMBS:
        return _one_by_one(fields, kind)
    parts = np.zeros((limbs, len(count)), dtype=np.int64)
    for k in range(int(count.max(initial=0))):
        has = count > k
        rows = None if has.all() else np.flatnonzero(has)
        digit = (fields if rows is None else fields.only(rows)).read(">u2", _HEADER + 2 * k).astype(np.int64)
        if (digit > _MOST_DIGIT).any():
            wrong = int((digit > _MOST_DIGIT).argmax())
            raise Malformed("a digit that is none", wrong if rows is None else int(rows[wrong]))
        power = below - k + (weight if rows is None else weight[rows])
        if limbs == 1:
            parts[0, slice(None) if rows is None else rows] += digit * _powers(power)
        else:
            limb, power = np.divmod(power, _LIMB)
            parts[limb, np.arange(len(count)) if rows is None else rows] += digit * _powers(power)
    np.negative(parts, out=parts, where=negative)
    scale = 4 * below
    if limbs > 1:
        return _put_together(parts, scale, fields, kind)
    total = parts[0]
    if scale > kind.scale:
        # A declared scale cuts through a base-10000 digit; what lies behind it is zero.
        total, rest = np.divmod(total, 10 ** (scale - kind.scale))
        refuse(rest != 0, f"more than {kind.scale} digits behind the point")
        scale = kind.scale
    return _to_decimal(total, scale, fields, pa.decimal128(38, scale), kind)


def _put_together(parts: Any, scale: int, fields: Fields, kind: pa.DataType) -> pa.Array:
    """Numbers of several times 16 digits, the last ones first."""
    import pyarrow as pa
    import pyarrow.compute as pc

    decimal, most = (pa.decimal128, 38) if len(parts) == 2 else (pa.decimal256, 76)
    base = pa.scalar(Decimal(10 ** (4 * _LIMB)), decimal(4 * _LIMB + 1, 0))
    found = None
    for part in reversed(parts):
        digits = pa.Array.from_buffers(pa.int64(), len(part), [None, pa.py_buffer(part)], 0)
        digits = digits.cast(decimal(19, 0))
        found = digits if found is None else pc.add(pc.multiply(found, base), digits)
    assert found is not None
    # The integers that they are, as the decimals that they stand for.
    buffers = [fields.validity(), found.buffers()[1]]
    whole = pa.Array.from_buffers(decimal(most, scale), len(fields), buffers, fields.null_count)
    try:
        return cast(whole, kind)
    except pa.ArrowInvalid:
        # Which one it is, and which side of the point is too long, takes another look.
        return _one_by_one(fields, kind)


def _needed(fields: Fields, count: Any, weight: Any, places: Any) -> pa.DataType:
    """The decimal that holds all of these."""
    import numpy as np

    first = np.zeros(len(count), dtype=np.int64)
    has = count > 0
    first[has] = fields.only(has).read(">u2", _HEADER)
    digits = np.searchsorted([1, 10, 100, 1000], first, side="right")
    before = np.where(has & (weight >= 0), 4 * weight + digits, 0)
    behind = np.minimum(places, 4 * np.maximum(count - 1 - weight, 0)).astype(np.int64)
    kind = decimal_for(int(before.max(initial=0)), int(behind.max(initial=0)))
    if kind is None:
        most = int((before + behind).argmax())
        alone = decimal_for(int(before[most]), int(behind[most])) is None
        row, a, b = (most, before[most], behind[most]) if alone else (None, before.max(), behind.max())
        raise ValueRefused(f"{a} digits before the point and {b} behind it", row)
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
        return cast(array, kind, digits=_INT64_DIGITS)
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
