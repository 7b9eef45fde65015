"""Waiting for a Lakebase connection to be healthy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseSensorOperator, PokeReturnValue, conf

from lakebase_provider._airflow.task.arguments import LakebaseArguments, conn_id_of
from lakebase_provider._airflow.task.failing_fast import failing_fast, raise_as_sensor
from lakebase_provider.links import LakebaseConsoleLink
from lakebase_provider.operators.health import check_health_arguments

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from lakebase_provider.core.upkeep.health.limits import FailOn, HealthLimits


class LakebaseHealthSensor(LakebaseArguments, BaseSensorOperator):
    """Waits until all stages of the health check succeed and its limits are met; returns the report.

    It waits for a failed stage whatever the reason, since its purpose is to see it recover. Only settings
    that cannot work at all end it at once.

    Args:
        conn_id: Id of the Airflow connection (templated); ``lakebase_default`` by default.
        lakebase_conn_id: An alias of `conn_id`.
        branch: Name or id of a branch on which to work, instead of the connection's own (templated).
        checks: Names of the stages to run, with those that they depend on: ``resolve``, ``credential``,
            ``dns``, ``tcp``, ``tls``, ``login``, ``query``, ``write``. All by default.
        stage_timeout: Timeout of each stage in seconds; the connection's `connect_budget` by default.
        limits: Limits for what is measured, by name, such as ``{"max_connections_used": 0.8}`` (templated);
            :class:`.HealthLimits` has the names.
        fail_on: ``warn`` to wait for the limits too, ``error`` only for the stages.
        deferrable: Whether the triggerer polls; the deployment's default if left out.
        kwargs: Arguments of ``BaseSensorOperator``, such as `poke_interval` and `timeout`, in seconds.

    Raises:
        ConfigError: A limit is invalid, its stage is not among the checks, or a stage is unknown; raised when
            the DAG is parsed, or when the task runs if the value is a template's.
        AirflowFailException: When the task runs and the connection's settings cannot work.

    Example:
        >>> LakebaseHealthSensor(task_id="awake", checks=["query"], poke_interval=30, deferrable=True)
    """

    template_fields: Sequence[str] = ("conn_id", "branch", "checks", "limits")
    operator_extra_links = (LakebaseConsoleLink(),)

    def __init__(
        self,
        *,
        conn_id: str | None = None,
        lakebase_conn_id: str | None = None,
        branch: str | None = None,
        checks: list[str] | None = None,
        stage_timeout: float | None = None,
        limits: Mapping[str, float] | HealthLimits | None = None,
        fail_on: FailOn = "warn",
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id_of(conn_id, lakebase_conn_id, kwargs.get("default_args"))
        self._take_branch(branch)
        self.checks = checks
        self.stage_timeout = stage_timeout
        self.limits = limits
        self.fail_on = fail_on
        self._check_own_arguments(("checks", "stage_timeout", "limits", "fail_on"))
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        check_health_arguments(given, "stage_timeout")

    def poke(self, context: Context) -> PokeReturnValue:
        """Run the stages once; the sensor returns the report once it is good."""
        # The hook brings the driver; parsing a DAG must not.
        from lakebase_provider.core.upkeep.health.limits import HealthLimits
        from lakebase_provider.hooks.lakebase import LakebaseHook

        with failing_fast():
            limits = HealthLimits.of(self.limits)
            limits.require_stages(self.checks)
            client = LakebaseHook(self.conn_id, **self._branch_setting).client
            report = client.health(self.checks, timeout=self.stage_timeout)
        self.log.info("Health of %s:\n%s", self.conn_id, report.to_text())
        if table := limits.to_text(report):
            self.log.info("Limits:\n%s", table)
        healthy = limits.healthy(report, self.fail_on)
        return PokeReturnValue(healthy, limits.to_dict(report))

    def execute(self, context: Context) -> Any:
        """Poll here, or first here and then in the triggerer."""
        return self._poke_or_defer(context) if self.deferrable else super().execute(context)

    def _poke_or_defer(self, context: Context) -> Any:
        found = self.poke(context)
        if not found.is_done:
            self._defer_polls()
        return found.xcom_value

    def _defer_polls(self) -> None:
        from lakebase_provider.core.upkeep.health.limits import HealthLimits
        from lakebase_provider.triggers.polling import LakebaseHealthTrigger

        trigger = LakebaseHealthTrigger(
            conn_id=self.conn_id,
            checks=self.checks,
            limits=asdict(HealthLimits.of(self.limits)),
            fail_on=self.fail_on,
            stage_timeout=self.stage_timeout,
            poke_interval=self.poke_interval,
            settings=self._branch_setting,
            silent_fail=self.silent_fail,
        )
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return the report, or raise the trigger's error."""
        from lakebase_provider._airflow.task.events import error_of

        error = error_of(event)
        if error is not None:
            raise_as_sensor(error)
        report: dict[str, Any] = event["report"]
        return report

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """No data is read or written."""
        from airflow.providers.openlineage.extractors import OperatorLineage

        return OperatorLineage()
