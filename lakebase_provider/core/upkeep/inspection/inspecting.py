"""Runs the checks on a connection that only reads, and judges what they find."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from lakebase_provider.core.config import arguments
from lakebase_provider.core.database.refusals import connection_lost
from lakebase_provider.core.errors.redaction import redacted
from lakebase_provider.core.upkeep.inspection import check_queries as queries
from lakebase_provider.core.upkeep.inspection.checks import (
    MOST_LISTED,
    Check,
    Found,
    Limit,
    Need,
)
from lakebase_provider.core.upkeep.inspection.inspection_options import (
    Limits,
    chosen,
    limits_of,
    require_days,
)
from lakebase_provider.core.upkeep.inspection.inspection_report import (
    FindingStatus,
    InspectionFinding,
    InspectionReport,
)

#: Seconds that a check waits for a lock: nothing that it reads is locked for long, or else it is skipped.
_LOCK_TIMEOUT = 1.0
# One message, and so one round trip. What it sets ends with the transaction: behind a pooler the session is
# somebody else's a moment later. Bounds of partitions are compared as the text that is set here.
_TRANSACTION = """
    BEGIN TRANSACTION READ ONLY; SET LOCAL statement_timeout = {timeout}; SET LOCAL lock_timeout = {lock};
    SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL search_path = pg_catalog; {query}; COMMIT
"""
Connection = psycopg.Connection[Any]


class _Told(NamedTuple):
    """What a server says of itself, in the query's order."""

    database: str
    version: str
    in_recovery: bool
    sees_all: bool
    statistics_seconds: float | None
    pgstattuple: str | None
    taken_at: str


class _Server:
    """A server that is asked."""

    def __init__(self, connection: Connection, seconds: float) -> None:
        self._connection = connection
        self._limits = {"timeout": max(1, round(seconds * 1000)), "lock": round(_LOCK_TIMEOUT * 1000)}
        self.told = _Told(*self.rows(queries.SURROUNDINGS)[0])
        self.pgstattuple = self.told.pgstattuple
        self.statistics_days = max(0.0, self.told.statistics_seconds or 0.0) / 86_400

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a query, which has no parameters."""
        text = _TRANSACTION.format(query=query, **self._limits)
        try:
            cursor = self._connection.execute(text.encode(), prepare=False)
        except psycopg.Error as error:
            if not connection_lost(error):
                self._connection.rollback()
            raise
        while cursor.description is None and cursor.nextset():
            pass
        return cursor.fetchall()

    def rows_or_none(self, query: str) -> list[tuple[Any, ...]] | None:
        """The rows of a query, or None if the server refuses it, or somebody has locked what it reads."""
        try:
            return self.rows(query)
        except psycopg.Error as error:
            if connection_lost(error):
                raise
            return None


@dataclass(frozen=True)
class _Judge:
    server: _Server
    limits: Mapping[str, Limit]
    statistics_days: float
    earlier: InspectionReport | None

    def finding(self, check: Check) -> InspectionFinding:
        reason = next(filter(None, map(self._lacks, check.needs)), "")
        if reason:
            return self._skipped(check, reason)
        try:
            found = self._found(check)
        except psycopg.Error as error:
            if connection_lost(error):
                raise
            return self._skipped(check, " ".join(redacted(str(error)).partition("\n")[0].split()))
        return self._judged(check, found)

    def _found(self, check: Check) -> list[Found]:
        if check.name == "growth" and self.earlier is not None:
            return [_growth(self.server, self.earlier)]
        return check.found(self.server, self.limits[check.name])

    def _lacks(self, need: Need) -> str:
        server = self.server
        if need == "primary" and server.told.in_recovery:
            return "A replica does not count what is used on its primary."
        if need == "statistics" and server.statistics_days < self.statistics_days:
            return (
                f"The counters cover {server.statistics_days:.1f} days, and may have been lost before; "
                f"{self.statistics_days:g} are needed to judge."
            )
        if need == "earlier" and (self.earlier is None or _size(self.earlier) is None):
            return "There is no earlier report of this database to compare with."
        return ""

    def _judged(self, check: Check, found: list[Found]) -> InspectionFinding:
        limit, value = self.limits[check.name], _value(check, found)
        status = _status(check, value, limit)
        listed = [one for one in found if _is_listed(check, one, limit)]
        hidden = check.hides and not self.server.told.sees_all
        return InspectionFinding(
            check.name,
            status,
            None if value is None else round(value, 4),
            check.unit,
            *limit,
            objects=tuple(one._replace(value=round(one.value, 4)) for one in listed[:MOST_LISTED]),
            more=max(0, len(listed) - MOST_LISTED),
            reason=_HIDDEN if hidden else "" if value is not None else _NOTHING,
            about=check.about,
            remedy="" if status == "ok" else check.remedy,
        )

    def _skipped(self, check: Check, reason: str) -> InspectionFinding:
        limit = self.limits[check.name]
        return InspectionFinding(
            check.name, "skipped", None, check.unit, *limit, reason=reason, about=check.about
        )


def _value(check: Check, found: list[Found]) -> float | None:
    """The number of a check: of the worst, which comes first, or how many there are."""
    if check.measure == "count":
        return float(len(found))
    return found[0].value if found else None if check.measure == "lowest" else 0.0


def _status(check: Check, value: float | None, limit: Limit) -> FindingStatus:
    if value is None:
        return "ok"
    if check.is_past(value, limit.bad):
        return "bad"
    return "warn" if check.is_past(value, limit.warn) else "ok"


def _is_listed(check: Check, one: Found, limit: Limit) -> bool:
    return check.lists_all or check.measure == "count" or _status(check, one.value, limit) != "ok"


_HIDDEN = "Of other roles nothing is shown to this one: GRANT pg_read_all_stats."
_NOTHING = "There is nothing that it concerns."


def inspect(
    connect: Callable[..., Connection],
    checks: Iterable[str] | None,
    limits: Limits | None,
    statistics_days: float,
    earlier: InspectionReport | Mapping[str, Any] | None,
    timeout: float,
) -> InspectionReport:
    """Run checks; :meth:`.LakebaseClient.inspect` has the meaning of the arguments."""
    wanted, judged_by = chosen(checks), limits_of(limits)
    days, seconds = require_days(statistics_days), arguments.timeout(timeout)
    before = earlier if isinstance(earlier, InspectionReport | None) else InspectionReport.from_dict(earlier)
    with connect(autocommit=True) as connection:
        start = time.perf_counter()
        server = _Server(connection, seconds)
        if before is not None and before.database != server.told.database:
            before = None
        judge = _Judge(server, judged_by, days, before)
        findings = tuple(map(judge.finding, wanted))
        took = time.perf_counter() - start
    return InspectionReport(
        server.told.database,
        server.told.version,
        server.told.taken_at,
        round(took, 3),
        round(server.statistics_days, 3),
        findings,
    )


def _size(report: InspectionReport) -> float | None:
    return report.figures.get("database_size")


def _growth(server: _Server, earlier: InspectionReport) -> Found:
    size = float(server.rows("SELECT pg_catalog.pg_database_size(pg_catalog.current_database())")[0][0])
    days = (_moment(server.told.taken_at) - _moment(earlier.taken_at)).total_seconds() / 86_400
    grown = size - (_size(earlier) or 0.0)
    told = f"{grown:+,.0f} bytes since {earlier.taken_at}"
    return Found(server.told.database, grown / max(days, 1 / 86_400), told)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
