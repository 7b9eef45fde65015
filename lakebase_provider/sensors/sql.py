"""Waiting for a query to become true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, conf
from airflow.providers.common.sql.sensors.sql import SqlSensor

from lakebase_provider._airflow.task.arguments import (
    LakebaseArguments,
    conn_id_of,
    require_hook_params,
    require_seconds,
)
from lakebase_provider._airflow.task.failing_fast import failing_fast, raise_as_sensor
from lakebase_provider._airflow.task.polls import keeps_session
from lakebase_provider._airflow.task.triggerer import require_json, require_no_secrets
from lakebase_provider.links import LakebaseConsoleLink

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from lakebase_provider.hooks.lakebase import LakebaseHook

#: Arguments of SqlSensor that are functions.
_FUNCTIONS = ("success", "failure", "selector")


class LakebaseSqlSensor(LakebaseArguments, SqlSensor):
    """Waits until a query's first cell exists and is not null, zero, empty or the text ``0``.

    All arguments of ``SqlSensor`` work as usual: `sql`, `parameters`, `success`, `failure`, `selector`,
    `fail_on_empty`, `mode`, `poke_interval`, `timeout`, `soft_fail` and more.

    Args:
        conn_id: Id of the Airflow connection (templated); ``lakebase_default`` by default.
        lakebase_conn_id: An alias of `conn_id`.
        branch: Name or id of a branch on which to work, instead of the connection's own (templated).
        deferrable: Whether the triggerer polls; the deployment's default if left out. Functions cannot be
            sent there: put the condition in the SQL.
        statement_timeout: Seconds after which the server cancels the query; the connection's by default.
        kwargs: Arguments of ``SqlSensor``.

    Raises:
        ConfigError: `deferrable` with a function or another value that cannot be sent; raised when the DAG is
            parsed.
        AirflowFailException: When the task fails and only a change of settings, privileges or SQL helps.
        AirflowException: When the task runs and the failure criterion is met, or a poll fails.

    Example:
        >>> LakebaseSqlSensor(task_id="landed", sql="select count(*) > 100 from orders", deferrable=True)
    """

    template_fields: Sequence[str] = (*SqlSensor.template_fields, "branch")
    operator_extra_links = (LakebaseConsoleLink(),)
    #: The connection's own; what common-sql's lineage asks of an operator.
    database: str | None = None

    def __init__(
        self,
        *,
        conn_id: str | None = None,
        lakebase_conn_id: str | None = None,
        branch: str | None = None,
        sql: str,
        deferrable: bool | None = None,
        statement_timeout: float | None = None,
        **kwargs: Any,
    ) -> None:
        chosen = conn_id_of(conn_id, lakebase_conn_id, kwargs.get("default_args"))
        super().__init__(conn_id=chosen, sql=sql, **kwargs)
        self._take_branch(branch)
        self.statement_timeout = statement_timeout
        self._check_own_arguments(("statement_timeout", "hook_params"))
        functions = [name for name in _FUNCTIONS if kwargs.get(name) is not None]
        if deferrable:
            if functions:
                from lakebase_provider.core.errors import ConfigError

                raise ConfigError(
                    f"Argument '{functions[0]}' is a function, which cannot be sent to the triggerer.",
                    remedy="Write the condition in SQL, or use mode='reschedule' instead of deferrable.",
                )
            require_json(self.parameters)
            require_no_secrets(self.hook_params)
        if deferrable is None:
            default = conf.getboolean("operators", "default_deferrable", fallback=False)
            deferrable = default and not functions
        self.deferrable = deferrable

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        require_seconds(given, "statement_timeout")
        require_hook_params(given.get("hook_params"))

    @cached_property
    def _lakebase_hook(self) -> LakebaseHook:
        # The hook brings the driver; parsing a DAG must not.
        from lakebase_provider.hooks.lakebase import LakebaseHook

        settings = {"statement_timeout": self.statement_timeout, **(self.hook_params or {})}
        return LakebaseHook(self.conn_id, **{**settings, **self._branch_setting})

    def get_db_hook(self) -> LakebaseHook:
        """The hook, one for all polls of a task's process."""
        return self._lakebase_hook

    def _get_hook(self) -> LakebaseHook:
        return self._lakebase_hook

    def poke(self, context: Context) -> bool:
        """Whether the query is true."""
        from lakebase_provider._airflow.task.polls import is_true
        from lakebase_provider.core.shared import close_shared_clients

        success, self.success = self.success, is_true if self.success is None else self.success
        try:
            # The user asked for patience: the table may be created later.
            with nullcontext() if self.silent_fail else failing_fast():
                return bool(super().poke(context))
        finally:
            self.success = success
            if not keeps_session(self.poke_interval):
                # Close the pool, whose session would sit idle; the next poll opens another.
                close_shared_clients()

    def execute(self, context: Context) -> Any:
        """Poll here, or first here and then in the triggerer."""
        return self._poke_or_defer(context) if self.deferrable else super().execute(context)

    def _poke_or_defer(self, context: Context) -> None:
        if self._poked_once(context):
            return
        from lakebase_provider.triggers.polling import LakebaseSqlSensorTrigger

        session = {"application_name": self._lakebase_hook.config.application_name}
        if self.statement_timeout is not None:
            session["statement_timeout"] = f"{max(1, round(self.statement_timeout * 1000))}ms"
        trigger = LakebaseSqlSensorTrigger(
            conn_id=self.conn_id,
            sql=self.sql,
            parameters=require_json(self.parameters),
            session=session,
            fail_on_empty=self.fail_on_empty,
            poke_interval=self.poke_interval,
            settings={**(self.hook_params or {}), **self._branch_setting},
            silent_fail=self.silent_fail,
        )
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> None:
        """End as the trigger found it."""
        from lakebase_provider._airflow.task.events import error_of

        error = error_of(event)
        if error is not None:
            raise_as_sensor(error)
        if event["empty"]:
            raise AirflowException("No rows returned, raising as per fail_on_empty flag")
        self.log.info("Success criteria met. Exiting.")

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any] | None:
        """What the query reads, as common-sql's operators report it."""
        from airflow.providers.common.sql.operators.sql import BaseSQLOperator

        return BaseSQLOperator.get_openlineage_facets_on_start(self)  # type: ignore[arg-type] # has what it uses

    def on_kill(self) -> None:
        """Cancel the running query."""
        hook: LakebaseHook | None = self.__dict__.get("_lakebase_hook")
        if hook is not None:
            hook.cancel()

    def _poked_once(self, context: Context) -> bool:
        try:
            return self.poke(context)
        except Exception as error:
            if not self.silent_fail:
                raise
            self.log.error("Sensor poke failed: %s", error)
            return False
