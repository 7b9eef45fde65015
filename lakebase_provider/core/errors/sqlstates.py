"""Which errors a retry helps, by the code that the server gives with each of them."""

from __future__ import annotations

from lakebase_provider.core.errors import LakebaseError

#: Whether a retry helps, by SQLSTATE or by its class, which are the first two characters. What is not here
#: is for the caller to judge: a constraint that is violated may be satisfied later, or never.
RETRY_HELPS: dict[str, bool] = {
    "08": True,  # the connection broke
    "0A": False,  # the server cannot do it
    "22": False,  # the data do not fit their types
    "25006": False,  # a write in a transaction that reads alone
    "28": False,  # the role may not
    "3D": False,  # no such database
    "3F": False,  # no such schema
    "40001": True,  # another transaction was first
    "40P01": True,  # deadlock
    "42": False,  # wrong syntax, no such table, no privilege
    "53": True,  # the server is short of something that others will hand back
    "53100": False,  # disk full
    "54": False,  # the statement is too complex
    "55P03": True,  # a lock was not had in time
    "57P": True,  # the server restarts or was told to end the session
    "58": True,  # trouble of the server's own, such as I/O
}
#: One code for several events: the statement ran out of its time, which it will again, somebody cancelled
#: it, or this process did, when it was asked to end.
CANCELED = "57014"


def told_as_final(error: BaseException) -> str:
    """What to tell of an error for whose sake a task ends although it has retries left."""
    return f"{error}\nNot tried again: no retry helps."


def retry_helps(error: BaseException) -> bool | None:
    """Whether the same statement may succeed later without anybody changing anything.

    Args:
        error: A `LakebaseError`, a psycopg error, or any other.

    Returns:
        None where neither is known.
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
    """Whether a statement that was cancelled (57014) ran out of `statement_timeout`; its text alone tells."""
    return "statement timeout" in str(error)
