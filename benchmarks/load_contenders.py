"""Ways to load the same rows: each run of one of them is a process of its own that prints its figures.

python -m benchmarks.load_contenders NAME FOLDER ROWS
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.harness import Stopwatch, report
from benchmarks.sample_rows import COLUMNS, DDL, TABLE, make_rows
from benchmarks.tls_server import postgres_hook, run_psql

_OIDS = ("int8", "int4", "float8", "numeric", "text", "timestamptz", "bool", "jsonb")
_COUNT = f"SELECT count(*), sum(id) FROM {TABLE}"  # noqa: S608 - a constant
_OURS = (
    "load.copy_in",
    "encode.from_arrow",
    "encode.from_python",
    "encode.encoder",
    "sources.from_files",
    "sources.from_frames",
)


def make_arrow(begin: int, end: int) -> Any:
    """The same rows as an Arrow table, the document as text."""
    import pyarrow as pa

    kinds = (
        pa.int64(), pa.int32(), pa.float64(), pa.decimal128(12, 2), pa.string(), pa.timestamp("us", "UTC"),
        pa.bool_(), pa.string(),
    )  # fmt: skip
    columns = list(zip(*make_rows(begin, end), strict=True))
    columns[7] = tuple(json.dumps(doc) for doc in columns[7])
    return pa.table([pa.array(c, type=k) for c, k in zip(columns, kinds, strict=True)], names=COLUMNS)


def prepare(folder: Path, rows: int) -> None:
    """Write the rows as an Arrow file, and as a file of binary COPY that the server made itself."""
    import pyarrow as pa

    step = 100_000
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as sink:
        first = make_arrow(0, 1)
        with pa.ipc.new_file(sink, first.schema) as writer:
            for begin in range(0, rows, step):
                writer.write_table(make_arrow(begin, min(begin + step, rows)))
    with psycopg.connect("", autocommit=True) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {TABLE}".encode())
        connection.execute(DDL.encode())
        copy_rows(connection, _arrow(folder))
    run_psql(f"\\copy {TABLE} TO '{folder / 'rows.bin'}' (FORMAT binary)")


def _arrow(folder: Path, rows: int | None = None) -> Any:
    import pyarrow as pa

    with pa.OSFile(str(folder / "rows.arrow"), "rb") as file:
        return pa.ipc.open_file(file).read_all().slice(0, rows)


def _rows(rows: int) -> list[tuple[Any, ...]]:
    return list(make_rows(0, rows))


def copy_rows(connection: psycopg.Connection[Any], source: Any) -> None:
    """Load by us, and commit."""
    from lakebase_provider.core.bulk.load.copy_in import copy_in
    from lakebase_provider.core.database.catalog import read_table

    copy_in(connection, source, read_table(connection, TABLE))
    connection.commit()


def _ours(source: Any) -> Callable[[], None]:
    connection = psycopg.connect("")
    warm()
    return lambda: copy_rows(connection, source)


def warm() -> None:
    """Import before the clock starts what a load imports, as the peers' modules are imported too."""
    # pandas too: pyarrow imports it, where it is installed, with the first Python value that it converts.
    modules = ("pgpq.schema", "pyarrow.compute", "pyarrow.parquet", "msgspec", "pandas")
    for module in (*modules, *(f"lakebase_provider.core.bulk.{name}" for name in _OURS)):
        importlib.import_module(module)


def _psycopg_copy(rows: int, form: str) -> Callable[[], None]:
    from psycopg.types.json import Jsonb

    source = [(*row[:7], Jsonb(row[7])) for row in make_rows(0, rows)]
    connection = psycopg.connect("")

    def run() -> None:
        with connection.cursor().copy(f"COPY {TABLE} FROM STDIN (FORMAT {form})".encode()) as copy:
            if form == "binary":
                copy.set_types(_OIDS)
            for row in source:
                copy.write_row(row)
        connection.commit()

    return run


def _executemany(rows: int) -> Callable[[], None]:
    from psycopg.types.json import Jsonb

    source = [(*row[:7], Jsonb(row[7])) for row in make_rows(0, rows)]
    connection = psycopg.connect("")
    marks = ", ".join(["%s"] * len(COLUMNS))

    def run() -> None:
        connection.cursor().executemany(f"INSERT INTO {TABLE} VALUES ({marks})".encode(), source)  # noqa: S608 - constants
        connection.commit()

    return run


def _adbc(folder: Path, rows: int) -> Callable[[], None]:
    import pyarrow as pa
    from adbc_driver_postgresql import dbapi

    table = _arrow(folder, rows)
    # Without this type it would write text into jsonb's binary format.
    doc = pa.chunked_array([pa.ExtensionArray.from_storage(pa.json_(), c) for c in table["doc"].chunks])
    table = table.set_column(7, "doc", doc)
    connection = dbapi.connect("postgresql://")

    def run() -> None:
        with connection.cursor() as cursor:
            cursor.adbc_ingest(TABLE, table, mode="append")
        connection.commit()

    return run


def _to_sql(rows: int) -> Callable[[], None]:
    import pandas as pd
    from sqlalchemy import Numeric, create_engine
    from sqlalchemy.dialects.postgresql import JSONB

    frame = pd.DataFrame(_rows(rows), columns=list(COLUMNS))
    engine = create_engine("postgresql+psycopg://")
    engine.connect().close()
    kinds = {"doc": JSONB(), "amount": Numeric(12, 2)}
    return lambda: _none(frame.to_sql(TABLE, engine, if_exists="append", index=False, dtype=kinds))


def _insert_rows(rows: int) -> Callable[[], None]:
    source, hook = _rows(rows), postgres_hook()
    return lambda: hook.insert_rows(TABLE, source, target_fields=list(COLUMNS))


def _none(value: object) -> None:
    """For a lambda whose value nobody needs."""


def _psql_copy(folder: Path) -> Callable[[], float]:
    return lambda: run_psql(f"\\copy {TABLE} FROM '{folder / 'rows.bin'}' (FORMAT binary)")


def _pandas(folder: Path, rows: int) -> Any:
    return _arrow(folder, rows).to_pandas()


def _polars(folder: Path, rows: int) -> Any:
    import polars as pl

    return pl.from_arrow(_arrow(folder, rows))


CONTENDERS: dict[str, Callable[[Path, int], Callable[[], float | None]]] = {
    "psql": lambda folder, rows: _psql_copy(folder),
    "ours-arrow": lambda folder, rows: _ours(_arrow(folder, rows)),
    "ours-polars": lambda folder, rows: _ours(_polars(folder, rows)),
    "ours-pandas": lambda folder, rows: _ours(_pandas(folder, rows)),
    "ours-rows": lambda folder, rows: _ours(_rows(rows)),
    "adbc": _adbc,
    "copy-binary": lambda folder, rows: _psycopg_copy(rows, "binary"),
    "copy-text": lambda folder, rows: _psycopg_copy(rows, "text"),
    "executemany": lambda folder, rows: _executemany(rows),
    "to-sql": lambda folder, rows: _to_sql(rows),
    "insert-rows": lambda folder, rows: _insert_rows(rows),
}


def main(name: str, folder: str, count: str) -> None:
    rows = int(count)
    run = CONTENDERS[name](Path(folder), rows)
    with psycopg.connect("", autocommit=True) as connection:
        connection.execute(f"TRUNCATE {TABLE}".encode())
        # What the run before left to be written is not this one's.
        connection.execute("CHECKPOINT")
        with Stopwatch() as watch:
            own = run()
        seconds = own or watch.seconds
        found = connection.execute(_COUNT.encode()).fetchone()
    assert found is not None
    assert found == (rows, rows * (rows - 1) // 2), found
    figures = {"rows/s": rows / seconds, "CPU": watch.cpu / rows * 1e6, "memory": watch.growth / 1e6}
    report(figures)


if __name__ == "__main__":
    main(*sys.argv[1:])
