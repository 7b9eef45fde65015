"""The acknowledgement of COMMIT is lost, or the COMMIT itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.errors import CommitUnknownError, LoadInterruptedError
from lakebase_provider.local import FaultProxy, LocalLakebase
from lakebase_provider.local.network.fault_proxy import Direction


@pytest.fixture
def table(lake: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lake.config()) as direct:
        with direct.connection() as connection:
            connection.execute("DROP TABLE IF EXISTS t, lakebase_load")
            connection.execute("CREATE TABLE t (id int)")
        # The ledger is there, so that the first COMMIT to come is that of a load.
        direct.load([], "t", load_id="the first")
        yield direct


def rows_of(client: LakebaseClient) -> int:
    with client.connection() as connection:
        row = connection.execute("SELECT count(*) FROM t").fetchone()
    assert row is not None
    return int(row[0])


def before_commit(monkeypatch: pytest.MonkeyPatch, fault: object) -> None:
    """Let the link fail at the moment in which the first COMMIT is about to be sent."""
    commit, faults = LakebaseConnection.commit, [fault]

    def commit_with_fault(connection: LakebaseConnection) -> None:
        if faults:
            faults.pop()()  # type: ignore[operator] # a function
        commit(connection)

    monkeypatch.setattr(LakebaseConnection, "commit", commit_with_fault)


@pytest.mark.parametrize("load_id", ["day/1", None])
def test_a_lost_acknowledgement_is_asked_for_and_not_loaded_again(
    lake: LocalLakebase,
    proxy: FaultProxy,
    table: LakebaseClient,
    load_id: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with LakebaseClient(lake.config(port=proxy.port)) as client:
        before_commit(monkeypatch, lambda: proxy.cut_after(0, direction="to_client"))
        with caplog.at_level(logging.WARNING, "lakebase_provider"):
            result = client.load([(1,), (2,)], "t", load_id=load_id, lsn=True)
        assert proxy.counters.cuts == 1
        assert result.lsn is not None
        assert "lost while committing" in caplog.text
        assert (result.skipped, result.inserted) == (False, 2)
        assert rows_of(table) == 2
        if load_id is not None:
            assert client.load([(1,), (2,)], "t", load_id=load_id).skipped
            assert rows_of(table) == 2


def test_a_position_that_nobody_told_fails_no_load_that_took_place(
    lake: LocalLakebase,
    proxy: FaultProxy,
    table: LakebaseClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    commit = LakebaseConnection.commit

    def commit_and_lose(connection: LakebaseConnection) -> None:
        commit(connection)
        monkeypatch.setattr(LakebaseConnection, "commit", commit)
        proxy.cut_after(0)

    with LakebaseClient(lake.config(port=proxy.port)) as client:
        monkeypatch.setattr(LakebaseConnection, "commit", commit_and_lose)
        with caplog.at_level(logging.WARNING, "lakebase_provider"):
            result = client.load([(1,), (2,)], "t", lsn=True)
        assert (result.inserted, result.lsn) == (2, None)
        assert proxy.counters.cuts == 1
        assert "did not tell the position" in caplog.text
    assert rows_of(table) == 2


@pytest.mark.parametrize("load_id", ["day/1", None])
def test_a_commit_that_never_arrived_is_a_load_to_do_again(
    lake: LocalLakebase,
    proxy: FaultProxy,
    table: LakebaseClient,
    load_id: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with LakebaseClient(lake.config(port=proxy.port)) as client:
        before_commit(monkeypatch, lambda: proxy.cut_after(0, direction="to_server"))
        with pytest.raises(LoadInterruptedError, match="did not take place") as caught:
            client.load([(1,), (2,)], "t", load_id=load_id)
        assert caught.value.retryable
        assert rows_of(table) == 0
        assert client.load([(1,), (2,)], "t", load_id=load_id).inserted == 2
        assert rows_of(table) == 2


def test_a_loss_that_libpq_has_not_noticed_is_one(
    table: LakebaseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the link is cut between two messages: for libpq the session is open, and busy."""
    commit, losses = LakebaseConnection.commit, [psycopg.OperationalError("SSL error: unexpected eof")]

    def commit_or_lose(connection: LakebaseConnection) -> None:
        if losses:
            connection.pgconn.send_query(b"SELECT 1")
            raise losses.pop()
        commit(connection)

    monkeypatch.setattr(LakebaseConnection, "commit", commit_or_lose)
    with pytest.raises(LoadInterruptedError, match="did not take place"):
        table.load([(1,), (2,)], "t", load_id="day/1")
    assert table.load([(1,), (2,)], "t", load_id="day/1").inserted == 2
    assert rows_of(table) == 2


@pytest.mark.parametrize(("arrives", "cut"), [(True, "to_client"), (False, "to_server")])
def test_the_changes_of_a_delta_table_are_loaded_once(
    lake: LocalLakebase,
    proxy: FaultProxy,
    table: LakebaseClient,
    arrives: bool,
    cut: Direction,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    options: Any = {"mode": "merge", "keys": ["id"], "since": "ledger"}
    feed = {"delta.enableChangeDataFeed": "true"}
    write_deltalake(tmp_path / "lake", pa.table({"id": [1]}), configuration=feed)
    table.load(f"delta:{tmp_path / 'lake'}", "t", **options)
    write_deltalake(tmp_path / "lake", pa.table({"id": [2]}), mode="append")
    with LakebaseClient(lake.config(port=proxy.port)) as client:
        before_commit(monkeypatch, lambda: proxy.cut_after(0, direction=cut))
        if arrives:
            assert client.load(f"delta:{tmp_path / 'lake'}", "t", **options).inserted == 1
        else:
            with pytest.raises(LoadInterruptedError, match="did not take place"):
                client.load(f"delta:{tmp_path / 'lake'}", "t", **options)
        assert rows_of(table) == (2 if arrives else 1)
        assert client.load(f"delta:{tmp_path / 'lake'}", "t", **options).skipped is arrives
        assert rows_of(table) == 2


@pytest.mark.parametrize("forced_by", ["run", None])
@pytest.mark.parametrize(("arrives", "cut"), [(True, "to_client"), (False, "to_server")])
def test_the_entry_of_an_earlier_load_does_not_answer_for_a_forced_one(
    lake: LocalLakebase,
    proxy: FaultProxy,
    table: LakebaseClient,
    forced_by: str | None,
    arrives: bool,
    cut: Direction,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options: Any = {"load_id": "day/1", "force": True, "forced_by": forced_by}
    table.load([(1,), (2,)], "t", load_id="day/1")
    with LakebaseClient(lake.config(port=proxy.port)) as client:
        before_commit(monkeypatch, lambda: proxy.cut_after(0, direction=cut))
        if arrives:
            assert client.load([(3,)], "t", **options).inserted == 1
        else:
            with pytest.raises(LoadInterruptedError, match="did not take place"):
                client.load([(3,)], "t", **options)
        assert rows_of(table) == (3 if arrives else 2)


@pytest.mark.parametrize(
    ("options", "retryable"),
    [({"force": True}, False), ({"force": True, "forced_by": "run"}, True)],
)
def test_a_forced_load_bears_repetition_where_it_says_who_forces_it(
    lake: LocalLakebase,
    proxy: FaultProxy,
    table: LakebaseClient,
    options: Any,
    retryable: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cut_for_good() -> None:
        proxy.cut_after(0, direction="to_client")
        proxy.refuse()

    with LakebaseClient(lake.config(port=proxy.port, connect_budget=4.0)) as client:
        client.tokens.get(timeout=30)
        before_commit(monkeypatch, cut_for_good)
        with pytest.raises(CommitUnknownError) as caught:
            client.load([(1,)], "t", load_id="day/1", **options)
        assert caught.value.retryable is retryable
        assert ("forced_by" in caught.value.remedy) is not retryable
        proxy.heal()


@pytest.mark.parametrize(("load_id", "retryable"), [("day/1", True), (None, False)])
def test_where_nobody_answers_the_outcome_is_unknown(
    lake: LocalLakebase,
    proxy: FaultProxy,
    table: LakebaseClient,
    load_id: str | None,
    retryable: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    rows, rejects = [(1,), ("x",), (2,)], tmp_path / "rejects.jsonl"

    def cut_for_good() -> None:
        proxy.cut_after(0, direction="to_client")
        proxy.refuse()

    with LakebaseClient(lake.config(port=proxy.port, connect_budget=4.0)) as client:
        client.tokens.get(timeout=30)
        before_commit(monkeypatch, cut_for_good)
        with pytest.raises(CommitUnknownError) as caught:
            client.load(rows, "t", load_id=load_id, on_error="reject", reject_to=rejects)
        # Only a load that has an id can be repeated without a look at the table.
        assert caught.value.retryable is retryable
        proxy.heal()
        if load_id is not None:
            assert client.load([(1,), (2,)], "t", load_id=load_id).skipped
    assert rows_of(table) == 2
    # A load that is skipped the next time cannot tell of them again.
    assert list(tmp_path.iterdir()) == [rejects]
