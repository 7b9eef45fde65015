"""Why something failed, and how the database is now: what is sent to whoever has to do something about it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from lakebase_provider.core.base.plain_text import code
from lakebase_provider.core.errors import LakebaseError
from lakebase_provider.core.errors.redaction import redacted

if TYPE_CHECKING:
    from lakebase_provider.core.upkeep.health.stages import HealthReport
    from lakebase_provider.core.upkeep.inspection.inspection_report import InspectionReport

logger = logging.getLogger(__name__)

#: What holds up others now: the checks of an inspection that say who.
_HOLDING_UP = ("connections", "blocked_statements", "long_statements", "idle_in_transaction")
#: Characters of a message that is not this package's.
_LONGEST = 1000


class Asked(Protocol):
    """What a client is asked."""

    def health(self, checks: Iterable[str] | None = None, *, timeout: float | None = None) -> HealthReport:
        """Run the staged check."""

    def inspect(self, checks: Iterable[str] | None = None, *, timeout: float = 10.0) -> InspectionReport:
        """Look for what is not well."""


@dataclass(frozen=True)
class Diagnosis:
    """Why something failed, and how the database is now.

    Attributes:
        what: What failed, such as a task's name.
        message: What happened; names who held a lock, where one was waited for.
        code: The kind of error; empty if it is not this package's.
        remedy: What to do.
        healthy: Whether the database can be reached now; None if it could not be asked.
        health: What a health check says now, in a line: the stage that fails, or that all is well.
        holding_up: What holds up others in the database now, a line each.
        links: URLs by what they lead to.
    """

    what: str
    message: str
    code: str
    remedy: str
    healthy: bool | None
    health: str
    holding_up: tuple[str, ...]
    links: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The diagnosis as JSON can hold it."""
        return {**asdict(self), "holding_up": list(self.holding_up)}

    def to_text(self) -> str:
        """The diagnosis as plain text."""
        return "\n".join(self._lines(str, "{1}: {0}".format))

    def to_markdown(self) -> str:
        """The diagnosis as Markdown, in which nothing that the server said is a link or an image."""
        return "\n\n".join(self._lines(code, "[{1}]({0})".format)) + "\n"

    def _lines(self, told: Callable[[str], str], link: Callable[[str, str], str]) -> Iterator[str]:
        yield f"{told(self.what)} failed: {told(self.message)}"
        if self.remedy:
            yield f"What to do: {told(self.remedy)}"
        yield f"The database now: {told(self.health)}"
        for one in self.holding_up:
            yield f"It is held up: {told(one)}"
        for name, url in self.links.items():
            yield link(url, name)


def lakebase_error(error: BaseException | None) -> LakebaseError | None:
    """The error of this package among an error and its causes: the first one that is met."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, LakebaseError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def diagnose(
    client: Callable[[], Asked],
    what: str,
    error: BaseException | str | None,
    *,
    links: dict[str, str] | None = None,
    timeout: float = 10.0,
) -> Diagnosis:
    """Say why something failed, and ask how the database is now; nothing is raised for what cannot be asked.

    Args:
        client: Returns the client of the database; its error is told.
        what: What failed, such as a task's name.
        error: What it failed with, or its text; None if that is not known.
        links: URLs by what they lead to.
        timeout: Seconds that a stage or a check may take.
    """
    said = _said(error)
    try:
        found = client()
        report = found.health(["query"], timeout=timeout)
        healthy, health = report.ok, report.summary()
        holding = _holding_up(found, report, timeout)
        remedy = said[2] or _remedy_of(report)
    except Exception as failed:
        logger.debug("The database could not be asked", exc_info=failed)
        told = _said(failed)
        healthy, health, holding, remedy = None, told[0], (), said[2] or told[2]
    return Diagnosis(what, said[0], said[1], remedy, healthy, health, holding, links or {})


def _said(error: BaseException | str | None) -> tuple[str, str, str]:
    """Message, code and remedy."""
    if error is None:
        return "why is not known here; see the log", "", ""
    ours = None if isinstance(error, str) else lakebase_error(error)
    if ours is not None:
        return ours.message, ours.code, ours.remedy
    kind = "" if isinstance(error, str) else f"{type(error).__name__}: "
    return redacted(f"{kind}{error}".strip())[:_LONGEST], "", ""


def _remedy_of(report: HealthReport) -> str:
    failed = report.first_failure
    return "" if failed is None else failed.remedy


def _holding_up(client: Asked, report: HealthReport, timeout: float) -> tuple[str, ...]:
    if not report.ok:
        return ()
    findings = client.inspect(_HOLDING_UP, timeout=timeout).findings
    return tuple(str(one) for one in findings if one.status in ("warn", "bad"))
