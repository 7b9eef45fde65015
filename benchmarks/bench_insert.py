"""insert_rows of both hooks, few rows and many, on one server in one run: `make bench-insert`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

# First: it sets up Airflow, which reads its configuration when it is imported.
from benchmarks.bench_airflow import Connections, as_one_task
from benchmarks.harness import Bench
from benchmarks.sample_rows import COLUMNS, make_rows
from lakebase_provider.local import LocalLakebase

_TABLE = "bench_insert"
_DDL = (
    f"DROP TABLE IF EXISTS {_TABLE}; CREATE TABLE {_TABLE} (id bigint PRIMARY KEY, n int, x double precision,"
    " amount numeric(12,2), name text, at timestamptz, flag boolean, doc jsonb);"
    f" GRANT ALL ON {_TABLE} TO PUBLIC"
)
_SIZES = (100, 700, 1_000, 10_000, 50_000)
_OURS, _ONE, _PEER = "LakebaseHook", "LakebaseHook, one transaction", "PostgresHook"
_Rows = Sequence[tuple[Any, ...]]


def main() -> int:
    """Measure and print."""
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    from lakebase_provider.hooks.lakebase import LakebaseHook

    bench = Bench("insert")
    with LocalLakebase() as lake:
        Connections(lake).define()
        ours, peer = LakebaseHook("bench_lakebase"), PostgresHook("bench_postgres")

        def measure(hook: Any, rows: _Rows, held: int, **options: Any) -> Callable[[], float]:
            def run() -> float:
                lake.admin.execute(_DDL)
                if held:
                    ours.insert_rows(_TABLE, rows[:held], list(COLUMNS), commit_every=0)
                with as_one_task():
                    start = time.perf_counter()
                    hook.insert_rows(_TABLE, rows, list(COLUMNS), **options)
                    seconds = time.perf_counter() - start
                (found,) = ours.get_first(f"SELECT count(*) FROM {_TABLE}")  # noqa: S608 - a constant
                assert found == len(rows), found
                return len(rows) / seconds

            return run

        for size in _SIZES:
            rows = list(make_rows(0, size))
            for what, held, replace in (
                ("insert", 0, {}),
                ("replace half", size // 2, {"replace": True, "replace_index": "id"}),
            ):
                figures = bench.compare(
                    f"{what}: {size} rows x {len(COLUMNS)}",
                    "rows/s",
                    {
                        _OURS: measure(ours, rows, held, **replace),
                        _ONE: measure(ours, rows, held, commit_every=0, **replace),
                        _PEER: measure(peer, rows, held, **replace),
                    },
                    rounds=31 if size <= 1_000 else 7,
                )
                # Few rows, and rows that replace others by 1,000, are statements here as there.
                copied = size >= 10_000 and not replace
                goal = 2.0 if copied else 0.9
                bench.at_least(
                    f"{what}: {size} rows: ours / {_PEER}", bench.ratio(figures, _OURS, _PEER), goal
                )
                if size >= 10_000:
                    whole = bench.ratio(figures, _ONE, _PEER)
                    bench.at_least(f"{what}: {size} rows: ours in one transaction / {_PEER}", whole, 2.0)
    return bench.finish()


if __name__ == "__main__":
    sys.exit(main())
