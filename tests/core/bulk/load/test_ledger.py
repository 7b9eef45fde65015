from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.load import ledger
from lakebase_provider.core.bulk.load.commit import load_and_commit
from lakebase_provider.core.bulk.load.load import load
from lakebase_provider.core.errors import ConfigError, LoadError, LoadInterruptedError
from lakebase_provider.local import LocalLakebase
from tests.core.bulk.sample_tables import counts, run
from tests.core.fake_clock import FakeClock
from tests.eventually import eventually


@pytest.fixture(autouse=True)
def table(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int)")


@pytest.fixture
def with_ledger(client: LakebaseClient) -> None:
    client.load([], "t", load_id="the first")


def test_a_second_load_of_an_id_is_skipped_and_says_so(
    client: LakebaseClient, caplog: pytest.LogCaptureFixture
) -> None:
    first = client.load([(1,), (2,)], "t", load_id="day/1")
    with caplog.at_level(logging.INFO, "lakebase_provider"):
        second = client.load([(3,)], "t", load_id="day/1")
    assert (first.skipped, second.skipped) == (False, True)
    assert (second.rows, counts(second)) == (2, counts(first))
    assert "Skipped: load_id 'day/1' of public.t was loaded at 20" in caplog.text
    assert run(client, "SELECT count(*) FROM t") == [(2,)]
    assert run(client, "SELECT table_name, load_id, mode, rows FROM lakebase_load") == [
        ("public.t", "day/1", "append", 2)
    ]


def test_an_id_is_the_tables_own(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE other (id int)")
    assert not client.load([(1,)], "t", load_id="x").skipped
    assert not client.load([(1,)], "other", load_id="x").skipped
    assert client.load([(1,)], "public.t", load_id="x").skipped


def test_a_load_that_failed_is_not_in_the_ledger(client: LakebaseClient) -> None:
    with pytest.raises(LoadError):
        client.load([("no number",)], "t", load_id="x")
    assert not client.load([(1,)], "t", load_id="x").skipped


def test_a_dropped_table_is_not_created_anew_by_a_load_that_is_skipped(client: LakebaseClient) -> None:
    client.load([{"id": 1}], "made", create=True, load_id="x")
    run(client, "DROP TABLE made")
    assert client.load([{"id": 1}], "made", create=True, load_id="x").skipped
    assert run(client, "SELECT to_regclass('made')") == [(None,)]


def test_the_ledger_lies_where_it_is_told_to(client: LakebaseClient) -> None:
    run(client, 'CREATE SCHEMA "the ledger"')
    client.load([(1,)], "t", load_id="x", ledger_schema="the ledger")
    assert run(client, 'SELECT count(*) FROM "the ledger".lakebase_load') == [(1,)]
    assert run(client, "SELECT to_regclass('public.lakebase_load')") == [(None,)]


def test_the_position_of_the_log_is_told_after_the_commit(client: LakebaseClient) -> None:
    assert client.load([(1,)], "t", load_id="x").lsn is None
    before = run(client, "SELECT pg_current_wal_lsn()::text")[0][0]
    result = client.load([(2,)], "t", load_id="y", lsn=True)
    again = client.load([(2,)], "t", load_id="y", lsn=True)
    assert again.skipped
    order = f"SELECT '{before}'::pg_lsn < '{result.lsn}' AND '{result.lsn}'::pg_lsn <= '{again.lsn}'"
    assert run(client, order) == [(True,)]


def test_a_load_that_somebody_else_commits_has_no_position(client: LakebaseClient) -> None:
    with client.connection() as connection, pytest.raises(ConfigError, match="commits itself"):
        load(connection, [(1,)], "t", lsn=True)
    with pytest.raises(ConfigError, match="lsn"):
        client.load([(1,)], "t", lsn="false")  # type: ignore[typeddict-item]
    assert run(client, "SELECT count(*) FROM t") == [(0,)]


def test_a_forced_load_takes_the_place_of_the_earlier_one(client: LakebaseClient) -> None:
    client.load([(1,)], "t", load_id="x")
    assert client.load([(2,), (3,)], "t", load_id="x", force=True).inserted == 2
    assert client.load([(4,)], "t", load_id="x", force=True).inserted == 1
    assert client.load([(5,)], "t", load_id="x").rows == 1
    assert run(client, "SELECT load_id, rows FROM lakebase_load") == [("x", 1)]
    assert run(client, "SELECT count(*) FROM t") == [(4,)]


def test_a_forced_load_takes_place_once_for_each_who_forces_it(client: LakebaseClient) -> None:
    for who, skipped in (("run 1", False), ("run 1", True), ("run 2", False)):
        result = client.load([(1,)], "t", load_id="x", force=True, forced_by=who)
        assert (result.skipped, result.load_id, result.rows) == (skipped, "x", 1)
    assert client.load([(1,)], "t", load_id="x").skipped
    assert run(client, "SELECT count(*) FROM t") == [(2,)]


def test_a_forced_load_that_fails_leaves_the_earlier_entry(client: LakebaseClient) -> None:
    client.load([(1,), (2,)], "t", load_id="x")
    with pytest.raises(LoadError):
        client.load([("no number",)], "t", load_id="x", force=True, forced_by="run")
    assert run(client, "SELECT load_id, rows FROM lakebase_load") == [("x", 2)]
    assert not client.load([(1,)], "t", load_id="x", force=True, forced_by="run").skipped


@pytest.mark.parametrize("options", [{"force": "false"}, {"force": 1}, {"forced_by": ""}])
def test_what_forces_nothing_is_refused(client: LakebaseClient, options: Any) -> None:
    with pytest.raises(ConfigError, match="force"):
        client.load([(1,)], "t", load_id="x", **options)


@pytest.mark.parametrize("load_id", ["", "a\0b", 3])
def test_what_is_no_id_is_refused(client: LakebaseClient, load_id: Any) -> None:
    with pytest.raises(ConfigError, match="load_id"):
        client.load([(1,)], "t", load_id=load_id)


def test_of_many_who_load_the_same_at_once_one_does(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    results: list[Any] = []
    barrier = threading.Barrier(4)

    def attempt() -> None:
        with LakebaseClient(lakebase_env.config()) as own:
            barrier.wait()
            # The ledger does not exist yet: they create it at once, too.
            results.append(own.load([(1,), (2,)], "t", load_id="x"))

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(result.skipped for result in results) == [False, True, True, True]
    assert run(client, "SELECT count(*) FROM t") == [(2,)]


@pytest.mark.usefixtures("with_ledger")
def test_a_second_load_goes_ahead_when_the_first_one_fails(client: LakebaseClient) -> None:
    results: list[Any] = []
    with client.connect() as first:
        load(first, [(1,)], "t", load_id="x")
        thread = threading.Thread(target=lambda: results.append(client.load([(7,)], "t", load_id="x")))
        thread.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%pg_try_advisory_xact_lock%%'"
        eventually(lambda: run(client, waits)[0][0] >= 1)
        first.rollback()
        thread.join(20)
    assert not results[0].skipped
    assert run(client, "SELECT id FROM t") == [(7,)]


@pytest.mark.usefixtures("with_ledger")
def test_a_load_whose_client_is_silent_is_ended(
    client: LakebaseClient, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    with client.connect() as zombie, caplog.at_level(logging.WARNING, "lakebase_provider"):
        load(zombie, [(1,)], "t", load_id="x")
        result = load_and_commit(client.connection, [(7,)], "t", clock=clock, load_id="x")
        assert not result.skipped
        assert f"heard nothing from its client for {ledger.STALLED_AFTER:.0f} s" in caplog.text
        with pytest.raises(Exception, match="terminating connection"):
            zombie.commit()
    assert run(client, "SELECT id FROM t") == [(7,)]


@pytest.mark.usefixtures("with_ledger")
def test_a_load_that_goes_on_is_not_ended_and_lock_timeout_bounds_the_wait(client: LakebaseClient) -> None:
    started, go_on = threading.Event(), threading.Event()
    clock = FakeClock()

    def rows() -> Iterator[tuple[int]]:
        yield (1,)
        started.set()
        go_on.wait(30)
        yield (2,)

    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(client.load(rows(), "t", load_id="x")))
    thread.start()
    started.wait(10)
    with client.connection() as connection:
        connection.execute("SET lock_timeout = '3s'")
        with pytest.raises(LoadInterruptedError, match=r"still under way after 3 s \(lock_timeout\)"):
            load(connection, [(7,)], "t", load_id="x", clock=clock)
        connection.rollback()
    go_on.set()
    thread.join(20)
    assert counts(results[0]) == (2, 0, 0, 0)
