"""Waiting for a branch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lakebase_provider.sensors._managing import ManagingSensor

if TYPE_CHECKING:
    from lakebase_provider.hooks._branches import Managed
    from lakebase_provider.triggers._managing import ManagedPolls


class LakebaseBranchSensor(ManagingSensor):
    """Waits until a branch is there, ready, and accepts logins; returns its names.

    They are those that :class:`~lakebase_provider.operators.branches.LakebaseCreateBranchOperator` returns.

    Args:
        branch: Name or id of the branch (templated).
        kwargs: ``conn_id``, ``manage_conn_id``, ``deferrable`` as for
            :class:`~lakebase_provider.sensors._managing.ManagingSensor`, and arguments of
            ``BaseSensorOperator``, such as `poke_interval` and `timeout`, in seconds.

    Raises:
        ConfigError: `branch` is no branch's name; when the DAG is parsed.
        AirflowFailException: When the task runs and the connection's settings cannot work.

    Example:
        >>> LakebaseBranchSensor(task_id="ready", branch="staging", poke_interval=30, deferrable=True)
    """

    template_fields: Sequence[str] = (*ManagingSensor.template_fields, "branch")

    def __init__(self, *, branch: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.branch = branch
        self._check_own_arguments(())

    def _look(self, managed: Managed) -> Any:
        from lakebase_provider.hooks._branches import names_of

        found = managed.if_ready(self.branch)
        return None if found is None else names_of(found)

    def _polls(self, **arguments: Any) -> ManagedPolls:
        from lakebase_provider.triggers.branches import LakebaseBranchTrigger

        return LakebaseBranchTrigger(branch=self.branch, **arguments)
