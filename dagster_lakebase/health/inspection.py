"""What is not well in the database, as asset checks whose numbers Dagster plots."""

# No "from __future__ import annotations": Dagster reads an op's annotations as objects, not as text.

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from dagster_lakebase.tables.asset_keys import Asset, asset_keys, op_name
from lakebase_provider.core.config import arguments
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.upkeep.inspection.inspection_options import (
    Limits,
    chosen,
    limits_of,
    require_days,
)
from lakebase_provider.core.upkeep.inspection.inspection_report import (
    FailOn,
    InspectionReport,
    require_severity,
)

if TYPE_CHECKING:
    from dagster_lakebase.resource.resource import LakebaseResource


def build_lakebase_inspection_checks(
    assets: Iterable[Asset],
    *,
    checks: Sequence[str] | None = None,
    limits: Limits | None = None,
    statistics_days: float = 7.0,
    timeout: float = 10.0,
    fail_on: FailOn = "bad",
    blocking: bool = False,
    resource_key: str = "lakebase",
    name: str = "lakebase_inspection",
) -> Sequence[dg.AssetChecksDefinition]:
    """One asset check per asset, all answered by one inspection of the database that they are in.

    Args:
        assets: The assets, or their keys.
        checks: Names of the checks of an inspection; all by default.
        limits: From which value on something is not well, by the check's name: a number for a warning; or a
            pair, of which the second is for what is bad; None to measure only.
        statistics_days: Days that the server's counters must cover before an index is called unused.
        timeout: Seconds that a check may take; one that takes longer is skipped.
        fail_on: What makes the asset check an error: ``bad``, or ``warn`` for what needs a look, too.
            Otherwise that is a warning, which blocks nothing.
        blocking: Whether an error blocks downstream assets of the same run.
        resource_key: Where the :class:`~dagster_lakebase.LakebaseResource` is bound.
        name: The checks' name. Checks of several databases on one asset need several names.

    Returns:
        Definitions to pass on as ``Definitions(asset_checks=…)``. Their results carry the number of each
        check (``lakebase/<check>``), which Dagster plots over time, and the report (``lakebase/report``).

    Raises:
        DagsterInvalidDefinitionError: A check is unknown, an argument cannot work, or there are no assets.

    Example:
        .. code-block:: python

            defs = dg.Definitions(
                assets=[orders],
                asset_checks=build_lakebase_inspection_checks([orders], limits={"bloat": [0.3, 0.6]}),
                resources={"lakebase": LakebaseResource()},
            )
    """
    keys = asset_keys(assets, "build_lakebase_inspection_checks")
    try:
        chosen(checks)
        limits_of(limits)
        require_days(statistics_days)
        arguments.timeout(timeout)
        require_severity(fail_on)
    except ConfigError as error:
        raise dg.DagsterInvalidDefinitionError(str(error)) from error

    @dg.multi_asset_check(
        name=op_name(name, keys),
        specs=[
            dg.AssetCheckSpec(
                name,
                asset=key,
                blocking=blocking,
                description="What its catalog says.",
            )
            for key in keys
        ],
        can_subset=True,
        required_resource_keys={resource_key},
        op_tags={"dagster/kind": "lakebase"},
    )
    def lakebase_inspection(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        lakebase: LakebaseResource = getattr(context.resources, resource_key)
        report = lakebase.client.inspect(
            checks, limits=limits, statistics_days=statistics_days, timeout=timeout
        )
        context.log.info("Lakebase inspection\n%s", report.to_text())
        for check in context.selected_asset_check_keys:
            yield _result(report, check, fail_on)

    return [lakebase_inspection]


def _result(report: InspectionReport, check: dg.AssetCheckKey, fail_on: FailOn) -> dg.AssetCheckResult:
    wrong = report.of_status("bad", "warn")
    fails = report.fails(fail_on)
    numbers = {f"lakebase/{name}": float(value) for name, value in report.figures.items()}
    return dg.AssetCheckResult(
        passed=report.ok,
        asset_key=check.asset_key,
        check_name=check.name,
        severity=dg.AssetCheckSeverity.ERROR if fails else dg.AssetCheckSeverity.WARN,
        metadata={**numbers, "lakebase/report": dg.MetadataValue.md(report.to_markdown())},
        description="\n".join(map(str, wrong)) or f"All {len(report.findings)} checks are ok or skipped.",
    )
