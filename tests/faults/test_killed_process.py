"""A process that is killed leaves no backend on the server for longer than five seconds."""

from __future__ import annotations

import subprocess
import sys

import psycopg

from lakebase_provider.local import LocalLakebase
from tests.eventually import eventually


def test_the_backend_of_a_killed_process_is_gone_within_five_seconds(lake: LocalLakebase) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.long_query"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    with process, psycopg.connect(lake.superuser_dsn, autocommit=True) as observer:

        def alive() -> bool:
            query = "select 1 from pg_stat_activity where pid = %s and query like 'select pg_sleep%%'"
            return observer.execute(query, (pid,)).fetchone() is not None

        eventually(alive)
        process.kill()
        eventually(lambda: not alive(), within=5.0)
