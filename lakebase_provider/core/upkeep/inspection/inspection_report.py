"""What an inspection found; imported without the driver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lakebase_provider.core.base.choices import require_choice
from lakebase_provider.core.base.plain_text import cell, code, escaped
from lakebase_provider.core.errors import ConfigError, HealthCheckError
from lakebase_provider.core.upkeep.inspection.checks import Found, Unit

FindingStatus = Literal["ok", "warn", "bad", "skipped"]
#: The least severity that fails an inspection.
FailOn = Literal["bad", "warn"]
_WORST_FIRST: tuple[FindingStatus, ...] = ("bad", "warn", "skipped", "ok")


def require_severity(fail_on: object) -> None:
    """Refuse an unknown severity.

    Raises:
        ConfigError: It is neither ``bad`` nor ``warn``.
    """
    require_choice("fail_on", fail_on, ("bad", "warn"))


@dataclass(frozen=True)
class InspectionFinding:
    """What one check found.

    Attributes:
        check: The check's name.
        status: ``ok``, ``warn``, ``bad``, or ``skipped`` because it cannot judge.
        value: Its number; None if it was skipped, or there is nothing that it concerns.
        unit: What the number counts.
        limit: From which value on its status is ``warn``; None for never.
        bad_limit: From which value on it is ``bad``; None for never.
        objects: What it is about, the worst first; 20 at most.
        more: How many more there are that are not well.
        reason: Why it was skipped, or what it could not see.
        about: What the check looks at.
        remedy: What to do; empty unless it is not well.
    """

    check: str
    status: FindingStatus
    value: float | None
    unit: Unit
    limit: float | None
    bad_limit: float | None
    objects: tuple[Found, ...] = ()
    more: int = 0
    reason: str = ""
    about: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        names = ", ".join(f"{one.name} ({shown(one.value, self.unit)})" for one in self.objects[:3])
        if self.unit == "found":
            names = ", ".join(one.name for one in self.objects[:3])
        left = len(self.objects) + self.more - 3
        told = f": {names}{f' and {left} more' if left > 0 else ''}" if names else ""
        return f"{self.check} is {shown(self.value, self.unit)}{told}. {self.remedy}".strip()


@dataclass(frozen=True)
class InspectionReport:
    """What an inspection found.

    Attributes:
        database: The database's name.
        server_version: The server's, such as ``"17.2"``.
        taken_at: When, in ISO 8601 and UTC.
        seconds: How long it took.
        statistics_days: For how many days the server's counters have been counting.
        findings: What each check found, in the order of the checks.
    """

    database: str
    server_version: str
    taken_at: str
    seconds: float
    statistics_days: float
    findings: tuple[InspectionFinding, ...]

    @property
    def status(self) -> Literal["ok", "warn", "bad"]:
        """The worst status of a finding; what was skipped is not counted."""
        found = {finding.status for finding in self.findings}
        return "bad" if "bad" in found else "warn" if "warn" in found else "ok"

    @property
    def ok(self) -> bool:
        """Whether nothing needs a look."""
        return self.status == "ok"

    @property
    def figures(self) -> dict[str, float]:
        """The number of each check that has one."""
        return {one.check: one.value for one in self.findings if one.value is not None}

    def finding(self, check: str) -> InspectionFinding:
        """What the check of that name found.

        Raises:
            KeyError: It did not run.
        """
        return {finding.check: finding for finding in self.findings}[check]

    def of_status(self, *statuses: FindingStatus) -> tuple[InspectionFinding, ...]:
        """The findings of these statuses, the worst first."""
        found = [finding for finding in self.findings if finding.status in statuses]
        return tuple(sorted(found, key=lambda finding: _WORST_FIRST.index(finding.status)))

    def fails(self, fail_on: FailOn = "bad") -> bool:
        """Whether it is bad enough to fail; if so, :meth:`enforce` raises."""
        return self.status == "bad" or (fail_on == "warn" and self.status == "warn")

    def enforce(self, fail_on: FailOn = "bad") -> None:
        """Raise unless it is good enough.

        Args:
            fail_on: ``bad`` to raise only for what is bad, ``warn`` also for what needs a look.

        Raises:
            HealthCheckError: It is not.
        """
        if self.fails(fail_on):
            found = self.of_status("bad", *(("warn",) if fail_on == "warn" else ()))
            raise HealthCheckError(
                f"Inspection of {self.database}: {' '.join(map(str, found))}", remedy=found[0].remedy
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON or XCom; :meth:`from_dict` is the way back."""
        plain = {**asdict(self), "status": self.status}
        plain["findings"] = [
            {**asdict(one), "objects": [found._asdict() for found in one.objects]} for one in self.findings
        ]
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> InspectionReport:
        """The report that :meth:`to_dict` has made plain.

        Raises:
            ConfigError: It is something else.
        """
        try:
            values = {name: plain[name] for name in cls.__dataclass_fields__}
            values["findings"] = tuple(
                InspectionFinding(**{**one, "objects": tuple(Found(**found) for found in one["objects"])})
                for one in plain["findings"]
            )
        except (KeyError, TypeError):
            raise ConfigError(
                "This is no report of an inspection.", remedy="Give a report, or its to_dict()."
            ) from None
        return cls(**values)

    def to_text(self) -> str:
        """A table with a line for each check, and what to do under each that is not well."""
        lines = [f"{'check':<28}{'status':<9}{'value':>12}{'limit':>12}"]
        for one in self.findings:
            value, limit = shown(one.value, one.unit), shown(one.limit, one.unit)
            lines.append(f"{one.check:<28}{one.status:<9}{value:>12}{limit:>12}  {one.reason}".rstrip())
            if one.status in ("warn", "bad"):
                lines += [f"    {escaped(text)}" for text in _told(one)]
                lines.append(f"    remedy: {one.remedy}")
        return "\n".join(lines)

    def to_markdown(self) -> str:
        """The report for people."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield f"## Inspection: {self.status}\n"
        yield (
            f"Database {code(self.database)} on Postgres {self.server_version}, {self.taken_at}; "
            f"{len(self.findings)} checks in {self.seconds:,.1f} s.\n"
        )
        yield "| Check | Status | Value | Limit | |"
        yield "| --- | --- | ---: | ---: | --- |"
        for one in self.findings:
            status = f"**{one.status}**" if one.status in ("warn", "bad") else one.status
            value, limit = shown(one.value, one.unit), shown(one.limit, one.unit)
            yield f"| {one.check} | {status} | {value} | {limit} | {cell(one.reason) if one.reason else ''} |"
        for one in self.of_status("bad", "warn"):
            yield f"\n### {one.check}\n\n{one.about} {one.remedy}\n"
            yield from (f"- {_line(found, one.unit)}" for found in one.objects)
            if one.more:
                yield f"- and {one.more} more"


def _told(finding: InspectionFinding) -> Iterator[str]:
    for found in finding.objects:
        number = "" if finding.unit == "found" else f": {shown(found.value, finding.unit)}"
        yield f"{found.name}{number}{f' ({found.detail})' if found.detail else ''}"
    if finding.more:
        yield f"and {finding.more} more"


def _line(found: Found, unit: Unit) -> str:
    number = "" if unit == "found" else f": {shown(found.value, unit)}"
    return f"{code(found.name)}{number}{f' ({code(found.detail)})' if found.detail else ''}"


def shown(value: float | None, unit: Unit) -> str:
    """A number with its unit, for people; a dash for none."""
    if value is None:
        return "–"
    if unit == "share":
        return f"{value * 100:.1f} %"
    if unit == "bytes":
        return of_bytes(value)
    if unit == "bytes a day":
        return f"{of_bytes(value)}/d"
    if unit in ("seconds", "days"):
        return f"{value:,.1f} {unit[0]}"
    return f"{value:,.0f}"


def of_bytes(size: float) -> str:
    """A number of bytes, for people."""
    for unit, of in (("GB", 1024**3), ("MB", 1024**2), ("kB", 1024)):
        if abs(size) >= of:
            return f"{size / of:,.1f} {unit}"
    return f"{size:,.0f} B"
