"""How Dagster shows a health report: numbers that it plots, and a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from lakebase_provider.core.upkeep.health.limits import FailOn, HealthLimits, require_fail_on
from lakebase_provider.core.upkeep.health.stage_names import with_foundations

if TYPE_CHECKING:
    from dagster_lakebase.resource.resource import LakebaseResource
    from lakebase_provider.core.upkeep.health.stages import HealthReport


class HealthProbe:
    """What to check and how to judge it, the same for an op, asset checks and a sensor.

    Args:
        checks: Stages to run, with those that they depend on; all by default.
        timeout: Timeout of each stage in seconds; the resource's `connect_budget` by default.
        limits: Limits for what is measured.
        fail_on: ``warn`` if an exceeded limit counts like a failed stage, ``error`` if it only warns.

    Raises:
        ConfigError: A stage or `fail_on` is unknown, or a limit is set for what is not measured.
    """

    def __init__(
        self,
        checks: Sequence[str] | None,
        timeout: float | None,
        limits: HealthLimits | Mapping[str, float] | None,
        fail_on: FailOn,
    ) -> None:
        require_fail_on(fail_on)
        if checks is not None:
            with_foundations(checks)
        self._checks = checks
        self._timeout = timeout
        self._limits = HealthLimits.of(limits)
        self._limits.require_stages(checks)
        self._fail_on = fail_on

    def run(self, lakebase: LakebaseResource) -> Finding:
        """Check now."""
        report = lakebase.health(self._checks, self._timeout)
        return Finding(report, self._limits, self._fail_on)


class Finding:
    """A report with a verdict.

    Attributes:
        report: What the stages found.
        ok: Whether every stage succeeded and every limit is met.
        failed: Whether it is bad enough to fail.
    """

    def __init__(self, report: HealthReport, limits: HealthLimits, fail_on: FailOn) -> None:
        self.report = report
        self._limits = limits
        self._breaches = limits.breaches(report)
        self.ok = report.ok and not self._breaches
        self.failed = not report.ok or (bool(self._breaches) and fail_on == "warn")

    @property
    def severity(self) -> dg.AssetCheckSeverity:
        """How bad it is, in Dagster's terms."""
        return dg.AssetCheckSeverity.ERROR if self.failed else dg.AssetCheckSeverity.WARN

    def metadata(self) -> dict[str, Any]:
        """Milliseconds of each stage that ran, and what it measured: numbers, so that Dagster plots them."""
        stages = (stage for stage in self.report.stages if stage.status != "skipped")
        times = {f"lakebase/{stage.name}_ms": stage.ms for stage in stages}
        figures = {f"lakebase/{name}": value for name, value in self.report.figures.items()}
        return {name: round(float(value), 2) for name, value in {**times, **figures}.items()}

    def description(self) -> str:
        """What is wrong and what to do about it, or that nothing is."""
        failed = self.report.first_failure
        if failed is not None:
            return f"Stage '{failed.name}' failed ({failed.code}): {failed.detail}\nRemedy: {failed.remedy}"
        if self._breaches:
            return " ".join(map(str, self._breaches))
        return f"All {len(self.report.stages)} stages are ok."

    def to_text(self) -> str:
        """Tables of the stages and of the limits."""
        return "\n".join(filter(None, [self.report.to_text(), self._limits.to_text(self.report)]))
