"""Endpoints as tasks: another size for a job, woken before it, switched off after it, replicas beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from lakebase_provider._airflow.task.failing_fast import failing_fast
from lakebase_provider.operators.branches.managing import ManagingOperator, deferred_by_default, found_in

if TYPE_CHECKING:
    from airflow.sdk import Context

    from lakebase_provider.core.workspace.objects.endpoints import EndpointChanges

Action = Literal["resize", "suspend", "enable", "warm", "replica", "delete"]


class LakebaseEndpointOperator(ManagingOperator):
    """Changes an endpoint around a job: its size, whether it is on, what it has in memory; or a replica.

    Each action may be repeated, so a retry of one that was killed ends as the first try would have. After
    ``"delete"`` it returns ``name`` and ``state`` None; otherwise ``name``, ``state``, ``disabled``,
    ``min_cu``, ``max_cu``, ``suspend_timeout`` and ``host`` of the endpoint as it is then.

    To give an endpoint another size for a job, let a set-up task say the one and a teardown task the other:
    what it was before is not returned, since a retry after a kill would take the job's size for it.

    Args:
        action: ``"resize"``; ``"suspend"``, which ends its sessions and lets no connection wake it;
            ``"enable"``, which undoes that; ``"warm"``, which wakes it and reads `tables`; ``"replica"``,
            which makes a read replica, or gives the one that is there the size; ``"delete"``, which deletes a
            replica, if it is there.
        endpoint: Id of the endpoint in its branch, or its full name (templated).
        branch: Name or id of its branch, instead of the connection's own (templated).
        size: For resize and replica: ``min_cu`` and ``max_cu`` in capacity units, ``suspend_timeout`` in
            seconds, or another of :class:`.EndpointChanges` (templated).
        tables: For warm: tables to read in full, each ``"table"`` or ``"schema.table"`` (templated).
        deferrable: Whether the triggerer does it; the deployment's default if left out.
        kwargs: ``conn_id``, ``manage_conn_id``, ``timeout`` as for
            :class:`~lakebase_provider.operators.branches.managing.ManagingOperator`, and arguments of
            ``BaseOperator``. To warm needs CAN USE alone.

    Raises:
        ConfigError: An argument has no meaning for the action; when the DAG is parsed.
        AirflowFailException: When the task fails in a way that a retry cannot help.
        LakebaseError: When the task fails and a retry may help.

    Example:
        >>> grow = LakebaseEndpointOperator(
        ...     task_id="grow", action="resize", size={"min_cu": 4, "max_cu": 8}
        ... ).as_setup()
    """

    template_fields: Sequence[str] = (
        *ManagingOperator.template_fields,
        *("endpoint", "branch", "size", "tables"),
    )

    def __init__(
        self,
        *,
        action: Action,
        endpoint: str = "primary",
        branch: str | None = None,
        size: EndpointChanges | None = None,
        tables: Sequence[str] = (),
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.action = action
        self.endpoint = endpoint
        self._take_branch(branch)
        self.size = size
        self.tables = tables
        self.deferrable = deferred_by_default(deferrable)
        self._check_own_arguments(("action", "size", "tables"))

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        super()._check_arguments(given)
        if "action" not in given:
            return
        from lakebase_provider.core.base.choices import require_choice
        from lakebase_provider.core.errors import ConfigError

        action, sizes = given["action"], ("resize", "replica")
        require_choice("action", action, get_args(Action))
        if given.get("size") and action not in sizes:
            raise ConfigError(f"'size' has no meaning for {action!r}.", remedy="Leave it out.")
        if given.get("tables") and action != "warm":
            raise ConfigError(f"'tables' have no meaning for {action!r}.", remedy="Leave them out.")

    def execute(self, context: Context) -> dict[str, Any]:
        """Change the endpoint and say what it is."""
        with failing_fast(), self._unwinding():
            self._require_own(self.branch, self.endpoint)
            name = self._managed(**self._branch_setting).workspace.endpoints.full_name(self.endpoint)
            # To warm it is to log in there.
            settings = {"endpoint": name} if self.action == "warm" else self._branch_setting
            arguments = {"action": self.action, "name": name, "size": self.size or {}, "tables": self.tables}
            return self._changed(self._done("change_endpoint", arguments, **settings))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return what :meth:`execute` does, or raise the trigger's error."""
        return self._changed(found_in(event)["result"])

    def _changed(self, now: dict[str, Any]) -> dict[str, Any]:
        if now["state"] is None:
            self.log.info("The endpoint %s is deleted.", now["name"])
        else:
            self.log.info("The endpoint is: %s", now)
        return now
