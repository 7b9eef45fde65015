"""What looks after a database, as components: branches, migrations, rehearsals, rows that are put back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import dagster as dg

from dagster_lakebase.components.connection import Connection
from dagster_lakebase.components.scaffolding import (
    BranchScaffolder,
    MaintenanceScaffolder,
    MigrationScaffolder,
    RehearsalScaffolder,
    RestoreScaffolder,
)
from dagster_lakebase.resource.hidden_inputs import HiddenInputs
from dagster_lakebase.upkeep.branches import (
    LakebaseSweepBranchesConfig,
    build_lakebase_sweep_sensor,
    create_branch_op,
    delete_branch_op,
    sweep_branches_op,
)
from dagster_lakebase.upkeep.maintenance import build_lakebase_maintenance_job
from dagster_lakebase.upkeep.migrations import build_lakebase_migration_asset
from dagster_lakebase.upkeep.rehearsal import build_lakebase_rehearsal_asset
from dagster_lakebase.upkeep.restoring import restore_point_op, restore_rows_op

LockTimeout = Annotated[
    float,
    dg.Resolver.default(
        description="Seconds that a statement waits for a lock before its transaction is undone and "
        "tried again."
    ),
]
StatementTimeout = Annotated[
    float | None,
    dg.Resolver.default(description="Seconds that a statement may take; the connection's if left out."),
]


@dg.scaffold_with(BranchScaffolder)
class LakebaseBranchComponent(dg.Component, HiddenInputs):
    """Jobs that create, delete and sweep up branches, and a sensor that sweeps.

    The first two are about the branch that their configuration names, or else about that of the branch
    deployment, if the connection has `branch_deployments`: to be launched when a pull request is opened and
    closed.
    """

    connection: Connection = "lakebase"
    prefix: Annotated[
        str,
        dg.Resolver.default(
            description="What the ids of the branches begin with that are swept up, before a hyphen: run for "
            "those of leases."
        ),
    ] = "run"
    older_than: Annotated[
        float,
        dg.Resolver.default(description="Seconds since their creation, at least; more than the longest run."),
    ] = 86_400.0
    sensor_interval_seconds: Annotated[
        int | None,
        dg.Resolver.default(
            description="Seconds between sweeps by a sensor; without it, there is no sensor."
        ),
    ] = None
    name: Annotated[
        str,
        dg.Resolver.default(
            description="What the names of the jobs begin with, which are <name>_create, <name>_delete and "
            "<name>_sweep, and of the sensor, <name>_sweep_sensor."
        ),
    ] = "lakebase_branch"

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The jobs and the sensor."""
        swept = LakebaseSweepBranchesConfig(prefix=self.prefix, older_than=self.older_than)
        ops = {"create": create_branch_op, "delete": delete_branch_op, "sweep": sweep_branches_op}
        jobs = []
        for verb, make in ops.items():
            op = make(f"{self.name}_{verb}_op", self.connection)
            config = dg.RunConfig(ops={op.name: swept}) if verb == "sweep" else None
            jobs.append(_job(f"{self.name}_{verb}", op, config))
        if self.sensor_interval_seconds is None:
            return dg.Definitions(jobs=jobs)
        sensor = build_lakebase_sweep_sensor(
            prefix=self.prefix,
            older_than=self.older_than,
            minimum_interval_seconds=self.sensor_interval_seconds,
            resource_key=self.connection,
            name=f"{self.name}_sweep_sensor",
        )
        return dg.Definitions(jobs=jobs, sensors=[sensor])


@dg.scaffold_with(MigrationScaffolder)
class LakebaseMigrationComponent(dg.Component, HiddenInputs):
    """An asset that runs the SQL files of a folder that have not run yet, each of them once."""

    connection: Connection = "lakebase"
    folder: Annotated[
        str,
        dg.Resolver.default(description="The folder of the files; relative to the component's folder."),
    ] = "migrations"
    asset: Annotated[
        dg.ResolvedAssetSpec | None,
        dg.Resolver.default(description="The asset; its key is lakebase_migrations if left out."),
    ] = None
    lock_timeout: LockTimeout = 5.0
    statement_timeout: StatementTimeout = None
    lint: Annotated[
        bool,
        dg.Resolver.default(
            description="Whether to ask squawk about the files that have not run, and to run nothing if it "
            "finds anything."
        ),
    ] = False
    ledger: Annotated[
        str | None,
        dg.Resolver.default(
            description="Name of the table that says what has run; public.lakebase_migration if left out."
        ),
    ] = None
    timeout: Annotated[float, dg.Resolver.default(description="Seconds that all of it may take.")] = 3600.0
    restore_point: Annotated[
        bool,
        dg.Resolver.default(
            description="Whether to note in the metadata, before any file runs, the moment as of which rows "
            "can be put back."
        ),
    ] = False

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The asset.

        Raises:
            DagsterInvalidDefinitionError: There is no such folder, or a file in it is not well formed.
        """
        asset = build_lakebase_migration_asset(
            context.path / self.folder,
            asset=self.asset or "lakebase_migrations",
            lock_timeout=self.lock_timeout,
            statement_timeout=self.statement_timeout,
            lint=self.lint,
            ledger=self.ledger,
            timeout=self.timeout,
            restore_point=self.restore_point,
            resource_key=self.connection,
        )
        return dg.Definitions(assets=[asset])


@dg.scaffold_with(RehearsalScaffolder)
class LakebaseRehearsalComponent(dg.Component, HiddenInputs):
    """An asset that a change makes, which is rehearsed on a branch each time before it runs.

    The step fails, without a retry, if the change or a check does there, and nothing has run where the asset
    is then. Making a branch needs CAN MANAGE on the project.
    """

    connection: Connection = "lakebase"
    asset: Annotated[dg.ResolvedAssetSpec, dg.Resolver.default(description="The asset.")]
    sql: Annotated[
        str | None,
        dg.Resolver.default(
            description="The change: one or more statements, which are one transaction unless one of them "
            "cannot run in any."
        ),
    ] = None
    folder: Annotated[
        str | None,
        dg.Resolver.default(
            description="A folder of migrations instead, of which those run that have not run yet; relative "
            "to the component's folder."
        ),
    ] = None
    checks: Annotated[
        Sequence[str],
        dg.Resolver.default(description="Queries whose values must all be true after the change."),
    ] = ()
    tables: Annotated[
        Sequence[str],
        dg.Resolver.default(
            description="Tables whose rows are compared before and after, by their primary key."
        ),
    ] = ()
    then: Annotated[
        Literal["run", "stop"],
        dg.Resolver.default(
            description="What follows if the change and all checks succeed: run the same where the asset is, "
            "or stop."
        ),
    ] = "run"
    examples: Annotated[
        int,
        dg.Resolver.default(
            description="How many rows of each kind the metadata show, 100 at most; 0 shows no values."
        ),
    ] = 5
    lock_timeout: LockTimeout = 5.0
    statement_timeout: StatementTimeout = None
    timeout: Annotated[
        float,
        dg.Resolver.default(
            description="Seconds that the change may take on the branch, and again afterwards."
        ),
    ] = 3600.0

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The asset.

        Raises:
            DagsterInvalidDefinitionError: There is not one change.
        """
        if (self.sql is None) == (self.folder is None):
            raise dg.DagsterInvalidDefinitionError(
                "A rehearsal is of sql or of a folder, and of one of them."
            )
        asset = build_lakebase_rehearsal_asset(
            self.sql or "" if self.folder is None else context.path / self.folder,
            asset=self.asset,
            checks=self.checks,
            tables=self.tables,
            then=self.then,
            examples=self.examples,
            lock_timeout=self.lock_timeout,
            statement_timeout=self.statement_timeout,
            timeout=self.timeout,
            resource_key=self.connection,
        )
        return dg.Definitions(assets=[asset])


@dg.scaffold_with(RestoreScaffolder)
class LakebaseRestoreComponent(dg.Component, HiddenInputs):
    """Jobs that note a moment to come back to, and put rows of a table back from one.

    The second is launched by a person: its configuration names the table and the moment, and it says what it
    would do until it is told otherwise (``dry_run: false``).
    """

    connection: Connection = "lakebase"
    name: Annotated[
        str,
        dg.Resolver.default(
            description="What the names of the jobs begin with, which are <name>_point and <name>_rows."
        ),
    ] = "lakebase_restore"

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The jobs."""
        ops = {"point": restore_point_op, "rows": restore_rows_op}
        return dg.Definitions(
            jobs=[
                _job(f"{self.name}_{what}", make(f"{self.name}_{what}_op", self.connection))
                for what, make in ops.items()
            ]
        )


class MaintenanceTask(dg.Model, dg.Resolvable):
    """One kind of maintenance."""

    action: Annotated[
        str,
        dg.Resolver.default(
            description="A method of client.maintenance: vacuum, analyze, refresh, create_index, reindex, "
            "drop_index, partitions, repair_sequences or digest_statements."
        ),
    ]
    options: Annotated[
        dict[str, Any] | None, dg.Resolver.default(description="Its options by name, such as tables.")
    ] = None


@dg.scaffold_with(MaintenanceScaffolder)
class LakebaseMaintenanceComponent(dg.Component, HiddenInputs):
    """A job that looks after tables in use, with a schedule: there is no pg_cron on Lakebase.

    Its tasks run one after another; one that fails does not hold up the others. A run that is retried after a
    kill finishes or removes what was left.
    """

    connection: Connection = "lakebase"
    tasks: Annotated[
        Sequence[MaintenanceTask],
        dg.Resolver.default(description="What is done, in order: an action each, with its options."),
    ]
    cron_schedule: Annotated[
        str | None,
        dg.Resolver.default(description="When, such as 0 2 * * *; without it, there is no schedule."),
    ] = None
    timezone: Annotated[
        str, dg.Resolver.default(description="The time zone of the schedule, such as Europe/Berlin.")
    ] = "UTC"
    name: Annotated[
        str,
        dg.Resolver.default(description="The job's name; the schedule is called <name>_schedule."),
    ] = "lakebase_maintenance"

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The job and the schedule.

        Raises:
            DagsterInvalidDefinitionError: There is no such action or option, or one is malformed.
        """
        tasks = [(task.action, task.options or {}) for task in self.tasks]
        job = build_lakebase_maintenance_job(tasks, name=self.name, resource_key=self.connection)
        if self.cron_schedule is None:
            return dg.Definitions(jobs=[job])
        schedule = dg.ScheduleDefinition(
            name=f"{self.name}_schedule",
            job=job,
            cron_schedule=self.cron_schedule,
            execution_timezone=self.timezone,
        )
        return dg.Definitions(jobs=[job], schedules=[schedule])


def _job(name: str, op: dg.OpDefinition, config: dg.RunConfig | None = None) -> dg.JobDefinition:
    return dg.GraphDefinition(name=name, node_defs=[op]).to_job(
        config=config, executor_def=dg.in_process_executor
    )
