"""A cursor that gives Arrow data, as that of a SQL warehouse: streamed, without Python values."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.sources.source import ROWS
from lakebase_provider.core.errors import ConfigError
from tests.core.bulk.sample_tables import run


class Cursor:
    """As databricks.sql's: what is left comes as a table, at the end one without rows and without columns."""

    def __init__(self, *tables: pa.Table) -> None:
        self._tables = list(tables)
        self.description = [(name, None) for name in tables[0].column_names] if tables else None
        self.rownumber = 0
        self.asked: list[int] = []

    def fetchmany_arrow(self, size: int) -> pa.Table:
        self.asked.append(size)
        if not self._tables or not self._tables[0].num_rows:
            return pa.table({})
        found = self._tables[0].slice(0, size)
        self._tables[0] = self._tables[0].slice(size)
        if not self._tables[0].num_rows:
            self._tables.pop(0)
        self.rownumber += found.num_rows
        return found

    def execute(self, statement: str) -> None:
        self.statement = statement

    def close(self) -> None:
        self._tables = []

    def fetchmany(self, size: int) -> list[Any]:
        raise AssertionError("Rows are asked for.")


def table_of(count: int, begin: int = 0) -> pa.Table:
    numbers = range(begin, begin + count)
    return pa.table(
        {
            "id": pa.array(numbers, pa.int64()),
            "amount": pa.array([Decimal(number) / 100 for number in numbers], pa.decimal128(12, 2)),
            "tags": pa.array([[f"tag {number}"] for number in numbers]),
        }
    )


def test_it_is_streamed(client: LakebaseClient) -> None:
    cursor = Cursor(table_of(2 * ROWS + 1))
    result = client.load(cursor, "t", create=True, keys=["id"])
    assert (result.inserted, result.format) == (2 * ROWS + 1, "binary")
    assert cursor.asked == [ROWS] * 4
    types = "SELECT pg_typeof(id)::text, pg_typeof(amount)::text, pg_typeof(tags)::text FROM t WHERE id = 7"
    assert run(client, types) == [("bigint", "numeric", "text[]")]
    assert run(client, "SELECT amount, tags FROM t WHERE id = 20000") == [(Decimal("200.00"), ["tag 20000"])]


def test_files_of_a_result_differ_in_what_may_be_null(client: LakebaseClient) -> None:
    first = table_of(ROWS)
    fields = [field.with_nullable(False) for field in first.schema]
    cursor = Cursor(first.cast(pa.schema(fields)), table_of(5, ROWS))
    assert client.load(cursor, "t", create=True, columns=["id", "amount"]).inserted == ROWS + 5


def test_no_row(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id bigint, amount numeric, tags text[])")
    assert client.load(Cursor(table_of(0)), "t").inserted == 0
    with pytest.raises(ConfigError, match="is empty"):
        client.load(Cursor(table_of(0)), "t", mode="replace")
    assert client.load(Cursor(table_of(0)), "t", mode="replace", allow_empty=True).inserted == 0


def test_it_is_read_once(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id bigint, amount numeric, tags text[])")
    cursor = Cursor(table_of(3))
    assert client.load(cursor, "t").inserted == 3
    with pytest.raises(ConfigError, match="read to its end"):
        client.load(cursor, "t")
    begun = Cursor(table_of(3))
    begun.fetchmany_arrow(1)
    with pytest.raises(ConfigError, match="read in part before"):
        client.load(begun, "t", mode="replace")
    assert run(client, "SELECT count(*) FROM t") == [(3,)]


def test_no_statement(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE t (id bigint)")
    with pytest.raises(ConfigError, match="no result"):
        client.load(Cursor(), "t")
