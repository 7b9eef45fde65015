"""What a trigger tells its task: plain JSON, of failures too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lakebase_provider.core.errors import LakebaseError, StatementError
from lakebase_provider.core.sqlstates import retry_helps

if TYPE_CHECKING:
    from airflow.triggers.base import TriggerEvent


def succeeded(**result: Any) -> TriggerEvent:
    """The event of a trigger that has got what it was there for."""
    return _event({"status": "success", **result})


def failed(error: Exception) -> TriggerEvent:
    """The event that tells of an error, without its traceback, whose frames may hold secrets.

    Args:
        error: What the trigger met.
    """
    message, remedy = str(error), None
    if isinstance(error, LakebaseError):
        message, remedy = error.message, error.remedy
    return _event(
        {
            "status": "error",
            "kind": type(error).__name__,
            "message": message,
            "remedy": remedy,
            "retryable": retry_helps(error) is not False,
        }
    )


def error_of(event: dict[str, Any]) -> LakebaseError | None:
    """The error that an event's payload tells of, or None."""
    if event["status"] != "error":
        return None
    return StatementError(
        f"{event['kind']}: {event['message']}", remedy=event["remedy"], retryable=event["retryable"]
    )


def _event(payload: dict[str, Any]) -> TriggerEvent:
    # Importing it takes a worker's time, which tells of nothing.
    from airflow.triggers.base import TriggerEvent

    return TriggerEvent(payload)  # type: ignore[no-untyped-call] # Airflow annotates it not
