"""What a fresh process pays to move data once, from its start to its end: `make bench-first`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.first_contenders import HEAVY
from benchmarks.harness import Bench, Stopwatch
from benchmarks.load_contenders import make_arrow
from benchmarks.sample_rows import DDL, TABLE
from benchmarks.tls_server import tls_server

_ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
_SIZES = (1, 1_000, 10_000, 100_000)
#: Of a frame and of what is fetched.
_SMALL = 1_000
_MEGABYTE = 1 << 20

_OURS, _OURS_ON_IT = "ours: client.load", "ours: load, psycopg's connection"
_EXECUTEMANY, _BARE = "psycopg executemany", "pyarrow + COPY"
_TO_SQL, _READ_SQL, _FETCH = "pandas to_sql", "pandas read_sql", "ours: fetch_polars"
_Figures = dict[str, dict[str, list[float]]]


class Processes:
    """Runs contenders, each in a process of its own, and notes what they import.

    Args:
        bench: Collects the figures.
        connection: To the server, for what is not measured.
        folder: For files and Airflow's home.
    """

    def __init__(self, bench: Bench, connection: psycopg.Connection[Any], folder: Path) -> None:
        self._bench = bench
        self._connection = connection
        self._environment = {**os.environ, **_airflow(folder)}
        # Ours are compiled in the round that warms up, as pip compiles what it installs, peers included.
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)
        #: The heavy packages of each contender's last run.
        self.imported: dict[str, list[str]] = {}

    def compare(
        self, comparison: str, keys: Mapping[str, str], rows: int, path: Path | None = None, *, reads: bool
    ) -> _Figures:
        """CPU and wall clock of contenders side by side.

        Args:
            comparison: What is measured.
            keys: The contenders' names, with those in :mod:`benchmarks.first_contenders`.
            rows: How many rows they move.
            path: The file that they load, if they load one.
            reads: Whether they read the rows that are there.
        """

        def contender(name: str, key: str) -> Callable[[], dict[str, float]]:
            return lambda: self._run(name, key, rows, path, reads)

        return self._bench.compare_runs(
            comparison,
            {"CPU": "s", "wall": "s"},
            {name: contender(name, key) for name, key in keys.items()},
            rounds=_ROUNDS,
        )

    def _run(self, name: str, key: str, rows: int, path: Path | None, reads: bool) -> dict[str, float]:
        if not reads:
            self._connection.execute(f"TRUNCATE {TABLE}".encode())
        command = [sys.executable, "-m", "benchmarks.first_contenders", key, str(rows), str(path or "")]
        with Stopwatch() as watch:
            done = subprocess.run(
                command, env=self._environment, stdout=subprocess.PIPE, text=True, check=True
            )
        self.imported[name] = [one for one in done.stdout.splitlines()[-1].split(",") if one]
        found = self._connection.execute(f"SELECT count(*) FROM {TABLE}".encode()).fetchone()  # noqa: S608 - a constant
        assert found == (rows,), (name, found)
        return {"CPU": watch.cpu, "wall": watch.seconds}


def _airflow(folder: Path) -> dict[str, str]:
    e = os.environ
    connection = {
        "conn_type": "postgres", "host": e["PGHOST"], "port": int(e["PGPORT"]), "login": e["PGUSER"],
        "password": e["PGPASSWORD"], "schema": e["PGDATABASE"],
        "extra": {"sslmode": "verify-full", "sslrootcert": e["PGSSLROOTCERT"]},
    }  # fmt: skip
    return {
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "AIRFLOW_CONN_BENCH": json.dumps(connection),
    }


def main() -> int:
    bench = Bench("first")
    with tls_server(), tempfile.TemporaryDirectory() as name, psycopg.connect("", autocommit=True) as own:
        own.execute(DDL.encode())
        processes = Processes(bench, own, Path(name))
        for rows in _SIZES:
            measure_rows(bench, processes, rows)
        measure_files(bench, processes, Path(name))
        measure_frames(bench, processes)
    return bench.finish()


def measure_rows(bench: Bench, processes: Processes, rows: int) -> None:
    """Python rows, which no contender but to_sql makes a frame of."""
    keys = {
        _OURS: "ours-rows",
        _OURS_ON_IT: "ours-rows-connection",
        _EXECUTEMANY: "executemany",
        "PostgresHook.insert_rows": "insert-rows",
        _TO_SQL: "to-sql-rows",
    }
    cpu = processes.compare(f"{rows} Python rows", keys, rows, reads=False)["CPU"]
    bound = 1.15 if rows <= 1_000 else 1.0
    for ours in (_OURS, _OURS_ON_IT):
        bench.at_most(
            f"{rows} rows, CPU: {ours} / {_EXECUTEMANY}", bench.ratio(cpu, ours, _EXECUTEMANY), bound
        )
    # What Arrow costs to import, it may save from some tens of thousands of rows on.
    light = HEAVY if rows <= 10_000 else ("pandas",)
    brought = [package for package in processes.imported[_OURS] if package in light]
    bench.at_most(f"{rows} rows: heavy packages imported {brought or ''}".rstrip(), len(brought), 0)


def measure_files(bench: Bench, processes: Processes, folder: Path) -> None:
    """Files of a megabyte."""
    from pyarrow import csv, parquet

    for kind, write in (("CSV", csv.write_csv), ("Parquet", parquet.write_table)):
        path = folder / f"rows.{kind.lower()}"
        rows = _write_a_megabyte(path, write)
        keys = {"ours: client.load": "ours-file", _BARE: f"bare-{kind.lower()}"}
        cpu = processes.compare(f"1 MB {kind} ({rows} rows)", keys, rows, path, reads=False)["CPU"]
        bench.at_most(f"1 MB {kind}, CPU: ours / {_BARE}", bench.ratio(cpu, _OURS, _BARE), 1.05)
        brought = sorted({"pandas"} & set(processes.imported[_OURS]))
        bench.at_most(f"1 MB {kind}: pandas imported", len(brought), 0)


def _write_a_megabyte(path: Path, write: Callable[[Any, Path], object]) -> int:
    rows = 1_000
    for _ in range(4):
        write(make_arrow(0, rows), path)
        rows = rows * _MEGABYTE // path.stat().st_size
    write(make_arrow(0, rows), path)
    return rows


def measure_frames(bench: Bench, processes: Processes) -> None:
    """A small frame in, and one out."""
    keys = {_OURS: "ours-frame", _TO_SQL: "to-sql-rows"}
    cpu = processes.compare(f"pandas frame of {_SMALL} rows", keys, _SMALL, reads=False)["CPU"]
    bench.at_most(f"pandas frame, CPU: ours / {_TO_SQL}", bench.ratio(cpu, _OURS, _TO_SQL), 1.0)
    keys = {_FETCH: "ours-polars", "polars.read_database, psycopg": "polars", _READ_SQL: "read-sql"}
    cpu = processes.compare(f"fetch {_SMALL} rows", keys, _SMALL, reads=True)["CPU"]
    bench.at_most(f"fetch, CPU: {_FETCH} / {_READ_SQL}", bench.ratio(cpu, _FETCH, _READ_SQL), 1.0)


if __name__ == "__main__":
    raise SystemExit(main())
