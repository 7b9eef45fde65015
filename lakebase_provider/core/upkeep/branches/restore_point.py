"""A moment of a branch to come back to: it is noted, which costs nothing, and no branch is made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from lakebase_provider.core.config import arguments
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.connect.cursor import plain_cursor
from lakebase_provider.core.errors import ConfigError

_LSN = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")
_REMEDY = "Give a restore point, a time with its zone, or a position in the log."
# Of what is inserted into the log, since a commit may be seen before it is written to disk.
_ASK = """
SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
    ELSE pg_catalog.pg_current_wal_insert_lsn() END::text, pg_catalog.clock_timestamp()
"""


@dataclass(frozen=True)
class RestorePoint:
    """A moment of a branch. All that was committed before it can be had back while the history lasts.

    Attributes:
        branch: The branch's full name; None for the client's own.
        lsn: The position in its log; None if only the time is known.
        time: The moment; None if only the position is known.
    """

    branch: str | None
    lsn: str | None
    time: datetime | None

    def to_dict(self) -> dict[str, Any]:
        """The point as JSON can hold it, for another process; ``at`` takes it."""
        time = None if self.time is None else self.time.isoformat()
        return {"branch": self.branch, "lsn": self.lsn, "time": time}

    @classmethod
    def of(cls, given: RestorePoint | Mapping[str, Any] | datetime | str) -> RestorePoint:
        """A point as users write it.

        Raises:
            ConfigError: It is none.
        """
        if isinstance(given, RestorePoint):
            return given
        if isinstance(given, datetime):
            return cls(None, None, _with_zone(given))
        if isinstance(given, str):
            if _LSN.fullmatch(given):
                return cls(None, given, None)
            return cls(None, None, _read(given))
        if isinstance(given, Mapping) and {*given} <= {"branch", "lsn", "time"}:
            lsn, time = given.get("lsn"), given.get("time")
            if lsn is not None and not (isinstance(lsn, str) and _LSN.fullmatch(lsn)):
                raise ConfigError("The point's lsn is no position in the log.", remedy=_REMEDY)
            if lsn is not None or time is not None:
                return cls(given.get("branch"), lsn, None if time is None else _read(time))
        raise ConfigError(f"'at' is of type {type(given).__name__}, and no point.", remedy=_REMEDY)

    def __str__(self) -> str:
        time = "" if self.time is None else self.time.isoformat().replace("+00:00", "Z")
        return " ".join(filter(None, [time, self.lsn and f"({self.lsn})" if time else self.lsn]))


def note(connection: LakebaseConnection, branch: str) -> RestorePoint:
    """The moment that a branch has reached.

    Args:
        connection: A session on the branch; what it has not committed is not part of it.
        branch: The branch's full name.
    """
    row = plain_cursor(connection).execute(_ASK).fetchone()
    assert row is not None
    return RestorePoint(branch, row[0], row[1].astimezone(timezone.utc))


def _read(text: Any) -> datetime:
    try:
        # Python 3.10 knows no Z.
        return _with_zone(datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text)))
    except (TypeError, ValueError):
        raise ConfigError("The point's time is none in ISO 8601.", remedy=_REMEDY) from None


def _with_zone(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ConfigError("The point's time has no zone.", remedy=_REMEDY)
    arguments.in_utc("The point's time ('at')", moment, _REMEDY)
    return moment
