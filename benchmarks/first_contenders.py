"""What a process does that moves data once: each run of one of them is such a process.

python -m benchmarks.first_contenders NAME ROWS FILE

It prints which of the heavy packages it has imported. Nothing is imported here that not all of them need, and
each does what its documentation shows.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.sample_rows import COLUMNS, TABLE, make_rows

#: What is said to have been imported.
HEAVY = ("pandas", "numpy", "pyarrow", "polars", "sqlalchemy", "airflow")
_QUERY = f"SELECT * FROM {TABLE}"  # noqa: S608 - a constant


def _client() -> Any:
    from lakebase_provider.core import LakebaseClient, LakebaseConfig

    e = os.environ
    return LakebaseClient(
        LakebaseConfig.from_mapping(
            {
                "host": e["PGHOST"], "port": e["PGPORT"], "database": e["PGDATABASE"], "user": e["PGUSER"],
                "auth": "password", "password": e["PGPASSWORD"], "sslrootcert": e["PGSSLROOTCERT"],
            }
        )
    )  # fmt: skip


def _engine() -> Any:
    from sqlalchemy import create_engine

    return create_engine("postgresql+psycopg://")


def _ours(source: Any) -> None:
    with _client() as client:
        client.load(source, TABLE)


def _on_a_connection(rows: int) -> None:
    import psycopg

    from lakebase_provider.core import load

    with psycopg.connect("") as connection:
        load(connection, list(make_rows(0, rows)), TABLE)


def _executemany(rows: int) -> None:
    import psycopg
    from psycopg.types.json import Jsonb

    marks = ", ".join(["%s"] * len(COLUMNS))
    values = [(*row[:7], Jsonb(row[7])) for row in make_rows(0, rows)]
    with psycopg.connect("") as connection:
        connection.cursor().executemany(f"INSERT INTO {TABLE} VALUES ({marks})".encode(), values)  # noqa: S608 - constants


def _insert_rows(rows: int) -> None:
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    PostgresHook("bench").insert_rows(TABLE, make_rows(0, rows), target_fields=list(COLUMNS))


def _frame(rows: int) -> Any:
    import pandas as pd

    return pd.DataFrame(list(make_rows(0, rows)), columns=list(COLUMNS))


def _to_sql(frame: Any) -> None:
    from sqlalchemy import Numeric
    from sqlalchemy.dialects.postgresql import JSONB

    kinds = {"doc": JSONB(), "amount": Numeric(12, 2)}
    frame.to_sql(TABLE, _engine(), if_exists="append", index=False, dtype=kinds)


def _copy_csv(table: Any) -> None:
    import psycopg
    import pyarrow as pa
    from pyarrow import csv

    sink = pa.BufferOutputStream()
    csv.write_csv(table, sink, csv.WriteOptions(include_header=False))
    with (
        psycopg.connect("") as connection,
        connection.cursor().copy(f"COPY {TABLE} FROM STDIN (FORMAT csv)".encode()) as copy,
    ):
        copy.write(memoryview(sink.getvalue()))


def _bare_csv(path: str) -> None:
    from pyarrow import csv

    _copy_csv(csv.read_csv(path))


def _bare_parquet(path: str) -> None:
    import pyarrow.parquet as pq

    _copy_csv(pq.read_table(path))


def _fetch_polars() -> int:
    with _client() as client:
        return len(client.fetch_polars(_QUERY))


def _polars_of_psycopg() -> int:
    import polars as pl
    import psycopg

    with psycopg.connect("") as connection:
        return len(pl.read_database(_QUERY, connection))


def _read_sql() -> int:
    import pandas as pd

    return len(pd.read_sql(_QUERY, _engine()))


CONTENDERS: dict[str, Callable[[int, str], Any]] = {
    "nothing": lambda rows, path: list(make_rows(0, rows)),
    "ours-rows": lambda rows, path: _ours(list(make_rows(0, rows))),
    "ours-rows-connection": lambda rows, path: _on_a_connection(rows),
    "executemany": lambda rows, path: _executemany(rows),
    "insert-rows": lambda rows, path: _insert_rows(rows),
    "to-sql-rows": lambda rows, path: _to_sql(_frame(rows)),
    "ours-file": lambda rows, path: _ours(path),
    "bare-csv": lambda rows, path: _bare_csv(path),
    "bare-parquet": lambda rows, path: _bare_parquet(path),
    "ours-frame": lambda rows, path: _ours(_frame(rows)),
    "ours-polars": lambda rows, path: _fetch_polars(),
    "polars": lambda rows, path: _polars_of_psycopg(),
    "read-sql": lambda rows, path: _read_sql(),
}


def main(name: str, rows: str, path: str = "") -> None:
    CONTENDERS[name](int(rows), path)
    print(",".join(package for package in HEAVY if package in sys.modules))


if __name__ == "__main__":
    main(*sys.argv[1:])
