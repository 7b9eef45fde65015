"""Which failures a retry cannot help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowFailException


@contextmanager
def failing_fast() -> Iterator[None]:
    """End the task without retries when only a change of settings, rights or SQL helps.

    Raises:
        AirflowFailException: In place of a `LakebaseError` that is not retryable, or of the server's word
            that the statement cannot succeed; that is its cause.
    """
    try:
        yield
    except Exception as error:
        # Not needed to parse a DAG, which Airflow does again and again.
        from lakebase_provider.core.sqlstates import retry_helps

        if retry_helps(error) is not False:
            raise
        raise AirflowFailException(str(error)) from error
