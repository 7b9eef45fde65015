"""Branches made, deleted and swept up by ops, and swept up by a sensor."""

# No "from __future__ import annotations": Dagster reads an op's annotations as objects, not as text.

from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from dagster_lakebase.resource.branch_deployment import LakebaseBranchDeployment
from dagster_lakebase.resource.failures import failing_fast
from dagster_lakebase.resource.resource import LakebaseResource
from lakebase_provider.core.config.addresses import require_own_project
from lakebase_provider.core.config.resource_names import id_of
from lakebase_provider.core.errors import ConfigError

if TYPE_CHECKING:
    from lakebase_provider.core.upkeep.branches.sweep import SweepReport

_WHICH = "Id or name of the branch. Without it, that of the LakebaseBranchDeployment."
_TAGS = {"dagster/kind": "lakebase"}
#: Seconds that each deletion in a sensor's tick may take: Dagster ends the tick after 60.
_IN_A_TICK = 20.0


class LakebaseCreateBranchConfig(dg.Config):
    """What :func:`lakebase_create_branch_op` makes."""

    branch: str | None = Field(default=None, description=_WHICH)
    source: str | None = Field(
        default=None,
        description="Id or name of the branch to make it from; the project's default branch if left out. A "
        "branch deployment's is made from where its settings lead.",
    )
    ttl: float = Field(
        default=86_400.0,
        description="Seconds until the workspace deletes it. A branch deployment has a ttl of its own.",
    )
    if_exists: str = Field(
        default="reuse",
        description="If it is there: reuse it with the data that it has, recreate it with those that its "
        "source has now, or fail. A branch deployment's is reused.",
    )


class LakebaseDeleteBranchConfig(dg.Config):
    """What :func:`lakebase_delete_branch_op` deletes."""

    branch: str | None = Field(default=None, description=_WHICH)


class LakebaseSweepBranchesConfig(dg.Config):
    """What :func:`lakebase_sweep_branches_op` deletes."""

    prefix: str = Field(
        default="run",
        description="What the branches' ids begin with, before a hyphen: run for those of leases.",
    )
    older_than: float = Field(
        default=86_400.0,
        description="Seconds since their creation, at least; more than the longest run.",
    )
    dry_run: bool = Field(default=False, description="Only say what would be deleted.")


def create_branch_op(name: str, resource_key: str) -> dg.OpDefinition:
    """:func:`lakebase_create_branch_op` under another name, with the resource of that key."""

    @dg.op(name=name, required_resource_keys={resource_key}, tags=_TAGS)
    def create_branch(context: dg.OpExecutionContext, config: LakebaseCreateBranchConfig) -> None:
        """Make a branch, or find the one that is there; it is small, and ready for logins.

        It is the one that the configuration names, or else the branch deployment's, which the first run would
        make anyway: launched when a pull request is opened, this takes the wait from that run. The resource
        is a LakebaseBranchDeployment then.
        """
        lakebase = getattr(context.resources, resource_key)
        with failing_fast():
            if config.branch is None:
                found = _deployment(lakebase).open_branch()
            else:
                options: Any = config.model_dump()
                client = lakebase.client_for_branches
                # Who starts a run is trusted with the project that the definitions name.
                require_own_project((config.branch, config.source), (client.config.project,))
                found = client.branches.take(**options).branch
        assert found is not None
        context.log.info("The branch %s is ready, until %s.", found.name, found.expire_time)
        told = {
            "lakebase/branch": found.id,
            "lakebase/uid": found.uid,
            "lakebase/parent": id_of(found.source_branch or ""),
            "lakebase/parent_lsn": found.source_branch_lsn,
            "lakebase/expires": None if found.expire_time is None else found.expire_time.isoformat(),
        }
        context.add_output_metadata({key: value for key, value in told.items() if value})

    return create_branch


def delete_branch_op(name: str, resource_key: str) -> dg.OpDefinition:
    """:func:`lakebase_delete_branch_op` under another name, with the resource of that key."""

    @dg.op(name=name, required_resource_keys={resource_key}, tags=_TAGS)
    def delete_branch(context: dg.OpExecutionContext, config: LakebaseDeleteBranchConfig) -> None:
        """Delete a branch for good, if it is there.

        It is the one that the configuration names, or else the branch deployment's: to be launched when a
        pull request is closed. The project's default branch, and one that is protected or has children, is an
        error.
        """
        lakebase = getattr(context.resources, resource_key)
        with failing_fast():
            if config.branch is None:
                _deployment(lakebase).close_branch()
            else:
                client = lakebase.client_for_branches
                require_own_project((config.branch,), (client.config.project,))
                client.workspace.branches.delete(config.branch, purge=True, missing_ok=True)

    return delete_branch


def sweep_branches_op(name: str, resource_key: str) -> dg.OpDefinition:
    """:func:`lakebase_sweep_branches_op` under another name, with the resource of that key."""

    @dg.op(name=name, required_resource_keys={resource_key}, tags=_TAGS)
    def sweep_branches(context: dg.OpExecutionContext, config: LakebaseSweepBranchesConfig) -> None:
        """Delete the branches that leases of killed runs left behind; it fails if one cannot be deleted."""
        lakebase = getattr(context.resources, resource_key)
        options: Any = config.model_dump()
        with failing_fast():
            report = lakebase.client_for_branches.branches.sweep(**options)
        context.log.info(_summary(report))
        metadata = _metadata(report)
        if report.failed:
            raise dg.Failure(_summary(report), metadata=metadata)
        context.add_output_metadata(metadata)

    return sweep_branches


lakebase_create_branch_op = create_branch_op("lakebase_create_branch_op", "lakebase")
lakebase_delete_branch_op = delete_branch_op("lakebase_delete_branch_op", "lakebase")
lakebase_sweep_branches_op = sweep_branches_op("lakebase_sweep_branches_op", "lakebase")


def build_lakebase_sweep_sensor(
    *,
    prefix: str = "run",
    older_than: float = 86_400.0,
    dry_run: bool = False,
    minimum_interval_seconds: int = 3600,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
    resource_key: str = "lakebase",
    name: str = "lakebase_sweep_sensor",
) -> dg.SensorDefinition:
    """A sensor that deletes, without a run, the branches that leases of killed runs left behind.

    The tick says how many; its log has each branch with its age, its size and why it was kept. A tick fails
    if a branch cannot be deleted. What it does not reach in Dagster's 60 seconds the next one does.

    Args:
        prefix: What the branches' ids begin with, before a hyphen.
        older_than: Seconds since their creation, at least: more than the longest run.
        dry_run: Only say what would be deleted.
        minimum_interval_seconds: Seconds between ticks.
        default_status: Whether the sensor runs without being switched on.
        resource_key: Where the :class:`~dagster_lakebase.LakebaseResource` is bound. Deleting needs CAN
            MANAGE on the project.
        name: The sensor's name.

    Returns:
        A definition to pass on as ``Definitions(sensors=[…])``.

    Example:
        .. code-block:: python

            defs = dg.Definitions(
                sensors=[build_lakebase_sweep_sensor(older_than=6 * 3600)],
                resources={"lakebase": LakebaseResource()},
            )
    """

    @dg.sensor(
        name=name,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        required_resource_keys={resource_key},
        description="Deletes the branches that leases of killed runs left behind.",
    )
    def lakebase_sweep(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        lakebase: LakebaseResource = getattr(context.resources, resource_key)
        report = lakebase.client_for_branches.branches.sweep(
            prefix=prefix, older_than=older_than, dry_run=dry_run, timeout=_IN_A_TICK
        )
        for branch in report.branches:
            context.log.info("%s", branch)
        if report.failed:
            raise dg.Failure(_summary(report))
        # What Dagster shows for a tick that requests no run.
        return dg.SkipReason(_summary(report))

    return lakebase_sweep


def _deployment(lakebase: LakebaseResource) -> LakebaseBranchDeployment:
    if isinstance(lakebase, LakebaseBranchDeployment) and lakebase.branch_id is not None:
        return lakebase
    raise ConfigError(
        "No branch is named, and this is no branch deployment that has one of its own.",
        remedy="Name it in the op's configuration, or run it in a branch deployment, on a "
        "LakebaseBranchDeployment.",
    )


def _summary(report: "SweepReport") -> str:
    deleted = f"{len(report.deleted)} of {len(report.branches)} branches that begin with {report.prefix}-"
    failed = "".join(f" {branch.name} cannot be deleted: {branch.reason}" for branch in report.failed)
    return f"{deleted} {'would be' if report.dry_run else 'were'} deleted.{failed}"


def _metadata(report: "SweepReport") -> dict[str, Any]:
    rows = [
        dg.TableRecord(
            {
                "branch": id_of(branch.name),
                "age_seconds": round(branch.age or 0.0),
                "bytes": round(branch.size or 0.0),
                "deleted": branch.deleted,
                "reason": branch.reason,
            }
        )
        for branch in report.branches
    ]
    return {
        "lakebase/deleted": len(report.deleted),
        "lakebase/kept": len(report.branches) - len(report.deleted),
        **({"lakebase/branches": dg.MetadataValue.table(rows)} if rows else {}),
    }
