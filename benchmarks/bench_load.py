"""Loading rows beside what else loads them, over TLS into one server: `make bench-load`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Bench, fresh
from benchmarks.load_contenders import prepare
from benchmarks.tls_server import tls_server

#: Rows; BENCH_ROWS sets another number for a quick look.
_ROWS = int(os.environ.get("BENCH_ROWS", "1000000"))
#: The slow peers keep their rate, and load a tenth: their names say so.
_FEW = _ROWS // 10
_ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
_TENTH = f"({_FEW // 1000} k rows)"

_LIMIT = "psql \\copy binary"
_COPY_BINARY = "psycopg COPY binary (rows)"
_ADBC = "ADBC ingest (Arrow)"
_TO_SQL = f"pandas to_sql {_TENTH}"
_INSERT_ROWS = f"PostgresHook.insert_rows {_TENTH}"


def main() -> int:
    bench = Bench("load")
    with tls_server(), tempfile.TemporaryDirectory() as name:
        prepare(Path(name), _ROWS)

        def contender(key: str, rows: int = _ROWS) -> Callable[[], dict[str, float]]:
            return lambda: fresh("benchmarks.load_contenders", key, name, str(rows))

        contenders = {
            _LIMIT: contender("psql"),
            "ours: Arrow": contender("ours-arrow"),
            "ours: Polars": contender("ours-polars"),
            "ours: pandas": contender("ours-pandas"),
            "ours: rows": contender("ours-rows"),
            _ADBC: contender("adbc"),
            _COPY_BINARY: contender("copy-binary"),
            "psycopg COPY text (rows)": contender("copy-text"),
            f"psycopg executemany {_TENTH}": contender("executemany", _FEW),
            _TO_SQL: contender("to-sql", _FEW),
            _INSERT_ROWS: contender("insert-rows", _FEW),
        }
        units = {"rows/s": "rows/s", "CPU": "s per 1 M rows", "memory": "MB above start"}
        figures = bench.compare_runs(f"load {_ROWS // 1000} k rows x 8", units, contenders, rounds=_ROUNDS)
    rate, cpu = figures["rows/s"], figures["CPU"]
    for ours in ("ours: Arrow", "ours: Polars"):
        bench.at_least(f"{ours} / psql \\copy binary", bench.ratio(rate, ours, _LIMIT), 0.90)
        bench.at_least(f"{ours} / ADBC ingest", bench.ratio(rate, ours, _ADBC), 1.0)
        bench.at_least(f"{ours} / insert_rows", bench.ratio(rate, ours, _INSERT_ROWS), 18)
        bench.at_least(f"insert_rows' CPU / {ours}", bench.ratio(cpu, _INSERT_ROWS, ours), 80)
    bench.at_least("ours: pandas / psql \\copy binary", bench.ratio(rate, "ours: pandas", _LIMIT), 0.75)
    bench.at_least("ours: pandas / to_sql", bench.ratio(rate, "ours: pandas", _TO_SQL), 15)
    bench.at_least("ours: rows / psycopg COPY binary", bench.ratio(rate, "ours: rows", _COPY_BINARY), 1.5)
    bench.at_least("ours: rows / insert_rows", bench.ratio(rate, "ours: rows", _INSERT_ROWS), 7)
    return bench.finish()


if __name__ == "__main__":
    raise SystemExit(main())
