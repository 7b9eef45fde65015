"""A task that was given up on, but lives, and its retry."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.load.commit import load_and_commit
from lakebase_provider.local import LocalLakebase
from tests.core.fake_clock import FakeClock

from .conftest import timed


@pytest.mark.parametrize("mode", ["append", "merge"])
def test_the_retry_ends_the_zombie_and_the_rows_are_there_once(lake: LocalLakebase, mode: str) -> None:
    with LakebaseClient(lake.config()) as client:
        with client.connection() as connection:
            connection.execute("DROP TABLE IF EXISTS t, lakebase_load")
            connection.execute("CREATE TABLE t (id int PRIMARY KEY)")
        zombie = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.stopped_load", mode], stdout=subprocess.PIPE, text=True
        )
        assert zombie.stdout is not None
        try:
            assert zombie.stdout.readline() == "stopping\n"
            with timed(20):
                # Its clock passes the seconds for which a silent client is waited for.
                result = load_and_commit(
                    client.connection,
                    [(i,) for i in range(40_000)],
                    "t",
                    clock=FakeClock(),
                    mode=mode,  # type: ignore[typeddict-item] # one of the parameters above
                    load_id="day/1",
                )
            assert (result.skipped, result.inserted) == (False, 40_000)
            zombie.send_signal(signal.SIGCONT)
            assert zombie.communicate(timeout=30)[0] == "interrupted True\n"
        finally:
            zombie.kill()
            zombie.wait()
            zombie.stdout.close()
        with client.connection() as connection:
            assert connection.execute("SELECT count(*) FROM t").fetchone() == (40_000,)
