"""Whether a reachable database is also healthy: limits for the figures of a health report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from lakebase_provider.core.base.choices import require_choice
from lakebase_provider.core.errors import ConfigError, HealthCheckError
from lakebase_provider.core.upkeep.health.stage_names import with_foundations

if TYPE_CHECKING:
    from lakebase_provider.core.upkeep.health.stages import HealthReport

#: The least severity that fails a check: a failed stage is an error, an exceeded limit a warning.
FailOn = Literal["error", "warn"]


def require_fail_on(fail_on: object) -> None:
    """Refuse an unknown severity.

    Raises:
        ConfigError: It is none of :data:`FailOn`.
    """
    require_choice("fail_on", fail_on, get_args(FailOn))


class Breach(NamedTuple):
    """A limit that a report does not meet.

    Attributes:
        name: Name of the limit, a field of :class:`HealthLimits`.
        limit: The limit, in the unit of its name.
        found: What was measured, in the same unit.
        remedy: What to do.
    """

    name: str
    limit: float
    found: float
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}={self.limit:g} is not met: found {self.found:.4g}. {self.remedy}"

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON or XCom."""
        found = round(self.found, 4)
        return {"name": self.name, "limit": self.limit, "found": found, "remedy": self.remedy}


@dataclass(frozen=True)
class HealthLimits:
    """Limits for what a health check measures; None means no limit.

    Attributes:
        max_connect_ms: Milliseconds that connecting to an awake compute may take.
        max_wake_seconds: Seconds that a suspended compute may take to accept a connection.
        min_token_seconds: Seconds of life that the token must have left.
        max_connections_used: Share of the server's connections that may be in use, above 0 and at most 1.

    Raises:
        ConfigError: A limit is not a number above 0, or a share above 1.

    Example:
        >>> HealthLimits(max_connections_used=0.8).breaches(client.health())
        ()
    """

    max_connect_ms: float | None = None
    max_wake_seconds: float | None = None
    min_token_seconds: float | None = None
    max_connections_used: float | None = None

    @classmethod
    def of(cls, limits: HealthLimits | Mapping[str, Any] | None) -> HealthLimits:
        """The limits, however they were given.

        Args:
            limits: Limits, or their values by name, or None for no limits.

        Raises:
            ConfigError: There is no limit of a name, or its value cannot work.
        """
        if isinstance(limits, cls):
            return limits
        if limits is not None and not isinstance(limits, Mapping):
            raise ConfigError(
                f"limits is a {type(limits).__name__}.",
                remedy="Give limits by name, such as {'max_connect_ms': 200}.",
            )
        for name in limits or {}:
            require_choice("A name in limits", name, LIMIT_NAMES)
        return cls(**(limits or {}))

    def __post_init__(self) -> None:
        for name, limit in self._given():
            if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0:
                raise ConfigError(
                    f"Limit '{name}' is a {type(limit).__name__}, not a number above 0.",
                    remedy=f"Give {name} a number above 0, or leave it out.",
                )
        if self.max_connections_used is not None and self.max_connections_used > 1:
            raise ConfigError(
                "Limit 'max_connections_used' is above 1.",
                remedy="Give a share of all connections, such as 0.8 for 80 %.",
            )

    def require_stages(self, checks: Iterable[str] | None) -> None:
        """Make sure that what is limited is also measured.

        Args:
            checks: Names of the stages to run; None means all. Those that they depend on run too.

        Raises:
            ConfigError: A limit is set whose stage does not run, or a stage is unknown.
        """
        if checks is None:
            return
        running = with_foundations(checks)
        for name, _limit in self._given():
            stage = _MEASURED[name].stage
            if stage not in running:
                raise ConfigError(
                    f"Limit '{name}' needs the stage '{stage}', which is not among the checks.",
                    remedy=f"Add '{stage}' to the checks, or leave {name} out.",
                )

    def breaches(self, report: HealthReport) -> tuple[Breach, ...]:
        """The limits that the report does not meet, in the order of the fields.

        What was not measured breaks no limit: its stage failed, as the report says, or there is nothing to
        measure, as with a native password, which never expires.
        """
        figures = report.figures
        found = [(name, limit, _MEASURED[name]) for name, limit in self._given()]
        judged = [(name, limit, row, row.of(figures)) for name, limit, row in found]
        return tuple(
            Breach(name, limit, value, row.remedy)
            for name, limit, row, value in judged
            if value is not None and (value < limit if name.startswith("min_") else value > limit)
        )

    def healthy(self, report: HealthReport, fail_on: FailOn = "warn") -> bool:
        """Whether the report is good enough; if not, :meth:`enforce` raises."""
        return report.ok and (fail_on == "error" or not self.breaches(report))

    def enforce(self, report: HealthReport, fail_on: FailOn = "warn") -> None:
        """Raise unless the report is good enough.

        Args:
            report: What the check found.
            fail_on: ``error`` to raise only for a failed stage, ``warn`` also for an exceeded limit.

        Raises:
            HealthCheckError: A stage failed, or, with ``warn``, a limit is exceeded.
        """
        report.raise_for_failure()
        if not self.healthy(report, fail_on):
            breaches = self.breaches(report)
            raise HealthCheckError(
                "Health check: " + " ".join(map(str, breaches)), remedy=breaches[0].remedy, retryable=True
            )

    def to_dict(self, report: HealthReport) -> dict[str, Any]:
        """The report in plain types, with these limits' verdict: `status` and `breaches`."""
        breaches = [breach.to_dict() for breach in self.breaches(report)]
        status = "error" if not report.ok else "warn" if breaches else "ok"
        return {**report.to_dict(), "status": status, "breaches": breaches}

    def to_text(self, report: HealthReport) -> str:
        """A table with a line for each limit; empty without limits."""
        if not self._given():
            return ""
        figures = report.figures
        broken = {breach.name for breach in self.breaches(report)}
        lines = [f"{'limit':<22}{'status':<9}{'found':>10}{'value':>10}"]
        for name, limit in self._given():
            value = _MEASURED[name].of(figures)
            status = "skipped" if value is None else "warn" if name in broken else "ok"
            shown = "" if value is None else f"{value:.4g}"
            lines.append(f"{name:<22}{status:<9}{shown:>10}{limit:>10g}")
        return "\n".join(lines)

    def _given(self) -> list[tuple[str, float]]:
        values = ((row.name, getattr(self, row.name)) for row in fields(self))
        return [(name, value) for name, value in values if value is not None]


#: Names of the limits.
LIMIT_NAMES: tuple[str, ...] = tuple(row.name for row in fields(HealthLimits))


class _Measured(NamedTuple):
    stage: str
    of: Callable[[dict[str, float]], float | None]
    remedy: str


def _connections_used(figures: dict[str, float]) -> float | None:
    if "connections" not in figures or not figures["max_connections"]:
        return None
    return figures["connections"] / figures["max_connections"]


_MEASURED: dict[str, _Measured] = {
    "max_connect_ms": _Measured(
        "login",
        lambda figures: figures.get("connect_ms"),
        "Check the network path to the endpoint and the load of its compute.",
    ),
    "max_wake_seconds": _Measured(
        "login",
        lambda figures: figures.get("wake_seconds"),
        "Lengthen the endpoint's suspend timeout, or allow more time to wake.",
    ),
    "min_token_seconds": _Measured(
        "credential",
        lambda figures: figures.get("token_seconds"),
        "Check what shortens the token's life: the token store, or whoever supplies the token.",
    ),
    "max_connections_used": _Measured(
        "query",
        _connections_used,
        "Lower max_size, run fewer tasks at once, or use a larger endpoint.",
    ),
}
