"""Text that the server's input function reads: an error where that would change a value without a word."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lakebase_provider.core.bulk.types.postgres_types import KINDS
from lakebase_provider.core.bulk.types.target_columns import OTHER, BadValueError, Target
from lakebase_provider.core.bulk.types.values import check, limited, refuse_cut

if TYPE_CHECKING:
    import pyarrow as pa

_OF_FRACTIONS = frozenset(kind.name for kind in KINDS if kind.modifier == "fraction")
#: A zone after a time of day, which timestamp and time ignore.
_ZONE = r":[0-9.,]+\s*([zZ]|[-+][0-9:]+|[A-Za-z_/]{3,})\s*$"

#: The bounds before an array; then what stands between its braces and commas: in quotes, or as it is.
_BOUNDS = re.compile(r"\s*(\[[^\]]*\]\s*)+=")
_ELEMENT = re.compile(r'"((?:[^"\\]|\\.)*)"|((?:[^{},"\\]|\\.)+)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def element_texts(text: str) -> list[str]:
    """The elements of an array as Postgres writes it, of whatever dimensions, without NULLs.

    Args:
        text: The array; where it is none, the server says so.
    """
    bounds = _BOUNDS.match(text)
    found = []
    for match in _ELEMENT.finditer(text, bounds.end() if bounds else 0):
        quoted, plain = match.groups()
        if quoted is not None:
            found.append(_ESCAPED.sub(r"\1", quoted))
        elif (stripped := plain.strip()) and stripped.upper() != "NULL":
            found.append(_ESCAPED.sub(r"\1", stripped))
    return found


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

    def forbid(pattern: str, reason: str) -> None:
        index = pc.index(pc.match_substring_regex(array, pattern), True).as_py()
        if index >= 0:
            raise BadValueError(reason, kind="text", index=index)

    array = array.cast(pa.string())
    if strict and target.kind not in ("array", "bytea", OTHER):
        for index, value in enumerate(array.to_pylist()):
            try:
                _ = None if value is None else check(value, target)
            except BadValueError as error:
                error.index, error.kind = index, "text"
                raise
    elif target.kind == OTHER and limited(target):
        for index, value in enumerate(array.to_pylist()):
            try:
                refuse_cut(value, target)
            except BadValueError as error:
                error.index, error.kind = index, "text"
                raise
    elif target.kind == "numeric" and target.precision:
        scale = max(target.scale, 0)
        fits = rf"^\s*[-+]?[0-9]*(\.[0-9]{{0,{scale}}}0*)?\s*$" if target.scale >= 0 else r"^\s*[-+]?0\s*$"
        unusual = pc.invert(pc.match_substring_regex(array, fits))
        for index in pc.indices_nonzero(pc.fill_null(unusual, False)).to_pylist():
            try:
                check(array[index].as_py(), target)
            except BadValueError as error:
                error.index, error.kind = index, "text"
                raise
    if target.kind in _OF_FRACTIONS:
        reason = f"more digits of a second than {target.type_name} keeps"
        forbid(rf"[.,][0-9]{{{target.fraction}}}[0-9]*[1-9]", reason)
    if target.kind in ("time", "timestamp"):
        forbid(_ZONE, f"a time zone, for {target.type_name}")
    if target.kind == "date":
        forbid(":", "a time of day, for date")
    return array
