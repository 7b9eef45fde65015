"""What to do about a row that is refused: by the SQLSTATE of a broken constraint, or by what is wrong."""

from __future__ import annotations

import re

from lakebase_provider.core.errors.remedy import Remedy


def _or_reject(text: str) -> Remedy:
    return Remedy(f"{text}, or load with on_error='reject'.", options=("on_error",), otherwise=f"{text}.")


#: Of constraints, which the server checks: nothing can put such a row aside before it is sent.
_BY_CONSTRAINT: dict[str, str] = {
    "23502": "Give the column a value, or let it be NULL (ALTER TABLE ... DROP NOT NULL); a DEFAULT of the "
    "column counts where the column is left out.",
    "23503": "Load the rows that are referred to first, or leave out those that refer to none.",
    "23505": Remedy(
        "Load each key once, or use mode='merge' with keys= for rows that are there already.",
        options=("mode", "keys"),
        otherwise="Write each key once; upsert is for rows that are there already.",
    ),
    "23514": "Correct the value in the source, or the constraint by ALTER TABLE.",
    "23P01": "Leave out the rows that exclude each other, or change the constraint by ALTER TABLE.",
}
_OF_A_CONSTRAINT = "Correct the rows in the source, or the constraint that the message names."
#: And by texts that tell more than their SQLSTATE.
_STILL_REFERRED_TO = Remedy(
    "Delete the rows that refer to these first, or keep these by mode='merge'.",
    options=("mode",),
    otherwise="Delete the rows that refer to these first.",
)
_NO_PARTITION = "Create the partition that the rows belong to, or a DEFAULT partition."

#: Of a value that a look at it refuses, by what is said of it. The first that is found.
_BY_REASON: tuple[tuple[str, Remedy], ...] = (
    (
        r"^timestamp\[ns.*does not fit",
        _or_reject(
            "Round the source's times to microseconds, which Postgres keeps; of Parquet's INT96 dates after "
            "2262 come out wrong, so write the file with timestamps of 64 bits (TIMESTAMP_MICROS)"
        ),
    ),
    (
        r"digits of a second|fraction of a microsecond",
        _or_reject("Round the times in the source, or give the column more digits by ALTER TABLE"),
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
        _or_reject("Make the column timestamptz, or drop the zone in the source once the times are in one"),
    ),
    (
        r"which the column refuses",
        _or_reject("Give the column a value, or let it be NULL (ALTER TABLE ... DROP NOT NULL)"),
    ),
    (
        r"\bno jsonb?\b",
        _or_reject("Convert it in the source to what JSON can say, such as a text, a list or null"),
    ),
)


def constraint_remedy(sqlstate: str, text: str) -> str:
    """What to do about a broken constraint.

    Args:
        sqlstate: Of class 23.
        text: The server's message.
    """
    if "update or delete on table" in text:
        return _STILL_REFERRED_TO
    if "no partition of relation" in text:
        return _NO_PARTITION
    return _BY_CONSTRAINT.get(sqlstate, _OF_A_CONSTRAINT)


def value_remedy(kind: str, reason: str) -> str | None:
    """What to do about a value; None where nothing is better than what the error's class says.

    Args:
        kind: The value's kind.
        reason: What is wrong with it.
    """
    said = f"{kind}, {reason}"
    return next((remedy for pattern, remedy in _BY_REASON if re.search(pattern, said)), None)
