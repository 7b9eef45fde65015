"""Ways from a query on one database into a table of another: each run is a process of its own.

python -m benchmarks.transfer_contenders NAME ROWS
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import psycopg

from benchmarks.harness import Stopwatch, report
from benchmarks.load_contenders import copy_rows, make_arrow
from benchmarks.sample_rows import DDL, TABLE
from benchmarks.tls_server import psql

SOURCE, TARGET = "bench_source", "bench_target"
_COUNT = f"SELECT count(*), sum(id) FROM {TABLE}"  # noqa: S608 - a constant
_STEP = 100_000


def prepare(rows: int) -> None:
    """Two databases, one of them with the rows."""
    with psycopg.connect("", autocommit=True) as connection:
        for name in (SOURCE, TARGET):
            connection.execute(f"CREATE DATABASE {name}".encode())
    for name in (SOURCE, TARGET):
        with psycopg.connect(dbname=name) as connection:
            connection.execute("CREATE TYPE own AS ENUM ('one')")
            connection.execute(DDL.encode())
            if name == SOURCE:
                for begin in range(0, rows, _STEP):
                    copy_rows(connection, make_arrow(begin, min(begin + _STEP, rows)))


def _query(rows: int) -> str:
    return f"SELECT * FROM {TABLE} WHERE id < {rows}"  # noqa: S608 - constants


def _ours(rows: int, driver: Any = psycopg, query: str = "") -> Callable[[], None]:
    from lakebase_provider.core.bulk.load.load import load
    from lakebase_provider.core.bulk.load.transfer.transfer import PostgresQuery

    source, target = driver.connect(f"dbname={SOURCE}"), psycopg.connect(dbname=TARGET)

    def run() -> None:
        load(target, PostgresQuery(source, query or _query(rows)), TABLE)
        target.commit()

    return run


def _psycopg2(rows: int) -> Callable[[], None]:
    import psycopg2  # type: ignore[import-untyped]

    return _ours(rows, psycopg2)


def _text(rows: int) -> Callable[[], None]:
    """With a type of a user's own among the columns."""
    columns = "id, n, x, amount, name, at, flag, doc"
    with psycopg.connect(dbname=TARGET) as connection:
        connection.execute(f"ALTER TABLE {TABLE} ADD COLUMN IF NOT EXISTS o own".encode())
    query = f"SELECT {columns}, 'one'::own AS o FROM {TABLE} WHERE id < {rows}"  # noqa: S608 - constants
    return _ours(rows, query=query)


def _python_rows(rows: int) -> Callable[[], None]:
    from benchmarks.load_contenders import warm
    from lakebase_provider.core.bulk.load.load import load

    source, target = psycopg.connect(dbname=SOURCE), psycopg.connect(dbname=TARGET)
    warm()

    def run() -> None:
        with source.cursor("bench") as cursor:
            cursor.execute(_query(rows).encode())
            load(target, cursor, TABLE)
        target.commit()

    return run


def _psql(rows: int) -> Callable[[], float]:
    def run() -> float:
        out = [psql(), "-XqAt", "-v", "ON_ERROR_STOP=1", "-d"]
        command = f"\\copy ({_query(rows)}) TO STDOUT (FORMAT binary)"
        with subprocess.Popen([*out, SOURCE, "-c", command], stdout=subprocess.PIPE) as sender:
            into = ["-c", "\\timing on", "-c", f"\\copy {TABLE} FROM STDIN (FORMAT binary)"]
            done = subprocess.run(
                [*out, TARGET, *into], stdin=sender.stdout, stdout=subprocess.PIPE, text=True, check=True
            )
        assert sender.returncode == 0
        # As psql measures it: without its own start.
        line = next(line for line in done.stdout.splitlines() if line.startswith("Time:"))
        return float(line.split()[1]) / 1000

    return run


CONTENDERS: dict[str, Callable[[int], Callable[[], float | None]]] = {
    "psql": _psql,
    "ours": _ours,
    "ours-psycopg2": _psycopg2,
    "ours-text": _text,
    "python-rows": _python_rows,
}


def main(name: str, count: str) -> None:
    rows = int(count)
    os.environ.pop("PGDATABASE", None)
    run = CONTENDERS[name](rows)
    with psycopg.connect(dbname=TARGET, autocommit=True) as connection:
        connection.execute(f"TRUNCATE {TABLE}".encode())
        if name != "ours-text":
            connection.execute(f"ALTER TABLE {TABLE} DROP COLUMN IF EXISTS o".encode())
        # What the run before left to be written is not this one's.
        connection.execute("CHECKPOINT")
        with Stopwatch() as watch:
            own = run()
        seconds = own or watch.seconds
        found = connection.execute(_COUNT.encode()).fetchone()
    assert found == (rows, rows * (rows - 1) // 2), found
    report({"rows/s": rows / seconds, "CPU": watch.cpu / rows * 1e6, "memory": watch.growth / 1e6})


if __name__ == "__main__":
    main(*sys.argv[1:])
