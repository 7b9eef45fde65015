"""Tuples that are streamed hold what psycopg's own cursor gives: the same values, types and text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.abc import Query
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.datetime import DateLoader
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.json import set_json_loads
from psycopg.types.numeric import FloatLoader
from psycopg.types.string import TextLoader

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.read.rows import read_rows
from lakebase_provider.core.errors import LoadError
from lakebase_provider.local import LocalLakebase
from tests.core.bulk.sample_tables import run

_TYPES = """
DROP TYPE IF EXISTS read_row_kind, read_row_pair CASCADE;
CREATE TYPE read_row_kind AS ENUM ('calm', 'läut');
CREATE TYPE read_row_pair AS (a int, b jsonb);
"""


@pytest.fixture(scope="module")
def typed(lakebase_server: LocalLakebase) -> Iterator[LakebaseClient]:
    """A client of a database with types of all kinds."""
    with LakebaseClient(lakebase_server.config()) as client:
        with client.connection() as connection:
            connection.execute(_TYPES)
        yield client
        with client.connection() as connection:
            connection.execute("DROP TYPE read_row_kind, read_row_pair CASCADE")


def told(rows: list[tuple[Any, ...]]) -> list[list[tuple[type, str, Any]]]:
    """Rows with all that tells their values apart; NaN is like itself, and a zone's name counts."""
    return [[(type(value), repr(value), getattr(value, "fold", None)) for value in row] for row in rows]


def outcome(rows: Any) -> Any:
    """What reading gives, or the error that it ends with."""
    try:
        return told(list(rows()))
    except (ValueError, LoadError):
        return "unreadable"  # whose text would show the value
    except psycopg.Error as error:
        return type(error), str(error)


def same(connection: psycopg.Connection[Any], query: Query, params: Any = None) -> list[tuple[Any, ...]]:
    """The rows that are streamed, after they were found to be those of psycopg's cursor."""
    expected = psycopg.Cursor(connection).execute(query, params).fetchall()
    found = list(read_rows(connection, query, params))
    assert told(found) == told(expected)
    return found


#: What psycopg makes of JSON's texts: of blanks, digits, surrogates, and keys that come twice.
_JSON = [
    *(
        '{"a": [1, 2.50, null], "a": 2}',
        '"x"',
        "null",
        "true",
        "-0",
        "0.1",
        "1e999",
        "12345678901234567890.5",
    ),
    *(
        "12345678901234567890.5",
        " 1e999 ",
        "\n[ ]",
        '"\\ud83d\\ude00é"',
        '",\\"[,"',
        "[[[]]]",
        "{}",
        '{"é": {"b": "\\u00e9"}}',
    ),
]


@pytest.mark.parametrize("kind", ["json", "jsonb"])
def test_json_is_read_as_psycopg_reads_it(typed: LakebaseClient, kind: str) -> None:
    with typed.connection() as connection:
        query = (
            f"SELECT v::{kind}, ARRAY[v::{kind}, NULL], ROW(1, v::{kind})"
            " FROM unnest(%s::text[] || NULL::text) v"
        )
        # A surrogate pair by its escapes is no jsonb, a number beyond float is no matter.
        texts = [text for text in _JSON if kind == "json" or "ud83d" not in text]
        assert len(same(connection, query, [texts])) == len(texts) + 1


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_json_in_another_encoding_is_read_as_psycopg_reads_it(typed: LakebaseClient, encoding: str) -> None:
    with typed.connection() as connection:
        connection.execute(sql.SQL("SET LOCAL client_encoding TO {}").format(encoding))
        for query in ("""SELECT '{"a": 1}'::jsonb""", """SELECT '{"ä": "é"}'::jsonb"""):
            expected = outcome(lambda query=query: psycopg.Cursor(connection).execute(query).fetchall())
            assert outcome(lambda query=query: read_rows(connection, query)) == expected


def test_the_connections_loaders_are_used(typed: LakebaseClient) -> None:
    class Shouting(TextLoader):
        def load(self, data: Any) -> Any:
            return f"<{bytes(data).decode()}>"

    class Dated(DateLoader):
        def load(self, data: Any) -> Any:
            return super().load(data).isoformat()

    with closing(typed.connect()) as connection:
        adapters = connection.adapters
        for kind in (
            "text",
            "bool",
            "int8",
            "timestamptz",
            "jsonb",
            "bytea",
            "inet",
            "uuid",
            "xml",
            "float8",
        ):
            adapters.register_loader(kind, Shouting)
        adapters.register_loader("numeric", FloatLoader)
        adapters.register_loader("date", Dated)
        set_json_loads(lambda text: ("json", json.loads(text)), connection)
        adapters.register_loader("jsonb", Shouting)
        kind = EnumInfo.fetch(connection, "read_row_kind")
        assert kind is not None
        register_enum(kind, connection)
        pair = CompositeInfo.fetch(connection, "read_row_pair")
        assert pair is not None
        register_composite(pair, connection)
        [row, none] = same(
            connection,
            "SELECT 'é', true, 7::int8, timestamptz '2024-01-02', '{\"a\": 1}'::jsonb, '\\x00'::bytea,"
            " '1.2.3.4'::inet, '00000000-0000-0000-0000-000000000001'::uuid, 0.5::float8, 1.50,"
            " date '2024-01-02', '{\"a\": 1}'::json, 'calm'::read_row_kind, ROW(1, '[2]')::read_row_pair,"
            " ARRAY[1.5], ARRAY['calm'::read_row_kind], ARRAY[ROW(1, NULL)::read_row_pair], ROW(1, 'a'),"
            " ROW(NULL, NULL)::read_row_pair"
            f" UNION ALL SELECT {', '.join(['NULL'] * 17)}, NULL, NULL",
        )
        assert row[:3] == ("<é>", "<t>", "<7>")
        assert (row[9], row[11]) == (1.5, ("json", {"a": 1}))
        assert none == (None,) * 19


def test_json_loads_that_is_set_for_all_is_used(typed: LakebaseClient) -> None:
    set_json_loads(lambda text: json.loads(text, parse_float=Decimal))
    try:
        with typed.connection() as connection:
            [row] = same(connection, "SELECT '1.50'::jsonb, '[1.50]'::json")
    finally:
        set_json_loads(json.loads)
    assert row == (Decimal("1.50"), [Decimal("1.50")])


def test_json_that_python_cannot_read_is_refused_without_its_text(typed: LakebaseClient) -> None:
    query = "SELECT ('[' || repeat('9', 5000) || ']')::json AS v FROM generate_series(1, 3)"
    with typed.connection() as connection:
        expected = outcome(lambda: psycopg.Cursor(connection).execute(query).fetchall())
        assert outcome(lambda: read_rows(connection, query)) == expected == "unreadable"


def test_many_batches_of_every_column_with_nulls_in_some(typed: LakebaseClient) -> None:
    query = (
        "SELECT i, nullif(i % 3, 0), i / 3.0, CASE WHEN i > 5000 THEN repeat('é', i % 50) END, i % 2 = 0,"
        " timestamptz '2000-01-01' + i * interval '1 day 1 second', jsonb_build_object('i', i),"
        " i::float4 / 3, ARRAY[i, NULL], i * 1e15 FROM generate_series(1, 12345) i"
    )
    with typed.connection() as connection:
        assert len(same(connection, query)) == 12345


def test_names_of_columns_do_not_matter(typed: LakebaseClient) -> None:
    query = """SELECT 1 AS a, '1.2.3.4'::inet AS a, 2 AS "B ""c%s{0}", 1.5::float4 AS "select", 3 AS "?\""""
    with typed.connection() as connection:
        same(connection, query)


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("SELECT 1 WHERE false", 0),
        ("SELECT 1::float4 WHERE false", 0),
        ("SELECT FROM generate_series(1, 5000)", 5000),
        ("SELECT WHERE false", 0),
        ("VALUES (1, 'a'), (2, NULL)", 2),
        ("TABLE pg_catalog.pg_type", None),
        ("WITH a AS (SELECT 1) SELECT * FROM a; -- the end;", 1),
        ("SELECT ';' AS a /* ; */ ; /* it's */ ;", 1),
        ("SELECT '50%' AS a, 'x' LIKE '%s'", 1),
        ("SELECT * FROM pg_catalog.pg_stats LIMIT 50", None),
        ("SELECT * FROM pg_catalog.pg_class", None),
        ("SELECT * FROM pg_catalog.pg_proc LIMIT 200", None),
        ("SELECT pg_catalog.pg_sleep(0), 1", 1),
        ("SELECT NULL, 'unknown', ROW(1, NULL, 'a b')", 1),
    ],
)
def test_queries_of_any_form(typed: LakebaseClient, query: str, rows: int | None) -> None:
    with typed.connection() as connection:
        found = same(connection, query)
    assert rows is None or len(found) == rows


def test_parameters_are_bound(typed: LakebaseClient) -> None:
    with typed.connection() as connection:
        same(connection, "SELECT %s, %s, %s, 2::numeric * %s", [1.5, -1, Decimal("NaN"), 1.5])
        same(connection, "SELECT %(a)s::text, %(b)s, '50%%'", {"a": "%s", "b": None})
        same(connection, "SELECT i FROM generate_series(%s::int, %s) i LIMIT %s", [1, 5, 3])


def test_statements_of_any_kind_that_return_rows(client: LakebaseClient) -> None:
    run(client, "CREATE TABLE changed (i int)")
    assert list(client.iter_rows("INSERT INTO changed VALUES (%s), (2) RETURNING i", [1])) == [(1,), (2,)]
    assert list(client.iter_rows("WITH d AS (DELETE FROM changed RETURNING i) SELECT sum(i) FROM d")) == [
        (3,)
    ]
    assert list(client.iter_rows("SHOW standard_conforming_strings")) == [("on",)]
    assert "Result" in next(client.iter_rows("EXPLAIN SELECT 1"))[0]
    with pytest.raises(LoadError, match="returns no rows"):
        list(client.iter_rows("INSERT INTO changed VALUES (4)"))
    with closing(client.iter_rows("INSERT INTO changed SELECT generate_series(1, 9) RETURNING i")) as rows:
        assert next(rows) == (1,)
    # Neither was committed: one failed, the other was left early.
    assert run(client, "SELECT count(*) FROM changed") == [(0,)]


def test_a_loop_that_is_left_early_leaves_nothing_running(client: LakebaseClient) -> None:
    with closing(client.connect()) as connection:
        for _ in range(3):
            with closing(
                read_rows(connection, "SELECT i, i::float4 FROM generate_series(1, 9000000) i")
            ) as rows:
                assert next(rows) == (1, 1.0)
            connection.rollback()
            assert connection.execute("SELECT 1").fetchall() == [(1,)]
            connection.rollback()


@pytest.mark.parametrize("value", ["1 / (5000 - i)", "CASE i WHEN 5000 THEN date 'infinity' END"])
def test_an_error_in_the_middle_comes_as_it_is(client: LakebaseClient, value: str) -> None:
    error = psycopg.errors.DivisionByZero if "/" in value else psycopg.DataError
    with closing(client.connect()) as connection:
        rows = read_rows(connection, f"SELECT i, {value} FROM generate_series(1, 3000000) i")
        with pytest.raises(error):
            assert max(row[0] for row in rows) == 0
        connection.rollback()
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
    with pytest.raises(psycopg.errors.UndefinedTable):
        next(client.iter_rows("SELECT * FROM absent"))
    assert run(client, "SELECT 1") == [(1,)]


def test_outside_a_transaction(client: LakebaseClient) -> None:
    with closing(client.connect()) as connection:
        connection.set_autocommit(True)
        assert same(connection, "SELECT 1, 'a'::text") == [(1, "a")]
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


#: Statements with one value, "1", and comments that look like placeholders.
COMMENTED = [
    "select %s::int -- was %(region)s",
    "select %s::int -- 100% sure",
    "select %s::int /* %s /* %b */ */",
    b"select %s::int -- was %(region)s",
    sql.SQL("select %s::int -- was %(region)s"),
]


@pytest.mark.parametrize("query", COMMENTED, ids=repr)
def test_what_stands_in_a_comment_is_no_placeholder(client: LakebaseClient, query: Any) -> None:
    assert list(client.iter_rows(query, (1,))) == [(1,)]
    assert client.fetch_arrow(query, (1,)).column(0).to_pylist() == [1]
    with client.connection() as connection:
        with connection.cursor("one") as cursor:
            assert cursor.execute(query, (1,)).fetchall() == [(1,)]
        with connection.cursor() as cursor:
            assert list(cursor.stream(query, (1,))) == [(1,)]
            cursor.executemany(query, [(1,), (2,)], returning=True)
            assert cursor.fetchall() == [(1,)]


def test_comments_are_comments_for_many_rows_and_copies(client: LakebaseClient) -> None:
    with client.connection() as connection:
        connection.execute("create temp table t (a int) -- was %s", ())
        with connection.cursor() as cursor:
            cursor.executemany("insert into t values (%s) -- was %(region)s", [(1,), (2,)])
            with cursor.copy("copy (select a from t where a > %s -- %(b)s, 5 %\n) to stdout", (1,)) as copy:
                assert list(copy.rows()) == [("2",)]
    run(client, "create table many (a int)")
    assert client.executemany_pipeline("insert into many values (%s) -- was %(a)s", [(1,), (2,)]) == 2
    assert run(client, "select a from many order by a") == [(1,), (2,)]


def test_a_percent_sign_that_is_no_placeholder_is_named_as_such(client: LakebaseClient) -> None:
    for read in (lambda *of: list(client.iter_rows(*of)), client.fetch_arrow):
        with pytest.raises(psycopg.ProgrammingError, match="placeholder"):
            read("select %s::int, 'a%'", (1,))
        with pytest.raises(psycopg.ProgrammingError, match="parameter"):
            read("select %s::int", (1, 2))
    with pytest.raises(LoadError, match="returns no rows"):
        list(client.iter_rows("set enable_seqscan = on", ()))
