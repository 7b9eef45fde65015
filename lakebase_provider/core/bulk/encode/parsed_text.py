"""Text that the server's input function reads: an error where that would change a value without a word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakebase_provider.core.bulk.types import literals
from lakebase_provider.core.bulk.types.target_columns import OTHER, BadValueError, Target
from lakebase_provider.core.bulk.types.values import check, refuse_cut

if TYPE_CHECKING:
    import pyarrow as pa


def check_parsed(array: pa.Array, *, target: Target, strict: bool) -> pa.Array:
    """Check texts that go to a column of another type.

    Args:
        array: The texts.
        target: The column.
        strict: True to find now what the server would refuse; then dates and times have to be in ISO 8601.

    Returns:
        The texts as they are.

    Raises:
        BadValueError: The column would keep less than the text says; its index says which.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    array = array.cast(pa.string())
    suspect = target.suspect
    checked: list[int] = []
    if strict and (target.kind not in ("array", "bytea", OTHER) or (suspect and target.kind == "array")):
        checked = pc.indices_nonzero(array.is_valid()).to_pylist()
    elif suspect is not None:
        strict = False
        found = pc.match_substring_regex(array, suspect.pattern)
        checked = pc.indices_nonzero(found).to_pylist()  # null is none
    for index in checked:
        text = array[index].as_py()
        try:
            if not strict:
                refuse_cut(text, target)
            elif target.element is not None:
                for element in literals.elements(text):
                    check(element, target.element)
            else:
                check(text, target)
        except BadValueError as error:
            error.index, error.kind = index, "text"
            raise
    return array
