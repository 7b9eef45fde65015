"""Reading rows beside what else reads them, over TLS from one server: `make bench-read`.

Of the two text columns one holds a million different values and one a thousand. In Arrow the table has 99 MB.
In Polars it would have 123 MB, a tenth of get_df's peak by itself, did equal texts of a chunk not share their
bytes.
"""

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
_ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))

_LIMIT = "psql \\copy to, binary"
_PANDAS = "PostgresHook.get_df (pandas)"
_POLARS = "PostgresHook.get_df (polars)"
_RECORDS = "PostgresHook.get_records"


def main() -> int:
    bench = Bench("read")
    with tls_server(), tempfile.TemporaryDirectory() as name:
        prepare(Path(name), _ROWS)

        def contender(key: str) -> Callable[[], dict[str, float]]:
            return lambda: fresh("benchmarks.read_contenders", key, name, str(_ROWS))

        contenders = {
            _LIMIT: contender("psql"),
            "ours: Arrow": contender("ours-arrow"),
            "ours: Polars": contender("ours-polars"),
            "ours: pandas": contender("ours-pandas"),
            "ours: batches, streamed": contender("ours-batches"),
            "ours: tuples, streamed": contender("ours-rows"),
            "ADBC (Arrow)": contender("adbc"),
            _POLARS: contender("get-df-polars"),
            _PANDAS: contender("get-df-pandas"),
            _RECORDS: contender("get-records"),
        }
        units = {"rows/s": "rows/s", "CPU": "s per 1 M rows", "memory": "MB above start"}
        figures = bench.compare_runs(f"read {_ROWS // 1000} k rows x 8", units, contenders, rounds=_ROUNDS)
    rate, memory = figures["rows/s"], figures["memory"]
    for ours, peer in (("ours: Arrow", _POLARS), ("ours: Polars", _POLARS)):
        bench.at_least(f"{ours} / psql \\copy binary", bench.ratio(rate, ours, _LIMIT), 0.75)
        bench.at_least(f"{ours} / get_df", bench.ratio(rate, ours, peer), 8)
        bench.at_most(f"{ours}: memory / get_df's", bench.ratio(memory, ours, peer), 0.1)
    bench.at_least("ours: pandas / get_df", bench.ratio(rate, "ours: pandas", _PANDAS), 6)
    bench.at_most("ours: pandas: memory / get_df's", bench.ratio(memory, "ours: pandas", _PANDAS), 1 / 3)
    bench.at_least("ours: tuples / get_records", bench.ratio(rate, "ours: tuples, streamed", _RECORDS), 1.5)
    bench.at_most("ours: tuples: MB above start", max(memory["ours: tuples, streamed"]), 25)
    return bench.finish()


if __name__ == "__main__":
    raise SystemExit(main())
