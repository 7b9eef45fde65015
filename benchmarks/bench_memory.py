"""Loads and unloads of many rows in constant memory: `make bench-memory`.

The server writes no WAL, and has its data in memory where there is room for them. On a disk the kernel writes
back what a long load has written, for which it takes the CPU of the server and of who sends the rows.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import psycopg

from benchmarks.harness import Bench, fresh
from benchmarks.memory_contenders import PSQL, SOURCES, UNLOADS, fill, parquet_file
from benchmarks.sample_rows import DDL
from benchmarks.tls_server import tls_server

_FEW = 1_000_000
#: Rows of the long stream; BENCH_ROWS sets another number for a quick look.
_MANY = int(os.environ.get("BENCH_ROWS", "20000000"))
#: Of a row in a table, rounded up; there are two of them.
_ROW_BYTES = 200
#: Megabytes above the interpreter with its libraries imported.
_LIMIT = 64


def _measure(bench: Bench, way: str, name: str, folder: str) -> None:
    many = f"{_MANY // 1_000_000} M rows"
    # Short streams before and after the long one: the machine's drift is in both.
    first, long, last = (
        fresh("benchmarks.memory_contenders", way, name, folder, str(rows)) for rows in (_FEW, _MANY, _FEW)
    )
    short = (first["rows/s"] + last["rows/s"]) / 2
    ratio = long["rows/s"] / short
    bench.record(f"{way} 1 M rows", name, short, "rows/s")
    bench.record(f"{way} {many}", name, long["rows/s"], "rows/s")
    if name == PSQL:
        bench.record(f"{way}: rate at {many} / at 1 M", name, ratio, "")
        return
    bench.record(f"{way} 1 M rows", name, max(first["memory"], last["memory"]), "MB above start")
    bench.record(f"{way} {many}", name, long["memory"], "MB above start")
    bench.at_most(f"{way}, {name}: MB above start, {many}", long["memory"], _LIMIT)
    bench.at_least(f"{way}, {name}: rate at {many} / at 1 M", ratio, 0.9)


def _in_memory() -> Path | None:
    shared = Path("/dev/shm")  # noqa: S108 # Linux's file system in memory, of which a folder of our own is made
    room = shutil.disk_usage(shared).free if shared.is_dir() else 0
    return shared if room > 2 * _MANY * _ROW_BYTES else None


def main() -> int:
    bench = Bench("memory")
    with tls_server(_in_memory()), tempfile.TemporaryDirectory() as name:
        with psycopg.connect("", autocommit=True) as connection:
            connection.execute(DDL.replace("CREATE TABLE", "CREATE UNLOGGED TABLE", 1).encode())
        for rows in (_FEW, _MANY):
            parquet_file(Path(name), rows)
        for source in SOURCES:
            _measure(bench, "load", source, name)
        fill(_MANY)
        for form in (PSQL, *UNLOADS):
            _measure(bench, "unload", form, name)
    return bench.finish()


if __name__ == "__main__":
    raise SystemExit(main())
