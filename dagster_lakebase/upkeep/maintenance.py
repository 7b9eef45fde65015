"""Maintenance of tables in use as ops, and as a job with a schedule."""

# No "from __future__ import annotations": Dagster reads an op's annotations as objects, not as text.

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from dagster_lakebase.resource.failures import failing_fast
from lakebase_provider.core.errors import ConfigError, LakebaseError
from lakebase_provider.core.upkeep.maintenance.maintenance_options import ACTIONS, require_action

if TYPE_CHECKING:
    from lakebase_provider.core.upkeep.maintenance.maintenance_report import MaintenanceReport

#: How much time a partition holds, by Dagster's schedule of partitions.
_EVERY = {"0 0 1 * *": "month", "0 0 * * 1": "week", "0 0 * * *": "day"}
_TAGS = {"dagster/kind": "lakebase"}


class LakebaseMaintenanceConfig(dg.Config):
    """What :data:`lakebase_maintenance_op` does."""

    action: str = Field(description=f"The kind of maintenance: {', '.join(ACTIONS)}.")
    options: dict[str, Any] = Field(
        default={}, description="Options of that method of ``client.maintenance``, by name."
    )


def maintenance_op(name: str, resource_key: str) -> dg.OpDefinition:
    """:data:`lakebase_maintenance_op` under another name, with the resource of that key."""

    @dg.op(name=name, required_resource_keys={resource_key}, tags=_TAGS)
    def maintain(context: dg.OpExecutionContext, config: LakebaseMaintenanceConfig) -> None:
        """Look after tables in use, by the kind of maintenance that the configuration names, and its options.

        The metadata have the report, how many things were done, how many left alone, and the seconds.
        """
        _maintain(context, resource_key, config.action, config.options)

    return maintain


lakebase_maintenance_op = maintenance_op("lakebase_maintenance_op", "lakebase")


def build_lakebase_maintenance_job(
    tasks: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    name: str = "lakebase_maintenance",
    resource_key: str = "lakebase",
) -> dg.JobDefinition:
    """A job of several kinds of maintenance, one after another; one that fails does not hold up the others.

    A run that is retried after a kill finishes or removes what was left. For a schedule, pass it to
    ``ScheduleDefinition``.

    Args:
        tasks: Each kind, a method of ``client.maintenance``, with its options. Of partitions, ``every``
            may be the ``PartitionsDefinition`` of an asset, by months, weeks from Monday or days in UTC.
        name: The job's name; its ops are called after it, their number and the kind.
        resource_key: Where the :class:`~dagster_lakebase.LakebaseResource` is bound.

    Raises:
        DagsterInvalidDefinitionError: There is no such kind or option, or one is malformed.

    Example:
        .. code-block:: python

            nightly = build_lakebase_maintenance_job(
                [("partitions", {"table": "events", "every": "month", "keep": 12}), ("vacuum", {})]
            )
            schedule = dg.ScheduleDefinition(job=nightly, cron_schedule="0 2 * * *")
    """
    if not tasks:
        raise dg.DagsterInvalidDefinitionError(f"The job {name} has no tasks.")
    ops = []
    for number, (action, options) in enumerate(tasks, 1):
        try:
            options = {**options, **_period(options.get("every"))}
            require_action(action, options)
        except LakebaseError as error:
            raise dg.DagsterInvalidDefinitionError(f"Task {number} of the job {name}: {error}") from error
        ops.append(_task_op(f"{name}_{number:02}_{action}", resource_key, action, options))
    # Two at once would wait for each other's locks.
    return dg.GraphDefinition(name=name, node_defs=ops).to_job(executor_def=dg.in_process_executor)


def _period(every: Any) -> dict[str, Any]:
    """The option that says how much time a partition holds, if it is to follow from Dagster's partitions."""
    if not isinstance(every, dg.PartitionsDefinition):
        return {}
    cron = every.cron_schedule if isinstance(every, dg.TimeWindowPartitionsDefinition) else ""
    zone = getattr(every, "timezone", "UTC")
    if cron not in _EVERY or zone != "UTC":
        raise ConfigError(
            f"Partitions by {cron or type(every).__name__!r} in {zone} are no months, weeks or days of UTC.",
            remedy="Give 'month', 'week' or 'day'; a week begins on Monday.",
        )
    return {"every": _EVERY[cron]}


def _task_op(name: str, resource_key: str, action: str, options: dict[str, Any]) -> dg.OpDefinition:
    @dg.op(name=name, required_resource_keys={resource_key}, tags=_TAGS)
    def maintain(context: dg.OpExecutionContext) -> None:
        _maintain(context, resource_key, action, options)

    return maintain


def _maintain(
    context: dg.OpExecutionContext, resource_key: str, action: str, options: Mapping[str, Any]
) -> None:
    with failing_fast():
        require_action(action, options)
        maintenance = getattr(context.resources, resource_key).client.maintenance
        report = getattr(maintenance, action)(**options)
    context.log.info("%s", report.to_markdown())
    context.add_output_metadata(_metadata(report))


def _metadata(report: "MaintenanceReport") -> dict[str, Any]:
    skipped = [dg.TableRecord({"target": one.target, "reason": one.reason}) for one in report.skipped]
    return {
        "lakebase/maintenance": dg.MetadataValue.md(report.to_markdown()),
        "lakebase/done": len(report.steps),
        "lakebase/left_alone": len(report.skipped),
        "lakebase/seconds": report.seconds,
        **({"lakebase/skipped": dg.MetadataValue.table(skipped)} if skipped else {}),
    }
