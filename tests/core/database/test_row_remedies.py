"""What is advised about a row that is refused helps there: real rows, real constraints."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.load.transfer.transfer import PostgresQuery
from lakebase_provider.core.errors import BadRowError, LoadError
from tests.core.bulk.sample_tables import run

TABLES = """
CREATE TABLE items (id int PRIMARY KEY, v int NOT NULL CHECK (v > 0), t timestamp, j jsonb, n numeric(4, 1));
CREATE TABLE lines (item int REFERENCES items, CONSTRAINT apart EXCLUDE (item WITH =));
CREATE TABLE parts (d int) PARTITION BY LIST (d);
INSERT INTO items VALUES (1, 1)
"""


@pytest.fixture
def tables(client: LakebaseClient) -> LakebaseClient:
    with client.connection() as connection:
        for statement in TABLES.split(";"):
            connection.execute(statement.encode())
    return client


#: By the constraint: table, rows, options, and what the remedy says.
BROKEN: dict[str, tuple[str, Any, dict[str, Any], str]] = {
    "unique": ("items", [(1, 1)], {"columns": ["id", "v"]}, "mode='merge' with keys="),
    "unique in a merge": (
        "items",
        [(5, 1), (5, 2)],
        {"columns": ["id", "v"], "mode": "merge", "keys": ["v"]},
        "Load each key once",
    ),
    "check": ("items", [(2, -1)], {"columns": ["id", "v"]}, "constraint with ALTER TABLE"),
    "foreign key": ("lines", [(7,)], {}, "the referenced rows first"),
    "still referred to": (
        "items",
        [(9, 9)],
        {"columns": ["id", "v"], "mode": "replace", "where": "true"},
        "reference these",
    ),
    "exclusion": ("lines", [(1,), (1,)], {}, "exclude each other"),
    "no partition": ("parts", [(1,)], {}, "Create the partition"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize(
    "on_error", [{}, {"on_error": "reject", "reject_to": "rejects"}], ids=["fail", "reject"]
)
def test_a_broken_constraint(tables: LakebaseClient, case: str, on_error: dict[str, Any]) -> None:
    table, rows, options, remedy = BROKEN[case]
    if case == "still referred to":
        run(tables, "INSERT INTO lines VALUES (1)")
    with pytest.raises(LoadError) as caught:
        tables.load(rows, table, **options, **on_error)
    assert isinstance(caught.value, BadRowError)
    assert remedy in caught.value.remedy
    assert "on_error" not in caught.value.remedy
    assert (caught.value.sqlstate or "").startswith("23")


def test_a_null_that_a_check_of_the_values_finds(tables: LakebaseClient) -> None:
    with pytest.raises(BadRowError, match=r"column 'v': NULL, which the column refuses\.") as caught:
        tables.load([(3, None)], "items", columns=["id", "v"])
    assert "DROP NOT NULL" in caught.value.remedy
    # There it helps, and it is true.
    assert "on_error='reject'" in caught.value.remedy
    result = tables.load([(3, None)], "items", columns=["id", "v"], on_error="reject", reject_to="rejects")
    assert result.rejected == 1


def int96(folder: Path) -> Path:
    table = pa.table({"id": [4], "v": [1], "t": pa.array([datetime(9999, 12, 31)], pa.timestamp("us"))})
    pq.write_table(table, folder / "spark.parquet", use_deprecated_int96_timestamps=True)
    return folder / "spark.parquet"


#: What is right in the source, and does not go into the column: rows, and what the remedy says.
RIGHT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "int96": (int96, "TIMESTAMP_MICROS"),
    "nanoseconds": (
        lambda _: pa.table(
            {"id": [4], "v": [1], "t": pa.array([1_577_836_800_000_000_001], pa.timestamp("ns"))}
        ),
        "microseconds",
    ),
    "too many digits": (
        lambda _: [{"id": 4, "v": 1, "n": "1.25"}],
        "a type that holds the value",
    ),
    "out of range": (lambda _: [{"id": 4, "v": 1 << 40}], "a type that holds the value"),
    "a float for an integer": (lambda _: pa.table({"id": [4], "v": [1.5]}), "Cast the source's column"),
}


@pytest.mark.parametrize("case", RIGHT)
def test_a_row_that_is_right_is_not_to_be_corrected(
    tables: LakebaseClient, tmp_path: Path, case: str
) -> None:
    source, remedy = RIGHT[case]
    with pytest.raises(BadRowError) as caught:
        tables.load(source(tmp_path), "items")
    assert remedy in caught.value.remedy
    assert "Correct the row" not in caught.value.remedy


def test_a_transfer_advises_the_query(tables: LakebaseClient) -> None:
    with tables.connection() as source, pytest.raises(BadRowError) as caught:
        tables.load(PostgresQuery(source, "SELECT 4 AS id, 1 AS v, 1.25::numeric(5, 2) AS n"), "items")
    assert "in the query" in caught.value.remedy
    run(
        tables,
        "DROP TYPE IF EXISTS verdict CASCADE; CREATE TYPE verdict AS ENUM ('ok');"
        " DROP TABLE IF EXISTS verdicts; CREATE TABLE verdicts (m verdict)",
    )
    with tables.connection() as source, pytest.raises(BadRowError) as unknown:
        tables.load(PostgresQuery(source, "SELECT 'bad' AS m"), "verdicts")
    assert "in the query" in unknown.value.remedy
    with tables.connection() as source, pytest.raises(BadRowError) as broken:
        tables.load(PostgresQuery(source, "SELECT 1 AS id, 1 AS v"), "items")
    assert "on_error" not in broken.value.remedy


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": {"tags": [1, {2, object}]}}, r"set at key 'a\.tags\[1\]'"),
        ({"a": [0.5, float("nan")]}, r"NaN or an infinity at key 'a\[1\]'"),
        ({"a": {"b": object()}}, r"object at key 'a\.b'"),
        ({(1, 2): 3}, "a key of dict"),
        (["\ud800"], r"a text with half a surrogate pair at key '\[0\]'"),
    ],
)
def test_what_json_cannot_say_is_told_by_its_key(tables: LakebaseClient, value: Any, where: str) -> None:
    with pytest.raises(BadRowError, match=rf"row 2, column 'j': \w+, no jsonb: {where}\.") as caught:
        tables.load([{"id": 4, "v": 1, "j": {}}, {"id": 5, "v": 1, "j": value}], "items")
    assert "a value that JSON has" in caught.value.remedy


def test_a_pipeline_names_no_option_of_a_load(tables: LakebaseClient) -> None:
    with pytest.raises(BadRowError) as caught:
        tables.executemany_pipeline("INSERT INTO items VALUES (%s, %s)", [(1, 1)])
    assert "mode=" not in caught.value.remedy
    with pytest.raises(BadRowError) as caught:
        tables.executemany_pipeline("INSERT INTO items VALUES (%s, %s::int)", [(8, "x")])
    assert caught.value.remedy == "Correct the row in the source."
