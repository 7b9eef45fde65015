"""Who is connected, and the end of the one statement that was seen."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.database.sessions.running_sessions import (
    RunningSession,
    cancel_statement,
    running_sessions,
)
from lakebase_provider.core.errors import ConfigError
from tests.eventually import eventually

NAME = "etl.load@2026-01-01T00:00:00"


@contextmanager
def sleeping(client: LakebaseClient, name: str = NAME) -> Iterator[list[BaseException]]:
    """A session that runs a long statement, and what that statement has ended with."""
    ended: list[BaseException] = []
    ready = threading.Event()

    def work() -> None:
        with client.connect(autocommit=True) as connection:
            connection.execute("SELECT pg_catalog.set_config('application_name', %s, false)", (name,))
            ready.set()
            try:
                connection.execute("SELECT pg_sleep(120), 'of-a-customer'")
            except psycopg.Error as error:
                ended.append(error)

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(work)
        assert ready.wait(30)
        yield ended
        with client.connect(autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", (name,)
            )
        running.result(30)


def seen(client: LakebaseClient, name: str = NAME) -> RunningSession:
    found: list[RunningSession] = []

    def runs() -> bool:
        with client.connect(autocommit=True) as connection:
            found[:] = [one for one in running_sessions(connection) if one.application == name]
        return bool(found) and found[0].state == "active"

    eventually(runs)
    return found[0]


def test_a_task_is_seen_by_its_name_and_what_it_says_is_not(client: LakebaseClient) -> None:
    with sleeping(client):
        session = seen(client)
    assert (session.task, session.run) == ("etl.load", "2026-01-01T00:00:00")
    assert (session.state, session.command) == ("active", "SELECT")
    assert session.can_be_cancelled
    assert "of-a-customer" not in str(session)
    assert RunningSession.from_dict(session.to_dict()) == session


def test_the_statement_that_was_seen_is_cancelled_and_no_other(client: LakebaseClient) -> None:
    with sleeping(client) as ended, client.connect(autocommit=True) as connection:
        session = seen(client)
        which = (session.pid, session.started, session.statement_started or 0)
        assert not cancel_statement(connection, which[0], which[1] + 1, which[2])
        assert not cancel_statement(connection, *which[:2], which[2] + 1)
        assert ended == []
        assert cancel_statement(connection, *which)
        eventually(lambda: bool(ended))
        assert isinstance(ended[0], psycopg.errors.QueryCanceled)
        assert not cancel_statement(connection, *which)


def test_a_session_does_not_cancel_itself(client: LakebaseClient) -> None:
    with client.connect(autocommit=True) as connection:
        own = connection.info.backend_pid
        assert own not in {one.pid for one in running_sessions(connection)}
        assert not cancel_statement(connection, own, 0, 0)


def test_who_waits_is_told_for_whom(client: LakebaseClient) -> None:
    with (
        client.connect() as holder,
        client.connect(autocommit=True) as waiter,
        ThreadPoolExecutor(1) as threads,
    ):
        holder.execute("SELECT pg_advisory_xact_lock(77)")
        waiting = threads.submit(waiter.execute, "SELECT pg_advisory_lock(77)")

        def told() -> bool:
            with client.connect(autocommit=True) as connection:
                found = {one.pid: one for one in running_sessions(connection)}
            return found[waiter.info.backend_pid].blocked_by == (holder.info.backend_pid,)

        eventually(told)
        holder.rollback()
        waiting.result(30)


@pytest.mark.parametrize("plain", [{}, {"pid": 1}, {"blocked_by": 3}], ids=["nothing", "too_little", "wrong"])
def test_what_is_no_session_is_refused(plain: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="no session"):
        RunningSession.from_dict(plain)
