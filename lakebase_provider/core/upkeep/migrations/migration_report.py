"""What a run of migrations did, and what it found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Literal, Protocol

#: ``applied`` now; ``done`` or ``baseline`` before; ``part`` of it is done; ``pending``; or, by ``status``,
#: ``edited``, ``missing`` from the folder, or ``out_of_order``.
FileState = Literal["applied", "done", "baseline", "part", "pending", "edited", "missing", "out_of_order"]


class Rehearsed(Protocol):
    """What a rehearsal found."""

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it."""

    def to_markdown(self) -> str:
        """The report for people."""


@dataclass(frozen=True)
class Finding:
    """What squawk finds in a file.

    Attributes:
        file: The file's name.
        line: The line, from 1.
        rule: The rule's name, such as ``"adding-not-nullable-field"``.
        message: What it says.
        help: What it advises; empty if nothing.
    """

    file: str
    line: int
    rule: str
    message: str
    help: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message} ({self.rule})"


@dataclass(frozen=True)
class MigrationFile:
    """A file of migrations, and what became of it.

    Attributes:
        version: The number in its name.
        name: Its name.
        state: ``"applied"`` by this run; ``"done"`` or ``"baseline"`` before; ``"part"`` if it stopped on the
            way; ``"pending"``; of a status also ``"edited"``, ``"missing"`` or ``"out_of_order"``.
        statements: How many statements it has; 0 if the file is missing.
        in_transaction: Whether all of it runs in one transaction; None if the file is missing.
        seconds: How long it took; None if it has not run.
        applied_at: When it was done; None if it is not.
        applied_by: By which role; None likewise.
        detail: More in words, such as which statement was reached; empty if there is nothing to say.
        outside: The statements that cannot run in a transaction, which nothing undoes: each its line and
            first words.
    """

    version: int
    name: str
    state: FileState
    statements: int = 0
    in_transaction: bool | None = None
    seconds: float | None = None
    applied_at: datetime | None = None
    applied_by: str | None = None
    detail: str = ""
    outside: tuple[str, ...] = ()


@dataclass(frozen=True)
class MigrationReport:
    """What a run of migrations did, or what there is to do.

    Attributes:
        ledger: The ledger's name.
        files: The files in order, those that are missing included.
        dry_run: Whether nothing was to be run.
        findings: What squawk finds in files that are pending, if it was asked.
        rehearsal: The :class:`.RehearsalReport` of the files that were pending, if they were rehearsed.
    """

    ledger: str
    files: tuple[MigrationFile, ...]
    dry_run: bool = False
    findings: tuple[Finding, ...] = ()
    rehearsal: Rehearsed | None = None

    def of_state(self, *states: FileState) -> tuple[MigrationFile, ...]:
        """The files in one of these states."""
        return tuple(file for file in self.files if file.state in states)

    @property
    def applied(self) -> tuple[MigrationFile, ...]:
        """The files that this run applied."""
        return self.of_state("applied")

    @property
    def pending(self) -> tuple[MigrationFile, ...]:
        """The files that are still to be applied, in part or whole."""
        return self.of_state("pending", "part")

    @property
    def refused(self) -> tuple[MigrationFile, ...]:
        """The files for which a run would be refused."""
        return self.of_state("edited", "missing", "out_of_order")

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        plain = asdict(replace(self, rehearsal=None))
        plain["rehearsal"] = None if self.rehearsal is None else self.rehearsal.to_dict()
        for file in plain["files"]:
            if file["applied_at"] is not None:
                file["applied_at"] = file["applied_at"].isoformat()
            file["outside"] = list(file["outside"])
        return plain

    def to_text(self) -> str:
        """The report as a table, with squawk's findings below it."""
        rows = [("version", "state", "seconds", "statements", "file"), *map(_row, self.files)]
        widths = [max(len(row[at]) for row in rows) for at in range(4)]
        lines = [_line(row, widths) for row in rows]
        if not self.files:
            lines = ["There are no files."]
        return "\n".join([*lines, *map(str, self.findings)])


def _row(file: MigrationFile) -> tuple[str, ...]:
    seconds = "-" if file.seconds is None else f"{file.seconds:.3f}"
    outside = "" if file.in_transaction in (True, None) else ", statement by statement"
    if file.outside:
        outside = f", outside of a transaction: {'; '.join(file.outside)}"
    detail = f" ({file.detail})" if file.detail else ""
    return (str(file.version), file.state, seconds, str(file.statements), f"{file.name}{outside}{detail}")


def _line(row: Iterable[str], widths: list[int]) -> str:
    *cells, last = row
    return "  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), last])
