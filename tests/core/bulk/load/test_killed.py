"""A merge that is killed wherever it happens to be, and tried again: exactly once, each time."""

from __future__ import annotations

import os
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pyarrow as pa
import pytest

from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.local import LocalLakebase
from tests.core.bulk.load.killed_process import attempt, processes_of_loads
from tests.core.bulk.sample_tables import run

#: Rows; the table has as many beforehand, and half of the keys are in it.
ROWS = int(os.environ.get("LAKEBASE_KILL_ROWS", "1000000"))
POINTS = 50

_processes = processes_of_loads(__name__)


def merge(outcome: Connection, ids: Path, load: int) -> None:
    """Merge the rows, in a process of its own; sends when it begins, and what it did."""
    with pa.memory_map(str(ids)) as file, LakebaseClient(LakebaseConfig.from_env()) as client:
        rows = pa.ipc.open_file(file).read_all()
        rows = rows.append_column("load", pa.repeat(pa.scalar(load, pa.int64()), ROWS))
        outcome.send("begins")
        result = client.load(rows, "t", mode="merge", load_id=str(load))
    outcome.send("skipped" if result.skipped else "done")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_merge_killed_at_50_points_and_retried_takes_place_exactly_once(
    client: LakebaseClient, lakebase_env: LocalLakebase, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = tmp_path / "ids.arrow"
    keys = pa.table({"id": pa.array(range(ROWS // 2, ROWS // 2 + ROWS), pa.int64())})
    with pa.OSFile(str(ids), "wb") as file, pa.ipc.new_file(file, keys.schema) as writer:
        writer.write_table(keys)
    run(client, "CREATE TABLE t (id bigint PRIMARY KEY, load bigint)")
    run(client, f"INSERT INTO t SELECT i, 0 FROM generate_series(0, {ROWS - 1}) i")
    # A merge that takes place again changes no row; but its statement is written down in its transaction.
    run(client, "CREATE TABLE merges (transaction xid8 PRIMARY KEY)")
    run(client, "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO merges"
        " VALUES (pg_current_xact_id()) ON CONFLICT DO NOTHING; RETURN NULL; END'")  # fmt: skip
    run(client, "CREATE TRIGGER notes AFTER INSERT OR UPDATE ON t FOR EACH STATEMENT EXECUTE FUNCTION note()")
    said, whole = attempt(_processes, merge, ids, 0)
    assert said == "done"
    chance, killed, exactly_once, began = random.Random(20240501), 0, 0, time.monotonic()  # noqa: S311 # no secret
    points = [(i + chance.random()) / POINTS for i in range(POINTS)]
    chance.shuffle(points)
    for load, point in enumerate(points, 1):
        run(client, f"DELETE FROM t WHERE id >= {ROWS}")
        run(client, "TRUNCATE merges")
        with client.connect(autocommit=True) as connection:
            connection.execute("VACUUM t")
        first, _ = attempt(_processes, merge, ids, load, kill_after=point * whole)
        again, seconds = attempt(_processes, merge, ids, load)
        # One that was killed after its commit is skipped, as one that was not killed in time.
        assert (first, again) in {("killed", "done"), ("killed", "skipped"), ("done", "skipped")}
        if again == "done":
            whole = seconds  # what else runs on the machine makes it vary
        killed += first == "killed"
        rows = run(
            client, f"SELECT count(*), count(*) FILTER (WHERE id >= {ROWS // 2} AND load = {load}) FROM t"
        )
        exactly_once += rows == [(ROWS + ROWS // 2, ROWS)] and run(client, "SELECT count(*) FROM merges") == [
            (1,)
        ]
        with capsys.disabled():
            print(f"\r{load} of {POINTS} points, {time.monotonic() - began:.0f} s ", end="", flush=True)
    with capsys.disabled():
        print(
            f"\nMerges of {ROWS:,} rows into {ROWS:,}: {exactly_once} of {POINTS} exactly once;"
            f" {killed} were killed while under way"
        )
    assert exactly_once == POINTS
    # Loads vary in length; but if few were under way when they were killed, nothing was shown.
    assert killed >= POINTS // 2
    run(client, "DROP FUNCTION note CASCADE")
