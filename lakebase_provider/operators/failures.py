"""Which failures a retry cannot help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowFailException

from lakebase_provider.core.errors import LakebaseError


@contextmanager
def failing_fast() -> Iterator[None]:
    """End the task without retries when the error says that only a change of settings or rights helps.

    Raises:
        AirflowFailException: In place of a `LakebaseError` that is not retryable, which is its cause.
    """
    try:
        yield
    except LakebaseError as error:
        if error.retryable:
            raise
        raise AirflowFailException(str(error)) from error
