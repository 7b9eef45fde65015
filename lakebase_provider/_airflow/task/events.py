"""What a trigger tells its task, in plain JSON, failures included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lakebase_provider.core.errors.plain_errors import from_plain, to_plain

if TYPE_CHECKING:
    from airflow.triggers.base import TriggerEvent


def succeeded(**result: Any) -> TriggerEvent:
    """The event of a trigger that succeeded."""
    return _event({"status": "success", **result})


def failed(error: Exception) -> TriggerEvent:
    """The event of an error, without its traceback, whose frames may hold secrets.

    Args:
        error: What the trigger met.
    """
    return _event({"status": "error", **to_plain(error)})


def error_of(event: dict[str, Any]) -> Exception | None:
    """The error in an event's payload, of the same kind as the trigger's; None if there is none."""
    return from_plain(event) if event["status"] == "error" else None


def _event(payload: dict[str, Any]) -> TriggerEvent:
    # Importing it takes a worker's time, unneeded without an error.
    from airflow.triggers.base import TriggerEvent

    return TriggerEvent(payload)  # type: ignore[no-untyped-call] # Airflow annotates it not
