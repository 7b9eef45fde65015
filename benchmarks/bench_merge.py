"""Merging rows into a table of as many, half of whose keys exist, over TLS: `make bench-merge`.

The server keeps what it has acknowledged (fsync on), as one in production does: the peer commits every 1,000
rows, as it does by default, and a merge once. Each contender finds the table as it was written since the last
checkpoint, so that none pays for full page images, whose number depends on pages and not on rows. Table and
index fit into shared_buffers (256 MB).

Rows come in the order of their key, as the table's own lie, and where a name says so in none. A merge is
bound by one backend's CPU, most of it in MERGE itself. The peer has two processes that work at the same time,
its own and its backend, so the ratio to it is smaller where both cores are free.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from benchmarks.harness import Bench
from benchmarks.load_contenders import make_arrow
from benchmarks.sample_rows import COLUMNS, make_rows
from benchmarks.tls_server import postgres_hook, tls_server

#: Rows; BENCH_ROWS sets another number for a quick look.
_ROWS = int(os.environ.get("BENCH_ROWS", "1000000"))
#: Of these rows the slow peer merges every so many into the same table; its name says so.
_EVERY = 4
_ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))

_LIMIT = "staged MERGE on the server"
_ALONE = "its MERGE alone, rows staged before"
_LIMIT_NO_ORDER = "staged MERGE on the server, in no order"
_INSERT_ROWS = f"insert_rows(replace=True), {_ROWS // _EVERY // 1000} k"
_TABLE = "bench_merge"
_DDL = (
    "(id bigint PRIMARY KEY, n int, x double precision, amount numeric(12,2), name text, at timestamptz,"
    " flag boolean, doc jsonb)"
)


class Merges:
    """The contenders, each of which begins with the same table and leaves the same rows.

    Args:
        connection: An autocommit connection of the server's superuser.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._hook = postgres_hook()
        self._client = psycopg.connect("")
        same = make_arrow(_ROWS // 2, _ROWS // 2 + _ROWS)
        #: Rows of which half exist, with another value in one column.
        self.arrow = same.set_column(1, "n", _plus_one(same["n"]))
        names = ", ".join(COLUMNS)
        sets = ", ".join(f"{name} = s.{name}" for name in COLUMNS[1:])
        values = ", ".join(f"s.{name}" for name in COLUMNS)
        self._merge = (
            f"MERGE INTO {_TABLE} AS t USING stage AS s ON t.id = s.id"  # noqa: S608 # constants
            f" WHEN MATCHED THEN UPDATE SET {sets} WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({values})"
        )
        self._execute(f"CREATE TABLE old {_DDL}")
        self._execute(f"CREATE TABLE {_TABLE} {_DDL}")
        from lakebase_provider.core.bulk.load.load import load

        self._load = load
        load(self._client, make_arrow(0, _ROWS), "old")
        self._client.commit()
        self._execute(f"CREATE TABLE new {_DDL}")
        load(self._client, self.arrow, "new")
        self._client.commit()
        (data,) = connection.execute("SHOW data_directory").fetchone() or ("",)
        self._folder = data
        self._execute(f"COPY new TO '{data}/in order' (FORMAT binary)")
        no_order = "SELECT * FROM new ORDER BY md5(id::text)"
        self._execute(f"COPY ({no_order}) TO '{data}/in no order' (FORMAT binary)")

    def on_the_server(self, *, rows: str = "in order", count_staging: bool = True) -> Callable[[], float]:
        """Rows from a file of the server's own into a temporary table, then MERGE: no client, no network."""

        def run() -> None:
            self._execute("BEGIN")
            self._execute(f"CREATE TEMPORARY TABLE stage (LIKE {_TABLE}) ON COMMIT DROP")
            self._execute(f"COPY stage FROM '{self._folder}/{rows}' (FORMAT binary)")
            staged = time.perf_counter()
            self._execute(self._merge)
            self._execute("COMMIT")
            if not count_staging:
                self._began = staged

        return lambda: self._rate(run, _ROWS)

    def ours(self, source: Any) -> Callable[[], float]:
        """The load as users call it, from the client, counts included."""

        def run() -> None:
            result = self._load(self._client, source, _TABLE, mode="merge")
            self._client.commit()
            assert (result.inserted, result.updated) == (_ROWS - _ROWS // 2, _ROWS // 2), result

        return lambda: self._rate(run, _ROWS)

    def insert_rows(self, rows: Sequence[tuple[Any, ...]]) -> float:
        """The hook's upsert."""
        return self._rate(
            lambda: self._hook.insert_rows(
                _TABLE, rows, target_fields=list(COLUMNS), replace=True, replace_index="id"
            ),
            len(rows),
        )

    def close(self) -> None:
        """Close what would keep the server from ending."""
        self._client.close()

    def _rate(self, run: Callable[[], None], rows: int) -> float:
        self._execute(f"TRUNCATE {_TABLE}")
        self._execute("CHECKPOINT")
        self._execute(f"INSERT INTO {_TABLE} SELECT * FROM old")  # noqa: S608 # constants
        self._execute(f"VACUUM ANALYZE {_TABLE}")
        self._began = time.perf_counter()
        run()
        return rows / (time.perf_counter() - self._began)

    def _execute(self, statement: str) -> None:
        self._connection.execute(statement.encode())


def _plus_one(column: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.add(column, pa.scalar(1, pa.int32()))


def _shuffled(number: int) -> list[int]:
    """The numbers below it, in an order that is none but is the same in each run."""
    numbers = list(range(number))
    random.Random(1).shuffle(numbers)  # noqa: S311 # no secret
    return numbers


def main() -> int:
    bench = Bench("merge")
    with tls_server(fsync="on"), psycopg.connect("", autocommit=True) as connection:
        merges = Merges(connection)
        no_order = merges.arrow.take(_shuffled(_ROWS))
        rows = [(row[0], row[1] + 1, *row[2:]) for row in make_rows(_ROWS // 2, _ROWS // 2 + _ROWS)]
        # Spread over the whole batch: half exist too, and the table is touched everywhere.
        few = rows[::_EVERY]
        figures = bench.compare(
            f"merge {_ROWS // 1000} k into as many, fsync on",
            "rows/s",
            {
                _LIMIT: merges.on_the_server(),
                _ALONE: merges.on_the_server(count_staging=False),
                _LIMIT_NO_ORDER: merges.on_the_server(rows="in no order"),
                "ours: Arrow": merges.ours(merges.arrow),
                "ours: Arrow, in no order": merges.ours(no_order),
                "ours: rows": merges.ours(rows),
                _INSERT_ROWS: lambda: merges.insert_rows(few),
            },
            rounds=_ROUNDS,
        )
        merges.close()
    bench.at_least(
        "ours: Arrow / staged MERGE on the server", bench.ratio(figures, "ours: Arrow", _LIMIT), 0.75
    )
    bench.at_least(
        "ours: Arrow, in no order / staged MERGE on the server, in no order",
        bench.ratio(figures, "ours: Arrow, in no order", _LIMIT_NO_ORDER),
        1,
    )
    for ours in ("ours: Arrow", "ours: rows"):
        peer = bench.ratio(figures, ours, _INSERT_ROWS)
        bench.at_least(f"{ours} / insert_rows(replace=True)", peer, 7 if ours == "ours: Arrow" else 3)
    return bench.finish()


if __name__ == "__main__":
    raise SystemExit(main())
