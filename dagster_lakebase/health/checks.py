"""The staged health check as an op and as asset checks."""

# No "from __future__ import annotations": Dagster reads an op's annotations as objects, not as text.

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import dagster as dg
from pydantic import Field, model_validator

from dagster_lakebase.health.probe import HealthProbe
from dagster_lakebase.resource.resource import LakebaseResource
from dagster_lakebase.tables.asset_keys import Asset, asset_keys, op_name
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.upkeep.health.limits import LIMIT_NAMES, FailOn, HealthLimits


class LakebaseHealthCheckConfig(dg.Config):
    """What :func:`lakebase_health_check_op` checks.

    Raises:
        ConfigError: A stage or `fail_on` is unknown, a limit is out of range, or its stage does not run.
    """

    checks: list[str] | None = Field(
        default=None,
        description="Stages to run, with those that they depend on; all if left out. They are: resolve, "
        "credential, dns, tcp, tls, login, query, write.",
    )
    timeout: float | None = Field(
        default=None,
        description="Timeout of each stage in seconds. The resource's connect_budget if left out.",
    )
    limits: dict[str, float] = Field(
        default={},
        description=f"Limits for what is measured, by name: {', '.join(LIMIT_NAMES)}.",
    )
    fail_on: str = Field(
        default="warn",
        description="warn: fail if a stage fails or one of these limits is exceeded. error: only if a stage "
        "fails.",
    )

    @model_validator(mode="after")
    def _known(self) -> "LakebaseHealthCheckConfig":
        """Check values where they are given, such as in a job's `RunConfig`."""
        HealthProbe(self.checks, self.timeout, self.limits, cast(FailOn, self.fail_on))
        return self


@dg.op(tags={"dagster/kind": "lakebase"})
def lakebase_health_check_op(
    context: dg.OpExecutionContext, config: LakebaseHealthCheckConfig, lakebase: LakebaseResource
) -> dict[str, Any]:
    """Check the path to the database stage by stage, and fail with the failed stage's remedy.

    Needs the resource `lakebase`.

    Returns:
        The report in plain types, ``{"ok": True, "stages": [{"name", "status", "ms", …}, …]}``.

    Raises:
        dagster.Failure: A stage failed or, unless `fail_on` is ``error``, a limit is exceeded. The
            description says what to do, the metadata holds each stage's milliseconds and measurements.
        ConfigError: A stage is unknown, or a limit is out of range.
    """
    fail_on: Any = config.fail_on  # Dagster's configuration knows no Literal; the probe checks it.
    found = HealthProbe(config.checks, config.timeout, config.limits, fail_on).run(lakebase)
    (context.log.info if found.ok else context.log.warning)("Lakebase health\n%s", found.to_text())
    if found.failed:
        raise dg.Failure(found.description(), metadata=found.metadata())
    context.add_output_metadata(found.metadata())
    return found.report.to_dict()


def build_lakebase_health_checks(
    assets: Iterable[Asset],
    *,
    checks: Sequence[str] | None = None,
    timeout: float | None = None,
    limits: HealthLimits | Mapping[str, float] | None = None,
    fail_on: FailOn = "warn",
    blocking: bool = True,
    resource_key: str = "lakebase",
    name: str = "lakebase_health",
) -> Sequence[dg.AssetChecksDefinition]:
    """One asset check per asset, all answered by one run of the staged health check.

    If blocking checks cover assets that depend on each other, Dagster runs the check once per level of the
    graph, since the second level must not start before the first is found healthy.

    Args:
        assets: The assets, or their keys.
        checks: Stages to run, with those that they depend on; all by default.
        timeout: Timeout of each stage in seconds; the resource's `connect_budget` by default.
        limits: Limits for what the stages measure.
        fail_on: What an exceeded limit is: with ``warn`` an error, like a failed stage, with ``error`` a
            warning, which blocks nothing.
        blocking: Whether a check that fails with an error blocks downstream assets of the same run.
        resource_key: Where the :class:`~dagster_lakebase.LakebaseResource` is bound.
        name: The checks' name. Checks of several databases on one asset need several names.

    Returns:
        Definitions to pass on as ``Definitions(asset_checks=…)``. Their results carry numbers, which Dagster
        plots over time: the milliseconds of each stage (``lakebase/<stage>_ms``) and what the stages measured
        (``lakebase/token_seconds``, ``lakebase/connect_ms``, ``lakebase/wake_seconds``,
        ``lakebase/connections``, ``lakebase/max_connections``).

    Raises:
        DagsterInvalidDefinitionError: A stage is unknown, a limit is set for what is not measured, or there
            are no assets.

    Example:
        .. code-block:: python

            defs = dg.Definitions(
                assets=[orders],
                asset_checks=build_lakebase_health_checks(
                    [orders], limits=HealthLimits(max_connections_used=0.8)
                ),
                resources={"lakebase": LakebaseResource()},
            )
    """
    keys = asset_keys(assets, "build_lakebase_health_checks")
    probe = checked_probe(checks, timeout, limits, fail_on)

    @dg.multi_asset_check(
        name=op_name(name, keys),
        specs=[
            dg.AssetCheckSpec(
                name,
                asset=key,
                blocking=blocking,
                description="Whether Lakebase is reachable, stage by stage.",
            )
            for key in keys
        ],
        can_subset=True,
        required_resource_keys={resource_key},
        op_tags={"dagster/kind": "lakebase"},
    )
    def lakebase_health(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        found = probe.run(getattr(context.resources, resource_key))
        context.log.info("Lakebase health\n%s", found.to_text())
        for check in context.selected_asset_check_keys:
            yield dg.AssetCheckResult(
                passed=found.ok,
                asset_key=check.asset_key,
                check_name=check.name,
                severity=found.severity,
                metadata=found.metadata(),
                description=found.description(),
            )

    return [lakebase_health]


def checked_probe(
    checks: Sequence[str] | None,
    timeout: float | None,
    limits: HealthLimits | Mapping[str, float] | None,
    fail_on: FailOn,
) -> HealthProbe:
    """The probe of a definition.

    Raises:
        DagsterInvalidDefinitionError: A stage is unknown, or a limit is set for what is not measured.
    """
    try:
        return HealthProbe(checks, timeout, limits, fail_on)
    except ConfigError as error:
        raise dg.DagsterInvalidDefinitionError(str(error)) from error
