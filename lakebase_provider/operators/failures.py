"""Which failures a retry cannot help."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowFailException

logger = logging.getLogger(__name__)


@contextmanager
def failing_fast() -> Iterator[None]:
    """End the task without retries when only a change of settings, rights or SQL helps.

    What fails in a process that was asked to end may succeed in the next one, whichever error says so.

    Raises:
        AirflowFailException: In place of a `LakebaseError` that is not retryable, or of the server's word
            that the statement cannot succeed; that is its cause.
    """
    try:
        yield
    except Exception as error:
        # Not needed to parse a DAG, which Airflow does again and again.
        from lakebase_provider.core.cancel import ASKED_TO_END, asked_to_end
        from lakebase_provider.core.errors import CommitUnknownError
        from lakebase_provider.core.sqlstates import retry_helps

        # Whether something was written does not depend on why nobody could be asked.
        may_pass = asked_to_end() and not isinstance(error, CommitUnknownError)
        if not may_pass and retry_helps(error) is False:
            raise AirflowFailException(str(error)) from error
        if asked_to_end():
            logger.warning("The task ends since %s; it is tried again as its retries say.", ASKED_TO_END)
        raise
