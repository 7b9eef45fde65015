"""The staged health check as an op and as asset checks."""

# No "from __future__ import annotations": Dagster reads an op's annotations as objects, not as text.

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import dagster as dg
from pydantic import Field

from dagster_lakebase.resource import LakebaseResource

if TYPE_CHECKING:
    from lakebase_provider.core.health import HealthReport

#: An asset, or what names one.
Asset: TypeAlias = dg.AssetsDefinition | dg.AssetSpec | dg.SourceAsset | dg.AssetKey | str | Sequence[str]


class LakebaseHealthCheckConfig(dg.Config):
    """What :func:`lakebase_health_check_op` checks."""

    checks: list[str] | None = Field(
        default=None,
        description="Stages to run, with those that they build on; all when left out. They are: resolve, "
        "credential, dns, tcp, tls, login, query, write.",
    )
    timeout: float | None = Field(
        default=None, description="Seconds for each stage. The resource's connect_budget when left out."
    )


@dg.op(tags={"dagster/kind": "lakebase"})
def lakebase_health_check_op(
    context: dg.OpExecutionContext, config: LakebaseHealthCheckConfig, lakebase: LakebaseResource
) -> dict[str, Any]:
    """Check the way to the database stage by stage, and fail with the remedy of the stage that does.

    Needs the resource `lakebase`.

    Returns:
        The report in plain types: ``{"ok": True, "stages": [{"name", "status", "ms", …}, …]}``.

    Raises:
        dagster.Failure: A stage failed. The description says what to do, the metadata hold the milliseconds
            of each stage.
        ConfigError: A stage is unknown.
    """
    report = lakebase.health(config.checks, config.timeout)
    context.log.info("Lakebase health\n%s", report.to_text())
    metadata = _metadata(report)
    if not report.ok:
        raise dg.Failure(_description(report), metadata=metadata)
    context.add_output_metadata(metadata)
    return report.to_dict()


def build_lakebase_health_checks(
    assets: Iterable[Asset],
    *,
    checks: Sequence[str] | None = None,
    timeout: float | None = None,
    blocking: bool = True,
    resource_key: str = "lakebase",
    name: str = "lakebase_health",
) -> Sequence[dg.AssetChecksDefinition]:
    """One asset check for each asset, all answered by one run of the staged health check.

    Where blocking checks cover assets that depend on each other, Dagster runs the check once for each level
    of the graph, since the second level must not start before the first is found healthy.

    Args:
        assets: The assets, or their keys.
        checks: Stages to run, with those that they build on; all by default.
        timeout: Seconds for each stage; the resource's `connect_budget` by default.
        blocking: Whether a failed check keeps downstream assets of the same run from being materialized.
        resource_key: Where the :class:`~dagster_lakebase.LakebaseResource` is bound.
        name: The checks' name. Checks of several databases on one asset need several names.

    Returns:
        Definitions to pass on as ``Definitions(asset_checks=…)``. Their results carry the milliseconds of
        each stage as ``lakebase/<stage>_ms``, which Dagster plots over time.

    Raises:
        DagsterInvalidDefinitionError: A stage is unknown, or there are no assets.

    Example:
        .. code-block:: python

            defs = dg.Definitions(
                assets=[orders],
                asset_checks=build_lakebase_health_checks([orders], checks=["query"]),
                resources={"lakebase": LakebaseResource()},
            )
    """
    keys = list(dict.fromkeys(key for asset in assets for key in _keys(asset)))
    if not keys:
        raise dg.DagsterInvalidDefinitionError("build_lakebase_health_checks was given no assets.")
    _require_known_stages(checks)
    # Definitions need different op names; the keys tell them apart, in whichever order they are given.
    digest = hashlib.sha256("\n".join(sorted(key.to_string() for key in keys)).encode()).hexdigest()[:8]

    @dg.multi_asset_check(
        name=f"{name}_{digest}",
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
        lakebase: LakebaseResource = getattr(context.resources, resource_key)
        report = lakebase.health(checks, timeout)
        context.log.info("Lakebase health\n%s", report.to_text())
        metadata = _metadata(report)
        for check in context.selected_asset_check_keys:
            yield dg.AssetCheckResult(
                passed=report.ok,
                asset_key=check.asset_key,
                check_name=check.name,
                metadata=metadata,
                description=_description(report),
            )

    return [lakebase_health]


def _keys(
    asset: Asset,
) -> Iterable[dg.AssetKey]:
    if isinstance(asset, dg.AssetsDefinition):
        return sorted(asset.keys)
    if isinstance(asset, (dg.AssetSpec, dg.SourceAsset)):
        return [asset.key]
    return [dg.AssetKey.from_coercible(asset)]


def _require_known_stages(checks: Sequence[str] | None) -> None:
    if checks is None:
        return
    # Imported late: loading a code location must not cost the driver unless it names stages.
    from lakebase_provider.core.health import STAGES

    unknown = [name for name in checks if name not in STAGES]
    if unknown:
        raise dg.DagsterInvalidDefinitionError(
            f"Unknown health checks {', '.join(map(repr, unknown))}. Use of: {', '.join(STAGES)}."
        )


def _metadata(report: "HealthReport") -> dict[str, Any]:
    """The milliseconds of each stage that ran: numbers, so that Dagster plots them."""
    return {
        f"lakebase/{stage.name}_ms": round(stage.ms, 2)
        for stage in report.stages
        if stage.status != "skipped"
    }


def _description(report: "HealthReport") -> str:
    failed = report.first_failure
    if failed is None:
        return f"All {len(report.stages)} stages are ok."
    return f"Stage '{failed.name}' failed ({failed.code}): {failed.detail} Remedy: {failed.remedy}"
