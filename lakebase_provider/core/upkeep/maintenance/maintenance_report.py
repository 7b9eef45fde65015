"""What maintenance did, and what it left alone and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from lakebase_provider.core.base.plain_text import cell, code_in_cell


@dataclass(frozen=True)
class MaintenanceStep:
    """Something that was done.

    Attributes:
        target: The table, index, view or sequence, with its schema.
        did: What was done to it, in words.
        seconds: How long it took, waiting included.
    """

    target: str
    did: str
    seconds: float


@dataclass(frozen=True)
class SkippedTarget:
    """Something that was left alone.

    Attributes:
        target: The table, index, view or sequence, with its schema.
        reason: Why, in words.
    """

    target: str
    reason: str


@dataclass(frozen=True)
class MaintenanceReport:
    """What maintenance did.

    Attributes:
        action: The method of ``client.maintenance``, such as ``"vacuum"``.
        steps: What was done, in order; empty if all was as it should be.
        skipped: What was left alone, and why.
        seconds: How long all of it took.
    """

    action: str
    steps: tuple[MaintenanceStep, ...]
    skipped: tuple[SkippedTarget, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return found

    def to_markdown(self) -> str:
        """The report for people."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield f"## Maintenance: {self.action}\n"
        if not self.steps:
            yield f"Nothing was to be done; {told_seconds(self.seconds)}."
        else:
            yield "| Target | Done | Time |"
            yield "| --- | --- | ---: |"
        for step in self.steps:
            yield f"| {code_in_cell(step.target)} | {cell(step.did)} | {told_seconds(step.seconds)} |"
        if self.skipped:
            yield "\n### Left alone\n"
            yield "| Target | Why |"
            yield "| --- | --- |"
        for one in self.skipped:
            yield f"| {code_in_cell(one.target)} | {cell(one.reason)} |"


def told_seconds(seconds: float) -> str:
    """A duration for people."""
    return f"{seconds * 1000:,.0f} ms" if seconds < 10 else f"{seconds:,.1f} s"
