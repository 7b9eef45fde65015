"""Which failures a retry cannot help with, and how they end a task."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

logger = logging.getLogger(__name__)


@contextmanager
def failing_fast() -> Iterator[None]:
    """End the task without retries when only a change of settings, privileges or SQL helps.

    A failure in a process that was asked to end may not recur in the next one, whatever the error.

    Raises:
        AirflowFailException: Instead of a `LakebaseError` that is not retryable, or of a server error after
            which the statement cannot succeed, which is its cause.
    """
    try:
        yield
    except Exception as error:
        # Not needed to parse a DAG, which happens again and again.
        from lakebase_provider.core.connect.cancel import ASKED_TO_END, asked_to_end
        from lakebase_provider.core.errors import CommitUnknownError
        from lakebase_provider.core.errors.sqlstates import retry_helps, told_as_final

        # Whether something was written does not depend on why the server could not be asked.
        may_pass = asked_to_end() and not isinstance(error, CommitUnknownError)
        if not may_pass and retry_helps(error) is False:
            raise AirflowFailException(told_as_final(error)) from error
        if asked_to_end():
            logger.warning("The task is ending because %s; its retries apply.", ASKED_TO_END)
        raise


def raise_as_sensor(error: Exception) -> NoReturn:
    """Fail a sensor with its trigger's error.

    Raises:
        AirflowFailException: A retry would not help; the error is its cause.
        AirflowException: Instead of any other error, which is its cause, so that `soft_fail` and `never_fail`
            take effect.
    """
    from lakebase_provider.core.errors.sqlstates import retry_helps

    with failing_fast():
        if retry_helps(error) is False:
            raise error
    raise AirflowException(str(error)) from error


class UnwindingOnKill:
    """An operator whose work ends by SystemExit when its task is killed, and cleans up; precedes Airflow's.

    Airflow only calls ``on_kill`` on the signal, in the main thread, and waits for what it has interrupted;
    five seconds later it kills the process.
    """

    _unwinds = False

    @contextmanager
    def _unwinding(self) -> Iterator[None]:
        self._unwinds = True
        try:
            yield
        finally:
            self._unwinds = False

    def on_kill(self) -> None:
        """End the work; what is under way is undone, or finished where it cannot be."""
        # After a timeout it has ended already. A second signal does not end the cleaning up.
        if self._unwinds:
            self._unwinds = False
            raise SystemExit(128 + signal.SIGTERM)
