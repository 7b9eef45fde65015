from __future__ import annotations

import pickle

import psycopg
import pytest
from psycopg import sql

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.base.sql.names import MAX_NAME_BYTES
from lakebase_provider.core.database.catalog import TableName, read_table
from lakebase_provider.core.errors import BadRowError, ConfigError, TableNotFoundError
from lakebase_provider.local import LocalLakebase


@pytest.mark.parametrize(
    ("text", "schema", "table"),
    [
        ("orders", None, "orders"),
        ("Orders", None, "Orders"),
        ("sales.orders", "sales", "orders"),
        ('"we.ird"."Ta""ble"', "we.ird", 'Ta"ble'),
        ('sales."a b"', "sales", "a b"),
        ("we-ird", None, "we-ird"),
        ('Ta"ble', None, 'Ta"ble'),
        ("t; DROP TABLE x", None, "t; DROP TABLE x"),
        ("ü" * 31, None, "ü" * 31),
    ],
)
def test_names_are_taken_as_they_stand(text: str, schema: str | None, table: str) -> None:
    name = TableName.parse(text)
    assert (name.schema, name.table) == (schema, table)
    assert TableName.parse(str(name)) == name
    assert TableName.parse(name) is name


def test_a_tuple_is_schema_and_table() -> None:
    assert TableName.parse(("a.b", 'c"d')) == TableName('c"d', "a.b")
    assert str(TableName('c"d', "a.b")) == '"a.b"."c""d"'


@pytest.mark.parametrize(
    "text",
    ["", ".", "a.", ".a", "a.b.c", '"a', '"a"b', 'a."b', "a\0b", "x" * (MAX_NAME_BYTES + 1), "ü" * 32, '""'],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        TableName.parse(text)


@pytest.mark.parametrize("name", [3, ("a",), ("a", "b", "c"), ("a", 3), None])
def test_what_is_no_text_is_refused(name: object) -> None:
    with pytest.raises(ConfigError):
        TableName.parse(name)  # type: ignore[arg-type] # what a user may pass


def test_the_catalog_tells_types_keys_and_what_the_server_fills_in(lakebase_env: LocalLakebase) -> None:
    with LakebaseClient(lakebase_env.config()) as client, client.connection() as connection:
        connection.execute("CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad')")
        connection.execute("CREATE DOMAIN price AS numeric(10, 2)")
        connection.execute("CREATE DOMAIN small_price AS price CHECK (VALUE < 100)")
        connection.execute(
            "CREATE TABLE everything (b text, id bigint GENERATED ALWAYS AS IDENTITY, gone int,"
            " a int NOT NULL DEFAULT 3, twice int GENERATED ALWAYS AS (a * 2) STORED, mood mood,"
            " moods mood[], cost small_price, fixed varchar(5), grid int[][], PRIMARY KEY (id, b))"
        )
        connection.execute("ALTER TABLE everything DROP COLUMN gone")
        table = read_table(connection, "everything")
        connection.rollback()
    assert table.name == TableName("everything", "public")
    assert table.kind == "r"
    assert [column.name for column in table.columns] == [
        "b", "id", "a", "twice", "mood", "moods", "cost", "fixed", "grid",
    ]  # fmt: skip
    assert table.primary_key == ("id", "b")
    columns = {column.name: column for column in table.columns}
    assert columns["id"].identity == "always"
    assert columns["id"].has_default
    assert columns["a"].not_null
    assert columns["a"].has_default
    assert columns["twice"].generated
    assert "twice" not in {column.name for column in table.writable}
    assert columns["mood"].enum_labels == columns["moods"].enum_labels == ("sad", "ok", "glad")
    assert columns["cost"].type_name == "small_price"
    assert columns["cost"].type_oid == psycopg.adapters.types["numeric"].oid
    assert columns["cost"].typmod == ((10 << 16) | 2) + 4
    assert columns["fixed"].type_name == "character varying(5)"
    assert columns["grid"].element_oid == psycopg.adapters.types["int4"].oid


def test_a_missing_table_is_told_with_the_name_that_was_meant(lakebase_env: LocalLakebase) -> None:
    with LakebaseClient(lakebase_env.config()) as client, client.connection() as connection:
        connection.execute("CREATE SCHEMA meant")
        connection.execute(sql.SQL("CREATE TABLE {} (a int)").format(TableName("Meant", "meant").sql()))
        with pytest.raises(TableNotFoundError, match=r"There is a table meant\.Meant"):
            read_table(connection, "meant")
        with pytest.raises(TableNotFoundError, match="create=True"):
            read_table(connection, "nothing.like_it")
        connection.rollback()


def test_an_error_of_a_row_survives_another_process() -> None:
    error = BadRowError("Row 3.", row=3, column="a", kind="str")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 # our own
    assert (copy.row, copy.column, copy.kind, str(copy)) == (3, "a", "str", str(error))
