"""Waiting for a branch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseSensorOperator, PokeReturnValue, conf

from lakebase_provider._airflow.task.arguments import LakebaseArguments, conn_id_of
from lakebase_provider._airflow.task.failing_fast import failing_fast, raise_as_sensor
from lakebase_provider.links import LakebaseConsoleLink

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context


class LakebaseBranchSensor(LakebaseArguments, BaseSensorOperator):
    """Waits until a branch is there, ready, and accepts logins; returns its names.

    They are those that :class:`~lakebase_provider.operators.branches.LakebaseCreateBranchOperator` returns.

    Args:
        branch: Name or id of the branch (templated).
        conn_id: Id of the Airflow connection (templated), which says which project, and as whom to log in;
            ``lakebase_default`` by default.
        lakebase_conn_id: An alias of `conn_id`.
        manage_conn_id: Id of another connection, whose principal may see the project's branches (templated);
            `conn_id` by default.
        deferrable: Whether the triggerer polls; the deployment's default if left out.
        kwargs: Arguments of ``BaseSensorOperator``, such as `poke_interval` and `timeout`, in seconds.

    Raises:
        ConfigError: `branch` is no branch's name; when the DAG is parsed.
        AirflowFailException: When the task runs and the connection's settings cannot work.

    Example:
        >>> LakebaseBranchSensor(task_id="ready", branch="staging", poke_interval=30, deferrable=True)
    """

    template_fields: Sequence[str] = ("branch", "conn_id", "manage_conn_id")
    operator_extra_links = (LakebaseConsoleLink(),)

    def __init__(
        self,
        *,
        branch: str,
        conn_id: str | None = None,
        lakebase_conn_id: str | None = None,
        manage_conn_id: str | None = None,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.branch = branch
        self.conn_id = conn_id_of(conn_id, lakebase_conn_id, kwargs.get("default_args"))
        self.manage_conn_id = manage_conn_id
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable
        self._check_own_arguments(())

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once; the sensor returns the branch's names once it is ready."""
        # The hook brings the driver; parsing a DAG must not.
        from lakebase_provider.hooks._branches import managed, names_of

        with failing_fast():
            found = managed(self.conn_id, self.manage_conn_id).if_ready(self.branch)
        self.log.info("The branch %s is %s.", self.branch, "not ready" if found is None else "ready")
        return PokeReturnValue(found is not None, None if found is None else names_of(found))

    def execute(self, context: Context) -> Any:
        """Poll here, or first here and then in the triggerer."""
        if not self.deferrable:
            return super().execute(context)
        found = self.poke(context)
        if not found.is_done:
            self._defer_polls()
        return found.xcom_value

    def _defer_polls(self) -> None:
        from lakebase_provider.triggers.branches import LakebaseBranchTrigger

        trigger = LakebaseBranchTrigger(
            branch=self.branch,
            conn_id=self.conn_id,
            manage_conn_id=self.manage_conn_id,
            poke_interval=self.poke_interval,
            silent_fail=self.silent_fail,
        )
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Return the branch's names, or raise the trigger's error."""
        from lakebase_provider._airflow.task.events import error_of

        error = error_of(dict(event))
        if error is not None:
            raise_as_sensor(error)
        names: dict[str, Any] = event["branch"]
        return names

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """No data is read or written."""
        from airflow.providers.openlineage.extractors import OperatorLineage

        return OperatorLineage()
