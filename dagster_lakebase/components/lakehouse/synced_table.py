"""A synced table as a component: synced by runs, or observed."""

from __future__ import annotations

from typing import Annotated, Any

import dagster as dg

from dagster_lakebase.components.connection import Connection
from dagster_lakebase.components.load import placed
from dagster_lakebase.components.scaffolding import SyncedTableScaffolder
from dagster_lakebase.resource.hidden_inputs import HiddenInputs
from dagster_lakebase.tables.op_names import op_name
from dagster_lakebase.tables.synced.checks import build_lakebase_sync_checks
from dagster_lakebase.tables.synced.observation import build_lakebase_synced_table_observation
from dagster_lakebase.tables.synced.state import SYNCED_TABLE
from dagster_lakebase.tables.synced.sync import SYNC_TIMEOUT, build_lakebase_sync_asset
from lakebase_provider.core.bulk.sources.delta.delta import Delta


@dg.scaffold_with(SyncedTableScaffolder)
class LakebaseSyncedTableComponent(dg.Component, HiddenInputs):
    """A synced table as an asset that runs sync, or that is observed, with checks and a schedule.

    To materialize it is to sync it, and to wait until all is there that its source had. The data version is
    the version of the source.
    """

    connection: Connection = "lakebase"
    synced_table: Annotated[
        str, dg.Resolver.default(description="Name of the synced table, <catalog>.<schema>.<table>.")
    ]
    asset: Annotated[
        dg.ResolvedAssetSpec | None,
        dg.Resolver.default(
            description="The asset; its key is the schema and the table if left out. Its deps say what the "
            "synced table is copied from."
        ),
    ] = None
    sync: Annotated[
        bool,
        dg.Resolver.default(
            description="Whether runs sync it; false for one that others sync, which is observed."
        ),
    ] = True
    source: Annotated[
        str | None,
        dg.Resolver.default(
            description="Path or URI of the Delta table, whose newest version must be reached; relative to "
            "the component's folder. Without it, an update that runs already is followed by another one."
        ),
    ] = None
    full_refresh: Annotated[
        bool, dg.Resolver.default(description="Whether to copy all rows anew each time.")
    ] = False
    declared: Annotated[
        dict[str, Any] | None,
        dg.Resolver.default(
            description="What it is declared with: before it is synced, it is made so. source_table, "
            "primary_key, scheduling_policy and other options of a synced table.",
            examples=[
                {"source_table": "main.src.trips", "primary_key": ["id"], "scheduling_policy": "TRIGGERED"}
            ],
        ),
    ] = None
    view: Annotated[
        str | None,
        dg.Resolver.default(
            description="With declared: name of a view, schema.view, that shows the table in use."
        ),
    ] = None
    drop_orphans: Annotated[
        bool, dg.Resolver.default(description="With declared: whether to drop what is no longer filled.")
    ] = False
    max_age: Annotated[
        float | None,
        dg.Resolver.default(
            description="Seconds since the newest sync began that ended well, for a check of freshness; "
            "without it, there is none."
        ),
    ] = None
    timeout: Annotated[float, dg.Resolver.default(description="Seconds that a sync may take.")] = SYNC_TIMEOUT
    cron_schedule: Annotated[
        str | None,
        dg.Resolver.default(description="When to sync or observe it; without it, there is no schedule."),
    ] = None
    name: Annotated[
        str | None,
        dg.Resolver.default(
            description="What the names of the job and the schedule begin with, which are <name>_job and "
            "<name>_schedule; lakebase_sync_ and the asset's if left out."
        ),
    ] = None
    pool: Annotated[
        str | None, dg.Resolver.default(description="The concurrency pool that limits how many run at once.")
    ] = None

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The asset, its checks, its job and its schedule.

        Raises:
            DagsterInvalidDefinitionError: The name is none of a synced table, or options contradict each
                other.
        """
        key = self.synced_table.split(".")[1:] or [self.synced_table]
        spec = self.asset or dg.AssetSpec(key, kinds={"postgres"})
        spec = spec.replace_attributes(metadata={SYNCED_TABLE: self.synced_table, **spec.metadata})
        name = self.name or f"lakebase_sync_{op_name([spec.key])}"
        if self.sync:
            options: Any = {"declared": self.declared}
            definition = build_lakebase_sync_asset(
                spec,
                source=self.source and Delta(placed(self.source, context.path)).uri,
                full_refresh=self.full_refresh,
                view=self.view,
                drop_orphans=self.drop_orphans,
                timeout=self.timeout,
                pool=self.pool,
                resource_key=self.connection,
                **options,
            )
        else:
            self._require_observable()
            definition = build_lakebase_synced_table_observation(
                [spec], resource_key=self.connection, name=name
            )
        checks = build_lakebase_sync_checks([spec], max_age=self.max_age, resource_key=self.connection)
        job = dg.define_asset_job(f"{name}_job", selection=[definition])
        schedules = []
        if self.cron_schedule is not None:
            schedules.append(
                dg.ScheduleDefinition(name=f"{name}_schedule", job=job, cron_schedule=self.cron_schedule)
            )
        return dg.Definitions(assets=[definition], asset_checks=checks, jobs=[job], schedules=schedules)

    def _require_observable(self) -> None:
        for option in ("source", "full_refresh", "declared", "view", "drop_orphans"):
            if getattr(self, option):
                raise dg.DagsterInvalidDefinitionError(
                    f"{option} has no meaning for a synced table that is observed. Leave it out, or set sync "
                    "to true."
                )
