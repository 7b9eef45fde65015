"""What a rehearsal found: times, rows and locks of statements, checks, and what changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from lakebase_provider.core.base.plain_text import cell, code, code_in_cell
from lakebase_provider.core.database.rows.row_diff import RowDiff
from lakebase_provider.core.database.structure.catalog_diff import CatalogDiff
from lakebase_provider.core.errors import RehearsalError
from lakebase_provider.core.upkeep.rehearsal.recorder import StatementRun, TakenLock
from lakebase_provider.core.upkeep.rehearsal.rehearsal_checks import CheckResult

#: Characters of the catalog's differences in Markdown, which is for people.
_LONGEST_CATALOG = 50_000


@dataclass(frozen=True)
class RehearsalReport:
    """What a rehearsal found.

    Attributes:
        parent: Full name of the branch that it is about.
        branch: Id of the branch that it ran on, which is gone.
        forked_at: The moment of the parent's data, in ISO 8601; None if the workspace does not say.
        seconds: How long the work took there.
        statements: The statements in order; 1,000 at most.
        statements_left_out: How many more there were.
        failure: What went wrong with the work; None if nothing did.
        checks: The checks, which are not made if the work failed.
        tables: How the rows of the tables differ that were named.
        not_compared: Why tables that were named could not be compared, by name.
        catalog: How what is defined differs.
        limits: What the rehearsal cannot tell.
        checksum: SHA-256 of the statements, in hexadecimal, by which a later run knows that they are those
            that were approved (``approved``).
        ran: The statements as they ran on the parent afterwards; None if nothing did.
        restore_point: The moment of the parent before that, as ``restore_rows`` takes it; None likewise.
    """

    parent: str
    branch: str
    forked_at: str | None
    seconds: float
    statements: tuple[StatementRun, ...]
    statements_left_out: int
    failure: str | None
    checks: tuple[CheckResult, ...]
    tables: tuple[RowDiff, ...]
    not_compared: dict[str, str]
    catalog: CatalogDiff
    limits: tuple[str, ...]
    checksum: str
    ran: tuple[StatementRun, ...] | None = None
    restore_point: dict[str, Any] | None = None

    @property
    def ok(self) -> bool:
        """Whether the work succeeded, and all checks passed."""
        return self.failure is None and all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[str, ...]:
        """What went wrong, each in words."""
        failed = [f"{check.name}: {check.found}" for check in self.checks if not check.passed]
        return (*filter(None, [self.failure]), *failed)

    def require_ok(self) -> None:
        """Raise an error that says what went wrong, if anything did.

        Raises:
            RehearsalError: The work or a check failed; it carries the report.
        """
        if self.ok:
            return
        told = " ".join(text if text.endswith(".") else f"{text}." for text in self.failures)
        error = RehearsalError(f"The rehearsal failed, and nothing ran on {self.parent}: {told}")
        error.report = self
        raise error

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        found: dict[str, Any] = json.loads(json.dumps({"ok": self.ok, **asdict(self)}))
        return found

    def to_markdown(self) -> str:
        """The report for people."""
        return "\n".join(self._lines()) + "\n"

    def to_html(self) -> str:
        """The report as one HTML page that needs nothing else: for a browser, a mail, or an artefact of CI.

        It is for people: of a definition or a text it shows the first 1,000 characters.
        """
        from lakebase_provider.core.upkeep.rehearsal.rehearsal_page import rehearsal_page

        return rehearsal_page(self)

    def _lines(self) -> Iterator[str]:
        yield f"## Rehearsal: {'passed' if self.ok else 'failed'}\n"
        since = "" if self.forked_at is None else f", with its data of {self.forked_at}"
        yield f"On {code(self.branch)}, a branch of {code(self.parent)}{since}; {_seconds(self.seconds)}."
        if self.failure is not None:
            yield f"\n{code(self.failure)}"
        if self.statements:
            yield "\n### Statements\n"
            yield from _statements(self.statements)
        if self.statements_left_out:
            yield f"\n{self.statements_left_out:,} more are not shown."
        if self.checks:
            yield "\n### Checks\n"
            yield "| Check | Passed | Found | Time |"
            yield "| --- | --- | --- | ---: |"
        for check in self.checks:
            passed = "yes" if check.passed else "**no**"
            told = f"{code_in_cell(check.name)} | {passed} | {cell(check.found)}"
            yield f"| {told} | {_seconds(check.seconds)} |"
        if self.tables or self.not_compared:
            yield "\n### Rows\n"
        for table in self.tables:
            yield (
                f"{code(table.table)} by {', '.join(map(code, table.keys))}: of {table.rows_before:,} rows "
                f"{table.changed:,} changed and {table.removed:,} removed, {table.added:,} added.\n"
            )
            yield f"{table.to_markdown()}\n" if table.examples else ""
        for name, why in self.not_compared.items():
            yield f"{code(name)} was not compared: {code(why)}"
        if self.failure is None:
            text = self.catalog.to_markdown(heading="####", longest=_LONGEST_CATALOG)
            yield f"\n### What is defined\n\n{text}"
        if self.ran is not None:
            yield "\n### On the parent\n"
            yield from _statements(self.ran)
            point = self.restore_point or {}
            yield f"\nThe moment before: {point.get('time')} ({code(str(point.get('lsn')))})."
        yield "\n### What this cannot tell\n"
        yield from (f"- {one}" for one in self.limits)
        yield f"\nChecksum: `{self.checksum}`"


def _statements(runs: tuple[StatementRun, ...]) -> Iterator[str]:
    watched = any(run.locks is not None for run in runs)
    yield "| # | Statement | Time | Rows |" + (" Strongest lock | Held |" if watched else "")
    yield "| ---: | --- | ---: | ---: |" + (" --- | ---: |" if watched else "")
    for run in runs:
        place = f" ({run.place})" if run.place else ""
        state = "" if run.outcome == "done" else f" **{run.outcome}**"
        state += "; runs outside a transaction" if run.outside else ""
        rows = "" if run.rows is None else f"{run.rows:,}"
        line = f"| {run.number} | {cell(run.title + place)}{state} | {_seconds(run.seconds)} | {rows} |"
        lock = run.strongest
        held = _seconds(run.held) if lock else ""
        yield line + (f" {_lock(lock)} | {held} |" if watched else "")


def _lock(lock: TakenLock | None) -> str:
    if lock is None:
        return "no new one"
    size = "" if lock.size is None else f", {_bytes(lock.size)}"
    return f"{lock.mode} on {lock.kind} {code_in_cell(lock.relation)}{size}"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if seconds < 10 else f"{seconds:,.1f} s"


def _bytes(size: int) -> str:
    for unit, of in (("GB", 1024**3), ("MB", 1024**2), ("kB", 1024)):
        if size >= of:
            return f"{size / of:,.1f} {unit}"
    return f"{size} bytes"
