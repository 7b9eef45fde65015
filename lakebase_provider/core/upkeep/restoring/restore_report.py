"""What was put back, or would be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from lakebase_provider.core.base.plain_text import code
from lakebase_provider.core.database.rows.owned_sequences import MovedSequence
from lakebase_provider.core.database.rows.row_diff import RowDiff


@dataclass(frozen=True)
class RestoreReport:
    """What was put back into a table, or would be.

    Attributes:
        table: The table's name.
        at: The moment whose rows they are.
        dry_run: Whether nothing was changed.
        overwrite: Whether rows that have changed since get their former values.
        rows: How the rows differ, from that moment to now: what was ``removed`` is put back, what was
            ``changed`` is listed, and what was ``added`` is left alone.
        put_back: How many rows were inserted, or would be.
        overwritten: How many got their former values, or would.
        sequences: The sequences that were moved on past what was put back, or would be.
    """

    table: str
    at: str
    dry_run: bool
    overwrite: bool
    rows: RowDiff
    put_back: int
    overwritten: int
    sequences: tuple[MovedSequence, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return found

    def to_markdown(self) -> str:
        """The report for people."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        done = "would be" if self.dry_run else "were"
        yield f"## {code(self.table)} as of {code(self.at)}\n"
        yield f"- {self.rows.removed:,} rows were deleted since; {self.put_back:,} {done} put back."
        yield f"- {self.rows.changed:,} rows have changed since; {self.overwritten:,} {done} overwritten."
        yield f"- {self.rows.added:,} rows are new since, and are left alone."
        if self.rows.not_compared:
            yield f"- Not compared: {', '.join(map(code, self.rows.not_compared))}."
        for one in self.sequences:
            yield f"- Sequence {code(one.name)}: its next value is {one.after:,}, not {one.before:,}."
        if self.rows.examples:
            yield f"\n{self.rows.to_markdown()}"
