"""An Arrow column cast to what its target's encoder takes, every value unchanged.

Binary COPY trusts the bytes: eight bytes of an integer become a float without a word. So each pair of Arrow
type and target has a rule here, or is refused before anything is sent.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.bulk.encode.from_python import ValuesEncoder
from lakebase_provider.core.bulk.encode.parsed_text import check_parsed
from lakebase_provider.core.bulk.types import json_text
from lakebase_provider.core.bulk.types.arrow import (
    MAX_DECIMAL128,
    Cast,
    array_of,
    bounded,
    canonical,
    decoded,
    decoded_type,
    is_list,
    is_list_view,
    is_text,
    nulls,
    same,
    scalar_of,
    to,
    to_day,
    to_float4,
    with_digits_of_float4,
)
from lakebase_provider.core.bulk.types.decimals import cast as cast_to_decimal
from lakebase_provider.core.bulk.types.postgres_types import BY_NAME, FLOATS, INTEGERS, JSONS, TEXTS
from lakebase_provider.core.bulk.types.target_columns import OTHER, BadValueError, Target
from lakebase_provider.core.bulk.types.values import check
from lakebase_provider.core.errors import ColumnMismatchError

if TYPE_CHECKING:
    import pyarrow as pa

#: Days and microseconds since 1970 of Postgres' first day; pgpq lets smaller ones become -infinity.
_FIRST_DAY = -2_440_588
_FIRST_MOMENT = -210_866_803_200_000_000


def _of_intervals(value: Any, index: int) -> Any:
    """A value with each of Arrow's intervals in it as Postgres reads it; the row's index is for the error."""
    import pyarrow as pa

    if isinstance(value, dict):
        return {name: _of_intervals(one, index) for name, one in value.items()}
    if isinstance(value, list):
        return [_of_intervals(one, index) for one in value]
    if not isinstance(value, pa.MonthDayNano):
        return value
    micro, lost = divmod(value.nanoseconds, 1000)
    if lost:
        raise BadValueError(
            "nanoseconds, which no interval keeps", kind="month_day_nano_interval", index=index
        )
    seconds, micro = divmod(abs(micro), 1_000_000)
    sign = "-" if value.nanoseconds < 0 else ""
    clock = f"{sign}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}.{micro:06}"
    return f"{value.months} mons {value.days} days {clock}"


@cache
def _faults() -> tuple[type[Exception], ...]:
    """What Arrow raises over a value; a KeyError for a map's key that repeats, or for a zone unknown here."""
    import pyarrow as pa

    return (pa.ArrowException, ValueError, KeyError, OverflowError)


def _holds_json(kind: pa.DataType) -> bool:
    """Whether it is JSON as text, or has such within."""
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        return bool(kind.extension_name == "arrow.json")
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _holds_json(kind.value_type)
    return any(_holds_json(kind.field(place).type) for place in range(kind.num_fields))


def _with_json(value: Any, kind: pa.DataType, arrays: bool, within: bool = False) -> Any:
    """A value with the JSON in it as such and not as text.

    Args:
        value: The value.
        kind: Its type.
        arrays: Whether lists around all else are elements of an array, each of which may be JSON as text.
        within: Whether it stands within a value that becomes JSON.
    """
    import pyarrow as pa

    if value is None or not _holds_json(kind):
        return value
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _with_json(value, kind.value_type, arrays, within)
    if isinstance(value, str):
        return json_text.written(value) if within else value
    if pa.types.is_struct(kind):
        return {one.name: _with_json(value[one.name], one.type, False, within=True) for one in kind}
    if pa.types.is_map(kind):
        return {key: _with_json(one, kind.item_type, False, within=True) for key, one in value.items()}
    return [_with_json(one, kind.value_type, arrays, within=not arrays) for one in value]


def needs_text(source: pa.DataType, target: Target) -> bool:
    """Whether the server's input function has to read the column: text for a type that is none."""
    kind = decoded_type(source)
    return is_text(kind) and target.kind not in {*TEXTS, *JSONS, "uuid"}


class Caster:
    """Casts the batches of one Arrow column.

    Args:
        source: The column's Arrow type.
        target: The table's column.
        text: True to prepare for text COPY.
        strict: True to find now what the server would refuse, so that the row can be rejected.

    Raises:
        ColumnMismatchError: No value of the source's type can go into the column.
    """

    def __init__(self, source: pa.DataType, target: Target, *, text: bool, strict: bool) -> None:
        self._kind = decoded_type(source)
        self._holds_json = _holds_json(self._kind)
        self._target = target
        self._text = text
        self._strict = strict
        self._rule = self._choose()

    def cast(self, array: pa.Array) -> pa.Array:
        """The array as the encoder takes it.

        Raises:
            BadValueError: A value does not fit the column; its index says which.
        """
        array = decoded(array)
        try:
            return self._rule(array)
        except BadValueError as error:
            if error.index >= 0:
                raise
        except _faults():
            pass
        reason = f"does not fit {self._target.type_name} unchanged"
        raise BadValueError(reason, kind=str(self._kind), index=self._locate(array))

    def _locate(self, array: pa.Array) -> int:
        """The first value at which the rule fails, by halving."""
        start, stop = 0, len(array)
        while stop - start > 1:
            middle = (start + stop) // 2
            if self._fails(array.slice(start, middle - start)):
                stop = middle
            else:
                start = middle
        return start

    def _fails(self, array: pa.Array) -> bool:
        try:
            self._rule(array)
        except _faults():
            return True
        return False

    def _choose(self) -> Cast:
        import pyarrow as pa

        kind, target, t = self._kind, self._target, pa.types
        if t.is_null(kind):
            return self._by_values if target.kind == OTHER or self._text else nulls(target)
        rule: Cast | None
        if is_text(kind):
            rule = self._from_text()
        elif target.kind == OTHER or (target.kind in JSONS and not t.is_binary(kind)):
            rule = self._by_values
        elif target.kind == "array":
            rule = self._from_list() if is_list(kind) else None
        elif t.is_integer(kind):
            rule = self._from_integer()
        elif t.is_floating(kind):
            rule = self._from_float()
        elif t.is_decimal(kind):
            rule = self._from_decimal()
        elif t.is_temporal(kind):
            rule = self._from_temporal()
        else:
            rule = self._from_rest()
        if rule is None:
            raise ColumnMismatchError(
                f"Column {target.name!r} of type {target.type_name} does not take Arrow's {kind}.",
                remedy=f"Cast the source's column to a type that fits {target.type_name}.",
            )
        return rule

    def _from_text(self) -> Cast | None:
        kind = self._target.kind
        if kind in TEXTS:
            return self._texts
        if kind in JSONS:
            return self._json_texts
        if kind == "uuid":
            return self._by_values
        return partial(check_parsed, target=self._target, strict=self._strict) if self._text else None

    def _texts(self, array: pa.Array) -> pa.Array:
        import pyarrow as pa
        import pyarrow.compute as pc

        target = self._target
        if not (target.length or target.max_bytes or self._strict):
            return array
        array = array.cast(pa.string())  # what measures texts knows no views
        if target.length:
            excess = pc.greater(pc.utf8_length(array), scalar_of(target.length, pa.int32()))
            self._forbid(array, excess, f"longer than {target.type_name}")
        if target.max_bytes:
            excess = pc.greater(pc.binary_length(array), scalar_of(target.max_bytes, pa.int32()))
            self._forbid(array, excess, f"longer than the {target.max_bytes} bytes of {target.type_name}")
        if self._strict:
            nul = pc.match_substring(array, "\0")
            self._forbid(array, nul, "text with a NUL character, which Postgres cannot store")
            if target.labels:
                known = pc.is_in(array, array_of(sorted(target.labels), pa.string()))
                unknown = pc.and_(pc.invert(known), pc.is_valid(array))
                self._forbid(array, unknown, f"no label of the enum {target.type_name}")
        return array

    def _json_texts(self, array: pa.Array) -> pa.Array:
        if self._strict:
            for index, value in enumerate(array.to_pylist()):
                try:
                    _ = value if value is None else check(value, self._target)
                except BadValueError as error:
                    error.index = index
                    raise
        return array

    def _forbid(self, array: pa.Array, mask: pa.Array, reason: str) -> None:
        import pyarrow.compute as pc

        found = pc.indices_nonzero(mask)
        if len(found):
            raise BadValueError(reason, kind=str(array.type), index=found[0].as_py())

    def _by_values(self, array: pa.Array) -> pa.Array:
        innermost = self._target
        while innermost.element is not None:
            innermost = innermost.element
        if innermost.kind in {*JSONS, "numeric"}:  # which hold digits
            array = with_digits_of_float4(array)
        values = array.to_pylist(maps_as_pydicts="strict")
        if self._holds_json:
            arrays = self._target.kind == "array"
            values = [_with_json(value, array.type, arrays) for value in values]
        if "month_day_nano" in str(array.type):
            values = [_of_intervals(value, index) for index, value in enumerate(values)]
        return ValuesEncoder(self._target, text=self._text, strict=self._strict).encode(values)

    def _from_list(self) -> Cast:
        import pyarrow as pa

        element, value_type = self._target.element, decoded_type(self._kind.value_type)
        assert element is not None
        if is_text(value_type) and element.kind not in {*TEXTS, *JSONS, "uuid", "bytea"}:
            return self._by_values  # such as numerics, whose digits only text may hold
        try:
            Caster(value_type, element, text=self._text, strict=self._strict)
        except ColumnMismatchError:
            if not is_list(value_type):
                raise
            return self._by_values  # an array of more dimensions
        # What is encoded within a list, Arrow decodes value by value alone.
        plain = value_type == self._kind.value_type and not is_list_view(self._kind)
        if self._text or self._strict or not plain or not BY_NAME[element.kind].listable:
            return self._by_values
        if value_type != canonical(element) and not (is_text(value_type) and element.kind == "text"):
            return self._by_values
        if is_text(value_type) and not pa.types.is_string(value_type):
            return to(pa.list_(pa.string()))
        if pa.types.is_list(self._kind) or pa.types.is_large_list(self._kind):
            return same
        return to(pa.list_(value_type))

    def _from_integer(self) -> Cast | None:
        import pyarrow as pa

        kind = self._target.kind
        if kind in INTEGERS or kind in FLOATS:
            return to(canonical(self._target))
        if kind == "numeric":
            whole = to(pa.decimal128(20, 0))
            return self._scaled(whole)
        if kind in TEXTS - {"enum"}:
            to_text = to(pa.string())
            return lambda array: self._texts(to_text(array))
        return None

    def _from_float(self) -> Cast | None:
        import pyarrow as pa

        kind = self._target.kind
        if kind in INTEGERS or kind == "float8":
            return to(canonical(self._target))
        if kind == "float4":
            return same if pa.types.is_float32(self._kind) else to_float4
        return self._float_to_numeric if kind == "numeric" else None

    def _float_to_numeric(self, array: pa.Array) -> pa.Array:
        """By the shortest digits that mean the float, as Python's Decimal(repr(value))."""
        import pyarrow as pa

        if self._fits_decimal128() and self._target.precision:
            try:
                return cast_to_decimal(array.cast(pa.string()), canonical(self._target))
            except pa.ArrowException:
                pass  # NaN, or a bad value
        if pa.types.is_float64(array.type):
            return self._by_values(array)
        texts = array.cast(pa.string()).to_pylist()  # a narrower float has fewer digits of its own
        return ValuesEncoder(self._target, text=self._text, strict=self._strict).encode(texts)

    def _from_decimal(self) -> Cast | None:
        import pyarrow as pa

        kind = self._target.kind
        if kind in INTEGERS:
            return to(canonical(self._target))
        if kind in FLOATS:
            return self._by_values
        if kind != "numeric":
            return None
        if self._target.precision:
            return self._scaled(same)
        if pa.types.is_decimal256(self._kind):
            return self._by_values
        return to(pa.decimal128(MAX_DECIMAL128, self._kind.scale))

    def _scaled(self, first: Cast) -> Cast:
        if not self._target.precision:
            return first
        if not self._fits_decimal128():
            return self._by_values
        second = to(canonical(self._target))
        return lambda array: second(first(array))

    def _fits_decimal128(self) -> bool:
        return self._target.precision <= MAX_DECIMAL128 and 0 <= self._target.scale <= self._target.precision

    def _from_temporal(self) -> Cast | None:
        import pyarrow as pa

        kind, target, t = self._kind, self._target, pa.types
        if target.kind == "time" and t.is_time(kind):
            return self._kept(to(pa.time64("us")))
        if target.kind == "date" and t.is_date(kind):
            return bounded(to(pa.date32()), pa.int32(), _FIRST_DAY)
        if target.kind == "date" and t.is_timestamp(kind) and kind.tz is None:
            return bounded(to_day, pa.int32(), _FIRST_DAY)
        moment = t.is_timestamp(kind) or t.is_date(kind)
        if moment and target.kind in ("timestamp", "timestamptz"):
            zone = kind.tz if t.is_timestamp(kind) else None
            if zone is not None and target.kind == "timestamp":
                return None
            # Without a zone it is UTC, whatever the session's zone.
            micro, final = to(pa.timestamp("us", zone)), to(canonical(target))
            return self._kept(bounded(lambda array: final(micro(array)), pa.int64(), _FIRST_MOMENT))
        return None

    def _kept(self, cast: Cast) -> Cast:
        """Refuse digits of a second that the column would round away."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if self._target.fraction >= 6:
            return cast
        unit = scalar_of(10 ** (6 - self._target.fraction), pa.int64())

        def kept(array: pa.Array) -> pa.Array:
            found = cast(array)
            micro = found.view(pa.int64())
            rest = pc.not_equal(micro, pc.multiply(pc.divide(micro, unit), unit))
            self._forbid(array, rest, f"more digits of a second than {self._target.type_name} keeps")
            return found

        return kept

    def _from_rest(self) -> Cast | None:
        import pyarrow as pa

        kind, target, t = self._kind, self._target, pa.types
        if target.kind == "bool" and t.is_boolean(kind):
            return same
        binary = t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind)
        if target.kind == "bytea" and (binary or t.is_fixed_size_binary(kind)):
            return to(pa.binary()) if t.is_binary_view(kind) else same
        if target.kind == "uuid" and t.is_fixed_size_binary(kind) and kind.byte_width == 16:
            return same
        return self._by_values if target.kind in {*JSONS, "uuid"} and binary else None
