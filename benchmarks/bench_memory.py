"""Loads of many rows in constant memory: `make bench-memory`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import psycopg

from benchmarks.harness import Bench, fresh
from benchmarks.load_contenders import DDL
from benchmarks.memory_contenders import SOURCES, parquet_file
from benchmarks.tls_server import tls_server

_FEW = 1_000_000
#: Rows of the long stream; BENCH_ROWS sets another number for a quick look.
_MANY = int(os.environ.get("BENCH_ROWS", "20000000"))
#: Megabytes above the interpreter with its libraries imported.
_LIMIT = 64


def main() -> int:
    bench = Bench("memory")
    many = f"{_MANY // 1_000_000} M rows"
    with tls_server(), tempfile.TemporaryDirectory() as name:
        with psycopg.connect("", autocommit=True) as connection:
            connection.execute(DDL.encode())
        for rows in (_FEW, _MANY):
            parquet_file(Path(name), rows)
        for source in SOURCES:
            # Short streams before and after the long one: the machine's drift is in both.
            first, long, last = (
                fresh("benchmarks.memory_contenders", source, name, str(rows)) for rows in (_FEW, _MANY, _FEW)
            )
            short = (first["rows/s"] + last["rows/s"]) / 2
            bench.record("load 1 M rows", source, short, "rows/s")
            bench.record(f"load {many}", source, long["rows/s"], "rows/s")
            bench.record("load 1 M rows", source, max(first["memory"], last["memory"]), "MB above start")
            bench.record(f"load {many}", source, long["memory"], "MB above start")
            bench.at_most(f"{source}: MB above start, {many}", long["memory"], _LIMIT)
            bench.at_least(f"{source}: rate at {many} / at 1 M", long["rows/s"] / short, 0.9)
    return bench.finish()


if __name__ == "__main__":
    raise SystemExit(main())
