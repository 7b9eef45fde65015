"""The credential core beside what it replaces: `make bench-core`."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
from psycopg_pool import ConnectionPool

from benchmarks.harness import Bench
from benchmarks.short_processes import requests_of_short_processes
from benchmarks.simulated_day import simulate_day
from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase

_CHECKOUTS = 5_000
_GETS = 200_000
_PROCESSES = 1_000

_OURS = """
from lakebase_provider.core import LakebaseClient, LakebaseConfig
with LakebaseClient(LakebaseConfig.from_env()) as client, client.connection() as connection:
    connection.execute("SELECT 1").fetchone()
"""

#: The way of the Lakebase documentation: a connection class that mints by databricks-sdk.
_DOCUMENTED = """
import os
import psycopg
from databricks.sdk import WorkspaceClient
from psycopg_pool import ConnectionPool

client = WorkspaceClient()

class OAuthConnection(psycopg.Connection):
    @classmethod
    def connect(cls, conninfo="", **kwargs):
        credential = client.postgres.generate_database_credential(endpoint=os.environ["ENDPOINT_NAME"])
        return super().connect(conninfo, password=credential.token, **kwargs)

with ConnectionPool(connection_class=OAuthConnection, min_size=1, max_size=10, open=True) as pool:
    with pool.connection() as connection:
        connection.execute("SELECT 1").fetchone()
"""


def microseconds_each(run: Callable[[], None], count: int) -> Callable[[], float]:
    """A contender that calls `run` many times and returns the time of one call."""

    def measure() -> float:
        start = time.perf_counter()
        for _ in range(count):
            run()
        return (time.perf_counter() - start) / count * 1e6

    return measure


def cpu_seconds_of(code: str, lake: LocalLakebase) -> Callable[[], float]:
    """A contender that runs code in a fresh process and returns its CPU seconds, user and system."""

    def measure() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], env={**os.environ, **lake.env()}, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return measure


@contextmanager
def bare_pool(client: LakebaseClient, lake: LocalLakebase) -> Iterator[ConnectionPool]:
    """psycopg's own pool with nothing added, on the same server."""
    env = lake.env()
    parameters = {
        "host": env["PGHOST"],
        "port": env["PGPORT"],
        "dbname": env["PGDATABASE"],
        "user": env["PGUSER"],
        "sslmode": "verify-full",
        "sslrootcert": env["PGSSLROOTCERT"],
        "password": client.tokens.get().reveal(),
    }
    with ConnectionPool[psycopg.Connection](kwargs=parameters, min_size=1, max_size=4, open=True) as pool:
        pool.wait()
        yield pool


def main() -> int:
    """Measure and print."""
    bench = Bench("core")
    with LocalLakebase() as lake, LakebaseClient(lake.config()) as client, bare_pool(client, lake) as pool:

        def ours() -> None:
            client.pool.putconn(client.pool.getconn())

        def bare() -> None:
            pool.putconn(pool.getconn())

        def new_connection() -> None:
            client.connect().close()

        figures = bench.compare(
            "checkout + return",
            "us",
            {
                "lakebase-provider": microseconds_each(ours, _CHECKOUTS),
                "psycopg_pool, nothing added": microseconds_each(bare, _CHECKOUTS),
                "a new TLS connection": microseconds_each(new_connection, 20),
            },
            rounds=15,
        )
        ratio = bench.ratio(figures, "lakebase-provider", "psycopg_pool, nothing added")
        bench.at_most("checkout + return: ours / psycopg_pool", ratio, 1.3)

        def get() -> None:
            client.tokens.get()

        figures = bench.compare(
            "TokenProvider.get(), cached", "us", {"lakebase-provider": microseconds_each(get, _GETS)}
        )
        bench.at_most(
            "TokenProvider.get(), cached, microseconds", statistics.median(figures["lakebase-provider"]), 1.0
        )

        figures = bench.compare(
            "fresh process to first row",
            "CPU s",
            {
                "lakebase-provider": cpu_seconds_of(_OURS, lake),
                "documented: SDK + psycopg_pool": cpu_seconds_of(_DOCUMENTED, lake),
            },
        )
        ratio = bench.ratio(figures, "lakebase-provider", "documented: SDK + psycopg_pool")
        bench.at_most("fresh process to first row: ours / documented", ratio, 0.25)
    with LocalLakebase() as lake:
        measure_short_processes(bench, lake)
    measure_a_day(bench)
    return bench.finish()


def measure_short_processes(bench: Bench, lake: LocalLakebase) -> None:
    """Mints and requests of a thousand processes, each way once: counts do not vary as times do."""
    ambient = {"client_id": None, "client_secret": None, "token": lake.pat, "user": "developer@example.com"}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        for name, settings in (
            ("service principal", {}),
            ("service principal, shared store", {"credential_store": "shared"}),
            ("workspace token", ambient),
        ):
            mints, requests = found[name] = requests_of_short_processes(lake, _PROCESSES, **settings)
            bench.record(f"{_PROCESSES} short processes: mints", name, mints, "mints")
            bench.record(f"{_PROCESSES} short processes: requests", name, requests, "requests")
    bench.at_most("1,000 processes, shared store: mints", found["service principal, shared store"][0], 2)
    bench.at_most(
        "one process, workspace token, host and user given: requests",
        found["workspace token"][1] / _PROCESSES,
        1,
    )


def measure_a_day(bench: Bench) -> None:
    """24 hours of a pool of 10 connections on a clock that is turned by hand, with five seeds."""
    days = [simulate_day(seed=seed) for seed in range(5)]
    for seed, day in enumerate(days):
        bench.record("24 h of 10 connections: mints", f"seed {seed}, {day.logins} logins", day.mints, "mints")
    bench.at_most("24 h of 10 connections: mints, most of 5 seeds", max(day.mints for day in days), 31)
    bench.at_least("24 h: seconds of life of the oldest token at login", min(d.least_left for d in days), 60)


if __name__ == "__main__":
    sys.exit(main())
