"""Conflicts, locks, idle transactions, and what only fails again."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import IsolationLevel

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.database.conflicts import again_on_conflict
from lakebase_provider.core.errors import (
    IdleInTransactionError,
    LockTimeoutError,
    TransactionConflictError,
)
from lakebase_provider.core.errors.sqlstates import retry_helps
from lakebase_provider.local import LocalLakebase
from tests.core.fake_clock import FakeClock


@pytest.fixture
def client(lake: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lake.config(max_size=4, lock_timeout=1.0)) as client:
        with client.connection() as connection:
            connection.execute("drop table if exists accounts")
            connection.execute("create table accounts (id int primary key, n int not null)")
            connection.execute("insert into accounts values (1, 0), (2, 0)")
        yield client


def total(client: LakebaseClient) -> list[tuple[int, ...]]:
    with client.connection() as connection:
        return connection.execute("select id, n from accounts order by id").fetchall()


def test_of_two_transactions_in_a_deadlock_the_victim_runs_again(
    client: LakebaseClient, caplog: pytest.LogCaptureFixture
) -> None:
    met, runs = threading.Barrier(2), {1: 0, 2: 0}

    def move(first: int, second: int) -> None:
        def work(connection: LakebaseConnection) -> None:
            runs[first] += 1
            # The server looks for a deadlock after a second; the lock timeout must not be faster.
            connection.execute("set local lock_timeout = '10s'")
            connection.execute("update accounts set n = n + 1 where id = %s", (first,))
            if runs[first] == 1:
                met.wait(10)
            connection.execute("update accounts set n = n + 10 where id = %s", (second,))

        client.run_transaction(work)

    with caplog.at_level(logging.WARNING):
        threads = [threading.Thread(target=move, args=pair) for pair in ((1, 2), (2, 1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert sorted(runs.values()) == [1, 2]
    assert "deadlock detected" in caplog.text
    assert total(client) == [(1, 11), (2, 11)]


def test_a_serialization_failure_runs_the_whole_transaction_again(client: LakebaseClient) -> None:
    seen: list[int] = []

    def work(connection: LakebaseConnection) -> None:
        connection.set_isolation_level(IsolationLevel.SERIALIZABLE)
        [(n,)] = connection.execute("select n from accounts where id = 1").fetchall()
        if not seen:
            with client.connection() as other:
                other.execute("update accounts set n = n + 5 where id = 1")
        seen.append(n)
        connection.execute("update accounts set n = %s where id = 1", (n + 1,))

    client.run_transaction(work)
    assert seen == [0, 5]
    assert total(client)[0] == (1, 6)


def test_the_pauses_grow_are_random_and_end() -> None:
    clock = FakeClock()

    def work() -> None:
        raise psycopg.errors.SerializationFailure("could not serialize access")

    with pytest.raises(TransactionConflictError, match="undone 4 times") as caught:
        again_on_conflict(work, attempts=4, clock=clock, rng=random.Random(1))  # noqa: S311 # jitter
    assert caught.value.retryable
    assert isinstance(caught.value.__cause__, psycopg.errors.SerializationFailure)
    slept = clock.slept
    assert len(slept) == 3
    assert all(0 < pause <= bound for pause, bound in zip(slept, (0.1, 0.2, 0.4), strict=True))


def test_nothing_else_is_run_again(client: LakebaseClient) -> None:
    runs: list[int] = []

    def work(connection: LakebaseConnection) -> None:
        runs.append(1)
        connection.execute("insert into accounts values (1, 0)")

    with pytest.raises(psycopg.errors.UniqueViolation):
        client.run_transaction(work)
    assert runs == [1]


def test_a_lock_timeout_names_who_holds_the_lock(lake: LocalLakebase, client: LakebaseClient) -> None:
    holder = LakebaseClient(lake.config(application_name="nightly.merge"))
    with holder, holder.connection() as held:
        held.execute("update accounts set n = 1 where id = 1")
        with pytest.raises(LockTimeoutError) as caught:
            client.run_transaction(lambda c: c.execute("update accounts set n = 2 where id = 1"))
        info = held.info
        who = f"pid {info.backend_pid} (nightly.merge, role {info.user}, idle in transaction, UPDATE"
    assert who in str(caught.value)
    assert isinstance(caught.value.__cause__, psycopg.errors.LockNotAvailable)
    assert caught.value.retryable


def test_a_transaction_that_idles_is_ended_and_told_of(client: LakebaseClient) -> None:
    def work(connection: LakebaseConnection) -> None:
        connection.execute("set idle_in_transaction_session_timeout = '100ms'")
        connection.execute("update accounts set n = 9 where id = 1")
        with client.connection() as observer:
            gone = "select not exists (select from pg_stat_activity where pid = %s)"
            while observer.execute(gone, (connection.info.backend_pid,)).fetchone() == (False,):
                observer.commit()
        connection.execute("select 1")

    with pytest.raises(IdleInTransactionError, match="idle-in-transaction timeout") as caught:
        client.run_transaction(work)
    assert "idle_in_transaction_session_timeout" in caught.value.remedy
    assert total(client)[0] == (1, 0)


def test_a_statement_that_ran_out_of_time_would_do_so_again(lake: LocalLakebase) -> None:
    with LakebaseClient(lake.config(statement_timeout=0.1)) as client:
        with pytest.raises(psycopg.errors.QueryCanceled) as caught:
            client.run_transaction(lambda connection: connection.execute("select pg_sleep(30)"))
        assert retry_helps(caught.value) is False
    assert retry_helps(psycopg.errors.DiskFull("could not extend file")) is False
