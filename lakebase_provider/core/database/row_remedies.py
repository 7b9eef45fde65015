"""What to do about a refused row, by the SQLSTATE of a violated constraint or by what is wrong with it."""

from __future__ import annotations

import re

from lakebase_provider.core.errors.remedy import Remedy
from lakebase_provider.core.errors.sqlstates import meaning


def _or_reject(text: str) -> Remedy:
    return Remedy(f"{text}, or load with on_error='reject'.", options=("on_error",), otherwise=f"{text}.")


#: For constraints, which the server checks: such a row cannot be set aside before it is sent. By texts that
#: say more than their SQLSTATE.
_STILL_REFERRED_TO = Remedy(
    "Delete the rows that reference these first, or keep these with mode='merge'.",
    options=("mode",),
    otherwise="Delete the rows that reference these first.",
)
_NO_PARTITION = "Create the partition that the rows belong to, or a DEFAULT partition."

#: For a value that a check before sending refuses, by the reason given. First match wins.
_BY_REASON: tuple[tuple[str, Remedy], ...] = (
    (
        r"^timestamp\[ns.*does not fit",
        _or_reject(
            "Round the source's times to microseconds, which Postgres stores; dates after 2262 in Parquet's "
            "INT96 are read wrongly, so write the file with 64-bit timestamps (TIMESTAMP_MICROS)"
        ),
    ),
    (
        r"digits of a second|fraction of a microsecond",
        _or_reject("Round the times in the source, or give the column more digits with ALTER TABLE"),
    ),
    (
        r"does not fit",
        _or_reject(
            "Cast the source's column to the table's type, which decides what is lost, or give the table's "
            "column a type that holds the value"
        ),
    ),
    (
        r"out of range|longer than|more digits|a fraction, for",
        _or_reject("Give the table's column a type that holds the value, or change the value in the source"),
    ),
    (
        r"a time zone, for",
        _or_reject(
            "Make the column timestamptz, or convert the times in the source to one zone and drop the zone"
        ),
    ),
    (
        r"which the column refuses",
        _or_reject("Give the column a value, or let it be NULL (ALTER TABLE ... DROP NOT NULL)"),
    ),
    (
        r"\bno jsonb?\b",
        _or_reject("Convert it in the source to a value that JSON has, such as a string, a list or null"),
    ),
)


def constraint_remedy(sqlstate: str, text: str) -> str | None:
    """What to do about a violated constraint.

    Args:
        sqlstate: Of class 23.
        text: The server's message.
    """
    if "update or delete on table" in text:
        return _STILL_REFERRED_TO
    if "no partition of relation" in text:
        return _NO_PARTITION
    return meaning(sqlstate).remedy


def value_remedy(kind: str, reason: str) -> str | None:
    """What to do about a value; None if there is nothing better than the remedy of the error's class.

    Args:
        kind: The value's kind.
        reason: What is wrong with it.
    """
    said = f"{kind}, {reason}"
    return next((remedy for pattern, remedy in _BY_REASON if re.search(pattern, said)), None)
