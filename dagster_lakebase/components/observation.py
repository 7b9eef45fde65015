"""The observation of tables as a component."""

from __future__ import annotations

from typing import Annotated

import dagster as dg

from dagster_lakebase.components.connection import Connection
from dagster_lakebase.components.scaffolding import ObservationScaffolder
from dagster_lakebase.resource.hidden_inputs import HiddenInputs
from dagster_lakebase.tables.observation import (
    Rows,
    build_lakebase_table_observation,
    build_lakebase_table_observation_sensor,
)


@dg.scaffold_with(ObservationScaffolder)
class LakebaseObservationComponent(dg.Component, HiddenInputs):
    """Observable assets for tables written outside Dagster, and a schedule to observe them.

    An automation condition can materialize dependents of such an asset when the table has changed. A sensor
    observes tables that Dagster itself makes.
    """

    connection: Connection = "lakebase"
    assets: Annotated[
        list[dg.ResolvedAssetSpec] | None,
        dg.Resolver.default(
            description="Assets whose tables are written outside of Dagster. The metadata "
            "dagster/table_name names an asset's table; otherwise its key does.",
        ),
    ] = None
    materialized_assets: Annotated[
        list[dg.ResolvedAssetKey] | None,
        dg.Resolver.default(description="Keys of assets that Dagster makes: a sensor observes their tables."),
    ] = None
    rows: Annotated[
        Rows,
        dg.Resolver.default(
            description="count: count rows exactly and see every write, by reading each table. estimate: "
            "use the catalog's figures.",
        ),
    ] = "estimate"
    timestamp_column: Annotated[
        str | None,
        dg.Resolver.default(
            description="A column that holds the time of each row's last write, from which freshness is "
            "judged."
        ),
    ] = None
    commit_times: Annotated[
        bool,
        dg.Resolver.default(
            description="Take that time from the commits, if the server has track_commit_timestamp on."
        ),
    ] = False
    cron_schedule: Annotated[
        str | None,
        dg.Resolver.default(description="When to observe the assets; without it, there is no schedule."),
    ] = None
    sensor_interval_seconds: Annotated[
        int, dg.Resolver.default(description="Seconds between observations of the materialized assets.")
    ] = 3600
    name: Annotated[
        str,
        dg.Resolver.default(
            description="Name of the observing op; job, schedule and sensor are named after it."
        ),
    ] = "lakebase_tables"

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The observable assets with their job and schedule, and the sensor.

        Raises:
            DagsterInvalidDefinitionError: There are no assets, or a table's name is malformed.
        """
        if not self.assets and not self.materialized_assets:
            raise dg.DagsterInvalidDefinitionError(
                f"{self.name} observes nothing. Give assets (tables that something else writes) or "
                "materialized_assets (keys of assets that Dagster makes)."
            )
        return dg.Definitions.merge(self._of_others(), self._of_dagster())

    def _of_others(self) -> dg.Definitions:
        if not self.assets:
            return dg.Definitions()
        observation = build_lakebase_table_observation(
            self.assets,
            rows=self.rows,
            timestamp_column=self.timestamp_column,
            commit_times=self.commit_times,
            resource_key=self.connection,
            name=self.name,
        )
        job = dg.define_asset_job(f"{self.name}_job", selection=[observation])
        schedules = []
        if self.cron_schedule is not None:
            schedules.append(
                dg.ScheduleDefinition(name=f"{self.name}_schedule", job=job, cron_schedule=self.cron_schedule)
            )
        return dg.Definitions(assets=[observation], jobs=[job], schedules=schedules)

    def _of_dagster(self) -> dg.Definitions:
        if not self.materialized_assets:
            return dg.Definitions()
        sensor = build_lakebase_table_observation_sensor(
            self.materialized_assets,
            rows=self.rows,
            timestamp_column=self.timestamp_column,
            commit_times=self.commit_times,
            minimum_interval_seconds=self.sensor_interval_seconds,
            resource_key=self.connection,
            name=f"{self.name}_sensor",
        )
        return dg.Definitions(sensors=[sensor])
