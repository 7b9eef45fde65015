"""The health check as a component."""

from __future__ import annotations

from typing import Annotated, Literal

import dagster as dg

from dagster_lakebase.components.connection import Connection
from dagster_lakebase.components.scaffolding import HealthScaffolder
from dagster_lakebase.health.checks import build_lakebase_health_checks
from dagster_lakebase.health.sensor import build_lakebase_health_sensor
from dagster_lakebase.resource.hidden_inputs import HiddenInputs
from lakebase_provider.core.upkeep.health.limits import LIMIT_NAMES


@dg.scaffold_with(HealthScaffolder)
class LakebaseHealthComponent(dg.Component, HiddenInputs):
    """Asset checks of the path to Lakebase, stage by stage, and a sensor that observes it between runs."""

    connection: Connection = "lakebase"
    assets: Annotated[
        list[dg.ResolvedAssetKey], dg.Resolver.default(description="Keys of the assets to check.")
    ]
    checks: Annotated[
        list[str] | None,
        dg.Resolver.default(description="Stages to run, with those that they depend on; all if left out."),
    ] = None
    timeout: Annotated[
        float | None,
        dg.Resolver.default(
            description="Timeout of each stage in seconds. The connect budget if left out; 20 in a sensor.",
        ),
    ] = None
    limits: Annotated[
        dict[str, float] | None,
        dg.Resolver.default(
            description=f"Limits for what is measured, by name: {', '.join(LIMIT_NAMES)}.",
            examples=[{"max_connections_used": 0.8}],
        ),
    ] = None
    fail_on: Annotated[
        Literal["error", "warn"],
        dg.Resolver.default(description="warn: an exceeded limit fails the check. error: it only warns."),
    ] = "warn"
    blocking: Annotated[
        bool, dg.Resolver.default(description="Whether a failed check blocks downstream assets.")
    ] = True
    sensor_interval_seconds: Annotated[
        int | None,
        dg.Resolver.default(
            description="Seconds between observations of the assets by a sensor; without it, there is no "
            "sensor."
        ),
    ] = None
    name: Annotated[
        str, dg.Resolver.default(description="Name of the checks; the sensor's name adds _sensor.")
    ] = "lakebase_health"

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The checks and the sensor.

        Raises:
            DagsterInvalidDefinitionError: A stage is unknown, or a limit is invalid.
        """
        checks = build_lakebase_health_checks(
            self.assets,
            checks=self.checks,
            timeout=self.timeout,
            limits=self.limits,
            fail_on=self.fail_on,
            blocking=self.blocking,
            resource_key=self.connection,
            name=self.name,
        )
        if self.sensor_interval_seconds is None:
            return dg.Definitions(asset_checks=checks)
        sensor = build_lakebase_health_sensor(
            self.assets,
            checks=self.checks,
            timeout=20.0 if self.timeout is None else self.timeout,
            limits=self.limits,
            fail_on=self.fail_on,
            minimum_interval_seconds=self.sensor_interval_seconds,
            resource_key=self.connection,
            name=f"{self.name}_sensor",
        )
        return dg.Definitions(asset_checks=checks, sensors=[sensor])
