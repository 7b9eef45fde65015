"""What a load does to the transaction and the connection that it runs in, above all when it fails."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from functools import partial

import psycopg
import pytest
from psycopg.rows import dict_row

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.load.load import load
from lakebase_provider.core.bulk.load.result import Mode
from lakebase_provider.core.connect.cancel import (
    ASKED_TO_END,
    cancel_running_statements,
    forget_request_to_end,
    refuse_next_statement,
)
from lakebase_provider.core.errors import BadRowError, LoadError, LoadInterruptedError
from tests.core.bulk.sample_tables import run
from tests.eventually import eventually

IDLE = psycopg.pq.TransactionStatus.IDLE
MODES: tuple[Mode, ...] = ("append", "merge", "replace")


class SourceError(Exception):
    """Of a source of rows."""


def breaks(error: BaseException, after: int = 25_000) -> Iterator[tuple[int, str]]:
    """Rows, and an error once some of them have been sent."""
    for i in range(after):
        yield i, "text"
    raise error


@pytest.fixture(autouse=True)
def table(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id int PRIMARY KEY, v text CHECK (v <> 'bad'))")
    run(client, "INSERT INTO t VALUES (-1, 'old')")
    client.load([], "t", load_id="creates the ledger")


@pytest.mark.parametrize("mode", MODES)
def test_a_source_that_raises_writes_nothing_and_its_error_comes_through(
    client: LakebaseClient, mode: Mode
) -> None:
    with pytest.raises(SourceError):
        client.load(breaks(SourceError()), "t", mode=mode, load_id="x")
    assert run(client, "SELECT * FROM t") == [(-1, "old")]
    assert not client.load([(-1, "new")], "t", mode="merge", load_id="x").skipped


@pytest.mark.parametrize("mode", MODES)
def test_a_load_that_fails_leaves_what_the_transaction_did_before(client: LakebaseClient, mode: Mode) -> None:
    with client.connect() as connection:
        connection.execute("INSERT INTO t VALUES (-2, 'before')")
        for error in (SourceError(), BadRowError("from a source")):
            with pytest.raises(type(error)):
                load(connection, breaks(error), "t", mode=mode, load_id="x")
        with pytest.raises(BadRowError, match="t_v_check"):
            load(connection, [(1, "bad")], "t", mode=mode, load_id="x")
        connection.execute("INSERT INTO t VALUES (-3, 'after')")
        connection.commit()
    assert run(client, "SELECT id FROM t ORDER BY id") == [(-3,), (-2,), (-1,)]
    assert not client.load([(1, "v")], "t", mode=mode, load_id="x").skipped


def test_what_is_refused_without_an_error_of_the_server_does_not_enter_the_ledger(
    client: LakebaseClient,
) -> None:
    run(client, "CREATE TABLE loose (id int, v text)")
    with client.connect() as connection:
        # Both are found by a look at staged rows: the server has no reason to end the transaction.
        for source in ([(None, "a")], [{"v": "a"}]):
            with pytest.raises(LoadError):
                load(connection, source, "loose", mode="merge", keys=["id"], load_id="x")
            assert connection.info.transaction_status == IDLE
            connection.commit()
    assert run(client, "SELECT count(*) FROM loose") == [(0,)]
    assert not client.load([(1, "a")], "loose", load_id="x").skipped


@pytest.fixture
def keyboard() -> Iterator[None]:
    """Ctrl-C as a terminal has it: what runs in the background of a shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("keyboard")
@pytest.mark.parametrize("autocommit", [True, False])
def test_an_interrupt_from_the_keyboard_leaves_a_usable_connection(
    client: LakebaseClient, autocommit: bool
) -> None:
    def rows() -> Iterator[tuple[int, str]]:
        for i in range(40_000):
            if i == 30_000:
                signal.raise_signal(signal.SIGINT)
            yield i, "text"

    with client.connect(autocommit=autocommit) as connection:
        with pytest.raises(KeyboardInterrupt):
            load(connection, rows(), "t")
        assert connection.info.transaction_status == IDLE
        assert load(connection, [(1, "v")], "t").inserted == 1
        connection.commit()
    assert run(client, "SELECT id FROM t ORDER BY id") == [(-1,), (1,)]


#: How many sessions sleep.
SLEEPERS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"


@pytest.fixture
def slow(client: LakebaseClient) -> Iterator[None]:
    """The server takes a minute for each row."""
    run(client, "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(60); RETURN new; END'")  # fmt: skip
    run(client, "CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION slow()")
    yield
    run(client, "DROP FUNCTION slow CASCADE")


@pytest.mark.usefixtures("keyboard", "slow")
def test_an_interrupt_while_the_server_works_cancels_it(client: LakebaseClient) -> None:
    def interrupt() -> None:
        eventually(lambda: run(client, SLEEPERS) == [(1,)])
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    with client.connect() as connection:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            load(connection, [(1, "v")], "t")
        thread.join()
        assert connection.closed or connection.info.transaction_status == IDLE
    eventually(lambda: run(client, SLEEPERS) == [(0,)])
    assert run(client, "SELECT * FROM t") == [(-1, "old")]


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("asked", [False, True])
def test_a_load_that_is_cancelled_may_succeed_later(client: LakebaseClient, asked: bool) -> None:
    """Unlike one that runs out of its time."""

    def end() -> None:
        eventually(lambda: run(client, SLEEPERS) == [(1,)])
        if asked:
            refuse_next_statement()
            cancel_running_statements()
        else:
            run(client, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")

    thread = threading.Thread(target=end)
    thread.start()
    try:
        with pytest.raises(LoadInterruptedError) as caught:
            client.load([(1, "v")], "t")
    finally:
        thread.join()
        forget_request_to_end()
    assert caught.value.retryable
    assert (ASKED_TO_END in caught.value.message) == asked
    assert ("pg_cancel_backend" in caught.value.remedy) == (not asked)
    assert "statement_timeout" not in str(caught.value)
    assert run(client, "SELECT * FROM t") == [(-1, "old")]


def test_a_lock_that_another_session_holds_ends_at_lock_timeout(client: LakebaseClient) -> None:
    with client.connect() as other, client.connect() as connection:
        other.execute("LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE")
        for mode in MODES:
            connection.execute("SET LOCAL lock_timeout = '50ms'")
            with pytest.raises(LoadInterruptedError, match=r"(?s)lock timeout.*raise lock_timeout") as caught:
                load(connection, [(1, "v")], "t", mode=mode)
            assert caught.value.retryable


def test_statement_timeout_counts_the_whole_copy_its_client_included(client: LakebaseClient) -> None:
    with client.connect() as connection:
        connection.execute("SET LOCAL statement_timeout = '200ms'")
        late = ("SELECT clock_timestamp() - query_start > interval '0.4 s' FROM pg_stat_activity"
            f" WHERE pid = {connection.info.backend_pid}")  # fmt: skip

        def rows() -> Iterator[tuple[int, str]]:
            for i in range(60_000):
                if i == 30_000:
                    eventually(lambda: run(client, late) == [(True,)])
                yield i, "text"

        with pytest.raises(LoadError, match=r"(?s)statement timeout.*Raise statement_timeout") as caught:
            load(connection, rows(), "t")
        assert not caught.value.retryable
        connection.commit()
    assert run(client, "SELECT * FROM t") == [(-1, "old")]


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_constraint_that_is_checked_at_the_commit_says_so(client: LakebaseClient, autocommit: bool) -> None:
    run(client, "CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    with client.connect(autocommit=True) as connection:
        into = partial(load, connection) if autocommit else client.load
        with pytest.raises(BadRowError, match="late_id_key"):
            into([(1,), (1,)], "late", load_id="x")
    assert run(client, "SELECT count(*) FROM late") == [(0,)]


@pytest.mark.parametrize("mode", MODES)
def test_what_cursors_a_connection_makes_is_its_owners_affair(client: LakebaseClient, mode: Mode) -> None:
    rows = [{"id": 1, "v": "a"}, {"id": 2, "v": "b"}]
    with client.connect(row_factory=dict_row, cursor_factory=psycopg.RawCursor) as connection:
        for skipped in (False, True):
            result = load(
                connection, rows, "new", mode=mode, load_id="x", create=True, columns=["id", "v"], keys=["id"]
            )
            assert result.skipped is skipped
        with pytest.raises(BadRowError):
            load(connection, [("no number", "")], "t", mode=mode)
        assert connection.execute("SELECT * FROM new WHERE id > $1 ORDER BY id", [0]).fetchall() == rows
