"""Which errors a retry can help with, by the SQLSTATE that the server gives."""

from __future__ import annotations

from lakebase_provider.core.errors import LakebaseError

#: Whether a retry helps, by SQLSTATE or by its class, which are the first two characters. Anything not listed
#: is for the caller to judge: a constraint that is violated may be satisfied later, or never.
RETRY_HELPS: dict[str, bool] = {
    "08": True,  # the connection broke
    "0A": False,  # the server cannot do it
    "22": False,  # the data do not fit their types
    "25006": False,  # a write in a read-only transaction
    "28": False,  # the role is not allowed to log in
    "3D": False,  # no such database
    "3F": False,  # no such schema
    "40001": True,  # another transaction was first
    "40P01": True,  # deadlock
    "42": False,  # wrong syntax, no such table, no privilege
    "53": True,  # the server is short of a resource that others will release
    "53100": False,  # disk full
    "54": False,  # the statement is too complex
    "55P03": True,  # a lock was not acquired in time
    "57P": True,  # the server restarts or was told to end the session
    "58": True,  # an error of the server itself, such as I/O
}
#: One code for several events: the statement exceeded its timeout, which it will again; somebody cancelled
#: it; or this process did, when it was asked to end.
CANCELED = "57014"


def told_as_final(error: BaseException) -> str:
    """What to say of an error that ends a task although it has retries left."""
    return f"{error}\nNot retried: a retry would not help."


def retry_helps(error: BaseException) -> bool | None:
    """Whether the same statement may succeed later without anybody changing anything.

    Args:
        error: A `LakebaseError`, a psycopg error, or any other.

    Returns:
        None if it is not known.
    """
    if isinstance(error, LakebaseError):
        return error.retryable
    state = getattr(error, "sqlstate", None)
    if not isinstance(state, str):
        return None
    if state == CANCELED:
        return False if timed_out(error) else None
    return next((RETRY_HELPS[key] for key in (state, state[:3], state[:2]) if key in RETRY_HELPS), None)


def timed_out(error: BaseException) -> bool:
    """Whether a statement that was cancelled (57014) exceeded `statement_timeout`; only its text tells."""
    return "statement timeout" in str(error)
