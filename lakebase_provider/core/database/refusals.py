"""The server's refusals as this package's errors: without values, with the row's number and a remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from lakebase_provider.core.connect.cancel import ASKED_TO_END, ended_by_request
from lakebase_provider.core.database.row_remedies import constraint_remedy
from lakebase_provider.core.errors import (
    BadRowError,
    LakebaseError,
    LoadError,
    LoadInterruptedError,
    StatementTimeoutError,
)
from lakebase_provider.core.errors.remedy import Remedy
from lakebase_provider.core.errors.server_ends import SessionIdled, TransactionIdled, typed_end
from lakebase_provider.core.errors.sqlstates import CANCELED, meaning, timed_out

#: Where the server says that an error in a COPY is: "COPY orders, line 3, column total: ...".
_PLACE = re.compile(r"^COPY .*?, line (\d+)(?:, column ([^:]+))?", re.MULTILINE)
_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")

#: What reading a malformed value or name raises: psycopg's loaders pass on what int(), Decimal, datetime,
#: json and struct raise, and a loader that cannot represent a value raises NotImplementedError.
_UNREADABLE = (ValueError, ArithmeticError, LookupError, TypeError, RecursionError, NotImplementedError)

#: Classes of SQLSTATEs for values that do not fit, and for violated constraints.
_OF_ROWS = frozenset({"22", "23"})
#: For an unsupported feature (0A000): COPY into a table whose row security applies to the role.
_ROW_SECURITY = Remedy(
    "Use mode='merge', which copies into a temporary table; with delete='missing' it also replaces the rows.",
    options=("mode", "delete"),
    otherwise="Write with upsert, which copies into a temporary table, or use a role that is exempt from "
    "the policies.",
)


@contextmanager
def typed_errors(what: str, *, of_a_value: str | None = None) -> Iterator[None]:
    """Raise psycopg's errors in the block as a :class:`~lakebase_provider.core.errors.LoadError`.

    Args:
        what: What was under way, such as ``"Load into sales.orders"``.
        of_a_value: The remedy for a value that its column does not accept.
    """
    try:
        yield
    except psycopg.Error as error:
        if _is_ours(error):
            raise
        raise load_error(error, what, of_a_value) from quotable(error)


def quotable(error: psycopg.Error) -> psycopg.Error | None:
    """The error as a cause to show, or None if its text quotes values, which may be private."""
    quotes = (error.sqlstate or "")[:2] in _OF_ROWS or _PLACE.search(error.diag.context or "")
    return None if quotes else error


@contextmanager
def interrupted_reads() -> Iterator[None]:
    """Raise a lost connection as :class:`~lakebase_provider.core.errors.LoadInterruptedError`."""
    try:
        yield
    except psycopg.Error as error:
        if _is_ours(error) or not connection_lost(error):
            raise
        end = _end(error)
        if isinstance(end, StatementTimeoutError):
            raise
        told = f" {end.message}" if end else ""
        raise LoadInterruptedError(
            f"The connection was lost while the server sent rows.{told}",
            remedy=_if_it_idled(end) or "Read again.",
        ) from error


def _is_ours(error: psycopg.Error) -> bool:
    """Whether it is one of this package's own, though also psycopg's, such as that of an exhausted pool."""
    return isinstance(error, LakebaseError) and error.sqlstate is None


def _end(error: psycopg.Error) -> LakebaseError | None:
    """The error for a session or a statement that the server itself ended."""
    found = typed_end(error) or error
    return found if isinstance(found, LakebaseError) else None


def _if_it_idled(end: LakebaseError | None) -> str | None:
    # Otherwise the server restarted or somebody ended the session, and a plain retry will do.
    return end.remedy if isinstance(end, (SessionIdled, TransactionIdled)) else None


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Raise as a LoadError what psycopg's loaders, Python or Arrow raise for something unreadable.

    Their errors are of many kinds, and most of them quote the value, which may be private.

    Args:
        what: What is read, such as ``"a value of the result"``.
    """
    try:
        yield
    except (psycopg.Error, LakebaseError):
        raise
    except _UNREADABLE as error:
        raise LoadError(
            f"The server sent {what} in a form that cannot be read ({type(error).__name__}).",
            remedy="Cast the column to text in the query; if it is text already, something between here and "
            "the server alters the data.",
        ) from None


def connection_lost(error: psycopg.Error) -> bool:
    """Whether the session is gone: the server ended it, or the connection broke."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return meaning(error.sqlstate).lost_session


def load_error(error: psycopg.Error, what: str, of_a_value: str | None = None) -> LoadError:
    """This package's error for a psycopg error; raise it from :func:`quotable`."""
    found = _load_error(error, what, of_a_value)
    found.sqlstate = error.sqlstate
    return found


def _load_error(error: psycopg.Error, what: str, of_a_value: str | None) -> LoadError:
    end = _end(error)
    if isinstance(end, StatementTimeoutError):
        # In a load, a statement takes as long as the data is large.
        shorter = "Raise statement_timeout, or load less at once."
        return LoadError(
            f"{what}: {end.message}", remedy=shorter if error.sqlstate == CANCELED else end.remedy
        )
    if connection_lost(error):
        told = f" {end.message}" if end else ""
        return LoadInterruptedError(
            f"{what}: the connection was lost, and the server rolls back.{told}", remedy=_if_it_idled(end)
        )
    state = error.sqlstate or ""
    if state == CANCELED and not timed_out(error):
        return _canceled(error, what)
    if state[:2] in _OF_ROWS:
        return _bad_row(error, what, of_a_value)
    said = meaning(state)
    kind = LoadInterruptedError if said.retry else LoadError
    of_security = state == "0A000" and "row-level security" in _text(error)
    return kind(f"{what}: {_text(error)}.", remedy=_ROW_SECURITY if of_security else said.remedy)


def _canceled(error: psycopg.Error, what: str) -> LoadInterruptedError:
    if ended_by_request(error):
        return LoadInterruptedError(
            f"{what}: cancelled, since {ASKED_TO_END}; the server rolls back.",
            remedy="Let the task be retried; if it has no retries, give it some.",
        )
    return LoadInterruptedError(
        f"{what}: {_text(error)}; the server rolls back.",
        remedy="Load again, unless the reason for cancelling it (pg_cancel_backend) still holds.",
    )


def _bad_row(error: psycopg.Error, what: str, of_a_value: str | None) -> BadRowError:
    place = _PLACE.search(error.diag.context or "")
    row = int(place.group(1)) if place else None
    column = error.diag.column_name or (place.group(2) if place else None)
    # The text of a data exception quotes the value; that of a violated constraint names the constraint.
    broken = (error.sqlstate or "").startswith("23")
    text = _text(error) if broken else _kind(error)
    remedy = constraint_remedy(error.sqlstate or "", text) if broken else of_a_value
    where = ", ".join(
        part for part in (f"row {row}" if row else "", f"column {column}" if column else "") if part
    )
    message = f"{what}{': ' + where if where else ''}: {text}."
    return BadRowError(message, row=row, column=column, remedy=remedy)


def _text(error: psycopg.Error) -> str:
    return (error.diag.message_primary or str(error)).strip().rstrip(".")


def _kind(error: psycopg.Error) -> str:
    return _WORDS.sub(" ", type(error).__name__).lower()
