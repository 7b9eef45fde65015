"""COPY data of Arrow columns that are cast to their targets: binary by pgpq, text by Arrow itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.bulk.types.arrow import array_of, scalar_of
from lakebase_provider.core.bulk.types.target_columns import Target

if TYPE_CHECKING:
    import pyarrow as pa

#: Signature, flags and the length of the header's extension.
BINARY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
BINARY_TRAILER = b"\xff\xff"
_MICROSECONDS = 86_400_000_000
#: Days of 400 years, and of the time from the year 1 to 1970, counted from 1.
_CYCLE, _EPOCH = 146_097, date(1970, 1, 1).toordinal()
#: Days since 1970 of the years 1 to 9999, which Arrow and Postgres write alike.
_WRITTEN_ALIKE = (date.min.toordinal() - _EPOCH, date.max.toordinal() - _EPOCH + 1)


class BinaryEncoder:
    """Rows in the format of binary COPY, by one pgpq encoder for as long as the columns keep their types.

    Args:
        targets: The columns' targets.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        self._targets = targets
        self._types: list[pa.DataType] = []
        self._schema: pa.Schema | None = None
        self._encoder: Any = None

    def encode(self, arrays: Sequence[pa.Array]) -> memoryview:
        """More rows, without header and trailer; a small batch is held back until more have come.

        Args:
            arrays: The columns as :class:`~lakebase_provider.core.bulk.encode.from_arrow.Caster` or
                :class:`~lakebase_provider.core.bulk.encode.from_python.ValuesEncoder` give them.
        """
        import pyarrow as pa

        types = [array.type for array in arrays]
        before = b""
        # A column's type may differ from batch to batch, where not all values fit Arrow.
        if types != self._types or self._encoder is None:
            before = self._held()[: -len(BINARY_TRAILER)]
            self._start(types)
        batch = pa.RecordBatch.from_arrays(list(arrays), schema=self._schema)
        # After an error it would hold a part of a row.
        encoder, self._encoder = self._encoder, None
        data = encoder.write_batch(batch)
        self._encoder = encoder
        return memoryview(before + data if before else data)

    def finish(self) -> memoryview:
        """What was held back, and the trailer."""
        return memoryview(self._held())

    def _held(self) -> bytes:
        encoder, self._encoder = self._encoder, None
        return BINARY_TRAILER if encoder is None else encoder.finish()

    def _start(self, types: list[pa.DataType]) -> None:
        import pyarrow as pa
        from pgpq import ArrowToPostgresBinaryEncoder, encoders
        from pgpq.schema import Jsonb

        # Names of our own: those of the columns need not be unique in what Arrow makes of them.
        fields = [pa.field(str(index), kind) for index, kind in enumerate(types)]
        self._types, self._schema = types, pa.schema(fields)
        chosen: dict[str, Any] = {}
        for field, target in zip(fields, self._targets, strict=True):
            if target.kind == "jsonb" and not pa.types.is_binary(field.type):
                kinds: dict[Any, Any] = {
                    pa.string(): encoders.StringEncoderBuilder,
                    pa.large_string(): encoders.LargeStringEncoderBuilder,
                }
                builder = kinds.get(field.type, encoders.StringViewEncoderBuilder)
                chosen[field.name] = builder.new_with_output(field, Jsonb())
            else:
                chosen[field.name] = ArrowToPostgresBinaryEncoder.infer_encoder(field)
        self._encoder = ArrowToPostgresBinaryEncoder.new_with_encoders(self._schema, chosen)
        self._encoder.write_header()


def encode_text(arrays: Sequence[pa.Array], targets: Sequence[Target]) -> memoryview:
    """Rows in the format of text COPY.

    Args:
        arrays: The columns as cast or encoded for text.
        targets: The columns' targets.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = [_text(array, target) for array, target in zip(arrays, targets, strict=True)]
    nothing, tab, end = (scalar_of(text, pa.string()) for text in ("", "\t", "\n"))
    last = pc.binary_join_element_wise(
        texts[-1], nothing, end, null_handling="replace", null_replacement="\\N"
    )
    lines = last
    if len(texts) > 1:
        lines = pc.binary_join_element_wise(
            *texts[:-1], last, tab, null_handling="replace", null_replacement="\\N"
        )
    # The lines lie one after the other in the array's buffer of characters.
    offsets, data = lines.buffers()[1:]
    assert lines.offset == 0
    size = int.from_bytes(memoryview(offsets)[len(lines) * 4 : len(lines) * 4 + 4], "little")
    return memoryview(data)[:size]


def _text(array: pa.Array, target: Target) -> pa.Array:
    import pyarrow as pa

    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _escaped(array.cast(pa.string()))
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return array.cast(pa.string())
    if target.kind == "bytea":
        return _mapped(array, lambda value: "\\\\x" + value.hex())
    if target.kind == "uuid":
        return _mapped(array, bytes.hex)
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return _moments(array)
    return array.cast(pa.string())


def _moments(array: pa.Array) -> pa.Array:
    """Dates and times as Postgres reads them, also of years that Arrow writes otherwise or not at all."""
    import pyarrow as pa
    import pyarrow.compute as pc

    days = pa.types.is_date(array.type)
    in_a_day = 1 if days else _MICROSECONDS
    numbers = (
        array.view(pa.int32()) if days else array.cast(pa.timestamp("us", array.type.tz)).view(pa.int64())
    )
    first, after = (day * in_a_day for day in _WRITTEN_ALIKE)
    span = pc.min_max(numbers).as_py()
    if span["min"] is None or (first <= span["min"] and span["max"] < after):
        return array.cast(pa.string())
    zone = "" if days or array.type.tz is None else "Z"
    return _mapped(numbers, lambda number: _spelt(number, in_a_day, zone))


def _spelt(number: int, in_a_day: int, zone: str) -> str:
    day, microseconds = divmod(number, in_a_day)
    # The calendar repeats itself every 400 years; Python's has those from 1 to 9999.
    cycles, day = divmod(day + _EPOCH - 1, _CYCLE)
    moment = datetime.fromordinal(day + 1) + timedelta(microseconds=microseconds)
    year = moment.year + 400 * cycles
    return f"{year if year > 0 else 1 - year:04d}-{moment:%m-%d %H:%M:%S.%f}{zone}" + " BC" * (year < 1)


def _mapped(array: pa.Array, function: Callable[[Any], str]) -> pa.Array:
    import pyarrow as pa

    texts = [None if value is None else function(value) for value in array.to_pylist()]
    return array_of(texts, pa.string())


def _escaped(array: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    for character, escape in (("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        if pc.any(pc.match_substring(array, character)).as_py():
            array = pc.replace_substring(array, character, escape)
    return array
