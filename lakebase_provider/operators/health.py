"""The health of a Lakebase connection, and of the database behind it, as tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from lakebase_provider._airflow.task.arguments import LakebaseArguments, conn_id_of, require_seconds
from lakebase_provider._airflow.task.failing_fast import failing_fast
from lakebase_provider.links import LakebaseConsoleLink

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from lakebase_provider.core.upkeep.health.limits import FailOn, HealthLimits
    from lakebase_provider.core.upkeep.inspection.inspection_options import Limits
    from lakebase_provider.core.upkeep.inspection.inspection_report import FailOn as FailOnFinding


class LakebaseHealthCheckOperator(LakebaseArguments, BaseOperator):
    """Checks a connection stage by stage and fails with the remedy of the first stage that fails.

    The report is logged, and pushed to XCom whether the check succeeds or not.

    Args:
        conn_id: Id of the Airflow connection (templated); ``lakebase_default`` by default.
        lakebase_conn_id: An alias of `conn_id`.
        branch: Name or id of a branch on which to work, instead of the connection's own (templated).
        checks: Names of the stages to run, with those that they depend on: ``resolve``, ``credential``,
            ``dns``, ``tcp``, ``tls``, ``login``, ``query``, ``write``. All by default.
        timeout: Timeout of each stage in seconds; the connection's `connect_budget` by default.
        limits: Limits for what is measured, by name, such as ``{"max_connections_used": 0.8}`` (templated);
            :class:`.HealthLimits` has the names.
        fail_on: ``warn`` to fail for an exceeded limit too, ``error`` only for a failed stage: then an
            exceeded limit is a warning in the log and in the report.
        kwargs: Arguments of ``BaseOperator``.

    Raises:
        ConfigError: A limit is invalid, its stage is not among the checks, or a stage is unknown; raised when
            the DAG is parsed, or when the task runs if the value is a template's.
        AirflowFailException: When the task runs and the connection is misconfigured.
        HealthCheckError: When the task runs and a stage fails or a limit is exceeded.

    Example:
        >>> LakebaseHealthCheckOperator(task_id="health", limits={"max_connections_used": 0.8})
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
        timeout: float | None = None,
        limits: Mapping[str, float] | HealthLimits | None = None,
        fail_on: FailOn = "warn",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"multiple_outputs": True, **kwargs})
        self.conn_id = conn_id_of(conn_id, lakebase_conn_id, kwargs.get("default_args"))
        self._take_branch(branch)
        self.checks = checks
        self.timeout = timeout
        self.limits = limits
        self.fail_on = fail_on
        self._check_own_arguments(("checks", "timeout", "limits", "fail_on"))

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        check_health_arguments(given, "timeout")

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the stages and return the report."""
        # The hook brings the driver; parsing a DAG must not.
        from lakebase_provider.core.upkeep.health.limits import HealthLimits
        from lakebase_provider.hooks.lakebase import LakebaseHook

        with failing_fast():
            limits = HealthLimits.of(self.limits)
            limits.require_stages(self.checks)
            report = LakebaseHook(self.conn_id, **self._branch_setting).client.health(
                self.checks, timeout=self.timeout
            )
            self.log.info("Health of %s:\n%s", self.conn_id, report.to_text())
            if table := limits.to_text(report):
                self.log.info("Limits:\n%s", table)
            for breach in limits.breaches(report):
                self.log.warning("%s", breach)
            found = limits.to_dict(report)
            if not limits.healthy(report, self.fail_on):
                # A failed task returns nothing, but its report is needed most.
                context["ti"].xcom_push(key="return_value", value=found)
            limits.enforce(report, self.fail_on)
        return found

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """No data is read or written."""
        from airflow.providers.openlineage.extractors import OperatorLineage

        return OperatorLineage()


class LakebaseInspectOperator(LakebaseArguments, BaseOperator):
    """Looks for what is not well in a database, by its catalog alone, and fails for what is bad.

    The report is logged, and pushed to XCom whether the task succeeds or not; its ``markdown`` is for people.
    What needs a look and does not fail the task is a warning in the log. The report of an earlier run of the
    DAG says how much the database has grown since.

    Args:
        conn_id: Id of the Airflow connection (templated); ``lakebase_default`` by default.
        lakebase_conn_id: An alias of `conn_id`.
        branch: Name or id of a branch on which to work, instead of the connection's own (templated).
        checks: Names of the checks (templated); all by default.
        limits: From which value on something is not well, by the check's name (templated): a number for a
            warning; or a pair, of which the second is for what is bad; None to measure only.
        statistics_days: Days that the server's counters must cover before an index is called unused.
        timeout: Seconds that a check may take; one that takes longer is skipped.
        fail_on: ``bad`` to fail for what is bad, ``warn`` also for what needs a look.
        kwargs: Arguments of ``BaseOperator``.

    Raises:
        ConfigError: A check is unknown, or an argument cannot work; raised when the DAG is parsed, or when
            the task runs if the value is a template's.
        AirflowFailException: When the task runs and the connection is misconfigured.
        HealthCheckError: When the task runs and something is bad, or, with ``warn``, needs a look.

    Example:
        >>> LakebaseInspectOperator(task_id="inspect", limits={"connections": [0.5, 0.8]})
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
        limits: Limits | None = None,
        statistics_days: float = 7.0,
        timeout: float = 10.0,
        fail_on: FailOnFinding = "bad",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"multiple_outputs": True, **kwargs})
        self.conn_id = conn_id_of(conn_id, lakebase_conn_id, kwargs.get("default_args"))
        self._take_branch(branch)
        self.checks = checks
        self.limits = limits
        self.statistics_days = statistics_days
        self.timeout = timeout
        self.fail_on = fail_on
        self._check_own_arguments(("checks", "limits", "statistics_days", "timeout", "fail_on"))

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        from lakebase_provider.core.upkeep.inspection.inspection_options import (
            chosen,
            limits_of,
            require_days,
        )
        from lakebase_provider.core.upkeep.inspection.inspection_report import require_severity

        require_seconds(given, "timeout")
        require_severity(given.get("fail_on", "bad"))
        require_days(given.get("statistics_days", 7.0))
        chosen(given.get("checks"))
        limits_of(given.get("limits"))

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the checks and return the report."""
        # The hook brings the driver; parsing a DAG must not.
        from lakebase_provider.hooks.lakebase import LakebaseHook

        with failing_fast():
            report = LakebaseHook(self.conn_id, **self._branch_setting).client.inspect(
                self.checks,
                limits=self.limits,
                statistics_days=self.statistics_days,
                earlier=self._earlier(context),
                timeout=self.timeout,
            )
            self.log.info("Inspection of %s:\n%s", self.conn_id, report.to_text())
            for finding in report.of_status("bad", "warn"):
                self.log.warning("%s", finding)
            found = {**report.to_dict(), "markdown": report.to_markdown()}
            if report.fails(self.fail_on):
                # A failed task returns nothing, but its report is needed most.
                context["ti"].xcom_push(key="return_value", value=found)
            report.enforce(self.fail_on)
        return found

    def _earlier(self, context: Context) -> Mapping[str, Any] | None:
        task = context["ti"]
        # Of one map index the latest comes; without one, those of all earlier runs would.
        found = task.xcom_pull(
            task_ids=self.task_id,
            key="return_value",
            map_indexes=task.map_index,
            include_prior_dates=True,
        )
        return found if isinstance(found, Mapping) and "findings" in found else None

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """No data is read or written."""
        from airflow.providers.openlineage.extractors import OperatorLineage

        return OperatorLineage()


def check_health_arguments(given: Mapping[str, Any], timeout: str) -> None:
    """Check those arguments of a health check that are known.

    Args:
        given: Arguments by name.
        timeout: Name of the argument that limits a stage.

    Raises:
        ConfigError: A limit, a stage, the timeout or `fail_on` is invalid, or no stage to run measures what a
            limit is set for.
    """
    require_seconds(given, timeout)
    if given.get("fail_on", "warn") != "warn":
        from lakebase_provider.core.upkeep.health.limits import require_fail_on

        require_fail_on(given["fail_on"])
    limits, checks = given.get("limits"), given.get("checks")
    if limits is None and checks is None:
        return
    from lakebase_provider.core.upkeep.health.limits import HealthLimits
    from lakebase_provider.core.upkeep.health.stage_names import with_foundations

    if checks is not None:
        with_foundations(checks)
    HealthLimits.of(limits).require_stages(checks)
