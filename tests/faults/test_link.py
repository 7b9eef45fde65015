"""A compute that sleeps, and a link that falls silent."""

from __future__ import annotations

import logging
import re
import signal
import threading

import psycopg
import pytest

from lakebase_provider.core import LakebaseClient, LakebaseError
from lakebase_provider.core.errors import EndpointWakingError
from lakebase_provider.local import FaultProxy, LocalLakebase

from .conftest import idle_for_a_minute, timed


@pytest.mark.parametrize("mode", ["hold", "starting", "paused"])
def test_a_sleeping_compute_is_woken_within_the_budget(
    lake: LocalLakebase, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    lake.admin.set_wake_mode(mode)
    lake.admin.set_wake_delay(1)
    lake.admin.suspend()
    client = LakebaseClient(lake.config())
    with caplog.at_level(logging.INFO, "lakebase_provider"), timed(10):
        client.connect(timeout=10).close()
        client.connect(timeout=10).close()
    assert lake.admin.counters().wakes == 1
    # The one that waited for the compute says so; the other one has nothing to tell.
    (milliseconds,) = re.findall(r"Connected to .* in (\d+) ms", caplog.text)
    assert 1000 <= int(milliseconds) < 10_000


@pytest.mark.parametrize("mode", ["hold", "starting", "paused"])
@pytest.mark.parametrize("seconds", [1, 2.5])
def test_a_compute_that_does_not_wake_keeps_nobody(lake: LocalLakebase, mode: str, seconds: float) -> None:
    lake.admin.set_wake_mode(mode)
    lake.admin.set_wake_delay(60)
    lake.admin.suspend()
    client = LakebaseClient(lake.config())
    client.tokens.get()
    with timed(seconds), pytest.raises(EndpointWakingError) as caught:
        client.connect(timeout=seconds)
    assert caught.value.retryable


def twenty_idle_connections(client: LakebaseClient) -> None:
    borrowed = [client.pool.getconn() for _ in range(20)]
    for connection in borrowed:
        client.pool.putconn(connection)
    idle_for_a_minute(client)


@pytest.mark.parametrize("mode", ["hold", "starting", "paused"])
def test_twenty_connections_that_a_suspend_cut_cost_a_second_at_most(lake: LocalLakebase, mode: str) -> None:
    wake = 0.5
    with LakebaseClient(lake.config(max_size=20)) as client:
        twenty_idle_connections(client)
        lake.admin.set_wake_mode(mode)
        lake.admin.set_wake_delay(wake)
        lake.admin.suspend()
        with timed(wake + 1), client.connection(timeout=10) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_connections_that_were_terminated_are_discarded(lake: LocalLakebase) -> None:
    with LakebaseClient(lake.config(max_size=20)) as client:
        twenty_idle_connections(client)
        lake.admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s",
            (lake.client_id,),
        )
        with timed(1), client.connection(timeout=10) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_an_idle_connection_on_a_silent_link_is_replaced_within_the_deadline(
    lake: LocalLakebase, proxy: FaultProxy
) -> None:
    with LakebaseClient(lake.config(port=proxy.port)) as client:
        with client.connection(), client.connection():
            pass
        idle_for_a_minute(client)
        proxy.swallow(new=False)
        with timed(4), client.connection(timeout=4) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    assert proxy.counters.bytes_swallowed > 0


@pytest.mark.parametrize("seconds", [1, 2.5])
def test_a_link_that_stays_silent_keeps_nobody(
    lake: LocalLakebase, proxy: FaultProxy, seconds: float
) -> None:
    with LakebaseClient(lake.config(port=proxy.port)) as client:
        with client.connection():
            pass
        idle_for_a_minute(client)
        proxy.swallow()
        with timed(seconds), pytest.raises(LakebaseError) as caught:
            client.pool.getconn(timeout=seconds)
        assert caught.value.retryable


class _TaskTimeoutError(Exception):
    """As Airflow raises from a signal handler when a task's time is up."""


def test_a_deadline_in_a_query_on_a_silent_link_frees_the_task(
    lake: LocalLakebase, proxy: FaultProxy
) -> None:
    def end(*_arguments: object) -> None:
        raise _TaskTimeoutError

    def query() -> None:
        with client.connection() as connection:
            proxy.swallow()
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            connection.execute("SELECT 1")

    before = signal.signal(signal.SIGALRM, end)
    try:
        with LakebaseClient(lake.config(port=proxy.port)) as client:
            # Airflow kills a task 5 seconds after asking it to end.
            with timed(0.5 + 4.5), pytest.raises(_TaskTimeoutError):
                query()
            proxy.heal()
            with client.connection(timeout=5) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("seconds", [1, 2.5])
def test_a_connect_on_a_silent_link_keeps_nobody(
    lake: LocalLakebase, proxy: FaultProxy, seconds: float
) -> None:
    proxy.swallow()
    client = LakebaseClient(lake.config(port=proxy.port))
    client.tokens.get()
    with timed(seconds), pytest.raises(EndpointWakingError):
        client.connect(timeout=seconds)


def test_statement_timeout_holds_on_a_silent_link(lake: LocalLakebase, proxy: FaultProxy) -> None:
    errors: list[BaseException] = []

    def query() -> None:
        try:
            connection.execute("SELECT 1")
        except psycopg.OperationalError as error:
            errors.append(error)

    with LakebaseClient(lake.config(port=proxy.port, statement_timeout=1)) as client:
        connection = client.connect()
        proxy.swallow()
        thread = threading.Thread(target=query)
        thread.start()
        # The server's own timeout, and some seconds for its answer to be on the way.
        thread.join(10)
        hung = thread.is_alive()
        proxy.reset()
        thread.join()
        connection.close()
    assert not hung, "the statement went on until the link was reset"
    assert errors
