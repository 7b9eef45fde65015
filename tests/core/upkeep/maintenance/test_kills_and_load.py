"""Maintenance that is killed anywhere leaves nothing after the next run; and nobody waits for it for long."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import LockTimeoutError
from lakebase_provider.local import LocalLakebase
from tests.core.upkeep.leases import run_until
from tests.core.upkeep.maintenance.conftest import Database
from tests.core.upkeep.maintenance.killed_work import AT, PHASES, all_of_it, work
from tests.eventually import BUSY
from tests.forkserver import Processes

_processes = Processes(__name__, "lakebase_provider.core.client")

SETUP = """
CREATE TABLE events (id bigint, at date, what text) PARTITION BY RANGE (at);
CREATE TABLE events_p2027_01 PARTITION OF events FOR VALUES FROM ('2027-01-01') TO ('2027-02-01');
CREATE TABLE events_p2027_02 PARTITION OF events FOR VALUES FROM ('2027-02-01') TO ('2027-03-01');
CREATE TABLE events_p2027_03 PARTITION OF events FOR VALUES FROM ('2027-03-01') TO ('2027-04-01');
INSERT INTO events SELECT n, date '2027-01-01' + n % 80, n FROM generate_series(1, 20000) n;
CREATE MATERIALIZED VIEW days AS SELECT day, sum(total) FROM orders GROUP BY day;
CREATE UNIQUE INDEX days_day ON days (day)
"""
CLEAR = "DROP TABLE IF EXISTS events; DROP MATERIALIZED VIEW IF EXISTS days"
JANUARY = "SELECT count(*) FROM generate_series(1, 20000) n WHERE n % 80 < 31"


def set_up(database: Database, folder: Path) -> None:
    for file in folder.glob("*.parquet"):
        file.unlink()
    database.rows(CLEAR)
    database.rows(SETUP)


def require_all_done(database: Database, folder: Path) -> None:
    assert database.left() == []
    assert database.partitions("events") == ["events_p2027_03", "events_p2027_04"]
    assert database.indexes("events_p2027_03") == ["events_p2027_03_events_what_idx"]
    assert database.indexes("events") == ["events_what_idx"]
    assert database.indexes("orders") == ["orders_pkey"]
    [[rows]] = database.rows(JANUARY)
    assert pq.read_table(folder / "events_p2027_01.parquet").num_rows == rows
    assert sorted(path.name for path in folder.iterdir()) == [
        "events_p2027_01.parquet",
        "events_p2027_02.parquet",
    ]


@pytest.mark.parametrize(
    "moments", [6, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_what_is_killed_leaves_nothing_after_the_next_run(
    client: LakebaseClient, database: Database, lakebase_env: LocalLakebase, tmp_path: Path, moments: int
) -> None:
    arguments = [lakebase_env.env(), str(tmp_path)]
    set_up(database, tmp_path)
    seconds = run_until(_processes, work, arguments, PHASES)
    require_all_done(database, tmp_path)
    chance = random.Random(20270131)  # noqa: S311 # no secret
    for moment in range(moments):
        phase = PHASES[moment % len(PHASES)]
        set_up(database, tmp_path)
        run_until(_processes, work, arguments, PHASES, (phase, seconds[phase] * chance.random()))
        all_of_it(client, str(tmp_path))
        require_all_done(database, tmp_path)


class Writer:
    """Writes all the time, each row a transaction, and notes the longest wait."""

    def __init__(self, client: LakebaseClient) -> None:
        self._client = client
        self._ends = threading.Event()
        self.longest, self.rows = 0.0, 0

    def write(self) -> None:
        with self._client.connect(autocommit=True) as connection:
            while not self._ends.is_set():
                began = time.monotonic()
                number = 1_000_000 + self.rows
                connection.execute("INSERT INTO orders VALUES (%s, '2027-01-01', 1)", (number,))
                connection.execute("UPDATE orders SET total = total + 1 WHERE id = %s", (number,))
                connection.execute("INSERT INTO events VALUES (%s, '2027-03-05', 'w')", (number,))
                self.longest, self.rows = max(self.longest, time.monotonic() - began), self.rows + 1

    @contextmanager
    def at_work(self) -> Iterator[None]:
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(self.write)
            try:
                yield
            finally:
                self._ends.set()
            writing.result()


def test_no_writer_waits_for_longer_than_the_lock_timeout(
    client: LakebaseClient, database: Database, tmp_path: Path
) -> None:
    set_up(database, tmp_path)
    writer = Writer(client)
    with writer.at_work():
        # Somebody reads for long: what has to be locked queues behind it, and the writer behind that.
        with database.holding("SELECT count(*) FROM events"):
            began = time.monotonic()
            with pytest.raises(LockTimeoutError, match=r"The lock was not acquired within 0\.5 s"):
                client.maintenance.partitions(
                    "events", every="month", keep=0, lock_timeout=0.5, attempts=2, premake=1, at=AT
                )
            assert time.monotonic() - began > 0.5
        all_of_it(client, str(tmp_path))
        client.maintenance.vacuum(["orders", "events"])
        client.maintenance.repair_sequences()
    require_all_done(database, tmp_path)
    assert writer.rows > 10
    assert writer.longest < 0.5 + BUSY


def test_a_writer_that_queues_behind_maintenance_goes_on_after_the_lock_timeout(
    client: LakebaseClient, database: Database, tmp_path: Path
) -> None:
    """Beside a default partition a detachment locks the table, and who writes queues behind it."""
    set_up(database, tmp_path)
    database.rows("CREATE TABLE events_rest PARTITION OF events DEFAULT")
    writer = Writer(client)
    with database.holding("SELECT count(*) FROM events"), writer.at_work():
        began = time.monotonic()
        # Longer than the machine may hold up a writer that waits for nothing.
        while time.monotonic() - began < 0.5 + BUSY + 1:
            with pytest.raises(LockTimeoutError, match=r"Detaching public\.events_p2027_01"):
                client.maintenance.partitions(
                    "events", every="month", keep=0, lock_timeout=0.5, attempts=1, premake=0, at=AT
                )
    assert writer.rows > 10
    assert writer.longest < 0.5 + BUSY
