"""The health of a Lakebase connection, as a task."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from lakebase_provider.core.errors import ConfigError
from lakebase_provider.links import LakebaseConsoleLink
from lakebase_provider.operators.failures import failing_fast

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from lakebase_provider.core.health_thresholds import FailOn, HealthThresholds


class LakebaseHealthCheckOperator(BaseOperator):
    """Checks a connection stage by stage and fails with what to do about the first stage that fails.

    The report is logged, and pushed to XCom whether the check succeeds or not.

    Args:
        lakebase_conn_id: Id of the Airflow connection (templated).
        checks: Names of the stages to run, with those that they build on: ``resolve``, ``credential``,
            ``dns``, ``tcp``, ``tls``, ``login``, ``query``, ``write``. All by default.
        timeout: Seconds for each stage; the connection's `connect_budget` by default.
        max_connect_ms: Milliseconds that a connect to a compute that is awake may take.
        max_wake_seconds: Seconds that a suspended compute may take to wake.
        min_token_seconds: Seconds that the token must have left to live.
        max_connections_used: Share of the server's connections that may be in use, such as 0.8.
        fail_on: ``warn`` to fail for a limit that is passed too, ``error`` for a failed stage alone: then a
            limit that is passed is a warning in the log and in the report.
        kwargs: Arguments of ``BaseOperator``.

    Raises:
        ConfigError: A limit cannot work, when the DAG is parsed; or its stage is not among the checks.
        AirflowFailException: When the task runs and the connection is misconfigured.
        HealthCheckError: When the task runs and a stage fails, or a limit is passed.

    Example:
        >>> LakebaseHealthCheckOperator(task_id="health", checks=["query"], max_connections_used=0.8)
    """

    template_fields: Sequence[str] = ("lakebase_conn_id", "checks")
    operator_extra_links = (LakebaseConsoleLink(),)

    def __init__(
        self,
        *,
        lakebase_conn_id: str = "lakebase_default",
        checks: list[str] | None = None,
        timeout: float | None = None,
        max_connect_ms: float | None = None,
        max_wake_seconds: float | None = None,
        min_token_seconds: float | None = None,
        max_connections_used: float | None = None,
        fail_on: FailOn = "warn",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.lakebase_conn_id = lakebase_conn_id
        self.checks = checks
        self.timeout = timeout
        self._limits = {
            "max_connect_ms": max_connect_ms,
            "max_wake_seconds": max_wake_seconds,
            "min_token_seconds": min_token_seconds,
            "max_connections_used": max_connections_used,
        }
        if any(limit is not None for limit in self._limits.values()):
            self.thresholds  # noqa: B018 # a limit that cannot work is told when the DAG is parsed
        self.fail_on: FailOn = require_fail_on(fail_on)

    @cached_property
    def thresholds(self) -> HealthThresholds:
        """The limits; a DAG file that sets none does not import them."""
        from lakebase_provider.core.health_thresholds import HealthThresholds

        return HealthThresholds(**self._limits)

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the stages and return the report."""
        # The hook brings the driver; parsing a DAG must not.
        from lakebase_provider.hooks.lakebase import LakebaseHook

        with failing_fast():
            self.thresholds.require_stages(self.checks)
            report = LakebaseHook(self.lakebase_conn_id).client.health(self.checks, timeout=self.timeout)
            self.log.info("Health of %s:\n%s", self.lakebase_conn_id, report.to_text())
            if table := self.thresholds.to_text(report):
                self.log.info("Limits:\n%s", table)
            for breach in self.thresholds.breaches(report):
                self.log.warning("%s", breach)
            found = self.thresholds.to_dict(report)
            if not self.thresholds.healthy(report, self.fail_on):
                # A failed task returns nothing, and the report is wanted most when it fails.
                context["ti"].xcom_push(key="return_value", value=found)
            self.thresholds.enforce(report, self.fail_on)
        return found

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """No data are read or written."""
        from airflow.providers.openlineage.extractors import OperatorLineage

        return OperatorLineage()


def require_fail_on(fail_on: Any) -> Any:
    """The severity, unchanged.

    Raises:
        ConfigError: It is neither of the two.
    """
    if fail_on not in ("error", "warn"):
        raise ConfigError("Argument 'fail_on' is neither 'error' nor 'warn'.", remedy="Use one of the two.")
    return fail_on
