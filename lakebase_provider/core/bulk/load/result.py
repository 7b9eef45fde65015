"""The mode of a load, and what it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["append", "replace", "merge"]
Delete = Literal["none", "missing"]
OnError = Literal["fail", "reject"]
Since = Literal["ledger"]
Fallback = Literal["replace"]


@dataclass(frozen=True)
class LoadResult:
    """What a load did, or what an earlier load with the same id had done.

    Attributes:
        table: The table's name, with its schema.
        mode: ``"append"``, ``"replace"`` or ``"merge"``.
        load_id: Its id in the ledger, if it has one.
        skipped: Whether an earlier load with that id had already done it; the counts are then its.
        rows: Rows from the source that were not rejected; of a change data feed, its changes.
        inserted: Rows that are new in the table.
        updated: Rows of the table whose values changed.
        deleted: Rows that were removed from the table.
        unchanged: Rows that the table had already, or in a newer version; of a change data feed, also changes
            that later ones undid or that only tell what was there before.
        rejected: Rows that were set aside.
        outside: Rows outside the slice `where`, if the load counts them.
        changes: What was changed about the table, one line each, such as ``ADD COLUMN "note" text``.
        bytes: Bytes of COPY data sent.
        seconds: Seconds from the first statement to the last.
        format: ``"binary"`` or ``"text"`` COPY; empty when skipped.
        reason: Why that format; when skipped, why.
        lsn: Position of the server's log after the commit, such as ``"16/B374D848"``, if `lsn` asked for it:
            whoever has read up to there has all of the load. None if the connection was lost just then.
    """

    table: str
    mode: Mode
    load_id: str | None = None
    skipped: bool = False
    rows: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    rejected: int = 0
    outside: int = 0
    changes: tuple[str, ...] = ()
    bytes: int = 0
    seconds: float = 0.0
    format: str = ""
    reason: str = ""
    lsn: str | None = None
