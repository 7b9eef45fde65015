"""Whether what is written to Postgres arrives in Delta: asset checks of Lakehouse sync."""

# No "from __future__ import annotations": Dagster reads the annotation of `context` as an object.

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_lakebase.resource.failures import failing_fast
from dagster_lakebase.tables.asset_keys import Asset, asset_specs
from dagster_lakebase.tables.assets import table_of
from dagster_lakebase.tables.synced.checks import check_op_name
from lakebase_provider.core.base.clock import Deadline
from lakebase_provider.core.errors import ObjectStateError, OperationTimeoutError

if TYPE_CHECKING:
    from dagster_lakebase.resource.resource import LakebaseResource
    from lakebase_provider.core.workspace.objects.sync.cdf_configs import CdfStatus


def build_lakebase_mirror_checks(
    assets: Iterable[Asset],
    *,
    config: str,
    max_lag: float = 60.0,
    blocking: bool = False,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    resource_key: str = "lakebase",
    name: str = "lakebase_mirror",
) -> Sequence[dg.AssetChecksDefinition]:
    """Asset checks of tables whose changes Lakehouse sync writes to Delta: whether the mirror keeps up.

    A check takes the position in Postgres' log, and waits at most `max_lag` seconds until all that was
    committed up to there is in the Delta table, and the table streams. With `blocking`, downstream assets of
    the same run that read the Delta table begin when it has what the run has written.

    Args:
        assets: The assets that are the tables in Postgres, or their keys. The metadata
            ``dagster/table_name`` name an asset's table; otherwise its key does.
        config: The configuration of Lakehouse sync: its id in the resource's database, or its full name.
        max_lag: Seconds. Lakehouse sync writes about every 15 seconds.
        blocking: Whether a failed check blocks downstream assets of the same run.
        severity: Of a failed check.
        resource_key: Where the :class:`~dagster_lakebase.LakebaseResource` is bound.
        name: The checks' name.

    Returns:
        Definitions to pass on as ``Definitions(asset_checks=…)``. Their results have the positions
        (``lakebase/lsn``, ``lakebase/committed_lsn``), the state, the Delta table and, as a number that
        Dagster plots, the seconds that it took (``lakebase/lag_seconds``).

    Raises:
        DagsterInvalidDefinitionError: There are no assets, or a table's name is malformed.

    Example:
        .. code-block:: python

            checks = build_lakebase_mirror_checks([orders], config="mirror", max_lag=120, blocking=True)
    """
    specs = asset_specs(assets, "build_lakebase_mirror_checks")
    tables = {key: table_of(key, spec.metadata) for key, spec in specs.items()}

    @dg.multi_asset_check(
        name=check_op_name(name, specs),
        specs=[
            dg.AssetCheckSpec(
                name,
                asset=key,
                blocking=blocking,
                description=f"Whether Lakehouse sync has written to Delta what was committed {max_lag:g} "
                "seconds ago.",
            )
            for key in specs
        ],
        can_subset=True,
        required_resource_keys={resource_key},
        op_tags={"dagster/kind": "lakebase"},
    )
    def lakebase_mirror(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        lakebase: LakebaseResource = getattr(context.resources, resource_key)
        with failing_fast():
            lsn = lakebase.log_position()
            configs = lakebase.client.workspace.cdf_configs
            whole = configs.full_name(config)
        deadline = Deadline(max_lag)
        for key, table in ((key, one.name) for key, one in tables.items()):
            if dg.AssetCheckKey(key, name) not in context.selected_asset_check_keys:
                continue
            problem: str | None = None
            with failing_fast():
                try:
                    left = max(0.1, deadline.remaining())
                    found = configs.wait_in_delta(lsn, whole, tables=[table], timeout=left)
                except (ObjectStateError, OperationTimeoutError) as error:
                    problem = error.message
                    found = tuple(one for one in configs.statuses(whole) if one.postgres_table == table)
                    if not found:
                        problem = f"The table {table} is not followed by {whole}."
            lag = max_lag - deadline.remaining()
            yield dg.AssetCheckResult(
                passed=problem is None,
                asset_key=key,
                check_name=name,
                severity=severity,
                metadata={"lakebase/lsn": lsn, "lakebase/lag_seconds": round(lag, 3), **_metadata(found)},
                description=problem,
            )

    return [lakebase_mirror]


def _metadata(found: "tuple[CdfStatus, ...]") -> dict[str, Any]:
    known: dict[str, Any] = {}
    for one in found:
        synced = one.last_sync_time
        known |= {
            "lakebase/state": one.state,
            "lakebase/delta_table": one.uc_table,
            "lakebase/committed_lsn": one.committed_lsn,
            "lakebase/last_sync": None if synced is None else dg.MetadataValue.timestamp(synced),
        }
    return {name: value for name, value in known.items() if value is not None}
