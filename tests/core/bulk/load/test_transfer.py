"""From a query on one Postgres into a table of another: every value arrives as it was, or nothing does."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from psycopg import sql

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.load.load import load
from lakebase_provider.core.bulk.load.result import LoadResult
from lakebase_provider.core.bulk.load.transfer.columns import Typed, passage
from lakebase_provider.core.bulk.load.transfer.transfer import PostgresQuery, copy_between
from lakebase_provider.core.database.catalog import read_table
from lakebase_provider.core.errors import BadRowError, ColumnMismatchError, ConfigError, LoadError
from lakebase_provider.local import LocalLakebase
from tests.core.bulk.conversions import CONVERTED, JSON_CONVERTED
from tests.core.bulk.sample_tables import run
from tests.depth import examples

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
    "timestamptz": ["infinity", "-infinity", "1890-01-01 00:00+00", "2024-10-27 00:30+00",
        "4713-01-01 00:00+00 BC"],
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
    "tsquery": ["'a' & !'b':*A <2> 'c'", ""],
    "tsquery[]": ["{'a',\"\"}"],
    "pg_lsn": ["16/B374D848", "0/0"],
    "pg_snapshot": ["10:20:10,14,15"],
    "tid": ["(1,2)"],
    "xid8": ["18446744073709551615"],
    "regclass": ["pg_class"],
    "regtype": ["mood", "integer"],
    "regtype[]": ["{integer,mood}"],
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
    client: LakebaseClient, database: str, source: Any, kinds: list[str], own: bool
) -> None:
    kinds = [kind for kind in kinds if own or not kind.startswith(_TEXT_ONLY)]
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
    selects = " union all ".join(f"select {row}" for row in rows)
    with psycopg.connect(database) as other:
        other.execute(f"drop table if exists everything; create table everything as {selects}".encode())
    with source.cursor() as cursor:
        for name, value in ODD.items():
            cursor.execute("select set_config(%s, %s, false)", (name, value))
    source.commit()
    with client.connection() as here:
        for name, value in ODD.items():
            here.execute("select set_config(%s, %s, false)", (name, value))
        result = load(here, PostgresQuery(source, "select * from everything"), "t")
        assert result.format == ("text" if own else "binary")
        here.execute("reset all")
        with psycopg.connect(database) as other:
            assert md5s(here, "select * from t") == md5s(other, "select * from everything")


def test_a_column_without_binary_input_that_is_not_filled(
    client: LakebaseClient, other: psycopg.Connection[Any]
) -> None:
    run(client, "create table t (id int primary key, at timestamptz, acl aclitem)")
    moment = "timestamptz '2024-10-27 00:30+00'"
    assert transfer(client, other, f"select 1 as id, {moment} as at").format == "text"
    rows = [(2, dt.datetime(2024, 10, 27, 0, 30, tzinfo=dt.timezone.utc))]
    assert client.load(rows, "t", columns=["id", "at"]).format == "text"
    assert client.load(rows, "t", columns=["id", "at"], mode="merge").unchanged == 1
    assert run(client, f"select id, at = {moment} from t order by 1") == [(1, True), (2, True)]


def test_a_session_is_what_it_was(client: LakebaseClient, other: psycopg.Connection[Any]) -> None:
    run(client, "create table t (v text)")
    other.autocommit = True
    other.execute("set datestyle to 'SQL, DMY'; set intervalstyle to sql_standard")
    transfer(client, other, "select null::mood as v")
    assert other.autocommit
    styles = other.execute("select current_setting('datestyle'), current_setting('intervalstyle')")
    assert styles.fetchone() == ("SQL, DMY", "sql_standard")
    other.autocommit = False
    other.execute("create temporary table mine on commit drop as select 'x' as v")
    transfer(client, other, "select * from mine")
    assert other.execute("select * from mine").fetchall() == [("x",)]
    assert run(client, "select * from t") == [(None,), ("x",)]


def test_columns_go_by_name(client: LakebaseClient, source: Any) -> None:
    run(
        client,
        "create table t (id int generated always as identity, a text, b text default 'b',"
        " twice int generated always as (id * 2) stored)",
    )
    transfer(client, source, "select 'x' as a, 5 as id")
    transfer(client, source, "select 'q' as a, 'y' as b, 1 as other", columns=["b"])
    assert run(client, "select id, a, b, twice from t order by 1") == [(1, None, "y", 2), (5, "x", "b", 10)]
    for query, said in {
        "select 1 as nothing": "no column 'nothing'",
        "select 1 as twice": "computed by the server",
        "select 1 as a, 2 as a": "Two columns of the source are named 'a'",
    }.items():
        with pytest.raises(ColumnMismatchError, match=said):
            transfer(client, source, query)
    with pytest.raises(ColumnMismatchError, match="no column 'missing'"):
        transfer(client, source, "select 1 as id", columns=["missing"])


@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("select %s as a, '100%%' as b -- %% of", ["it's \\ %s"]),
        ("select %(v)s as a, '100%%' as b;", {"v": "it's \\ %s"}),
        ("select 'it''s \\ %s' as a, '100%' as b -- ?\n;\n", None),
        ("(with v as (values ('it''s \\ %s', '100%')) select column1 as a, column2 as b from v)", None),
    ],
)
def test_parameters(client: LakebaseClient, source: Any, query: str, params: Any) -> None:
    run(client, "create table t (a text, b text)")
    transfer(client, source, query, params=params)
    assert run(client, "select * from t") == [("it's \\ %s", "100%")]


@pytest.mark.parametrize("odd", [False, True], ids=["", "odd"])
@pytest.mark.usefixtures("types")
def test_a_value_is_converted_unchanged_or_refused(
    client: LakebaseClient, other: psycopg.Connection[Any], odd: bool
) -> None:
    if odd:
        other.execute("set timezone to 'Asia/Tokyo'")
    other.commit()
    found, refused = {}, {}
    for value, kind, _ in CONVERTED:
        run(client, f"drop table if exists t; create table t (v {kind})")
        try:
            transfer(client, other, f"select {value} as v")
        except (BadRowError, ColumnMismatchError) as error:
            refused[value, kind] = str(error)
        with client.connection() as here:
            here.execute("set timezone to utc")
            found[value, kind] = here.execute("select max(v::text) from t").fetchone()
    wanted = {(value, kind): (text,) for value, kind, text in CONVERTED}
    assert {k: v for k, v in found.items() if wanted[k] != v} == {}
    assert refused.keys() == {k for k, v in wanted.items() if v == (None,)} - {("null::int4", "jsonb")}


def test_an_older_server_finds_keys_that_stand_twice_by_itself(other: psycopg.Connection[Any]) -> None:
    for value, kind, kept in JSON_CONVERTED:
        source = Typed(*_described(other, value))
        oid, typmod, name = _described(other, f"null::{kind}")
        passed = passage("v", source, Typed(oid, typmod, name), version=150_000)
        assert passed.guard is not None
        query = f"select {passed.guard.replace('{c}', 'v')} from (select {value} as v) q"
        assert other.execute(query.encode()).fetchone() == (kept is not None,), (value, kind)


def _described(connection: psycopg.Connection[Any], value: str) -> tuple[int, int, str]:
    cursor = connection.execute(f"select {value} as v".encode())
    assert cursor.description is not None
    oid = cursor.description[0].type_code
    named = connection.execute("select format_type(%s, -1)", (oid,)).fetchone()
    assert named is not None
    return oid, -1, named[0]


def test_a_refused_value_is_named_by_row_and_column(client: LakebaseClient, source: Any) -> None:
    run(client, "create table t (id int, price numeric(10,1))")
    price = "case when n = 20000 then 0.05 else n / 2.0 end as price"
    query = f"select n as id, {price} from generate_series(1, 30000) n"
    with pytest.raises(BadRowError) as caught:
        transfer(client, source, query)
    assert (caught.value.row, caught.value.column) == (20_000, "price")
    assert "numeric, which numeric(10,1) cannot hold" in str(caught.value)
    assert "0.05" not in str(caught.value)
    assert run(client, "select count(*) from t") == [(0,)]
    run(client, "alter table t alter price type numeric, add check (id <> 25000)")
    with pytest.raises(BadRowError, match="t_id_check") as caught:
        transfer(client, source, query)
    assert caught.value.row == 25_000


def test_amounts_of_another_currency_are_refused(
    client: LakebaseClient, other: psycopg.Connection[Any]
) -> None:
    run(client, "create table t (v money)")
    coins = "select encode(cash_send('1'::money), 'hex') = '0000000000000001'"
    try:
        yen = other.execute("set lc_monetary to 'ja_JP.UTF-8'; " + coins).fetchone()
    except psycopg.errors.InvalidParameterValue:
        yen = None
    if yen != (True,):
        pytest.skip("this machine knows no currency without coins")
    with pytest.raises(ColumnMismatchError, match="money, which has different decimals"):
        transfer(client, other, "select '100'::money as v")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("insert into everything default values returning *", "not a query that COPY accepts"),
        ("show server_version", "not a query that COPY accepts"),
        ("select * from no_such_table", 'Query: relation "no_such_table" does not exist'),
        ("select 1/(n - 5) as v from generate_series(1, 9) n", "Query: division by zero"),
    ],
)
def test_a_query_that_fails_leaves_nothing(
    client: LakebaseClient, other: psycopg.Connection[Any], query: str, said: str
) -> None:
    run(client, "create table t (v int)")
    with pytest.raises((ConfigError, LoadError), match=said):
        transfer(client, other, query, load_id="x")
    assert run(client, "select count(*) from t") == [(0,)]
    assert transfer(client, other, "select 1 as v", load_id="x").skipped is False


def test_modes_the_ledger_and_rejects(client: LakebaseClient, source: Any) -> None:
    run(client, "create table t (id int primary key, v jsonb); insert into t values (1, '0'), (9, '9')")
    query = """select 1 as id, '"1"'::jsonb as v union all select 2, 'null'"""
    merged = transfer(client, source, query, mode="merge", load_id="m")
    assert (merged.inserted, merged.updated, merged.unchanged) == (1, 1, 0)
    assert transfer(client, source, "select no_such_column", mode="merge", load_id="m").skipped
    found = "select id, v::text from t order by 1"
    assert run(client, found) == [(1, '"1"'), (2, "null"), (9, "9")]
    assert transfer(client, source, query, mode="replace").deleted == 3
    assert run(client, found) == [(1, '"1"'), (2, "null")]
    with pytest.raises(ConfigError, match="on_error='reject'"):
        transfer(client, source, query, on_error="reject", reject_to="rejected")


def test_a_table_replaces_itself(client: LakebaseClient) -> None:
    # The query's transaction would hold its lock on the table that the swap waits for.
    run(client, "create table t as select n as id from generate_series(1, 1000) n")
    with client.connection() as reading:
        result = client.load(PostgresQuery(reading, "select id + 1000 as id from t"), "t", mode="replace")
    assert (result.inserted, result.deleted) == (1000, 1000)
    assert run(client, "select min(id), max(id) from t") == [(1001, 2000)]


def test_a_missing_table_is_created_with_the_querys_types(client: LakebaseClient, source: Any) -> None:
    query = (
        "select 1::int8 as id, 1.5::numeric(10,2) as n, '[1.10]'::jsonb as j, 'calm'::mood as m,"
        " '{1}'::int[] as a, 'x'::varchar(7) as v, int4range(1, 2) as r"
    )
    transfer(client, source, query, create=True, keys=["id"])
    types = (
        "select attname, format_type(atttypid, atttypmod) from pg_attribute where attrelid = 't'::regclass"
    )
    assert run(client, f"{types} and attnum > 0 order by attnum") == [
        ("id", "bigint"),
        ("n", "numeric(10,2)"),
        ("j", "jsonb"),
        ("m", "text"),
        ("a", "integer[]"),
        ("v", "character varying(7)"),
        ("r", "int4range"),
    ]
    assert run(client, "select t::text from t") == [('(1,1.50,[1.10],calm,{1},x,"[1,2)")',)]
    with pytest.raises(BadRowError, match="t_pkey"):
        transfer(client, source, query, create=True)


def test_progress_tells_rows_and_bytes(client: LakebaseClient, source: Any) -> None:
    run(client, "create table t (n int, v text)")
    seen: list[tuple[int, int]] = []
    query = PostgresQuery(source, "select n, repeat('x', 100) as v from generate_series(1, 20000) n")
    with client.connection() as here:
        result = copy_between(here, query, read_table(here, "t"), progress=lambda *at: seen.append(at))
    assert len(seen) > 3
    assert seen == sorted(seen)
    assert (result.rows, result.bytes) == (20_000, seen[-1][1])
    assert 19_998 < seen[-1][0] <= 20_000


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=5,
).map(json.dumps)
_INT = st.integers(-(2**31), 2**31 - 1)
#: Types, with texts that their input functions read.
_DRAWN: dict[str, st.SearchStrategy[str]] = {
    "int8": st.integers(-(2**63), 2**63 - 1).map(str),
    "float4": st.floats(width=32).map(repr),
    "float8": st.floats().map(repr),
    "numeric": st.decimals(allow_nan=False, allow_infinity=False).map(str)
    | st.sampled_from(["NaN", "-Infinity"]),
    "text": _TEXT,
    "bytea": st.binary(max_size=8).map(lambda data: "\\x" + data.hex()),
    "date": st.integers(-2_451_545, 2_145_031_948).map(str),
    "timestamptz": st.integers(-210_866_803_200_000_000, 9_223_371_331_199_999_999).map(str),
    "time": st.integers(0, 86_400_000_000).map(
        lambda us: f"{us // 3_600_000_000}:00:{us % 60_000_000 / 1e6:f}"
    ),
    "interval": st.builds(
        lambda months, days, us: f"{months} months {days} days {us} microseconds",
        _INT,
        _INT,
        st.integers(-(2**53), 2**53),
    ),
    "json": _JSON,
    "jsonb": _JSON.filter(lambda text: "\\u0000" not in text),
    "int4[]": st.lists(_INT, min_size=1, max_size=3).map(
        lambda values: f"[{values[0] % 9}:{values[0] % 9 + len(values) - 1}]={{{','.join(map(str, values))}}}"
    ),
    "int4range": st.builds(lambda low, size: f"[{low},{low + size}]", st.integers(-9, 9), st.integers(0, 9)),
}
#: What makes a date or a time of the days and microseconds that are drawn.
_MADE = {
    "date": "(%s::int + date '2000-01-01')",
    "timestamptz": "(timestamptz '2000-01-01 00:00+00' + %s::int8 / 1000000 * interval '1 sec')",
}


#: Types without a binary form that both databases read alike.
_TEXT_ONLY = ("mood", "pair", "short[]", "reg", "xml", "tsquery")


def rows_drawn(kinds: Iterable[str]) -> st.SearchStrategy[list[tuple[str | None, ...]]]:
    """Rows with a text of each type: any, where that is worth it, and those that are known to be hard."""
    texts = {kind: _DRAWN[kind] if kind in _DRAWN else st.sampled_from(VALUES[kind]) for kind in kinds}
    return st.lists(st.tuples(*(st.none() | text for text in texts.values())), min_size=1, max_size=5)


def insertion(table: str, kinds: Iterable[str]) -> bytes:
    """The statement that stores such a row."""
    return (
        f"insert into {table} values ({', '.join(_MADE.get(kind, f'%s::{kind}') for kind in kinds)})".encode()
    )


@pytest.mark.deep
@pytest.mark.usefixtures("types")
def test_whatever_is_drawn_arrives_byte_for_byte(
    client: LakebaseClient, other: psycopg.Connection[Any], kinds: list[str]
) -> None:
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(kinds))
    run(client, f"create table t ({columns})")
    other.execute(f"drop table if exists drawn; create table drawn ({columns})".encode())
    binary = [f"c{number}" for number, kind in enumerate(kinds) if not kind.startswith(_TEXT_ONLY)]
    formats = set()

    @settings(deadline=None, max_examples=examples(12, 200), suppress_health_check=list(HealthCheck))
    @given(rows_drawn(kinds))
    def holds(rows: list[tuple[str | None, ...]]) -> None:
        other.execute("truncate drawn")
        try:
            with other.transaction():
                other.cursor().executemany(insertion("drawn", kinds), rows)
        except psycopg.DataError:
            reject()  # out of the type's range
        other.commit()
        for names in (", ".join(binary), "*"):
            run(client, "truncate t")
            formats.add(transfer(client, other, f"select {names} from drawn").format)
            with client.connection() as here:
                assert md5s(here, f"select {names} from t") == md5s(other, f"select {names} from drawn")
            other.rollback()

    holds()
    assert formats == {"binary", "text"}
