"""Branches as tasks: made for a run, deleted at its end, reset, and swept up where nobody did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException

from lakebase_provider._airflow.task.arguments import lease_options, require_branch, require_seconds
from lakebase_provider._airflow.task.failing_fast import failing_fast
from lakebase_provider.operators.branches.managing import (
    RUN_ID,
    ManagingOperator,
    deferred_by_default,
    found_in,
)

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.sdk import Context

    from lakebase_provider.core import BranchLimits
    from lakebase_provider.core.workspace.objects.branches import OnExists

#: Arguments of the operator that are options of a lease.
_LEASE = (
    *("ttl", "source", "at_time", "at_lsn", "snapshot", "if_exists"),
    *("min_cu", "max_cu", "suspend_timeout", "wait_for_budget", "limits"),
)


class LakebaseCreateBranchOperator(ManagingOperator):
    """Makes a branch for a run, small and with an end, and returns when logins succeed there.

    Its id follows from DAG, run and task, so that a retry meets the branch that a killed try left, and
    replaces it. Other tasks work on it by ``branch=create.output["name"]``, and
    ``LakebaseDeleteBranchOperator`` purges it. A killed run leaves it for `ttl` at most.
    ``create.as_setup()`` makes it a set-up task.

    It returns ``name``, ``id``, ``uid``, ``project``, ``endpoint``, ``source_branch``, ``source_branch_lsn``,
    ``source_snapshot`` and ``expire_time`` of the branch, as text.

    Args:
        branch_id: Id of the branch (templated); follows from `run_id` by default.
        run_id: What the id follows from (templated): by default DAG, run, task and map index.
        prefix: What an id that follows from `run_id` begins with, by which a sweep finds the branch.
        ttl: Seconds after which the workspace deletes the branch: more than the longest run, since nothing
            extends it between tasks. At most 30 days.
        source: Name or id of the branch to make it from (templated); the project's default branch by default.
        at_time: The moment up to which it is to have that branch's data: a datetime, or text such as
            ``"2027-01-31T12:00:00Z"`` (templated).
        at_lsn: The position in that branch's log instead of a moment (templated).
        snapshot: Name or id of a snapshot to restore instead of a branch (templated).
        if_exists: If an earlier try has left one: ``"recreate"`` it, ``"reuse"`` it with the data that it
            has, or ``"fail"``. A branch that no run can have left is refused.
        min_cu: Least size of its endpoint in capacity units.
        max_cu: Largest size; the least by default.
        suspend_timeout: Seconds after which its endpoint is suspended when idle.
        wait_for_budget: Seconds to wait for room where the project has as many branches as it may have; by
            default the workspace refuses one too many.
        limits: How many it may have, such as ``{"unarchived": 50}``; :class:`.BranchLimits` has the names.
        deferrable: Whether the triggerer makes the branch, and waits for room; the deployment's default if
            left out. If the triggerer dies, another one makes it anew by `if_exists`.
        kwargs: ``conn_id``, ``manage_conn_id``, ``timeout`` as for
            :class:`~lakebase_provider.operators.branches.managing.ManagingOperator`, and arguments of
            ``BaseOperator``.

    Raises:
        ConfigError: An argument is malformed; when the DAG is parsed.
        AirflowFailException: When the task fails in a way that a retry cannot help.
        LakebaseError: When the task fails and a retry may help; what it made is purged.

    Example:
        >>> create = LakebaseCreateBranchOperator(task_id="create", ttl=8 * 3600).as_setup()
    """

    template_fields: Sequence[str] = (
        *ManagingOperator.template_fields,
        *("branch_id", "run_id", "source", "at_time", "at_lsn", "snapshot"),
    )

    def __init__(
        self,
        *,
        branch_id: str | None = None,
        run_id: str = RUN_ID,
        prefix: str = "run",
        ttl: float = 86_400.0,
        source: str | None = None,
        at_time: datetime | str | None = None,
        at_lsn: str | None = None,
        snapshot: str | None = None,
        if_exists: OnExists = "recreate",
        min_cu: float = 0.5,
        max_cu: float | None = None,
        suspend_timeout: float = 300.0,
        wait_for_budget: float | None = None,
        limits: BranchLimits | Mapping[str, int] | None = None,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.branch_id = branch_id
        self.run_id = run_id
        self.prefix = prefix
        self.ttl = ttl
        self.source = source
        self.at_time = at_time
        self.at_lsn = at_lsn
        self.snapshot = snapshot
        self.if_exists = if_exists
        self.min_cu = min_cu
        self.max_cu = max_cu
        self.suspend_timeout = suspend_timeout
        self.wait_for_budget = wait_for_budget
        self.limits = limits
        self.deferrable = deferred_by_default(deferrable)
        self._check_own_arguments(("branch_id", "prefix", *_LEASE))

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        super()._check_arguments(given)
        require_branch(given.get("branch_id"))
        require_seconds(given, "ttl", "suspend_timeout", "wait_for_budget")
        if "prefix" in given:
            from lakebase_provider.core.upkeep.branches.lease_options import checked_prefix

            checked_prefix(given["prefix"])
        lease_options({name: value for name, value in given.items() if name in _LEASE})

    def execute(self, context: Context) -> dict[str, Any]:
        """Make the branch and return its names."""
        from lakebase_provider.core import branch_id_for
        from lakebase_provider.hooks._branches import names_of

        with failing_fast():
            branch = self.branch_id or branch_id_for(self.run_id, self.prefix)
            self._require_own(branch, self.source, self.snapshot)
            plain = {name: getattr(self, name) for name in _LEASE}
            options = lease_options(plain)
            if self.deferrable:
                self._defer_creation(branch, plain)
            with self._unwinding():
                taken = self._managed().branches.take(branch=branch, timeout=self.timeout, **options)
        return self._made(names_of(taken.branch))

    def _defer_creation(self, branch: str, plain: dict[str, Any]) -> None:
        from dataclasses import asdict

        from lakebase_provider.triggers.branches import LakebaseCreateBranchTrigger

        at_time, limits = plain["at_time"], plain["limits"]
        trigger = LakebaseCreateBranchTrigger(
            conn_id=self.conn_id,
            manage_conn_id=self.manage_conn_id,
            branch=branch,
            options={
                **plain,
                "at_time": at_time if at_time is None or isinstance(at_time, str) else at_time.isoformat(),
                "limits": limits if limits is None or isinstance(limits, Mapping) else asdict(limits),
            },
            timeout=self.timeout,
        )
        self._defer_to(trigger, f"makes the branch {branch}")

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return what the trigger has made, or raise its error."""
        return self._made(found_in(event)["branch"])

    def _made(self, names: dict[str, Any]) -> dict[str, Any]:
        self.log.info("The branch %s is ready, and expires at %s.", names["name"], names["expire_time"])
        # By it the console's link leads there.
        self.branch = names["name"]
        return names


class LakebaseDeleteBranchOperator(ManagingOperator):
    """Deletes a branch for good; that there is none any more is as good.

    ``delete.as_teardown(setups=create)`` deletes it in every outcome. The default branch and protected
    branches are refused.

    Args:
        branch: Name or id of the branch (templated).
        uid: Its uid (templated), so that another branch that has its name by now is left alone, with a
            ``LeaseLostError``. Give it wherever you know it: ``create.output["uid"]``.
        deferrable: Whether the triggerer waits for the deletion; the deployment's default if left out.
        kwargs: ``conn_id``, ``manage_conn_id``, ``timeout`` as for
            :class:`~lakebase_provider.operators.branches.managing.ManagingOperator`, and arguments of
            ``BaseOperator``.

    Raises:
        AirflowFailException: When the task fails in a way that a retry cannot help.
        LakebaseError: When the task fails and a retry may help.

    Example:
        >>> LakebaseDeleteBranchOperator(
        ...     task_id="delete", branch=create.output["name"], uid=create.output["uid"]
        ... ).as_teardown(setups=create)
    """

    template_fields: Sequence[str] = (*ManagingOperator.template_fields, "branch", "uid")

    def __init__(
        self, *, branch: str, uid: str | None = None, deferrable: bool | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.branch = branch
        self.uid = uid
        self._names_uid = uid is not None
        self.deferrable = deferred_by_default(deferrable)
        self._check_own_arguments(())

    def execute(self, context: Context) -> dict[str, Any]:
        """Delete the branch; returns its name, and whether it was there."""
        from lakebase_provider.core.errors import ConfigError, NotFoundError

        with failing_fast(), self._unwinding():
            if self._names_uid and not self.uid:
                raise ConfigError("The uid is empty.", remedy="Give the uid of the branch, or leave it out.")
            self._require_own(self.branch)
            managed = self._managed()
            name = managed.workspace.branches.full_name(self.branch)
            operation = managed.branches.begin_give_back(name, uid=self.uid, timeout=self.timeout)
            if operation is not None and self.deferrable:
                self._defer_until(operation.name, missing_ok=True)
            if operation is not None:
                # It is named after the branch, and may go with it.
                with suppress(NotFoundError):
                    operation.wait(self.timeout)
        return self._deleted(name, operation is not None)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return what :meth:`execute` does, or raise the trigger's error."""
        found_in(event)
        return self._deleted(self._managed().workspace.branches.full_name(self.branch), True)

    def _deleted(self, name: str, was_there: bool) -> dict[str, Any]:
        self.log.info("The branch %s %s.", name, "is deleted" if was_there else "is not there any more")
        return {"name": name, "deleted": was_there}


class LakebaseResetBranchOperator(ManagingOperator):
    """Gives a branch the data that its source has now: it is purged, and created again under its name.

    It has another uid and other hosts, which who connects by its name finds. Roles and grants that were made
    on it are lost, and returned as ``lost_roles`` and ``lost_grants``, beside the names of the branch and
    ``former_uid``. A task that is killed finishes what it has begun if Airflow lets it; otherwise its retry
    does, on the same machine.

    Args:
        branch: Name or id of the branch (templated).
        deferrable: Whether the triggerer resets it; the deployment's default if left out.
        kwargs: ``conn_id``, ``manage_conn_id``, ``timeout`` as for
            :class:`~lakebase_provider.operators.branches.managing.ManagingOperator`, and arguments of
            ``BaseOperator``.

    Raises:
        AirflowFailException: It is protected, a root, the default, or has children, and nothing was changed;
            or else a retry cannot help.
        LakebaseError: When the task fails and a retry may help.

    Example:
        >>> LakebaseResetBranchOperator(task_id="reset", branch="dev")
    """

    template_fields: Sequence[str] = (*ManagingOperator.template_fields, "branch")

    def __init__(self, *, branch: str, deferrable: bool | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.branch = branch
        self.deferrable = deferred_by_default(deferrable)
        self._check_own_arguments(())

    def execute(self, context: Context) -> dict[str, Any]:
        """Reset the branch and say what it has lost."""
        with failing_fast(), self._unwinding():
            self._require_own(self.branch)
            return self._reset(self._done("reset_branch", {"branch": self.branch}))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return what :meth:`execute` does, or raise the trigger's error."""
        return self._reset(found_in(event)["result"])

    def _reset(self, done: dict[str, Any]) -> dict[str, Any]:
        self.log.info("The branch %s is reset; it was %s.", done["name"], done["former_uid"])
        if done["lost_roles"] or done["lost_grants"]:
            self.log.warning(
                "It has lost the roles %s and the grants %s.", done["lost_roles"], done["lost_grants"]
            )
        return done


class LakebaseSweepBranchesOperator(ManagingOperator):
    """Deletes for good the branches that killed runs left behind; for a DAG with a schedule.

    Those are branches whose id begins with `prefix`, that expire, and that are old and idle enough. The
    default branch, protected branches, those with children, and roots but for restored snapshots are kept.
    It returns the report, a :class:`.SweepReport` as a dict: of each branch its name, age in seconds, size in
    bytes, and why it was kept.

    Args:
        project: The project's name or id (templated); the connection's by default.
        prefix: What the ids of the branches begin with, before a hyphen.
        older_than: Seconds since their creation, at least: more than the longest run.
        held: Seconds since the last change, such as a lease's heartbeat, within which a branch is kept.
        dry_run: Whether to delete nothing.
        deferrable: Whether the triggerer sweeps; the deployment's default if left out.
        kwargs: ``conn_id``, ``manage_conn_id``, ``timeout`` (of each deletion) as for
            :class:`~lakebase_provider.operators.branches.managing.ManagingOperator`, and arguments of
            ``BaseOperator``.

    Raises:
        AirflowException: When the workspace refused to delete one; the report is pushed nevertheless.
        LakebaseError: When the branches could not be listed.

    Example:
        >>> LakebaseSweepBranchesOperator(task_id="sweep", older_than=2 * 86_400)
    """

    template_fields: Sequence[str] = (*ManagingOperator.template_fields, "project")

    def __init__(
        self,
        *,
        project: str | None = None,
        prefix: str = "run",
        older_than: float = 86_400.0,
        held: float = 1800.0,
        dry_run: bool = False,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.project = project
        self.prefix = prefix
        self.older_than = older_than
        self.held = held
        # BaseOperator has a method of that name.
        self.is_dry_run = dry_run
        self.deferrable = deferred_by_default(deferrable)
        self._check_own_arguments(("older_than", "held"))

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        super()._check_arguments(given)
        from lakebase_provider.core.config import arguments

        require_seconds(given, "older_than")
        if "held" in given:
            arguments.seconds("'held'", given["held"], "Give held in seconds, such as 1800.")

    def execute(self, context: Context) -> dict[str, Any]:
        """Sweep and return the report."""
        with failing_fast(), self._unwinding():
            rules = {
                "project": self.project,
                "prefix": self.prefix,
                "older_than": self.older_than,
                "held": self.held,
                "dry_run": self.is_dry_run,
            }
            report = self._done("sweep_branches", rules)
        return self._swept(context, report)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return what :meth:`execute` does, or raise the trigger's error."""
        return self._swept(context, found_in(event)["result"])

    def _swept(self, context: Context, report: dict[str, Any]) -> dict[str, Any]:
        branches = report["branches"]
        for branch in branches:
            deleted = "would be deleted" if self.is_dry_run else "deleted"
            self.log.info("%s: %s", branch["name"], deleted if branch["deleted"] else branch["reason"])
        failed = [
            f"{branch['name']}: {branch['reason']}" for branch in report["branches"] if branch["failed"]
        ]
        if failed:
            # A failed task returns nothing, but its report is needed most.
            context["ti"].xcom_push(key="return_value", value=report)
            raise AirflowException(f"Branches could not be deleted: {'; '.join(failed)}")
        return report
