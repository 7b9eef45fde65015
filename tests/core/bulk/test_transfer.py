"""From a query on one Postgres into a table of another: every value arrives as it was, or nothing does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.result import LoadResult
from lakebase_provider.core.bulk.transfer import PostgresQuery
from lakebase_provider.local import LocalLakebase

from .tables import run

psycopg2 = pytest.importorskip("psycopg2", reason="psycopg2 is not installed: dagster-postgres brings it")

_DATABASE = "transfer_source"
_TYPES = """
create type mood as enum ('calm', 'it''s \\ "so"');
create type pair as (a int, b text, at timestamptz);
create domain short as varchar(5) check (value <> 'no');
create domain amount as numeric(10, 2);
"""

#: Types, with texts of values that a way through Python, or through a careless COPY, would change.
VALUES: dict[str, list[str]] = {
    "bool": ["t", "f"],
    "int2": ["-32768", "32767"],
    "int4": ["-2147483648"],
    "int8": ["9223372036854775807"],
    "oid": ["4294967295"],
    "float4": ["0.1", "-0", "NaN", "Infinity", "-Infinity", "1e-45"],
    "float8": ["0.48812409112942318", "-0", "NaN", "-Infinity", "5e-324", "1.7976931348623157e308"],
    "numeric": ["0", "1.10", "NaN", "Infinity", "-Infinity", "9" * 1000 + ".10", "-0.000", "1e-1000"],
    "numeric(12,2)": ["1.10", "-9999999999.99"],
    "money": ["1.10", "-92233720368547758.08"],
    "text": ["", " ", "\\", "\\N", "\\.", "a\tb\r\nc\n", "NULL", "\U0001f418", '"', "x" * 100_000],
    "varchar(5)": ["", "a  "],
    "char(5)": ["ab", ""],
    '"char"': ["a", ""],
    "name": ["n" * 63],
    "bytea": ["", "\\x00ff5c6e"],
    "date": ["infinity", "-infinity", "0044-03-15 BC", "5874897-12-31", "0001-01-01"],
    "time": ["24:00", "00:00", "12:34:56.789012"],
    "time(2)": ["12:34:56.79"],
    "timetz": ["24:00+02", "12:00:00.000001-15:59:59"],
    "timestamp": ["infinity", "-infinity", "0044-03-15 01:02:03.000004 BC", "294276-12-31 23:59:59.999999"],
    "timestamptz": ["infinity", "-infinity", "1890-01-01 00:00+00", "2024-10-27 00:30+00", "4713-01-01 00:00+00 BC"],
    "interval": ["1 mon", "30 days", "-1 year 2 mons -3 days 04:05:06.000007", "1 day -00:00:01"],
    "interval[]": ["{1 mon,30 days,NULL}"],
    "uuid": ["00000000-0000-0000-0000-00000000000f"],
    "json": ['{"a": 1, "a":  2}', "null", " [1.10]", '"123"'],
    "jsonb": ['"123"', '"true"', "null", "[1.10]", "0.48812409112942318", '{"a": 1e2}', "123", '"\\""'],
    "jsonb[]": ['{"\\"1\\"",NULL,"null"}'],
    "jsonpath": ['$."a"[*] ? (@ > 1)'],
    "xml": ["<a>&lt;</a>", "text <b/>", ""],
    "int4[]": ["[0:2]={1,2,3}", "{}", "{{1,NULL},{3,4}}", "[-1:0][5:5]={{1},{2}}"],
    "text[]": ['{"",NULL,"NULL","a,b","\\\\","{}"}'],
    "timestamptz[]": ["{infinity,NULL}"],
    "numeric(12,2)[]": ["{1.10,NaN}"],
    "inet": ["10.0.0.1", "10.0.0.1/8", "::1/64"],
    "cidr": ["10.0.0.0/8", "10.0.0.1/32"],
    "inet[]": ["{10.0.0.1,10.0.0.1/8}"],
    "macaddr": ["08:00:2b:01:02:03"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
    "bit(3)": ["101"],
    "bit(3)[]": ["{101,000}"],
    "varbit": ["", "10101010101"],
    "point": ["(-0,1e-300)", "(Infinity,NaN)"],
    "box": ["(1,1),(0,0)"],
    "circle": ["<(0.1,0.2),0.3>"],
    "polygon": ["((0,0),(1,1),(1,0))"],
    "path": ["[(0,0),(1,1)]", "((0,0),(1,1))"],
    "lseg": ["[(0,0),(1,1)]"],
    "line": ["{1,2,3}"],
    "int4range": ["empty", "[1,)", "(,)"],
    "numrange": ["[1.10,2.0]", "(NaN,)"],
    "tstzrange": ["[-infinity,infinity]", "(,\"2024-10-27 00:30:00+00\"]"],
    "int4range[]": ['{"[1,2)",empty}'],
    "nummultirange": ["{}", "{[1.0,2.0),[3,)}"],
    "tsvector": ["'a':1A 'b c':2,3B", ""],
    "tsquery": ["'a' & !'b':*A <2> 'c'"],
    "pg_lsn": ["16/B374D848", "0/0"],
    "pg_snapshot": ["10:20:10,14,15"],
    "tid": ["(1,2)"],
    "xid8": ["18446744073709551615"],
    "regclass": ["pg_class"],
    "regtype[]": ["{integer,text}"],
    "int2vector": ["1 2 3"],
    "mood": ["calm", 'it\'s \\ "so"'],
    "mood[]": ["{calm,NULL}", '[0:0]={"it\'s \\\\ \\"so\\""}'],
    "pair": ['(1,"a,""\\\\b",infinity)', "(,,)", '(,"",)'],
    "pair[]": ['{"(1,x,)",NULL}'],
    "short": ["a  ", ""],
    "amount": ["1.10"],
    "short[]": ["{a,NULL}"],
}  # fmt: skip
#: What a session may be set to that changes what texts look like, and mean.
ODD = {
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Europe/Berlin",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "array_nulls": "off",
    "xmloption": "content",
}


@pytest.fixture(scope="module")
def database(lakebase_server: LocalLakebase) -> Iterator[str]:
    """Conninfo of another database, in which own types have other OIDs."""
    with psycopg.connect(lakebase_server.superuser_dsn, dbname="postgres", autocommit=True) as connection:
        connection.execute(f"drop database if exists {_DATABASE} with (force)".encode())
        connection.execute(f"create database {_DATABASE}".encode())
        dsn = f"{lakebase_server.superuser_dsn} dbname={_DATABASE}"
        with psycopg.connect(dsn) as other:
            other.execute("create type first as enum ('x')")
            other.execute(_TYPES.encode())
        yield dsn
        connection.execute(f"drop database {_DATABASE} with (force)".encode())


@pytest.fixture(params=["psycopg", "psycopg2"])
def source(database: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A connection to the other database, of each driver."""
    connection: Any = (psycopg if request.param == "psycopg" else psycopg2).connect(database)
    yield connection
    connection.close()


@pytest.fixture
def other(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database) as connection:
        yield connection


@pytest.fixture
def types(client: LakebaseClient) -> Iterator[None]:
    run(client, _TYPES)
    yield
    run(client, "drop table if exists t; drop type mood, pair cascade; drop domain short, amount cascade")


def transfer(client: LakebaseClient, source: Any, query: str, **options: Any) -> LoadResult:
    params = options.pop("params", None)
    return client.load(PostgresQuery(source, query, params), "t", **options)


def md5s(connection: Any, query: str) -> list[Any]:
    """What each row's text is, in this session."""
    with connection.cursor() as cursor:
        cursor.execute(f"select md5(r::text), r::text from ({query}) r order by 2")
        found: list[Any] = cursor.fetchall()
    return found


def literal(text: str, kind: str) -> str:
    return f"{sql.Literal(text).as_string()}::{kind}"


def rows_of(kind: str) -> str:
    values = [f"({number}, {literal(text, kind)})" for number, text in enumerate(VALUES[kind])]
    return f"select * from (values {', '.join(values)}, (-1, null)) as v (id, v)"


@pytest.fixture(scope="module")
def kinds(database: str) -> list[str]:
    """The types that the server has: some are built without XML."""
    with psycopg.connect(database) as connection:
        try:
            connection.execute("select '<a/>'::xml")
        except psycopg.errors.FeatureNotSupported:
            return [kind for kind in VALUES if kind != "xml"]
    return list(VALUES)


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.usefixtures("types")
def test_every_type_arrives_byte_for_byte(
    client: LakebaseClient, source: Any, kinds: list[str], kind: str
) -> None:
    if kind not in kinds:
        pytest.skip(f"this server was built without {kind}")
    run(client, f"create table t (id int, v {kind})")
    result = transfer(client, source, rows_of(kind))
    assert result.rows == len(VALUES[kind]) + 1
    with client.connection() as here:
        assert md5s(here, "select * from t") == md5s(source, rows_of(kind))


@pytest.mark.parametrize("own", [False, True], ids=["binary", "text"])
@pytest.mark.usefixtures("types")
def test_all_types_at_once_whatever_the_sessions_are_set_to(
    client: LakebaseClient, source: Any, kinds: list[str], own: bool
) -> None:
    own_types = ("mood", "pair", "short[]", "reg", "xml")
    kinds = [kind for kind in kinds if own or not kind.startswith(own_types)]
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(kinds))
    run(client, f"create table t ({columns})")
    widest = max(len(VALUES[kind]) for kind in kinds)
    rows = [
        ", ".join(
            f"{literal(VALUES[kind][row], kind) if row < len(VALUES[kind]) else f'null::{kind}'} as c{number}"
            for number, kind in enumerate(kinds)
        )
        for row in range(widest)
    ]
    query = " union all ".join(f"select {row}" for row in rows)
    with source.cursor() as cursor:
        for name, value in ODD.items():
            cursor.execute("select set_config(%s, %s, false)", (name, value))
    source.commit()
    with client.connection() as here:
        for name, value in ODD.items():
            here.execute("select set_config(%s, %s, false)", (name, value))
        from lakebase_provider.core.bulk.load import load

        result = load(here, PostgresQuery(source, query), "t")
        here.execute("reset all")
        assert result.format == ("text" if own else "binary")
        with source.cursor() as cursor:
            cursor.execute("reset all; set client_encoding to utf8")
        assert md5s(here, "select * from t") == md5s(source, query)
