"""Streams of many rows into the server, each in a process of its own that prints its figures.

python -m benchmarks.memory_contenders NAME FOLDER ROWS
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.harness import Stopwatch
from benchmarks.load_contenders import TABLE, copy_rows, make_arrow, make_rows, warm

_STEP = 50_000
#: Rows of a Parquet row group.
_GROUP = 1_000_000


def batches(rows: int, table: Any) -> Iterator[Any]:
    """Record batches that come one by one; their content repeats, so that making them costs little."""
    table = table.combine_chunks()
    for begin in range(0, rows, _STEP):
        yield table.slice(0, min(_STEP, rows - begin)).to_batches()[0]


def _repeated(rows: int) -> Iterator[tuple[Any, ...]]:
    pattern = list(make_rows(0, 1000))
    for begin in range(0, rows, len(pattern)):
        yield from pattern[: rows - begin]


def parquet_file(folder: Path, rows: int) -> Path:
    """A Parquet file of that many rows in row groups of Arrow's usual size, made once."""
    import pyarrow as pa
    from pyarrow import parquet

    path = folder / f"rows-{rows}.parquet"
    if not path.exists():
        table = make_arrow(0, _STEP)
        found = batches(rows, table)
        with parquet.ParquetWriter(path, table.schema) as writer:
            while group := list(itertools.islice(found, _GROUP // _STEP)):
                writer.write_table(pa.Table.from_batches(group))
    return path


SOURCES: dict[str, Callable[[Path, int], Any]] = {
    "rows": lambda folder, rows: _repeated(rows),
    "arrow": lambda folder, rows: batches(rows, make_arrow(0, _STEP)),
    "parquet": lambda folder, rows: folder / f"rows-{rows}.parquet",
}


def main(name: str, folder: str, count: str) -> None:
    rows = int(count)
    source = SOURCES[name](Path(folder), rows)
    warm()
    with psycopg.connect("", autocommit=True) as other, psycopg.connect("") as connection:
        other.execute(f"TRUNCATE {TABLE}".encode())
        other.execute("CHECKPOINT")
        with Stopwatch() as watch:
            copy_rows(connection, source)
        other.execute(f"TRUNCATE {TABLE}".encode())
    figures = {"rows/s": rows / watch.seconds, "memory": watch.growth / 1e6}
    sys.__stdout__.write("\n" + json.dumps(figures) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
