"""The credential core beside what it replaces: `make bench-core`."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
from psycopg_pool import ConnectionPool

from benchmarks.harness import Bench
from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase

_CHECKOUTS = 5_000
_GETS = 200_000

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

        medians = bench.compare(
            "checkout + return",
            "us",
            {
                "lakebase-provider": microseconds_each(ours, _CHECKOUTS),
                "psycopg_pool, nothing added": microseconds_each(bare, _CHECKOUTS),
                "a new TLS connection": microseconds_each(new_connection, 20),
            },
        )
        ratio = medians["lakebase-provider"] / medians["psycopg_pool, nothing added"]
        bench.at_most("checkout + return: ours / psycopg_pool", ratio, 1.3)

        def get() -> None:
            client.tokens.get()

        medians = bench.compare(
            "TokenProvider.get(), cached", "us", {"lakebase-provider": microseconds_each(get, _GETS)}
        )
        bench.at_most("TokenProvider.get(), cached, microseconds", medians["lakebase-provider"], 1.0)

        medians = bench.compare(
            "fresh process to first row",
            "CPU s",
            {
                "lakebase-provider": cpu_seconds_of(_OURS, lake),
                "documented: SDK + psycopg_pool": cpu_seconds_of(_DOCUMENTED, lake),
            },
        )
        ratio = medians["lakebase-provider"] / medians["documented: SDK + psycopg_pool"]
        bench.at_most("fresh process to first row: ours / documented", ratio, 0.25)
    return bench.finish()


if __name__ == "__main__":
    sys.exit(main())
