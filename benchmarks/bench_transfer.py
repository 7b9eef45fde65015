"""From a query on one database into a table of another, over TLS, beside two psql: `make bench-transfer`."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable

from benchmarks.harness import Bench, fresh
from benchmarks.tls_server import tls_server
from benchmarks.transfer_contenders import prepare

#: Rows; BENCH_ROWS sets another number for a quick look.
_ROWS = int(os.environ.get("BENCH_ROWS", "1000000"))
#: The slow way keeps its rate, and moves a tenth; so that memory is compared, ours moves a quarter, too.
_FEW, _QUARTER = _ROWS // 10, _ROWS // 4
_ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))

_LIMIT = "psql \\copy binary | psql \\copy binary"
_OURS = "ours: psycopg"
_SMALL = f"ours: psycopg ({_QUARTER // 1000} k rows)"
_ROWS_OF_PYTHON = f"a cursor's rows, loaded ({_FEW // 1000} k rows)"
#: MB that four times the rows may take more: blocks are of the size in which the network gives them.
_CONSTANT = 6.0


def main() -> int:
    bench = Bench("transfer")

    def contender(key: str, rows: int = _ROWS) -> Callable[[], dict[str, float]]:
        return lambda: fresh("benchmarks.transfer_contenders", key, str(rows))

    with tls_server():
        prepare(_ROWS)
        contenders = {
            _LIMIT: contender("psql"),
            _OURS: contender("ours"),
            _SMALL: contender("ours", _QUARTER),
            "ours: psycopg2": contender("ours-psycopg2"),
            "ours: psycopg, as text": contender("ours-text"),
            _ROWS_OF_PYTHON: contender("python-rows", _FEW),
        }
        units = {"rows/s": "rows/s", "CPU": "s per 1 M rows", "memory": "MB above start"}
        figures = bench.compare_runs(
            f"transfer {_ROWS // 1000} k rows x 8", units, contenders, rounds=_ROUNDS
        )
    rate, memory = figures["rows/s"], figures["memory"]
    bench.at_least(f"{_OURS} / {_LIMIT}", bench.ratio(rate, _OURS, _LIMIT), 0.8)
    bench.at_least(f"{_OURS} / {_ROWS_OF_PYTHON}", bench.ratio(rate, _OURS, _ROWS_OF_PYTHON), 2.0)
    more = statistics.median(memory[_OURS]) - statistics.median(memory[_SMALL])
    bench.at_most(f"MB more for {_ROWS // 1000} k rows than for {_QUARTER // 1000} k", more, _CONSTANT)
    return bench.finish()


if __name__ == "__main__":
    raise SystemExit(main())
