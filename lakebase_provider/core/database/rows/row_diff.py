"""How the rows of a table differ between two moments: how many, and a few of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lakebase_provider.core.base.plain_text import cell, code_in_cell
from lakebase_provider.core.errors.redaction import redactor

#: What became of a row from the earlier moment to the later one.
RowFate = Literal["added", "changed", "removed"]

#: How many examples of each kind may be asked for.
MOST_EXAMPLES = 100
#: Of an example: columns, and characters of a value. What may be a secret is struck out before it is cut off.
_COLUMNS, _CHARACTERS = 20, 80


@dataclass(frozen=True)
class RowExample:
    """A row that differs; its values as text, each of 80 characters at most.

    Attributes:
        fate: ``"added"``, ``"changed"`` or ``"removed"``.
        key: The values of the key columns, by column.
        before: The earlier values, of a changed row only those that changed; None if it was added.
        after: The later values, likewise; None if it was removed.
    """

    fate: RowFate
    key: Mapping[str, str | None]
    before: Mapping[str, str | None] | None
    after: Mapping[str, str | None] | None


@dataclass(frozen=True)
class RowDiff:
    """How the rows of a table differ.

    Attributes:
        table: The table's name.
        keys: The columns by which a row is the same one.
        rows_before: How many rows there were.
        added: How many rows are new.
        changed: How many have other values.
        removed: How many are gone.
        examples: A few of each.
        not_compared: Columns that only one of the two moments has.
    """

    table: str
    keys: tuple[str, ...]
    rows_before: int
    added: int
    changed: int
    removed: int
    examples: tuple[RowExample, ...] = ()
    not_compared: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is no difference."""
        return not (self.added or self.changed or self.removed)

    def to_dict(self) -> dict[str, Any]:
        """The difference as JSON can hold it."""
        return asdict(self)

    def to_markdown(self) -> str:
        """The examples as a table; empty if there are none."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        if self.examples:
            yield "| Row | Before | After |"
            yield "| --- | --- | --- |"
        for one in self.examples:
            yield f"| {one.fate} {_told(one.key)} | {_told(one.before)} | {_told(one.after)} |"


def example(
    fate: RowFate,
    columns: Sequence[str],
    keys: Sequence[str],
    before: Sequence[str | None] | None,
    after: Sequence[str | None] | None,
    differing: Sequence[int],
) -> RowExample:
    """A row to show, without secrets of this process, and short.

    Args:
        fate: What became of it.
        columns: The columns, in the order of the values.
        keys: The key columns.
        before: The earlier values.
        after: The later ones.
        differing: Places of the values that differ, from 0.
    """
    strike = redactor()

    def shown(value: str | None) -> str | None:
        if value is None:
            return None
        value = strike(value)
        return value if len(value) <= _CHARACTERS else f"{value[:_CHARACTERS]}…"

    def values(row: Sequence[str | None] | None) -> dict[str, str | None] | None:
        return None if row is None else {columns[at]: shown(row[at]) for at in differing[:_COLUMNS]}

    row = after if before is None else before
    assert row is not None
    key = {name: shown(row[columns.index(name)]) for name in keys}
    return RowExample(fate, key, values(before), values(after))


def _told(values: Mapping[str, str | None] | None) -> str:
    if values is None:
        return ""
    return ", ".join(
        f"{cell(name)} = {'NULL' if v is None else code_in_cell(v)}" for name, v in values.items()
    )
