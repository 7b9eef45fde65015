"""Which failures Dagster need not retry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg


@contextmanager
def failing_fast() -> Iterator[None]:
    """End the step without its retry policy when only a change of settings, privileges or data helps.

    Raises:
        dagster.Failure: Instead of a `LakebaseError` that is not retryable, or of a server error after which
            the statement cannot succeed, which is its cause. It allows no retries.
    """
    try:
        yield
    except Exception as error:
        # Not needed to load a code location.
        from lakebase_provider.core.errors.sqlstates import retry_helps, told_as_final

        if retry_helps(error) is not False:
            raise
        raise dg.Failure(told_as_final(error), allow_retries=False) from error
