"""Ways to read the same rows: each run of one of them is a process of its own that prints its figures.

python -m benchmarks.read_contenders NAME FOLDER ROWS
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.harness import Stopwatch, report
from benchmarks.sample_rows import TABLE
from benchmarks.tls_server import postgres_hook, run_psql
from lakebase_provider.core.reads import Reads


def _query(rows: int) -> str:
    return f"SELECT * FROM {TABLE} WHERE id < {rows}"  # noqa: S608 - a constant and a number


class Reader(Reads):
    """Ours, on the benchmark's server, whose password is no token."""

    def __init__(self) -> None:
        from lakebase_provider.core.config import LakebaseConfig
        from lakebase_provider.core.connect.connection import LakebaseConnection

        e = os.environ
        self.config = LakebaseConfig.from_mapping(
            {"host": e["PGHOST"], "user": e["PGUSER"], "auth": "password", "password": e["PGPASSWORD"]}
        )
        self._connection = LakebaseConnection.connect("")

    @contextmanager
    def connection(self, timeout: float | None = None) -> Iterator[Any]:
        try:
            yield self._connection
        finally:
            self._connection.rollback()


def _ours(method: str, *modules: str) -> Callable[[int], Callable[[], int]]:
    def prepare(rows: int) -> Callable[[], int]:
        read = getattr(warm_reader(*modules), method)
        count_rows(read("SELECT 1 AS one"))  # as get_df's contenders do
        return lambda: count_rows(read(_query(rows)))

    return prepare


def warm() -> None:
    """Import before the clock starts what a read imports, as the peers' modules are imported too."""
    names = ("read.batches", "read.rows", "read.to_frames", "unload.unload")
    _warm("pyarrow.compute", "numpy", *(f"lakebase_provider.core.bulk.{name}" for name in names))


def warm_reader(*modules: str) -> Reader:
    """Ours, with what a read imports, and these modules too."""
    warm()
    _warm(*modules)
    return Reader()


def count_rows(result: Any) -> int:
    """Rows of a frame, of record batches or of an iterator of tuples."""
    if hasattr(result, "__next__"):
        return sum(1 if type(item) is tuple else item.num_rows for item in result)
    return len(result)


def _warm(*modules: str) -> None:
    for module in modules:
        importlib.import_module(module)


def _adbc(rows: int) -> Callable[[], int]:
    from adbc_driver_postgresql import dbapi

    connection = dbapi.connect("postgresql://")

    def run() -> int:
        with connection.cursor() as cursor:
            cursor.execute(_query(rows))
            return int(cursor.fetch_arrow_table().num_rows)

    return run


def _get_df(kind: str) -> Callable[[int], Callable[[], int]]:
    def prepare(rows: int) -> Callable[[], int]:
        hook = postgres_hook()
        _warm("pandas", *(["polars"] if kind == "polars" else []))
        hook.get_df("SELECT 1 AS one", df_type=kind)
        return lambda: len(hook.get_df(_query(rows), df_type=kind))

    return prepare


def _get_records(rows: int) -> Callable[[], int]:
    hook = postgres_hook()
    return lambda: len(hook.get_records(_query(rows)))


CONTENDERS: dict[str, Callable[[int], Callable[[], int]]] = {
    "ours-arrow": _ours("fetch_arrow"),
    "ours-polars": _ours("fetch_polars", "polars"),
    "ours-pandas": _ours("fetch_pandas", "pandas"),
    "ours-rows": _ours("iter_rows"),
    "ours-batches": _ours("iter_batches"),
    "adbc": _adbc,
    "get-df-pandas": _get_df("pandas"),
    "get-df-polars": _get_df("polars"),
    "get-records": _get_records,
}


def main(name: str, folder: str, count: str) -> None:
    rows = int(count)
    if name == "psql":
        seconds = run_psql(f"\\copy ({_query(rows)}) TO '{Path(folder) / 'read.bin'}' (FORMAT binary)")
        figures = {"rows/s": rows / seconds, "CPU": 0.0, "memory": 0.0}
    else:
        run = CONTENDERS[name](rows)
        with psycopg.connect("") as connection:
            # Nobody pays for the disk, or for what the first reader of new rows marks in them.
            connection.execute(f"SELECT count(*), sum(n) FROM {TABLE}".encode())  # noqa: S608 - a constant
        with Stopwatch() as watch:
            found = run()
        assert found == rows, found
        figures = {
            "rows/s": rows / watch.seconds,
            "CPU": watch.cpu / rows * 1e6,
            "memory": watch.growth / 1e6,
        }
    report(figures)


if __name__ == "__main__":
    main(*sys.argv[1:])
