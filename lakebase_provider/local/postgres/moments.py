"""Moments of a cluster's history: where it began, and where a recovery of it is to stop."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

_LSN = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")


class HistoryError(ValueError):
    """The time or log sequence number lies outside of what is kept of a branch."""


@dataclass(frozen=True)
class Fork:
    """Where a cluster left its source.

    Attributes:
        lsn: Log sequence number of the source.
        time: Unix time.
    """

    lsn: str
    time: float


def recovery_target(
    born: Fork, session: psycopg.Connection[Any], at_time: float | None, at_lsn: str | None
) -> dict[str, str]:
    """Settings with which a recovery stops at a moment of a cluster's history.

    Args:
        born: Where the history begins.
        session: At the cluster.
        at_time: Unix time of the moment; None for a log sequence number.
        at_lsn: That number.

    Raises:
        HistoryError: The moment is not in it.
    """
    if at_time is not None:
        if not born.time <= at_time <= time.time():
            raise HistoryError(f"the time {_utc(at_time)} is not in the branch's history")
        return {"recovery_target_time": _utc(at_time), "recovery_target_inclusive": "on"}
    if at_lsn is None or not _LSN.fullmatch(at_lsn):
        raise HistoryError(f"{at_lsn} is no LSN")
    ((inside,),) = session.execute(
        "SELECT %s::pg_lsn BETWEEN %s AND pg_current_wal_insert_lsn()", (at_lsn, born.lsn)
    ).fetchall()
    if not inside:
        raise HistoryError(f"the LSN {at_lsn} is not in the branch's history")
    # Stops before the first record that starts at the LSN or after it.
    return {"recovery_target_lsn": at_lsn, "recovery_target_inclusive": "off"}


def _utc(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f+00")
