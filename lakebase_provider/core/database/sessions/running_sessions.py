"""The sessions of a database, by what they call themselves, and the end of a statement that runs too long.

Of what they run only the first word is read, since the rest may hold data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import psycopg

from lakebase_provider.core.errors import ConfigError

#: Sessions that are listed at most.
MOST = 200
# Another role's statement, state and times are hidden from a role without pg_read_all_stats. Whom a session
# waits for is asked only of those that wait for a lock, since the answer takes locks itself.
_SESSIONS = """
    SELECT a.pid, (extract(epoch FROM a.backend_start) * 1000000)::int8, a.usename::text,
        coalesce(a.application_name, ''), a.state, upper(substring(a.query FROM '^\\s*([A-Za-z]+)')),
        (extract(epoch FROM a.query_start) * 1000000)::int8,
        extract(epoch FROM clock_timestamp() - CASE a.state WHEN 'active' THEN a.query_start
            ELSE a.state_change END)::float8,
        extract(epoch FROM clock_timestamp() - a.xact_start)::float8,
        CASE a.wait_event_type WHEN 'Lock' THEN pg_catalog.pg_blocking_pids(a.pid) ELSE '{}' END
    FROM pg_catalog.pg_stat_activity a
    WHERE a.datname = pg_catalog.current_database() AND a.backend_type = 'client backend'
        AND a.pid <> pg_catalog.pg_backend_pid()
    ORDER BY a.application_name, a.backend_start LIMIT %s
"""
# The same statement of the same session: pids are used again, and a session goes on to other statements.
_CANCEL = """
    SELECT pg_catalog.pg_cancel_backend(a.pid) FROM pg_catalog.pg_stat_activity a
    WHERE a.pid = %s AND (extract(epoch FROM a.backend_start) * 1000000)::int8 = %s
        AND (extract(epoch FROM a.query_start) * 1000000)::int8 = %s AND a.state = 'active'
        AND a.datname = pg_catalog.current_database() AND a.backend_type = 'client backend'
        AND a.pid <> pg_catalog.pg_backend_pid()
"""


@dataclass(frozen=True)
class RunningSession:
    """A session.

    Attributes:
        pid: Its process id.
        started: When it began, in microseconds since the epoch.
        user: Its role.
        application: What it calls itself, such as ``dag.task@run``.
        state: What it does, such as ``active``; None if that is hidden from the role that asks.
        command: The first word of its statement, or of its latest one; None likewise.
        statement_started: When that began, in microseconds since the epoch; None likewise.
        seconds: How long it has been in that state; None likewise.
        transaction_seconds: How long its transaction has lasted; None without one.
        blocked_by: The sessions that hold what it waits for, by their process ids.
    """

    pid: int
    started: int
    user: str | None
    application: str
    state: str | None
    command: str | None
    statement_started: int | None
    seconds: float | None
    transaction_seconds: float | None
    blocked_by: tuple[int, ...] = ()

    @property
    def task(self) -> str:
        """The part of its name that says what runs: ``dag.task`` of a task of Airflow."""
        return self.application.partition("@")[0]

    @property
    def run(self) -> str:
        """The part of its name that says which run; empty if there is none."""
        return self.application.partition("@")[2]

    @property
    def can_be_cancelled(self) -> bool:
        """Whether it runs a statement that can be told from the next one."""
        return self.state == "active" and self.statement_started is not None

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {**asdict(self), "blocked_by": list(self.blocked_by)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> RunningSession:
        """The session that :meth:`to_dict` has made plain.

        Raises:
            ConfigError: It is something else.
        """
        try:
            found = {field.name: plain[field.name] for field in fields(cls)}
            return cls(**{**found, "blocked_by": tuple(plain["blocked_by"])})
        except (KeyError, TypeError):
            raise ConfigError("This is no session.", remedy="Give what to_dict() has made.") from None


def running_sessions(connection: psycopg.Connection[Any]) -> tuple[RunningSession, ...]:
    """The sessions of a connection's database, except for its own; ``MOST`` at most, by their names.

    Raises:
        psycopg.Error: The server refused.
    """
    rows = connection.execute(_SESSIONS, (MOST,)).fetchall()
    return tuple(_session(*row) for row in rows)


def _session(*row: Any) -> RunningSession:
    names = (field.name for field in fields(RunningSession))
    return RunningSession.from_dict(dict(zip(names, row, strict=True)))


def cancel_statement(
    connection: psycopg.Connection[Any], pid: int, started: int, statement_started: int
) -> bool:
    """Cancel a statement, if it is still the one that was seen.

    Args:
        connection: Of a role that may: that of the session, or one with ``pg_signal_backend``.
        pid: Of its session, as are the two that follow.
        started: When the session began.
        statement_started: When the statement began.

    Returns:
        False if it has ended.

    Raises:
        psycopg.errors.InsufficientPrivilege: The role may not.
    """
    found = connection.execute(_CANCEL, (pid, started, statement_started)).fetchone()
    return found is not None and bool(found[0])
