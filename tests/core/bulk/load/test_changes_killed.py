"""A load of changes that is killed wherever it happens to be, and run again: each version once."""

from __future__ import annotations

import random
from multiprocessing.connection import Connection
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakebase_provider.core import Delta, LakebaseClient, LakebaseConfig
from lakebase_provider.local import LocalLakebase
from tests.core.bulk.load.killed_process import attempt, processes_of_loads
from tests.core.bulk.sample_tables import run

VERSIONS = 12
#: Rows at first, and how many each version changes.
ROWS, CHANGED = 20_000, 2_000

_processes = processes_of_loads(__name__, "deltalake")


def load(outcome: Connection, lake: Path) -> None:
    """Load the changes, in a process of its own; sends when it begins, and what it did."""
    with LakebaseClient(LakebaseConfig.from_env()) as client:
        client.tokens.get(timeout=30)
        outcome.send("begins")
        result = client.load(f"delta:{lake}", "t", mode="merge", keys=["id"], since="ledger")
    outcome.send("skipped" if result.skipped else "done")


def table_of(ids: list[int], value: int) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "v": pa.array([value] * len(ids), pa.int64())})


def change(lake: Path, chance: random.Random, version: int) -> None:
    """A version with updated and new rows, or one with deletions, or one with changed keys."""
    keys = snapshot(lake)["id"].to_pylist()
    some = chance.sample(keys, CHANGED)
    table = DeltaTable(lake)
    if version % 3 == 1:
        new = list(range(ROWS * (version + 1), ROWS * (version + 1) + CHANGED // 2))
        merging = table.merge(
            table_of(some + new, version), "t.id = s.id", source_alias="s", target_alias="t"
        )
        merging.when_matched_update_all().when_not_matched_insert_all().execute()
    elif version % 3 == 2:
        table.delete(f"id % 17 = {version}")
    else:
        table.update(
            updates={"id": f"id + {ROWS * 100 * version}", "v": str(version)}, predicate="id % 13 = 1"
        )


def snapshot(lake: Path) -> pa.Table:
    return pa.RecordBatchReader.from_stream(DeltaTable(lake).scan()).read_all().sort_by("id")


def killed_at(client: LakebaseClient, lake: Path, points: int) -> tuple[int, int]:
    """How often the rows were Delta's own after a kill and another run, and how often it was under way."""
    feed = {"delta.enableChangeDataFeed": "true"}
    write_deltalake(lake, table_of(list(range(ROWS)), 0), configuration=feed)
    chance = random.Random(20270131)  # noqa: S311 # no secret
    for version in range(1, VERSIONS + 1):
        change(lake, chance, version)
    assert DeltaTable(lake).version() == VERSIONS
    expected = snapshot(lake).select(["id", "v"])

    def begin_anew() -> None:
        run(client, "DROP TABLE IF EXISTS t, lakebase_load")
        run(client, "CREATE TABLE t (id bigint PRIMARY KEY, v bigint)")
        client.load(Delta(lake, version=0), "t", mode="merge", keys=["id"], since="ledger")

    begin_anew()
    said, whole = attempt(_processes, load, lake)
    assert said == "done"
    moments = [(number + chance.random()) / points for number in range(points)]
    chance.shuffle(moments)
    right = killed = 0
    for moment in moments:
        begin_anew()
        first, _ = attempt(_processes, load, lake, kill_after=moment * whole)
        again, seconds = attempt(_processes, load, lake)
        # One that was killed after its commit is skipped, as one that was not killed in time.
        assert (first, again) in {("killed", "done"), ("killed", "skipped"), ("done", "skipped")}
        if again == "done":
            whole = seconds  # what else runs on the machine makes it vary
        killed += first == "killed"
        right += client.fetch_arrow("SELECT id, v FROM t ORDER BY id").equals(expected)
    return right, killed


def test_a_few_kills(client: LakebaseClient, lakebase_env: LocalLakebase, tmp_path: Path) -> None:
    right, killed = killed_at(client, tmp_path / "lake", 4)
    assert right == 4
    assert killed


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_changes_killed_at_40_points_and_loaded_again_take_place_once(
    client: LakebaseClient, lakebase_env: LocalLakebase, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right, killed = killed_at(client, tmp_path / "lake", 40)
    with capsys.disabled():
        print(f"\nChanges of a Delta table: {right} of 40 as Delta's own; {killed} killed while under way")
    assert right == 40
    assert killed >= 20
