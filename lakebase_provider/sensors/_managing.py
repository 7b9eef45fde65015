"""What the sensors share that wait for objects of a project, by the right of who may see them."""

from __future__ import annotations

from abc import abstractmethod
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

    from lakebase_provider.hooks._branches import Managed
    from lakebase_provider.triggers._managing import ManagedPolls


class ManagingSensor(LakebaseArguments, BaseSensorOperator):
    """Waits for an object of a connection's project.

    Args:
        conn_id: Id of the Airflow connection (templated), which says which project, and as whom to log in;
            ``lakebase_default`` by default.
        lakebase_conn_id: An alias of `conn_id`.
        manage_conn_id: Id of another connection, whose principal may see the project's objects (templated);
            `conn_id` by default.
        deferrable: Whether the triggerer polls; the deployment's default if left out.
        kwargs: Arguments of ``BaseSensorOperator``, such as `poke_interval` and `timeout`, in seconds.
    """

    template_fields: Sequence[str] = ("conn_id", "manage_conn_id")
    operator_extra_links = (LakebaseConsoleLink(),)

    def __init__(
        self,
        *,
        conn_id: str | None = None,
        lakebase_conn_id: str | None = None,
        manage_conn_id: str | None = None,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id_of(conn_id, lakebase_conn_id, kwargs.get("default_args"))
        self.manage_conn_id = manage_conn_id
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable

    @abstractmethod
    def _look(self, managed: Managed) -> Any:
        """What is waited for, in JSON types; None if it is not there."""

    @abstractmethod
    def _polls(self, **arguments: Any) -> ManagedPolls:
        """The trigger that looks for the same."""

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once; the sensor returns what it has found."""
        # The hook brings the driver; parsing a DAG must not.
        from lakebase_provider.hooks._branches import managed

        with failing_fast():
            found = self._look(managed(self.conn_id, self.manage_conn_id))
        self.log.info("What is waited for is %s.", "not there" if found is None else "there")
        return PokeReturnValue(found is not None, found)

    def execute(self, context: Context) -> Any:
        """Poll here, or first here and then in the triggerer."""
        if not self.deferrable:
            return super().execute(context)
        found = self.poke(context)
        if not found.is_done:
            trigger = self._polls(
                conn_id=self.conn_id,
                manage_conn_id=self.manage_conn_id,
                poke_interval=self.poke_interval,
                silent_fail=self.silent_fail,
            )
            self.defer(
                trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout)
            )
        return found.xcom_value

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Return what the trigger has found, or raise its error."""
        from lakebase_provider._airflow.task.events import error_of

        error = error_of(dict(event))
        if error is not None:
            raise_as_sensor(error)
        return event["found"]

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """No data is read or written."""
        from airflow.providers.openlineage.extractors import OperatorLineage

        return OperatorLineage()
