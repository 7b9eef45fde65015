"""Retries that know which failures are transient, for tasks that use the hook in their own code.

This package's operators and sensors do not need it: if a retry cannot help, they end the task with
``AirflowFailException``, which takes precedence over any policy.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.errors.sqlstates import retry_helps

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
else:
    try:
        from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
    except ImportError:  # before Airflow 3.3
        RetryDecision = RetryPolicy = None

#: Arguments for a task on this Airflow: ``@task(retries=3, **lakebase_retries)``; empty before Airflow 3.3.
lakebase_retries: dict[str, Any] = {}
#: A `RetryPolicy`: fails at once if a retry cannot help, waits as long as the server asked, and leaves
#: everything else to the task's own `retries` and `retry_delay`. None before Airflow 3.3.
lakebase_retry_policy: RetryPolicy | None = None

if RetryPolicy is not None:

    class LakebaseRetryPolicy(RetryPolicy):
        """Judges a task's failure by the error of the server or the workspace."""

        def evaluate(
            self,
            exception: BaseException,
            try_number: int,
            max_tries: int,
            context: Context | None = None,
        ) -> RetryDecision:
            """Whether to retry, and after how long."""
            helps = retry_helps(exception)
            reason = _reason(exception)
            if helps is None:
                return RetryDecision.default()
            if not helps:
                return RetryDecision.fail(reason=f"Not retried, a retry would not help: {reason}")
            seconds = getattr(exception, "retry_after", None)
            delay = None if seconds is None else timedelta(seconds=seconds)
            return RetryDecision.retry(delay=delay, reason=reason)

        def serialize(self) -> dict[str, Any]:
            """The policy has no settings."""
            return {"__type": "LakebaseRetryPolicy"}

        @classmethod
        def deserialize(cls, data: dict[str, Any]) -> LakebaseRetryPolicy:
            """The policy has no settings."""
            return cls()

    lakebase_retry_policy = LakebaseRetryPolicy()
    lakebase_retries["retry_policy"] = lakebase_retry_policy


def _reason(exception: BaseException) -> str:
    # It is stored with the task instance: a code is enough, and a message may quote a row.
    code = getattr(exception, "code", None) or getattr(exception, "sqlstate", None)
    return f"{type(exception).__name__} ({code})"
