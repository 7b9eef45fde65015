"""Rows of a Delta table into Postgres, whole and by its change data feed, over TLS: `make bench-delta`.

Whole: the same rows from a Delta table and from a Parquet file, and by what people write today, a data frame
and to_sql. Changes: a feed of updates and new rows into a table of ten times as many, beside a merge of just
those rows from Arrow data, which nobody has unless something told them apart. The server keeps what it has
acknowledged there (fsync on), and each run finds the table as it was, after a checkpoint.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.delta_contenders import FEED, prepare, reader
from benchmarks.harness import Bench, fresh
from benchmarks.load_contenders import make_arrow
from benchmarks.tls_server import tls_server

#: Rows; BENCH_ROWS sets another number for a quick look. The second size is ten times as many.
_ROWS = int(os.environ.get("BENCH_ROWS", "1000000"))
#: The slow peer loads a tenth: its name says so.
_FEW = _ROWS // 10
_ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
_CHANGES = _ROWS // 10

_DELTA, _PARQUET = "ours: Delta", "ours: Parquet"
_TO_SQL = f"to_pandas + to_sql ({_FEW // 1000} k rows)"
_FEED, _ARROW = "ours: change feed", "ours: merge from Arrow"
_TABLE = "bench_changes"
_DDL = (
    "(id bigint PRIMARY KEY, n int, x double precision, amount numeric(12,2), name text, at timestamptz,"
    " flag boolean, doc jsonb)"
)


class Changes:
    """A Delta table with changes, and the table in which they are missing.

    Args:
        connection: An autocommit connection of the server's superuser.
        client: The connection that loads.
        folder: Where the Delta table is made.
    """

    def __init__(
        self, connection: psycopg.Connection[Any], client: psycopg.Connection[Any], folder: Path
    ) -> None:
        from deltalake import DeltaTable, write_deltalake

        from lakebase_provider.core import Delta
        from lakebase_provider.core.bulk.load.load import load

        self._connection = connection
        self._client = client
        self._load = load
        self._source = f"delta:{folder / 'changes'}"
        write_deltalake(folder / "changes", reader(0, _ROWS), configuration=FEED)
        # Half of the rows exist, spread over the end of the table; one value of each is another.
        self._rows = _changed(make_arrow(_ROWS - _CHANGES // 2, _ROWS + _CHANGES // 2))
        for name in ("old", _TABLE):
            self._execute(f"CREATE TABLE {name} {_DDL}")
        first = Delta(folder / "changes", version=0)
        result = load(self._client, first, "old", mode="merge", since="ledger")
        self._client.commit()
        self._noted = result.load_id
        merging = DeltaTable(folder / "changes").merge(
            self._rows, "t.id = s.id", source_alias="s", target_alias="t"
        )
        merging.when_matched_update_all().when_not_matched_insert_all().execute()

    def feed(self) -> float:
        """What has changed, by the feed."""
        return self._rate(
            lambda: self._load(self._client, self._source, _TABLE, mode="merge", since="ledger")
        )

    def arrow(self) -> float:
        """The same rows, which are all there is to merge."""
        return self._rate(lambda: self._load(self._client, self._rows, _TABLE, mode="merge"))

    def _rate(self, run: Callable[[], Any]) -> float:
        self._execute(f"TRUNCATE {_TABLE}")
        self._execute("CHECKPOINT")
        self._execute(f"INSERT INTO {_TABLE} SELECT * FROM old")  # noqa: S608 # constants
        self._execute("DELETE FROM lakebase_load")
        self._connection.execute(
            "INSERT INTO lakebase_load (table_name, load_id, mode) VALUES (%s, %s, 'merge')",
            (f"public.{_TABLE}", self._noted),
        )
        self._execute(f"VACUUM ANALYZE {_TABLE}")
        began = time.perf_counter()
        result = run()
        self._client.commit()
        seconds = time.perf_counter() - began
        assert (result.inserted, result.updated) == (_CHANGES - _CHANGES // 2, _CHANGES // 2), result
        return _CHANGES / seconds

    def _execute(self, statement: str) -> None:
        self._connection.execute(statement.encode())


def _changed(table: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    return table.set_column(1, "n", pc.add(table["n"], pa.scalar(200_000, pa.int32())))


def main() -> int:
    bench = Bench("delta")
    units = {"rows/s": "rows/s", "CPU": "s per 1 M rows", "memory": "MB above start"}
    with tls_server(), tempfile.TemporaryDirectory() as name:
        for rows in (_ROWS, _ROWS * 10):
            prepare(Path(name), rows)

            def contender(key: str, count: int = rows) -> Callable[[], dict[str, float]]:
                return lambda: fresh("benchmarks.delta_contenders", key, name, str(count))

            contenders = {_DELTA: contender("ours-delta"), _PARQUET: contender("ours-parquet")}
            if rows == _ROWS:
                prepare(Path(name), _FEW)
                contenders[_TO_SQL] = contender("to-sql", _FEW)
            found = bench.compare_runs(f"load {rows // 1000} k rows x 8", units, contenders, rounds=_ROUNDS)
            size = f"{rows // 1000} k rows"
            rate = found["rows/s"]
            bench.at_least(f"{_DELTA} / {_PARQUET}, {size}", bench.ratio(rate, _DELTA, _PARQUET), 0.85)
            bench.at_most(f"{_DELTA}, {size}: MB above start", max(found["memory"][_DELTA]), 96)
            if rows == _ROWS:
                bench.at_least(f"{_DELTA} / to_pandas + to_sql", bench.ratio(rate, _DELTA, _TO_SQL), 15)
    with (
        tls_server(fsync="on"),
        psycopg.connect("", autocommit=True) as connection,
        psycopg.connect("") as client,
        tempfile.TemporaryDirectory() as name,
    ):
        changes = Changes(connection, client, Path(name))
        contest = {_FEED: changes.feed, _ARROW: changes.arrow}
        figures = bench.compare(
            f"{_CHANGES // 1000} k changes into {_ROWS // 1000} k, fsync on",
            "rows/s",
            contest,
            rounds=_ROUNDS,
        )
    bench.at_least(f"{_FEED} / {_ARROW}", bench.ratio(figures, _FEED, _ARROW), 0.75)
    return bench.finish()


if __name__ == "__main__":
    raise SystemExit(main())
