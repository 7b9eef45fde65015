"""The hook beside Airflow's PostgresHook, on one server in one run: `make bench-airflow`."""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Bench
from lakebase_provider.local import FaultProxy, LocalLakebase

if TYPE_CHECKING:
    from lakebase_provider.hooks.lakebase import LakebaseHook

_HOME = tempfile.mkdtemp(prefix="lakebase-bench-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
# Airflow reads its configuration when it is imported, so this stands before every import of it.
os.environ.update(
    AIRFLOW_HOME=_HOME,
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{_HOME}/airflow.db",
)

_CALLS = 100
#: Seconds for a round trip over the slow link, as between two regions of a cloud.
_ROUND_TRIP = 0.010
_ROLE, _PASSWORD = "bench", "bench-password"  # of a server that lives as long as this process
_TABLES = """
    DROP TABLE IF EXISTS bench_source, bench_target;
    CREATE TABLE bench_source AS SELECT i AS id, 'row ' || i AS name FROM generate_series(1, 50) i;
    CREATE TABLE bench_target (id int, name text);
    GRANT ALL ON bench_source, bench_target TO PUBLIC
"""
_OURS, _PEER = "LakebaseHook", "PostgresHook"


class Connections:
    """Airflow connections to one server, for both hooks, over a link of one's choice.

    Args:
        lake: The server.
    """

    def __init__(self, lake: LocalLakebase) -> None:
        self._lake = lake
        lake.admin.set_native_password(_ROLE, _PASSWORD)
        lake.admin.execute(_TABLES)

    def define(self, port: int | None = None) -> None:
        """Let ``bench_lakebase`` and ``bench_postgres`` lead to the server, or to a proxy before it."""
        env = self._lake.env()
        ours = json.loads(self._lake.airflow_connection())
        ours["port"] = port or ours["port"]
        peers = {
            "conn_type": "postgres",
            "host": env["PGHOST"],
            "port": ours["port"],
            "login": _ROLE,
            "password": _PASSWORD,
            "schema": env["PGDATABASE"],
            "extra": {"sslmode": "verify-full", "sslrootcert": env["PGSSLROOTCERT"]},
        }
        os.environ["AIRFLOW_CONN_BENCH_LAKEBASE"] = json.dumps(ours)
        os.environ["AIRFLOW_CONN_BENCH_POSTGRES"] = json.dumps(peers)


@contextmanager
def as_one_task() -> Iterator[None]:
    """What runs in it has a pool of its own, as a task run has; its log goes nowhere, but is written."""
    from lakebase_provider.core.shared import close_shared_clients

    close_shared_clients()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        close_shared_clients()


def get_first_five_times(conn_id: str) -> None:
    from airflow.sdk import BaseHook

    hook = BaseHook.get_connection(conn_id).get_hook()
    for _ in range(5):
        hook.get_first("SELECT 1")


def threshold_check(conn_id: str) -> None:
    from airflow.providers.common.sql.operators.sql import SQLThresholdCheckOperator

    SQLThresholdCheckOperator(
        task_id="check",
        conn_id=conn_id,
        sql="SELECT count(*) FROM bench_source",
        min_threshold="SELECT 1",
        max_threshold="SELECT 100",
    ).execute({})


def insert_rows(conn_id: str) -> None:
    from airflow.providers.common.sql.operators.sql import SQLInsertRowsOperator

    rows = [(number, f"row {number}") for number in range(10)]
    SQLInsertRowsOperator(task_id="insert", conn_id=conn_id, table_name="bench_target", rows=rows).execute({})


def transfer_five_pages(conn_id: str) -> None:
    from airflow.providers.common.sql.operators.generic_transfer import GenericTransfer

    GenericTransfer(
        task_id="transfer",
        source_conn_id=conn_id,
        destination_conn_id=conn_id,
        sql="SELECT id, name FROM bench_source ORDER BY id",
        destination_table="bench_target",
        page_size=10,
    ).execute({})


def poke_five_times(conn_id: str) -> None:
    from airflow.providers.common.sql.sensors.sql import SqlSensor

    sensor = SqlSensor(task_id="wait", conn_id=conn_id, sql="SELECT false")
    for _ in range(5):
        sensor.poke({})


_TASKS: dict[str, Callable[[str], None]] = {
    "get_first x 5": get_first_five_times,
    "SQLThresholdCheckOperator": threshold_check,
    "SQLInsertRowsOperator": insert_rows,
    "GenericTransfer, 5 pages": transfer_five_pages,
    "SqlSensor, 5 pokes": poke_five_times,
}


def count_connections(bench: Bench, lake: LocalLakebase) -> None:
    """Logins that the server saw; a count does not vary, so one run of each will do."""
    for name, run in _TASKS.items():
        opened = {}
        for contender, conn_id in ((_OURS, "bench_lakebase"), (_PEER, "bench_postgres")):
            before = lake.admin.counters().logins
            with as_one_task():
                run(conn_id)
            opened[contender] = lake.admin.counters().logins - before
            bench.record(f"connections: {name}", contender, opened[contender], "connections")
        bench.at_most(f"{name}: connections that ours opens", opened[_OURS], 1)


def measure_calls(bench: Bench, link: str, goal: float) -> None:
    """Successive calls of one hook in one task, the connecting included."""
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    from lakebase_provider.hooks.lakebase import LakebaseHook

    def seconds_of(make: Callable[[], Any]) -> Callable[[], float]:
        def measure() -> float:
            with as_one_task():
                start = time.perf_counter()
                hook = make()
                for _ in range(_CALLS):
                    hook.get_first("SELECT 1")
                return (time.perf_counter() - start) * 1000

        return measure

    figures = bench.compare(
        f"{_CALLS} get_first, {link}",
        "ms",
        {
            _OURS: seconds_of(lambda: LakebaseHook("bench_lakebase")),
            _PEER: seconds_of(lambda: PostgresHook("bench_postgres")),
        },
    )
    bench.at_least(f"{_CALLS} get_first, {link}: {_PEER} / ours", bench.ratio(figures, _PEER, _OURS), goal)


def measure_one_statement(bench: Bench, link: str, lake: LocalLakebase, rounds: int) -> None:
    """A task that runs one statement, beside one that does it by psycopg with the same token.

    A task has its settings from an Airflow connection, whoever connects; how long psycopg takes when it is
    given them is shown, too.
    """
    import psycopg
    from airflow.providers.postgres.hooks.postgres import PostgresHook
    from airflow.sdk import BaseHook

    from lakebase_provider.core.shared import close_shared_clients
    from lakebase_provider.hooks.lakebase import LakebaseHook

    raw = login_of(LakebaseHook("bench_lakebase"), lake)
    by_hand, bare = "psycopg by hand", "psycopg by hand, settings given"

    def milliseconds(run: Callable[[], object]) -> Callable[[], float]:
        def measure() -> float:
            with as_one_task():
                start = time.perf_counter()
                run()
                close_shared_clients()
                return (time.perf_counter() - start) * 1000

        return measure

    def connect() -> None:
        connection = psycopg.connect(**raw, autocommit=True)
        connection.execute("SELECT 1").fetchone()
        connection.close()

    def look_up_and_connect() -> None:
        assert BaseHook.get_connection("bench_lakebase").extra_dejson
        connect()

    figures = bench.compare(
        f"one statement, {link}",
        "ms",
        {
            _OURS: milliseconds(lambda: LakebaseHook("bench_lakebase").get_first("SELECT 1")),
            by_hand: milliseconds(look_up_and_connect),
            bare: milliseconds(connect),
            _PEER: milliseconds(lambda: PostgresHook("bench_postgres").get_first("SELECT 1")),
        },
        rounds=rounds,
    )
    bench.at_most(f"one statement, {link}: ours / {by_hand}", bench.ratio(figures, _OURS, by_hand), 1.15)
    # How much of it is Airflow's look-up, whoever connects.
    bench.record(f"{by_hand} / {bare}", link, bench.ratio(figures, by_hand, bare), "ratio")


def login_of(hook: LakebaseHook, lake: LocalLakebase) -> dict[str, Any]:
    """Arguments of ``psycopg.connect`` that log in as a hook does: who does it with a token waits longer."""
    return {
        "host": hook.config.host,
        "port": hook.config.port,
        "user": hook.config.user or lake.env()["PGUSER"],
        "dbname": hook.config.database,
        "password": hook.client.tokens.get().reveal(),
        "sslmode": "verify-full",
        "sslrootcert": lake.env()["PGSSLROOTCERT"],
    }


def main() -> int:
    """Measure and print."""
    bench = Bench("airflow")
    with LocalLakebase() as lake, FaultProxy(lake.host, lake.port) as proxy:
        connections = Connections(lake)
        connections.define()
        count_connections(bench, lake)
        measure_calls(bench, "loopback", goal=15)
        measure_one_statement(bench, "loopback", lake, rounds=151)
        proxy.delay(_ROUND_TRIP / 2)
        connections.define(proxy.port)
        link = f"{_ROUND_TRIP * 1000:.0f} ms round trip"
        measure_calls(bench, link, goal=8)
        measure_one_statement(bench, link, lake, rounds=15)
    return bench.finish()


if __name__ == "__main__":
    sys.exit(main())
