"""Tuples that are streamed hold what psycopg's own cursor gives: the same values, types and text."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal, localcontext
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.abc import Query
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.datetime import DateLoader
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.json import set_json_loads
from psycopg.types.numeric import FloatLoader
from psycopg.types.string import TextLoader

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk import read_rows as module
from lakebase_provider.core.bulk.read_rows import read_rows
from lakebase_provider.core.errors import LoadError
from lakebase_provider.local import LocalLakebase
from tests.core.bulk.tables import run
from tests.core.bulk.test_read_fidelity import AS_TEXT, SAME

_ZONES = [
    "UTC",
    "Europe/Berlin",
    "Pacific/Chatham",
    "America/St_Johns",
    "Africa/Monrovia",
    "Etc/UTC",
    "+05:30",
]

#: By type, literals; those of the wider test of reading, and what only Python's values tell apart.
LITERALS: dict[str, list[str]] = {
    **AS_TEXT,
    "numeric": [
        *("0", "0.00", "-0.0", "1.50", "100", "1e20", "1e-20", "1e400", "-1e-400", "NaN", "Infinity"),
        *(
            "-Infinity",
            "12345.6789",
            "0.0001",
            "9999.9999",
            "10000",
            "99999999999999.9999",
            "0.10000000000000",
        ),
        *("123456789012345678", "1234567890123456789", "-999999999999999999", "0.000000000000000001"),
        *("0.00000000000000", "100000000.00000000", "1.000000000000000000000000000000"),
    ],
    "numeric(3,-2)": ["12345", "-100", "0"],
    "numeric(18,9)": ["NaN", "123456789.123456789", "0", "-0.000000001", "1", "10000", "-99999.5"],
    "numeric(18,18)": ["0.1", "-0.000000000000000001", "0", "0.999999999999999999"],
    "numeric(18,0)": ["999999999999999999", "-1", "0", "10000", "NaN"],
    "numeric(2,5)": ["0.00099", "0", "-0.00001"],
    "numeric(40,1)": ["0", "1", "99999999999999999999999999999999999999.9"],
    "float4": ["1.1", "3.4028235e38", "1e-45", "-0", "NaN", "-Infinity", "16777216"],
    "float8": ["1.1", "1.7976931348623157e308", "5e-324", "-0", "NaN", "Infinity", "-Infinity"],
    "date": ["0001-01-01", "9999-12-31", "2000-01-01", "1999-12-31"],
    "time": ["00:00", "23:59:59.999999", "12:00:00.5"],
    "timestamp": ["0001-01-01", "9999-12-31 23:59:59.999999", "1999-12-31 23:59:59.999999"],
    "timestamptz": [
        "0001-01-03+00",
        "9999-12-29+00",
        "2021-10-31 00:30+00",
        "2021-10-31 01:30+00",
        "1900-01-01+00",
    ],
    "timetz": ["12:00:00+02", "23:59:59.999999-11:30", "00:00+05:53:28"],
    "interval": [
        *("1 mon", "-1 mon", "14 mons -3 days 00:00:01", "-14 mons +3 days -00:00:00.000001", "100 years"),
        *("0", "-1 day 00:00:01", "200000000 days", "-200000000 days", "12345678:00:00", "-1 year -1 day"),
        *("178000000 years", "-178000000 years 1 mon", "27379 years 30 days", "2400000000:00:00.5"),
    ],
    "uuid": ["00000000-0000-0000-0000-000000000000", "FFeeDDcc-1234-5678-9abc-def012345678"],
    "json": ['{"a": [1, 2.50, null], "a": 2}', '"x"', "null", " 1e999 ", "\n[ ]", '"\\ud83d\\ude00é"', "-0"],
    "jsonb": ['{"b": 1, "a": "\\u00e9"}', "[]", "12345678901234567890.5", "null", "[[[]]]", '",\\"[,"'],
    "bytea": ["", "\\x00ff", "\\x27225c"],
    "text": ["", "läut", "\U0001f600", "a\tb\nc", "\\N", "NULL", '"', "'"],
    "varchar(3)": ["abc", "é"],
    "bpchar": ["ab  ", ""],
    "char(5)": ["ab", "", "é"],
    '"char"': ["a", ""],
    "name": ["x" * 63, ""],
    "bool": ["t", "f"],
    "inet": ["10.0.0.1", "10.0.0.0/8", "::1", "::ffff:1.2.3.4/128"],
    "money": ["12.34", "-1"],
    "bit(3)": ["101"],
    "varbit": ["", "1011"],
    "regtype": ["int4", "text[]"],
    "regclass": ["pg_class"],
    "pg_lsn": ["16/B374D848"],
    "tsquery": ["a & b"],
    "jsonpath": ["$.a[*]"],
    "xid": ["5"],
    "int4[]": ["{}", "{1,NULL,3}", "{{1,2},{3,4}}", "[2:3]={1,2}"],
    "text[]": ['{"a b",NULL,"NULL","\\"",""}'],
    "char(3)[]": ["{a,bb}"],
    "numeric[]": ["{1.50,NaN,NULL}"],
    "timestamptz[]": ["{2021-10-31 00:30+00,NULL}"],
    "jsonb[]": ['{"{\\"a\\": 1}"}'],
    "inet[]": ["{10.0.0.1,NULL}"],
    "read_row_kind[]": ["{calm,NULL}"],
    "read_row_kind": ["calm", "läut"],
    "read_row_pair": ["(1,)", "(,)", '(2,"a b")'],
    "read_row_price": ["1.5000", "-3"],
    "read_row_many": ["{1,2}"],
    "read_row_own": ["(7)"],
    "numrange": ["[1.50,2)", "empty"],
    "datemultirange": ["{[2024-01-01,2024-01-05)}"],
}
#: What psycopg cannot read, with its error; by type.
REFUSED: dict[str, list[str]] = {
    "date": ["infinity", "-infinity", "0044-03-15 BC", "10000-01-01", "5874897-12-31", "4713-01-01 BC"],
    "time": ["24:00"],
    "timestamp": [
        *(
            "infinity",
            "-infinity",
            "0044-03-15 12:00:00.25 BC",
            "10000-01-01",
            "294276-12-31 23:59:59.999999",
        ),
        *("0001-12-31 BC", "4713-01-01 00:00:00.000001 BC", "12024-02-29 01:02:03.4"),
    ],
    "timestamptz": [
        *("infinity", "-infinity", "0044-03-15 12:00:00.25+00 BC", "10000-02-01+00", "294276-12-31+00"),
        *("12024-02-29 01:02:03.4+00", "12024-07-01 01:02:03.4+00", "4713-01-02+00 BC"),
    ],
}
#: Near the ends of what datetime holds psycopg reads some and refuses some, by the session's time zone.
_EDGES = [
    *("0001-01-01 00:00+00", "0001-01-01 12:00+00", "0001-01-02 00:00+00", "0001-12-31 23:00+00 BC"),
    *("0001-12-31 10:00+00 BC", "9999-12-31 23:59:59.999999+00", "9999-12-31 01:00+00"),
    *("9999-12-30 23:00+00", "10000-01-01 00:00+00", "10000-01-01 03:00+00", "10000-01-01 14:00+00"),
]

_TYPES = """
DROP TYPE IF EXISTS read_row_kind, read_row_pair, read_row_own CASCADE;
DROP DOMAIN IF EXISTS read_row_price, read_row_many;
CREATE TYPE read_row_kind AS ENUM ('calm', 'läut');
CREATE TYPE read_row_pair AS (a int, b text);
CREATE DOMAIN read_row_price AS numeric(9,4);
CREATE DOMAIN read_row_many AS int[];
CREATE TYPE read_row_own AS (n int);
CREATE FUNCTION read_row_shout(read_row_own) RETURNS text LANGUAGE sql AS $$ SELECT 'cast' $$;
CREATE CAST (read_row_own AS text) WITH FUNCTION read_row_shout(read_row_own);
"""


@pytest.fixture(scope="module")
def typed(lakebase_server: LocalLakebase) -> Iterator[LakebaseClient]:
    """A client of a database with types of all kinds."""
    with LakebaseClient(lakebase_server.config()) as client:
        with client.connection() as connection:
            connection.execute(_TYPES)
        # The types of the test that reads Arrow, whose literals are read here, too.
        with client.connection() as connection:
            connection.execute("DROP TYPE IF EXISTS read_mood, read_pair CASCADE")
            connection.execute("CREATE TYPE read_mood AS ENUM ('calm', 'läut')")
            connection.execute("CREATE TYPE read_pair AS (a int, b text)")
        yield client
        with client.connection() as connection:
            connection.execute("DROP TYPE read_row_kind, read_row_pair, read_mood, read_pair CASCADE")
            connection.execute("DROP TYPE read_row_own CASCADE; DROP DOMAIN read_row_price, read_row_many")


def told(rows: list[tuple[Any, ...]]) -> list[list[tuple[type, str, Any]]]:
    """Rows with all that tells their values apart; NaN is like itself, and a zone's name counts."""
    return [[(type(value), repr(value), getattr(value, "fold", None)) for value in row] for row in rows]


def outcome(rows: Any) -> Any:
    """What reading gives, or the error that it ends with."""
    try:
        return told(list(rows()))
    except (psycopg.Error, ValueError, NotImplementedError) as error:
        return type(error), str(error)


def same(connection: psycopg.Connection[Any], query: Query, params: Any = None) -> list[tuple[Any, ...]]:
    """The rows that are streamed, after they were found to be those of psycopg's cursor."""
    expected = psycopg.Cursor(connection).execute(query, params).fetchall()
    found = list(read_rows(connection, query, params))
    assert told(found) == told(expected)
    return found


def _each(kind: str, *, null: bool = True) -> str:
    padded = ", NULL" if null else ""
    return (
        f"SELECT n, v::{kind} AS v, -n::int8 AS m"
        f" FROM unnest(ARRAY[{', '.join(['%s'] * len(LITERALS[kind]))}{padded}]::text[])"
        " WITH ORDINALITY u (v, n) ORDER BY n"
    )


@pytest.mark.parametrize("kind", LITERALS)
def test_every_types_values_are_those_of_psycopgs_cursor(
    typed: LakebaseClient, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with typed.connection() as connection:
        same(connection, _each(kind), LITERALS[kind])
        same(connection, _each(kind, null=False), LITERALS[kind])
        if not kind.endswith(("[]", "_many")):  # of arrays of different sizes there is no array
            same(connection, f"SELECT array_agg(v) AS v FROM ({_each(kind)}) q", LITERALS[kind])
        same(connection, f"SELECT NULL::{kind} AS v")
        monkeypatch.setattr(module, "_ROWS", 2)
        same(connection, _each(kind), LITERALS[kind])


@pytest.mark.parametrize("kind", SAME)
@given(data=st.data())
@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_values_are_those_of_psycopgs_cursor(
    typed: LakebaseClient, kind: str, data: st.DataObject
) -> None:
    values = data.draw(st.lists(st.none() | SAME[kind], min_size=1, max_size=8))
    zone = data.draw(st.sampled_from(_ZONES))
    rows = "(" + "), (".join(["%s::" + kind + ", %s::int8"] * len(values)) + ")"
    params = [item for number, value in enumerate(values) for item in (value, number)]
    with typed.connection() as connection:
        connection.execute(sql.SQL("SET LOCAL timezone TO {}").format(zone))
        same(connection, f"SELECT a, b FROM (VALUES {rows}) v (a, b)", params)


@given(
    numbers=st.lists(st.integers(1 - 10**18, 10**18 - 1) | st.integers(-(10**6), 10**6), max_size=12),
    scale=st.integers(0, 18),
    precision=st.integers(1, 40),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_decimals_keep_their_digits_in_any_context(
    typed: LakebaseClient, numbers: list[int], scale: int, precision: int
) -> None:
    texts = [f"{number}e-{scale}" for number in numbers]
    with typed.connection() as connection, localcontext() as context:
        context.prec = precision
        same(connection, f"SELECT v::numeric(18,{scale}), v::numeric FROM unnest(%s::text[]) v", [texts])


@pytest.mark.parametrize("zone", _ZONES)
def test_times_come_in_the_sessions_zone(typed: LakebaseClient, zone: str) -> None:
    with typed.connection() as connection:
        connection.execute(sql.SQL("SET LOCAL timezone TO {}").format(zone))
        every = "SELECT t, t::date, t::timestamp FROM generate_series(%s::timestamptz, %s, %s::interval) t"
        same(connection, every, ["1800-01-01", "2100-01-01", "97 days 05:43:21.234567"])
        same(connection, every, ["2021-10-30", "2021-11-08", "30 minutes"])
        for edge in [*_EDGES, *REFUSED["timestamptz"]]:
            query = sql.SQL("SELECT {}::timestamptz AS t").format(edge)
            expected = outcome(lambda query=query: psycopg.Cursor(connection).execute(query).fetchall())
            assert outcome(lambda query=query: read_rows(connection, query)) == expected, edge


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind in REFUSED for text in REFUSED[kind]])
def test_what_psycopg_refuses_is_refused_in_its_words(typed: LakebaseClient, kind: str, text: str) -> None:
    query = f"SELECT '{text}'::{kind} AS v"
    with typed.connection() as connection:
        expected = outcome(lambda: psycopg.Cursor(connection).execute(query).fetchall())
        assert expected[0] is psycopg.DataError
        assert outcome(lambda: read_rows(connection, query)) == expected
        # It was the last row: the transaction stands.
        assert connection.execute("SELECT 1").fetchall() == [(1,)]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("datestyle", style) for style in ("German", "SQL, MDY", "Postgres, DMY", "ISO, MDY")),
        *(("intervalstyle", style) for style in ("iso_8601", "postgres_verbose", "sql_standard")),
        ("bytea_output", "escape"),
        ("client_encoding", "LATIN1"),
        ("client_encoding", "SQL_ASCII"),
        ("extra_float_digits", "3"),
    ],
)
def test_settings_of_the_session_count_as_they_do_for_a_cursor(
    typed: LakebaseClient, setting: str, value: str
) -> None:
    with typed.connection() as connection:
        connection.execute(sql.SQL("SET LOCAL {} TO {}").format(sql.Identifier(setting), value))
        for item in (
            *("date '2024-02-03'", "timestamp '2024-02-03 04:05:06.7'", "time '01:02:03'"),
            *("timestamptz '2024-02-03 04:05:06.7'", "interval '1 day 2 hours'", "'\\x00ff'::bytea"),
            *("'läut'::text", """'{"ä": 1}'::jsonb""", "1.1::float4", "0.1::float8", "date 'infinity'"),
        ):
            query = f"SELECT {item} AS v, 1 AS n"
            expected = outcome(lambda query=query: psycopg.Cursor(connection).execute(query).fetchall())
            assert outcome(lambda query=query: read_rows(connection, query)) == expected, item


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
            " date '2024-01-02', '{\"a\": 1}'::json, 'calm'::read_row_kind, ROW(1, 'x')::read_row_pair,"
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


def test_json_that_python_cannot_read_raises_the_error_of_its_own_text(typed: LakebaseClient) -> None:
    query = "SELECT ('[' || repeat('9', 5000) || ']')::json AS v FROM generate_series(1, 3)"
    with typed.connection() as connection:
        expected = outcome(lambda: psycopg.Cursor(connection).execute(query).fetchall())
        assert expected[0] is ValueError
        assert outcome(lambda: read_rows(connection, query)) == expected


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


@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("SELECT %s, %s, %s, %s", [1.5, -1.5, float("inf"), 0.1]),
        ("SELECT %s, %s, %s, %s", [1, -1, 2**40, -(2**70)]),
        ("SELECT %s, %s, %s", [Decimal("-1.50"), Decimal("NaN"), Decimal("2")]),
        ("SELECT 2::numeric * %s, %s / 2", [1.5, -3]),
        ("SELECT %(a)s::text, %(b)s, '50%%'", {"a": "%s", "b": None}),
        ("SELECT %s = ANY(%s), %s::int[]", [1, [1, 2], []]),
        ("SELECT %s, %s", [True, b"\x00'"]),
        ("SELECT i FROM generate_series(%s::int, %s) i LIMIT %s", [1, 5, 3]),
        ("SELECT %s", ["'; DROP TABLE kept; --"]),
        ("SELECT %s", ["\\'; --"]),
    ],
)
def test_parameters_are_of_the_types_that_psycopg_binds(
    typed: LakebaseClient, query: str, params: Any
) -> None:
    with typed.connection() as connection:
        same(connection, query, params)


def test_other_statements_that_return_rows_are_run_by_a_cursor(client: LakebaseClient) -> None:
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


@pytest.mark.parametrize(
    "query",
    [
        "WITH c AS (SELECT 'insert' AS kind) SELECT kind FROM c",
        """WITH c AS (SELECT 1 AS "delete") SELECT 'insert' FROM c -- merge""",
        "/* update */ WITH c AS (SELECT $$delete$$ AS v) SELECT 'insert' FROM c WHERE v <> E'\\'update'",
        "SELECT 'insert' FROM locked FOR UPDATE",
        "WITH c AS (SELECT * FROM locked FOR NO KEY UPDATE) SELECT 'insert' FROM c",
    ],
)
def test_queries_that_only_name_a_change_stream(
    client: LakebaseClient, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(client, "CREATE TABLE locked AS SELECT 1 AS i")
    monkeypatch.delattr(module, "_by_cursor")
    assert list(client.iter_rows(query)) == [("insert",)]


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


_WITHOUT = """
import sys
from contextlib import closing
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ImportError(name)
sys.meta_path.insert(0, Hidden())
from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.core.bulk.read_rows import read_rows
query = "SELECT i, i / 4.0, ARRAY[i], '1.2.3.4'::inet FROM generate_series(1, 5000) i"
with LakebaseClient(LakebaseConfig.from_env()) as client, client.connection() as connection:
    expected = connection.execute(query).fetchall()
    assert list(read_rows(connection, query)) == expected
    assert list(read_rows(connection, "SHOW timezone")) == connection.execute("SHOW timezone").fetchall()
    assert list(read_rows(connection, "SELECT %s", [1.5])) == [(1.5,)]
assert not set({hidden!r}) & set(sys.modules)
"""


@pytest.mark.parametrize("hidden", [["pyarrow"], ["pyarrow", "numpy"]])
def test_without_the_libraries_of_data_frames(lakebase_env: LocalLakebase, hidden: list[str]) -> None:
    # lakebase_env has put the server into this process's environment, which the child inherits.
    subprocess.run([sys.executable, "-c", _WITHOUT.format(hidden=hidden)], check=True, timeout=120)
