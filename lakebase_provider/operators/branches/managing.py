"""What the operators share that change objects of a project: whose right it is, and how they end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator, conf

from lakebase_provider._airflow.task.arguments import (
    LakebaseArguments,
    conn_id_of,
    require_conn_id,
    require_seconds,
)
from lakebase_provider._airflow.task.failing_fast import UnwindingOnKill, failing_fast
from lakebase_provider.links import LakebaseConsoleLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperatorLink
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.triggers.base import BaseTrigger

    from lakebase_provider.hooks._branches import Managed
    from lakebase_provider.hooks.lakebase import LakebaseHook

#: The same for each try of a task instance, and unique to it: two tasks of a run have two branches.
RUN_ID = (
    "{{ ti.dag_id }}/{{ ti.run_id }}/{{ ti.task_id }}{% if ti.map_index >= 0 %}/{{ ti.map_index }}{% endif %}"
)


class ManagingOperator(UnwindingOnKill, LakebaseArguments, BaseOperator):
    """Changes objects of a connection's project.

    Args:
        conn_id: Id of the Airflow connection (templated), which says which project, and as whom to log in
            there; ``lakebase_default`` by default.
        lakebase_conn_id: An alias of `conn_id`.
        manage_conn_id: Id of another connection of type ``lakebase``, whose principal has CAN MANAGE on the
            project (templated), so that `conn_id` needs CAN USE alone; `conn_id` by default. Another project
            that it names itself is the only other one whose branches may be named in full.
        timeout: Seconds that the task's requests may take, waiting for other operations on the project
            included.
        kwargs: Arguments of ``BaseOperator``.
    """

    template_fields: Sequence[str] = ("conn_id", "manage_conn_id")
    operator_extra_links: tuple[BaseOperatorLink, ...] = (LakebaseConsoleLink(),)
    #: Whether the triggerer does what can be left to it.
    deferrable: bool = False

    def __init__(
        self,
        *,
        conn_id: str | None = None,
        lakebase_conn_id: str | None = None,
        manage_conn_id: str | None = None,
        timeout: float = 300.0,
        **kwargs: Any,
    ) -> None:
        # What it returns is a dict, of which another task wants one entry: create.output["name"].
        super().__init__(**{"multiple_outputs": True, **kwargs})
        self.conn_id = conn_id_of(conn_id, lakebase_conn_id, kwargs.get("default_args"))
        self.manage_conn_id = manage_conn_id
        self.timeout = timeout
        self._check_own_arguments(("timeout",))

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        require_seconds(given, "timeout")

    def get_db_hook(self) -> LakebaseHook:
        """The hook of the connection, on the branch that the task is about if it is about one."""
        # The hook brings the driver; parsing a DAG must not.
        from lakebase_provider.hooks.lakebase import LakebaseHook

        return LakebaseHook(self.conn_id, **self._branch_setting)

    def _managed(self, **settings: Any) -> Managed:
        # The hook brings the driver; parsing a DAG must not.
        from lakebase_provider.hooks._branches import managed

        require_conn_id("manage_conn_id", self)
        return managed(self.conn_id, self.manage_conn_id, **settings)

    def _require_own(self, *names: str | None) -> None:
        """Refuse full names in a project that neither connection names, which a template may have become."""
        if not any(isinstance(name, str) and "/" in name for name in names):
            return
        from lakebase_provider.core.config.addresses import require_own_project
        from lakebase_provider.core.errors import ConfigError
        from lakebase_provider.hooks.lakebase import LakebaseHook

        require_conn_id("manage_conn_id", self)
        projects = {LakebaseHook(self.conn_id).config.project}
        if self.manage_conn_id is not None:
            with suppress(ConfigError):
                projects.add(LakebaseHook(self.manage_conn_id).config.project)
        require_own_project(names, projects)

    def _defer_until(self, operation: str, *, missing_ok: bool = False) -> None:
        """Go on in ``execute_complete`` when the workspace's operation has ended."""
        from lakebase_provider.triggers.branches import LakebaseOperationTrigger

        trigger = LakebaseOperationTrigger(
            conn_id=self.conn_id,
            manage_conn_id=self.manage_conn_id,
            operation=operation,
            timeout=self.timeout,
            missing_ok=missing_ok,
        )
        self._defer_to(trigger, f"waits for {operation}")

    def _done(self, work: str, arguments: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
        """What the work returns, a function in ``hooks._branches``, unless the triggerer does it."""
        if self.deferrable:
            from lakebase_provider.triggers.branches import LakebaseManageTrigger

            trigger = LakebaseManageTrigger(
                conn_id=self.conn_id,
                manage_conn_id=self.manage_conn_id,
                work=work,
                arguments=arguments,
                settings=settings,
                timeout=self.timeout,
            )
            self._defer_to(trigger, "does it")
        from lakebase_provider.hooks._branches import WORK

        return WORK[work](self._managed(**settings), timeout=self.timeout, **arguments)

    def _defer_to(self, trigger: BaseTrigger, does: str) -> None:
        self.log.info("Deferring: the triggerer %s.", does)
        # Without kwargs, which dag.test() drops.
        self.defer(trigger=trigger, method_name="execute_complete", timeout=self.execution_timeout)

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """No data is read or written."""
        from airflow.providers.openlineage.extractors import OperatorLineage

        return OperatorLineage()


def deferred_by_default(deferrable: bool | None) -> bool:
    """Whether the triggerer does it: as the argument says, or else the deployment."""
    if deferrable is None:
        return bool(conf.getboolean("operators", "default_deferrable", fallback=False))
    return deferrable


def found_in(event: dict[str, Any]) -> dict[str, Any]:
    """What a trigger has found; its error is raised."""
    from lakebase_provider._airflow.task.events import error_of

    with failing_fast():
        error = error_of(event)
        if error is not None:
            raise error
    return event
