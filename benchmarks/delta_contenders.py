"""Loads of the same rows from a Delta table and from Parquet: each run is a process of its own.

python -m benchmarks.delta_contenders NAME FOLDER ROWS
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.harness import Stopwatch, report
from benchmarks.load_contenders import copy_rows, make_arrow, warm
from benchmarks.sample_rows import COLUMNS, DDL, TABLE

_STEP = 50_000
FEED = {"delta.enableChangeDataFeed": "true"}


def batches(begin: int, end: int) -> Iterator[Any]:
    """Record batches whose ids differ; what else they hold repeats, so that making them costs little."""
    import pyarrow as pa

    table = make_arrow(0, _STEP).combine_chunks()
    for start in range(begin, end, _STEP):
        part = table.slice(0, min(_STEP, end - start))
        ids = pa.array(range(start, start + part.num_rows), pa.int64())
        yield part.set_column(0, "id", ids).to_batches()[0]


def reader(begin: int, end: int) -> Any:
    """The same as a reader."""
    import pyarrow as pa

    found = batches(begin, end)
    first = next(found)

    def everything() -> Iterator[Any]:
        yield first
        yield from found

    return pa.RecordBatchReader.from_batches(first.schema, everything())


def prepare(folder: Path, rows: int) -> None:
    """Write the rows as a Delta table of a few files, and those files' rows as one Parquet file."""
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake
    from pyarrow import parquet

    place = str(folder / f"delta-{rows}")
    # As a job that appends would have done, rather than one huge file.
    step = max(rows // 4, 1)
    for begin in range(0, rows, step):
        write_deltalake(place, reader(begin, min(begin + step, rows)), mode="append", configuration=FEED)
    found = pa.RecordBatchReader.from_stream(DeltaTable(place).scan())
    with parquet.ParquetWriter(folder / f"rows-{rows}.parquet", reader(0, 1).schema) as writer:
        for batch in reader(0, rows):
            writer.write_batch(batch)
    assert sum(batch.num_rows for batch in found) == rows
    with psycopg.connect("", autocommit=True) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {TABLE}".encode())
        connection.execute(DDL.encode())


def _ours(source: str) -> Callable[[], None]:
    import deltalake  # noqa: F401 - as the peers' modules are, before the clock starts

    connection = psycopg.connect("")
    warm()
    return lambda: copy_rows(connection, source)


def _to_sql(place: str) -> Callable[[], None]:
    import json

    from deltalake import DeltaTable
    from sqlalchemy import Numeric, create_engine
    from sqlalchemy.dialects.postgresql import JSONB

    engine = create_engine("postgresql+psycopg://")

    def run() -> None:
        frame = DeltaTable(place).to_pandas()
        # to_sql writes a text into jsonb as one JSON string.
        frame["doc"] = frame["doc"].map(json.loads)
        frame.to_sql(
            TABLE, engine, if_exists="append", index=False, dtype={"amount": Numeric(12, 2), "doc": JSONB}
        )

    return run


CONTENDERS: dict[str, Callable[[Path, int], Callable[[], None]]] = {
    "ours-delta": lambda folder, rows: _ours(f"delta:{folder}/delta-{rows}"),
    "ours-parquet": lambda folder, rows: _ours(f"{folder}/rows-{rows}.parquet"),
    "to-sql": lambda folder, rows: _to_sql(f"{folder}/delta-{rows}"),
}


def main(name: str, folder: str, count: str) -> None:
    rows = int(count)
    run = CONTENDERS[name](Path(folder), rows)
    with psycopg.connect("", autocommit=True) as connection:
        connection.execute(f"TRUNCATE {TABLE}".encode())
        # What the run before left to be written is not this one's.
        connection.execute("CHECKPOINT")
        with Stopwatch() as watch:
            run()
        query = f"SELECT count(*), sum(id)::bigint, count({COLUMNS[-1]}) FROM {TABLE}"  # noqa: S608 - constants
        found = connection.execute(query.encode()).fetchone()
    assert found == (rows, rows * (rows - 1) // 2, rows), found
    report(
        {
            "rows/s": rows / watch.seconds,
            "CPU": watch.cpu / rows * 1e6,
            "memory": watch.growth / 1e6,
        }
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
