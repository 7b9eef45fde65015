"""The health of a Lakebase connection, as a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from lakebase_provider.operators.failures import failing_fast

if TYPE_CHECKING:
    from airflow.sdk import Context


class LakebaseHealthCheckOperator(BaseOperator):
    """Checks a connection stage by stage and fails with what to do about the first stage that fails.

    The report is logged, and pushed to XCom whether the check succeeds or not.

    Args:
        lakebase_conn_id: Id of the Airflow connection (templated).
        checks: Names of the stages to run, with those that they build on: ``resolve``, ``credential``,
            ``dns``, ``tcp``, ``tls``, ``login``, ``query``, ``write``. All by default.
        timeout: Seconds for each stage; the connection's `connect_budget` by default.
        kwargs: Arguments of ``BaseOperator``.

    Raises:
        AirflowFailException: When the task runs and the connection is misconfigured.
        HealthCheckError: When the task runs and a stage fails.

    Example:
        >>> LakebaseHealthCheckOperator(task_id="health", checks=["login", "query"])
    """

    template_fields: Sequence[str] = ("lakebase_conn_id", "checks")

    def __init__(
        self,
        *,
        lakebase_conn_id: str = "lakebase_default",
        checks: list[str] | None = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.lakebase_conn_id = lakebase_conn_id
        self.checks = checks
        self.timeout = timeout

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the stages and return the report."""
        # The hook brings the driver; parsing a DAG must not.
        from lakebase_provider.hooks.lakebase import LakebaseHook

        with failing_fast():
            report = LakebaseHook(self.lakebase_conn_id).client.health(self.checks, timeout=self.timeout)
            self.log.info("Health of %s:\n%s", self.lakebase_conn_id, report.to_text())
            if not report.ok:
                # A failed task returns nothing, and the report is wanted most when it fails.
                context["ti"].xcom_push(key="return_value", value=report.to_dict())
            report.raise_for_failure()
        return report.to_dict()
