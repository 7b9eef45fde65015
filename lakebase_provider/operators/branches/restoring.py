"""Earlier data as tasks: snapshots that are kept, and branches of what was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

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

    from lakebase_provider.core.workspace.objects.snapshots import Snapshot

#: What a branch is restored from, with the workspace's names.
_ORIGIN = {
    "source": "source_branch",
    "at_time": "source_branch_time",
    "at_lsn": "source_branch_lsn",
    "snapshot": "source_snapshot",
}


def _expiration(ttl: float | None) -> dict[str, Any]:
    return {"no_expiry": True} if ttl is None else {"ttl": ttl}


class LakebaseSnapshotOperator(ManagingOperator):
    """Takes a snapshot of a root branch, which is kept longer than the project's history.

    Its id follows from DAG, run and task, so that a retry finds the one that an earlier try has taken. It
    returns ``name``, ``id``, ``source_branch`` and ``expire_time`` of the snapshot, as text.

    Args:
        source: Name or id of the root branch (templated).
        ttl: Seconds after which the workspace deletes it; None to keep it until somebody does. A project may
            have 10 snapshots.
        snapshot_id: Id of the snapshot (templated); follows from `run_id` by default.
        run_id: What the id follows from (templated): by default DAG, run, task and map index.
        prefix: What an id that follows from `run_id` begins with.
        deferrable: Whether the triggerer waits for the operation; the deployment's default if left out.
        kwargs: ``conn_id``, ``manage_conn_id``, ``timeout`` as for
            :class:`~lakebase_provider.operators.branches.managing.ManagingOperator`, and arguments of
            ``BaseOperator``.

    Raises:
        ConfigError: An argument is malformed; when the DAG is parsed.
        AirflowFailException: When the task fails in a way that a retry cannot help.
        LakebaseError: When the task fails and a retry may help.

    Example:
        >>> LakebaseSnapshotOperator(task_id="snapshot", source="production", ttl=30 * 86_400)
    """

    template_fields: Sequence[str] = (*ManagingOperator.template_fields, "source", "snapshot_id", "run_id")

    def __init__(
        self,
        *,
        source: str,
        ttl: float | None,
        snapshot_id: str | None = None,
        run_id: str = RUN_ID,
        prefix: str = "snap",
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.ttl = ttl
        self.snapshot_id = snapshot_id
        self.run_id = run_id
        self.prefix = prefix
        self.deferrable = deferred_by_default(deferrable)
        self._check_own_arguments(("source", "ttl", "prefix"))

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        super()._check_arguments(given)
        require_branch(given.get("source"))
        require_seconds(given, "ttl")
        if "prefix" in given:
            from lakebase_provider.core.upkeep.branches.lease_options import checked_prefix

            checked_prefix(given["prefix"])

    def execute(self, context: Context) -> dict[str, Any]:
        """Take the snapshot and return its names."""
        from lakebase_provider.core import branch_id_for

        with failing_fast(), self._unwinding():
            self._require_own(self.snapshot_id, self.source)
            snapshots = self._managed().workspace.snapshots
            name = snapshots.full_name(self.snapshot_id or branch_id_for(self.run_id, self.prefix))
            options: Any = {"source_branch": self.source, **_expiration(self.ttl)}
            if self.deferrable and snapshots.find(name) is None:
                operation = snapshots.begin_create(name, timeout=self.timeout, **options)
                self._defer_until(operation.name)
            return self._taken(snapshots.ensure(name, timeout=self.timeout, **options))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return what :meth:`execute` does, or raise the trigger's error."""
        name = found_in(event)["result"]["name"]
        with failing_fast(), self._unwinding():
            return self._taken(self._managed().workspace.snapshots.get(name))

    def _taken(self, snapshot: Snapshot) -> dict[str, Any]:
        self.log.info("The snapshot %s is taken.", snapshot.name)
        return {
            "name": snapshot.name,
            "id": snapshot.id,
            "source_branch": snapshot.source_branch,
            "expire_time": None if snapshot.expire_time is None else snapshot.expire_time.isoformat(),
        }


class LakebaseRestoreOperator(ManagingOperator):
    """Restores a moment, a position in the log, or a snapshot, to a new branch; nothing is overwritten.

    A retry finds the branch that an earlier try has made; one of other data is refused. Of a snapshot it is a
    new root. The task returns what ``LakebaseCreateBranchOperator`` does, once logins succeed there.

    Args:
        branch_id: Id of the new branch (templated).
        ttl: Seconds after which the workspace deletes the branch; None to keep it until somebody does.
        source: Name or id of the branch whose data it is to have (templated); the project's default branch by
            default.
        at_time: The moment up to which it is to have that branch's data, the same in each try: a datetime, or
            text such as ``"2027-01-31T12:00:00Z"`` (templated).
        at_lsn: The position in that branch's log instead of a moment (templated).
        snapshot: Name or id of a snapshot instead of these (templated).
        deferrable: Whether the triggerer waits for the operation; the deployment's default if left out.
        kwargs: ``conn_id``, ``manage_conn_id``, ``timeout`` as for
            :class:`~lakebase_provider.operators.branches.managing.ManagingOperator`, and arguments of
            ``BaseOperator``.

    Raises:
        ConfigError: An argument is malformed; when the DAG is parsed.
        AirflowFailException: When the task fails in a way that a retry cannot help.
        LakebaseError: When the task fails and a retry may help.

    Example:
        >>> LakebaseRestoreOperator(
        ...     task_id="restore", branch_id="before", at_time="{{ dag_run.start_date }}", ttl=7 * 86_400
        ... )
    """

    template_fields: Sequence[str] = (*ManagingOperator.template_fields, "branch_id", *_ORIGIN)

    def __init__(
        self,
        *,
        branch_id: str,
        ttl: float | None,
        source: str | None = None,
        at_time: datetime | str | None = None,
        at_lsn: str | None = None,
        snapshot: str | None = None,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.branch_id = branch_id
        self.ttl = ttl
        self.source = source
        self.at_time = at_time
        self.at_lsn = at_lsn
        self.snapshot = snapshot
        self.deferrable = deferred_by_default(deferrable)
        self._check_own_arguments(("branch_id", "ttl", *_ORIGIN))

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        super()._check_arguments(given)
        require_branch(given.get("branch_id"))
        require_seconds(given, "ttl")
        lease_options({name: value for name, value in given.items() if name in _ORIGIN})

    def execute(self, context: Context) -> dict[str, Any]:
        """Make the branch and return its names."""
        with failing_fast(), self._unwinding():
            origin = lease_options({name: getattr(self, name) for name in _ORIGIN})
            self._require_own(self.branch_id, origin.get("source"), origin.get("snapshot"))
            options: Any = {_ORIGIN[name]: value for name, value in origin.items()} | _expiration(self.ttl)
            branches = self._managed().workspace.branches
            name = branches.full_name(self.branch_id)
            if self.deferrable and branches.find(name) is None:
                operation = branches.begin_create(name, timeout=self.timeout, **options)
                self._defer_until(operation.name)
            branches.ensure(name, timeout=self.timeout, **options)
            return self._ready(name)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return what :meth:`execute` does, or raise the trigger's error."""
        name = found_in(event)["result"]["name"]
        with failing_fast(), self._unwinding():
            return self._ready(name)

    def _ready(self, name: str) -> dict[str, Any]:
        from lakebase_provider.hooks._branches import names_of

        branch = self._managed().branches.wait_ready(name, timeout=self.timeout)
        self.log.info(
            "The branch %s is restored of %s.", name, branch.source_snapshot or branch.source_branch
        )
        # By it the console's link leads there.
        self.branch = branch.name
        return names_of(branch)
