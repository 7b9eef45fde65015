"""Decimal types for numerics that declare no digits, such as an average: by what the values need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from lakebase_provider.core.base.choices import require_choice
from lakebase_provider.core.errors import LoadError

if TYPE_CHECKING:
    import pyarrow as pa

#: What a numeric becomes: a decimal, or the text that Postgres writes for it.
Numeric = Literal["decimal", "text"]

#: Digits in all of Arrow's two decimals.
_SMALL, MOST_DIGITS = 38, 76
#: Digits behind the point that an undeclared numeric has at least, where there is room.
_USUAL_SCALE = 18

REMEDY = (
    "Round the column or cast it to text, in the query or the table; "
    "a fetch and an unload take numeric='text' for the same."
)


def undeclared() -> pa.DataType:
    """What a numeric without declared digits is read as where its values let it."""
    import pyarrow as pa

    return pa.decimal128(_SMALL, _USUAL_SCALE)


def require_numeric(numeric: str) -> None:
    """Refuse an unknown way to read numerics before anything is read.

    Raises:
        ConfigError: It is none of :data:`Numeric`.
    """
    require_choice("numeric", numeric, get_args(Numeric))


def decimal_for(whole: int, behind: int) -> pa.DataType | None:
    """The smallest decimal that holds so many digits before and behind the point; None if there is none."""
    import pyarrow as pa

    if whole + max(behind, _USUAL_SCALE) <= _SMALL:
        return pa.decimal128(_SMALL, max(behind, _USUAL_SCALE))
    if whole + behind <= _SMALL:
        return pa.decimal128(_SMALL, behind)
    return pa.decimal256(MOST_DIGITS, behind) if whole + behind <= MOST_DIGITS else None


def of_one_schema(batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> list[pa.RecordBatch]:
    """The batches, with decimals of one type where theirs differ.

    Args:
        batches: They differ in the scale of decimals alone.
        schema: That of a result without batches.

    Raises:
        LoadError: No decimal holds all values of a column.
    """
    import pyarrow as pa

    if all(batch.schema.equals(schema) for batch in batches):
        return list(batches)
    columns = []
    for place, field in enumerate(schema):
        arrays = [batch.column(place) for batch in batches]
        columns.append(_of_one_type(field.name, arrays))
    rows = zip(*columns, strict=True)
    return [pa.RecordBatch.from_arrays(list(arrays), names=schema.names) for arrays in rows]


def _of_one_type(name: str, arrays: Sequence[pa.Array]) -> Sequence[pa.Array]:
    import pyarrow as pa

    types = list(dict.fromkeys(array.type for array in arrays))
    if len(types) == 1:
        return arrays
    scale = max(_element(kind).scale for kind in types)
    wide_enough = [pa.decimal128(_SMALL, scale)] if scale <= _SMALL else []
    for kind in (*wide_enough, pa.decimal256(MOST_DIGITS, scale)):
        try:
            return [cast(array, kind) for array in arrays]
        except pa.ArrowInvalid:
            continue
    raise LoadError(f'Column "{name}" holds numbers that no decimal holds together.', remedy=REMEDY)


def of_38_digits(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with its decimals as the library Polars knows them, of 38 digits.

    Raises:
        LoadError: A value has more.
    """
    import pyarrow as pa

    large = [place for place, kind in enumerate(batch.schema.types) if pa.types.is_decimal256(_element(kind))]
    for place in large:
        name, column = batch.schema.names[place], batch.column(place)
        try:
            found = cast(column, pa.decimal128(_SMALL, min(_element(column.type).scale, _SMALL)))
        except (pa.ArrowInvalid, ValueError):
            raise LoadError(
                f'Column "{name}" holds a number of more than {_SMALL} digits, or of more places, '
                "which Polars cannot.",
                remedy=REMEDY,
            ) from None
        batch = batch.set_column(place, name, found)
    return batch


def cast(array: pa.Array, kind: pa.DataType, *, digits: int | None = None) -> pa.Array:
    """Decimals or texts, or lists of them, as another decimal or lists of it.

    Arrow's own cast to a decimal of 128 bits does not notice where a larger scale takes a decimal or a text
    beyond them, and makes another number of it; so does any of a text of more digits than the widest holds.

    Args:
        array: The numbers; of integers and floats, too.
        kind: The decimal.
        digits: Digits that they have at most; None for as many as their type allows.

    Raises:
        pyarrow.ArrowInvalid: A value does not fit.
    """
    import pyarrow as pa

    is_list, element = pa.types.is_list(array.type), _element(array.type)
    if _is_text(element):
        _require_few_digits(array.flatten() if is_list else array)
    if pa.types.is_decimal128(kind) and _may_pass_unseen(element, kind, digits):
        wide = pa.decimal256(MOST_DIGITS, kind.scale)
        array = array.cast(pa.list_(wide) if is_list else wide)
    return array.cast(pa.list_(kind) if is_list else kind)


def _may_pass_unseen(element: pa.DataType, kind: pa.DataType, digits: int | None) -> bool:
    import pyarrow as pa

    if pa.types.is_decimal128(element):
        return bool((digits or element.precision) + kind.scale - element.scale > _SMALL)
    return _is_text(element)


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _require_few_digits(texts: pa.Array) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    longest = pc.max(pc.binary_length(texts)).as_py() or 0
    # An exponent of many digits ends the process.
    if longest > MOST_DIGITS or pc.any(pc.match_substring_regex(texts, r"[eE][-+]?[0-9]{4}")).as_py():
        raise pa.ArrowInvalid("A text has more digits than a decimal.")


def _element(kind: pa.DataType) -> Any:
    import pyarrow as pa

    return kind.value_type if pa.types.is_list(kind) else kind


def digits_of(numbers: Iterable[Any]) -> tuple[int, int]:
    """Most digits before and behind the point of finite Decimals."""
    whole = behind = 0
    for number in numbers:
        whole = max(whole, number.adjusted() + 1)
        behind = max(behind, -int(number.as_tuple().exponent))
    return whole, behind
