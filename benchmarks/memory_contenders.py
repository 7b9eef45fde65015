"""Streams of many rows into the server and out of it, each in a process of its own that prints its figures.

python -m benchmarks.memory_contenders load|unload NAME FOLDER ROWS
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.harness import Stopwatch, report
from benchmarks.load_contenders import copy_rows, make_arrow, warm
from benchmarks.read_contenders import Reader, count_rows, warm_reader
from benchmarks.sample_rows import DDL, TABLE, make_rows
from benchmarks.tls_server import run_psql

#: Reads what ours do, and forgets it: what the server's part of a rate is.
PSQL = "psql \\copy to, binary"
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


#: Made and filled by the server, once for all that read it.
_STORED = "bench_stored"
_FILL = f"""
INSERT INTO {_STORED} SELECT i, i % 100000, i * 0.37, (i % 1000000) / 100.0,
    'customer name ' || lpad(i::text, 9, '0'), timestamptz '2024-01-01Z' + i * interval '1.000001 s',
    i % 2 = 0, jsonb_build_object('k', i % 1000, 'tag', 'abc') FROM generate_series(1, {{}}) i
"""  # noqa: S608 - a constant


def fill(rows: int) -> None:
    """Let the server make the table that is unloaded, at rest: nobody marks or writes its rows any more."""
    with psycopg.connect("", autocommit=True) as connection:
        connection.execute(DDL.replace("TABLE " + TABLE, "UNLOGGED TABLE " + _STORED).encode())
        connection.execute(_FILL.format(rows).encode())
        connection.execute(f"VACUUM {_STORED}".encode())
        connection.execute("CHECKPOINT")


def _stored(rows: int) -> str:
    return f"SELECT * FROM {_STORED} LIMIT {rows}"  # noqa: S608 - constants and a number


def _parquet(client: Reader, folder: Path, query: str) -> int:
    try:
        return client.unload(query, folder / "unloaded.parquet").rows
    finally:
        (folder / "unloaded.parquet").unlink(missing_ok=True)


UNLOADS: dict[str, Callable[[Reader, Path, str], int]] = {
    "rows": lambda client, folder, query: count_rows(client.iter_rows(query)),
    "arrow": lambda client, folder, query: count_rows(client.iter_batches(query)),
    "parquet": _parquet,
}


def _load(name: str, folder: Path, rows: int) -> dict[str, float]:
    source = SOURCES[name](folder, rows)
    warm()
    with psycopg.connect("", autocommit=True) as other, psycopg.connect("") as connection:
        other.execute(f"TRUNCATE {TABLE}".encode())
        other.execute("CHECKPOINT")
        with Stopwatch() as watch:
            copy_rows(connection, source)
        other.execute(f"TRUNCATE {TABLE}".encode())
    return {"rows/s": rows / watch.seconds, "memory": watch.growth / 1e6}


def _unload(name: str, folder: Path, rows: int) -> dict[str, float]:
    query = _stored(rows)
    if name == PSQL:
        return {"rows/s": rows / run_psql(f"\\copy ({query}) TO '/dev/null' (FORMAT binary)"), "memory": 0.0}
    client = warm_reader("pyarrow.parquet", "fsspec.implementations.local")
    with Stopwatch() as watch:
        found = UNLOADS[name](client, folder, query)
    assert found == rows, found
    return {"rows/s": rows / watch.seconds, "memory": watch.growth / 1e6}


def main(way: str, name: str, folder: str, count: str) -> None:
    report((_load if way == "load" else _unload)(name, Path(folder), int(count)))


if __name__ == "__main__":
    main(*sys.argv[1:])
