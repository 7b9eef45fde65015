"""A merge that is killed wherever it happens to be, and tried again: exactly once, each time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase

from .tables import run

#: Rows; the table has as many beforehand, and half of the keys are in it.
ROWS = int(os.environ.get("LAKEBASE_KILL_ROWS", "1000000"))
POINTS = 50

# Counting up is not idempotent: a merge that took place twice would show.
_LOAD = """
import sys, pyarrow as pa
from lakebase_provider.core import LakebaseClient, LakebaseConfig
rows, load_id = int(sys.argv[1]), sys.argv[2]
first = rows // 2
ids = pa.array(range(first, first + rows), pa.int64())
times = pa.repeat(pa.scalar(int(load_id), pa.int64()), rows)
with LakebaseClient(LakebaseConfig.from_env()) as client:
    print("begin", flush=True)
    result = client.load(pa.table([ids, times], names=["id", "times"]), "t", mode="merge", load_id=load_id)
print("skipped" if result.skipped else "done", flush=True)
"""


def attempt(load_id: str, kill_after: float | None) -> tuple[str, float]:
    """Load in a process of its own, killed that many seconds after it begins; the last word and the time."""
    process = subprocess.Popen(
        [sys.executable, "-c", _LOAD, str(ROWS), load_id], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == "begin\n"
        began = time.monotonic()
        if kill_after is not None:
            try:
                process.wait(kill_after)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        word = process.stdout.read().strip()
        return word, time.monotonic() - began


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_merge_killed_at_50_points_and_retried_takes_place_exactly_once(
    client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    run(client, "CREATE TABLE t (id bigint PRIMARY KEY, times bigint)")
    run(client, "CREATE TABLE changes (load bigint, n bigint)")
    # Each statement that changes rows is written down in its own transaction.
    run(client, "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO changes SELECT max(times), count(*) FROM new; RETURN NULL; END'")  # fmt: skip
    run(client, f"INSERT INTO t SELECT i, 0 FROM generate_series(0, {ROWS - 1}) i")
    for event in ("INSERT", "UPDATE"):
        run(client, f"CREATE TRIGGER on_{event} AFTER {event} ON t REFERENCING NEW TABLE AS new"
            " FOR EACH STATEMENT EXECUTE FUNCTION note()")  # fmt: skip
    word, whole = attempt("1", None)
    assert word == "done"
    chance, interrupted, outcomes = random.Random(20240501), 0, []  # noqa: S311 # no secret
    for load in range(2, POINTS + 2):
        word, _ = attempt(str(load), chance.uniform(0, whole * 0.9))
        interrupted += word == ""
        again, _ = attempt(str(load), None)
        assert again in {"done", "skipped"}
        expected = [(ROWS, ROWS // 2)]
        assert (
            run(client, f"SELECT count(*), count(*) FILTER (WHERE id >= {ROWS}) FROM t WHERE times = {load}")
            == expected
        )
        total = run(client, f"SELECT sum(n) FROM changes WHERE load = {load}")
        outcomes.append(total == [(ROWS,)])
    print(f"{sum(outcomes)} of {POINTS} exactly once; {interrupted} were killed on the way")
    assert outcomes == [True] * POINTS
    # Loads vary in length; but if few were under way when they were killed, nothing was shown.
    assert interrupted >= POINTS // 4
    run(client, "DROP FUNCTION note CASCADE")
