"""What the server's SQLSTATEs say: whether a retry helps, and what to do."""

from __future__ import annotations

from typing import NamedTuple

from lakebase_provider.core.errors import LakebaseError
from lakebase_provider.core.errors.remedy import Remedy


class Meaning(NamedTuple):
    """What a SQLSTATE says.

    Attributes:
        retry: Whether the same statement may succeed later without anybody changing anything; None if that
            is for the caller to judge.
        remedy: What to do about it in a load; None for what the error's class advises.
        is_conflict: The server undid the transaction because of another one, and nothing of it took place.
        lost_session: The session is gone.
        no_conversion: The types have no conversion: no cast, operator or function, or several of them.
    """

    retry: bool | None = None
    remedy: str | None = None
    is_conflict: bool = False
    lost_session: bool = False
    no_conversion: bool = False


#: By SQLSTATE, by its first three characters, or by its class, which are the first two. Anything not listed
#: is for the caller to judge. Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
SQLSTATES: dict[str, Meaning] = {
    "08": Meaning(retry=True, lost_session=True),
    "0A": Meaning(retry=False),  # the server cannot do it
    "22": Meaning(retry=False),  # the data do not fit their types
    # A violated constraint may be satisfied later, or never.
    "23": Meaning(remedy="Correct the rows in the source, or the constraint that the message names."),
    "23502": Meaning(
        remedy="Give the column a value, or let it be NULL (ALTER TABLE ... DROP NOT NULL); a column's "
        "DEFAULT applies only if the source leaves the column out."
    ),
    "23503": Meaning(
        remedy="Load the referenced rows first, or leave out the rows that reference a missing one."
    ),
    "23505": Meaning(
        remedy=Remedy(
            "Load each key once, or use mode='merge' with keys= to update existing rows.",
            options=("mode", "keys"),
            otherwise="Write each key once; use upsert to update existing rows.",
        )
    ),
    "23514": Meaning(remedy="Correct the value in the source, or change the constraint with ALTER TABLE."),
    "23P01": Meaning(
        remedy="Leave out the rows that exclude each other, or change the constraint with ALTER TABLE."
    ),
    "25006": Meaning(retry=False),  # a write in a read-only transaction
    "25P03": Meaning(lost_session=True),  # idle_in_transaction_session_timeout
    "25P04": Meaning(
        lost_session=True,
        remedy="Do less in one transaction, or raise the server's transaction_timeout in SQL (SET, or "
        "ALTER ROLE ... SET).",
    ),
    "28": Meaning(retry=False),  # the role is not allowed to log in
    "3D": Meaning(retry=False),  # no such database
    "3F": Meaning(retry=False),  # no such schema
    "40001": Meaning(
        retry=True, is_conflict=True, remedy="Load again: another transaction changed the same rows."
    ),
    "40P01": Meaning(
        retry=True,
        is_conflict=True,
        remedy="Load again: this transaction and another one held locks that the other needed (deadlock).",
    ),
    "42": Meaning(retry=False),  # wrong syntax, no such table, no privilege
    "42501": Meaning(
        retry=False, remedy="Grant the role what the message names, or load as the table's owner."
    ),
    "42725": Meaning(retry=False, no_conversion=True),
    "42804": Meaning(retry=False, no_conversion=True),
    "42846": Meaning(retry=False, no_conversion=True),
    "42883": Meaning(retry=False, no_conversion=True),
    "53": Meaning(retry=True),  # the server is short of a resource that others will release
    "53100": Meaning(retry=False, remedy="Free disk space, or use a larger endpoint."),
    "54": Meaning(retry=False),  # the statement is too complex
    "55P03": Meaning(
        retry=True,
        remedy="Load again later, or raise lock_timeout: another session holds a lock on the table.",
    ),
    "57P": Meaning(retry=True, lost_session=True),  # the server restarts or was told to end the session
    "57P04": Meaning(retry=False),  # the database was dropped
    "57P05": Meaning(
        retry=True,
        lost_session=True,
        remedy="Borrow a connection only when there is work for it, or raise the server's "
        "idle_session_timeout in SQL (SET, or ALTER ROLE ... SET).",
    ),
    "58": Meaning(retry=True),  # an error of the server itself, such as I/O
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
    return meaning(state).retry


def meaning(sqlstate: str | None) -> Meaning:
    """What a SQLSTATE says, with nothing in it if it is not known or None."""
    state = sqlstate or ""
    return next((SQLSTATES[key] for key in (state, state[:3], state[:2]) if key in SQLSTATES), Meaning())


def timed_out(error: BaseException) -> bool:
    """Whether a statement that was cancelled (57014) exceeded `statement_timeout`; only its text tells."""
    return "statement timeout" in str(error)
