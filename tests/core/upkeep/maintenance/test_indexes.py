"""Indexes as they are declared: made, rebuilt and dropped beside writers."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import (
    ConfigError,
    LakebaseError,
    LockTimeoutError,
    StatementError,
    StatementTimeoutError,
)
from lakebase_provider.core.upkeep.maintenance import own_session
from lakebase_provider.core.upkeep.maintenance.structures.index_definition import index_of_partition
from tests.core.upkeep.maintenance.conftest import Database
from tests.core.upkeep.maintenance.test_tables import done, skipped
from tests.eventually import eventually

EVENTS = """
CREATE TABLE events (id bigint, day date, what text) PARTITION BY RANGE (day);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2027-01-01') TO ('2027-02-01');
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2027-02-01') TO ('2027-03-01')
    PARTITION BY HASH (id);
CREATE TABLE events_2_0 PARTITION OF events_2 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE events_2_1 PARTITION OF events_2 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO events SELECT n, date '2027-01-01' + n % 50, 'x' FROM generate_series(1, 200) n
"""


def test_an_index_is_made_as_it_is_declared_once(client: LakebaseClient, database: Database) -> None:
    create = client.maintenance.create_index
    assert done(create("orders", ["day", "id"], include=["total"])) == ["public.orders_day_id_idx"]
    again = create("orders", ["day", "id"], include=["total"])
    assert (done(again), skipped(again)) == ([], {"public.orders_day_id_idx": "it is there"})
    create(
        "orders", "day DESC, (total + 1)", name="odd", method="btree", where="total > 10 AND day IS NOT NULL"
    )
    assert skipped(
        create("orders", "day DESC, (total+1)", name="odd", where="total>10 and day is not null")
    ) == {"public.odd": "it is there"}
    with pytest.raises(ConfigError, match=r"There is an index public\.odd, and it is another one"):
        create("orders", ["day"], name="odd")
    with pytest.raises(ConfigError, match="it is another one"):
        create("orders", ["day", "id"], include=["total"], unique=True)


@pytest.mark.parametrize(
    ("on", "options", "message"),
    [
        ("lower(day", {"name": "x"}, "'on' is no expression of SQL"),
        ("day); DROP TABLE orders; --", {"name": "x"}, "'on' is no expression of SQL"),
        ("day) WHERE (true", {"name": "x"}, "'on' is no expression of SQL"),
        ("lower(day)", {}, "The index has no name"),
        ([], {}, "'on' names no column"),
        (["day"], {"include": "total"}, "'include' must be a list"),
        (["day"], {"where": "true;"}, "'where' is no expression of SQL"),
        (["day"], {"name": "x" * 64}, "64 bytes"),
    ],
)
def test_what_is_no_declaration_is_refused(
    client: LakebaseClient, on: object, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        client.maintenance.create_index("orders", on, **options)  # type: ignore[arg-type]


def test_one_that_a_failed_build_left_is_made_anew(client: LakebaseClient, database: Database) -> None:
    with pytest.raises(StatementError, match="orders_day_idx failed: could not create unique"):
        client.maintenance.create_index("orders", ["day"], unique=True)
    # What has failed here is removed at once; a killed process leaves it.
    assert database.left() == []
    with pytest.raises(Exception, match="could not create unique"):
        database.rows("CREATE UNIQUE INDEX CONCURRENTLY orders_day_idx ON orders (day)")
    assert database.left() == ["orders_day_idx"]
    report = client.maintenance.create_index("orders", ["day"])
    assert report.steps[0].did == "built; an earlier attempt had left it invalid"
    assert (database.left(), database.indexes("orders")) == ([], ["orders_day_idx", "orders_pkey"])


def test_a_build_that_is_late_says_for_whom_it_waited_and_leaves_nothing(
    client: LakebaseClient, database: Database
) -> None:
    with (
        database.holding("INSERT INTO orders VALUES (-1)") as pid,
        pytest.raises(StatementTimeoutError) as caught,
    ):
        client.maintenance.create_index("orders", ["day"], timeout=2)
    assert f"held by pid {pid} (" in caught.value.message
    client.maintenance.create_index("orders", ["day"])
    assert database.left() == []


def test_the_progress_of_a_build_is_logged(
    client: LakebaseClient,
    database: Database,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(own_session, "_EVERY", 0.05)
    caplog.set_level(logging.INFO, "lakebase_provider")
    with database.holding("INSERT INTO orders VALUES (-1)"), pytest.raises(StatementTimeoutError):
        client.maintenance.create_index("orders", ["day"], timeout=3)
    assert "Building public.orders_day_idx: waiting for writers before build, 0 of 1 sessions" in caplog.text


def test_a_session_that_is_lost_is_told_as_such(client: LakebaseClient, database: Database) -> None:
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONC%'"
    with database.holding("INSERT INTO orders VALUES (-1)"), ThreadPoolExecutor(1) as pool:
        building = pool.submit(client.maintenance.create_index, "orders", ["day"])
        eventually(database.waits)
        database.rows(ended)
        with pytest.raises(LakebaseError) as caught:
            building.result(30)
    assert caught.value.retryable
    assert database.left() == ["orders_day_idx"]
    client.maintenance.create_index("orders", ["day"])
    assert database.left() == []


def test_on_partitions_one_after_another(client: LakebaseClient, database: Database) -> None:
    database.rows(EVENTS)
    report = client.maintenance.create_index("events", ["what"])
    assert database.indexes("events") == ["events_what_idx"]
    leaf = index_of_partition("events_what_idx", "events_2_1")
    assert database.indexes("events_2_1") == [leaf]
    assert f"public.{leaf}" in done(report)
    assert database.left() == []
    assert done(client.maintenance.create_index("events", ["what"])) == []
    # It is the partitions' own, and goes with the table's.
    assert done(client.maintenance.drop_index("events_what_idx")) == ["public.events_what_idx"]
    assert database.indexes("events_2_1") == []


def test_what_partitions_have_already_is_attached(client: LakebaseClient, database: Database) -> None:
    database.rows(EVENTS)
    database.rows("CREATE INDEX own ON events_1 (what)")
    database.rows("CREATE INDEX events_what_idx ON ONLY events (what)")
    database.rows("CREATE INDEX other ON events_2_0 (id)")
    client.maintenance.create_index("events", ["what"])
    assert database.indexes("events_1") == ["own"]
    assert (database.indexes("events"), database.left()) == (["events_what_idx"], [])


def test_the_lock_of_a_partitioned_table_is_waited_for_in_short(
    client: LakebaseClient, database: Database
) -> None:
    database.rows(EVENTS)
    write = "INSERT INTO events VALUES (1, '2027-01-05')"
    with database.holding(write) as pid, pytest.raises(LockTimeoutError) as caught:
        client.maintenance.create_index("events", ["what"], lock_timeout=0.2, attempts=2)
    assert f"held by pid {pid} (" in caught.value.message


def test_a_table_that_nobody_may_read_is_waited_for_in_short(
    client: LakebaseClient, database: Database
) -> None:
    with database.holding("LOCK TABLE orders") as pid, pytest.raises(LockTimeoutError) as caught:
        client.maintenance.create_index("orders", ["day"], lock_timeout=0.2, attempts=2)
    assert caught.value.message.startswith("Declaring the index orders_day_idx on public.orders: ")
    assert f"held by pid {pid} (" in caught.value.message


def test_indexes_are_rebuilt_and_leftovers_dropped(client: LakebaseClient, database: Database) -> None:
    database.rows("CREATE INDEX orders_day ON orders (day)")
    with pytest.raises(Exception, match="could not create unique"):
        database.rows("CREATE UNIQUE INDEX CONCURRENTLY orders_pkey_ccnew ON orders (day)")
    report = client.maintenance.reindex("orders")
    assert done(report) == ["public.orders_pkey_ccnew", "public.orders_day", "public.orders_pkey"]
    assert (database.left(), database.indexes("orders")) == ([], ["orders_day", "orders_pkey"])
    assert done(client.maintenance.reindex(index="orders_day")) == ["public.orders_day"]
    database.rows(EVENTS)
    client.maintenance.create_index("events", ["id"])
    assert len(done(client.maintenance.reindex(index="events_id_idx"))) == 3
    with pytest.raises(ConfigError, match="Either 'table' or 'index'"):
        client.maintenance.reindex()
    with pytest.raises(ConfigError, match="There is no index nowhere"):
        client.maintenance.reindex(index="nowhere")


def test_one_that_is_invalid_becomes_valid(client: LakebaseClient, database: Database) -> None:
    with pytest.raises(Exception, match="could not create unique"):
        database.rows("CREATE UNIQUE INDEX CONCURRENTLY orders_day ON orders (day)")
    database.rows("DELETE FROM orders WHERE id > 5")
    report = client.maintenance.reindex("orders")
    assert "rebuilt: it was invalid" in [step.did for step in report.steps]
    assert database.left() == []


def test_an_index_is_dropped_if_it_is_there(client: LakebaseClient, database: Database) -> None:
    database.rows("CREATE INDEX orders_day ON orders (day)")
    assert done(client.maintenance.drop_index("orders_day")) == ["public.orders_day"]
    assert skipped(client.maintenance.drop_index("orders_day")) == {"orders_day": "it is not there"}
    with pytest.raises(ConfigError, match="belongs to a constraint"):
        client.maintenance.drop_index("orders_pkey")


def test_names_of_partitions_indexes_fit() -> None:
    assert index_of_partition("i", "t") == "t_i"
    long = index_of_partition("i" * 40, "ä" * 30)
    assert len(long.encode()) <= 63
    assert long != index_of_partition("j" * 40, "ä" * 30)
