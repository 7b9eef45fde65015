"""The staged health check as a sensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import dagster as dg

from dagster_lakebase.health.checks import checked_probe
from dagster_lakebase.tables.asset_keys import Asset, asset_keys
from lakebase_provider.core.upkeep.health.limits import FailOn, HealthLimits


def build_lakebase_health_sensor(
    assets: Iterable[Asset],
    *,
    checks: Sequence[str] | None = None,
    timeout: float = 20.0,
    limits: HealthLimits | Mapping[str, float] | None = None,
    fail_on: FailOn = "warn",
    minimum_interval_seconds: int = 300,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
    resource_key: str = "lakebase",
    name: str = "lakebase_health_sensor",
) -> dg.SensorDefinition:
    """A sensor that runs the staged health check without a run, and records the result as observations.

    A tick needs one login, with the token of earlier ticks. Its result is observed whether good or bad: the
    numbers of :func:`~dagster_lakebase.build_lakebase_health_checks`, and ``lakebase/healthy`` as 1 or 0. The
    tick says in one sentence what is wrong and what to do about it.

    A check wakes a suspended compute: with an interval shorter than the endpoint's suspend timeout it is
    never suspended. Stages up to ``tls`` do not wake it.

    Args:
        assets: The assets to observe, or their keys. A key of its own, such as ``"lakebase"``, works too.
        checks: Stages to run, with those that they depend on; all by default.
        timeout: Timeout of each stage in seconds. Dagster ends a tick after 60 seconds, whatever stage it is
            in.
        limits: Limits for what the stages measure.
        fail_on: ``warn`` if an exceeded limit makes the tick unhealthy, ``error`` if only failed stages do.
        minimum_interval_seconds: Seconds between ticks.
        default_status: Whether the sensor runs without being switched on.
        resource_key: Where the :class:`~dagster_lakebase.LakebaseResource` is bound.
        name: The sensor's name.

    Returns:
        A definition to pass on as ``Definitions(sensors=[…])``.

    Raises:
        DagsterInvalidDefinitionError: A stage is unknown, a limit is set for what is not measured, or there
            are no assets.

    Example:
        .. code-block:: python

            defs = dg.Definitions(
                sensors=[build_lakebase_health_sensor([orders], checks=["query"])],
                resources={"lakebase": LakebaseResource()},
            )
    """
    keys = asset_keys(assets, "build_lakebase_health_sensor")
    probe = checked_probe(checks, timeout, limits, fail_on)

    @dg.sensor(
        name=name,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        required_resource_keys={resource_key},
        description="Observes whether Lakebase is reachable, stage by stage.",
    )
    def lakebase_health(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        found = probe.run(getattr(context.resources, resource_key))
        context.log.info("Lakebase health\n%s", found.to_text())
        metadata = {"lakebase/healthy": float(not found.failed), **found.metadata()}
        return dg.SensorResult(
            asset_events=[
                dg.AssetObservation(key, description=found.description(), metadata=metadata) for key in keys
            ],
            # What Dagster shows for a tick that requests no run.
            skip_reason=found.description(),
        )

    return lakebase_health
