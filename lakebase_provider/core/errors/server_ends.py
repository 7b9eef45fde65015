"""What the server itself ends: a statement that takes too long, a session that is idle or is terminated.

psycopg has a class for each, but its text says neither who ended it nor what to do. These belong to both
psycopg's class and this package's, for code that expects either.
"""

from __future__ import annotations

from typing import Any

import psycopg

from lakebase_provider.core.errors import (
    EndpointNotFoundError,
    IdleInTransactionError,
    LakebaseError,
    SessionEndedError,
    StatementTimeoutError,
)
from lakebase_provider.core.errors.redaction import redactor
from lakebase_provider.core.errors.sqlstates import CANCELED, meaning, timed_out


class StatementTimedOut(StatementTimeoutError, psycopg.errors.QueryCanceled):  # noqa: N818 # psycopg's style
    """``statement_timeout`` has passed."""


class TransactionTimedOut(StatementTimeoutError, psycopg.errors.TransactionTimeout):  # noqa: N818
    """``transaction_timeout`` has passed, and the session is gone."""


class SessionIdled(SessionEndedError, psycopg.errors.IdleSessionTimeout):  # noqa: N818
    """``idle_session_timeout`` has passed."""


class TransactionIdled(IdleInTransactionError, psycopg.errors.IdleInTransactionSessionTimeout):  # noqa: N818
    """``idle_in_transaction_session_timeout`` has passed."""


class SessionTerminated(SessionEndedError, psycopg.errors.AdminShutdown):  # noqa: N818
    """The server shuts down, its compute is suspended, or somebody ended the session."""


class EndpointGone(EndpointNotFoundError, psycopg.OperationalError):  # noqa: N818
    """The session is lost, and its endpoint is there no more: its branch has expired, or was deleted."""

    default_remedy = (
        "Use another branch, or create it again: what was on this one is gone. Give a branch that is needed "
        "for longer a later expiration in time."
    )

    def again(self) -> EndpointGone:
        """A copy to raise again."""
        copy = super().again()
        assert isinstance(copy, EndpointGone)
        return copy


#: The error's class and what happened, by SQLSTATE. The one of a cancelled statement stands for other events
#: too.
ENDS: dict[str, tuple[type[LakebaseError], str]] = {
    CANCELED: (StatementTimedOut, "The server ended the statement"),
    "25P04": (TransactionTimedOut, "The server ended the transaction, and the session with it"),
    "25P03": (TransactionIdled, "The server ended the session, and the transaction with it"),
    "57P05": (SessionIdled, "The server ended the session"),
    "57P01": (SessionTerminated, "The server ended the session"),
}


def strike_out(error: psycopg.Error) -> None:
    """Take secrets that the server repeats out of its error: out of the text, and of what `diag` tells.

    An error that holds none stays as it is, with its result.
    """
    text, strike = str(error), redactor()
    shown = strike(text)
    if shown != text:
        error.args = (shown, *error.args[1:])
    if error._info is None:
        return
    fields: Any = psycopg.errors._info_to_dict(error._info)
    held = {field: value for field, value in fields.items() if value}
    texts = {field: strike(value.decode("utf-8", "surrogateescape")) for field, value in held.items()}
    clean = {field: text.encode("utf-8", "surrogateescape") for field, text in texts.items()}
    if clean != held:
        error._info = {**fields, **clean}


def typed_end(error: psycopg.Error) -> psycopg.Error | None:
    """This package's form of the error, if the server itself ended something.

    Raise it from the other one.
    """
    end = ENDS.get(error.sqlstate or "")
    if end is None or isinstance(error, LakebaseError):
        return None
    if error.sqlstate == CANCELED and not timed_out(error):
        return None
    kind, what = end
    text = error.diag.message_primary or str(error).partition("\n")[0]
    found = kind(f"{what}: {text}.", remedy=meaning(error.sqlstate).remedy)
    assert isinstance(found, psycopg.Error)
    # What psycopg's `diag` reads.
    found._info, found._encoding = error._info, error._encoding
    return found
