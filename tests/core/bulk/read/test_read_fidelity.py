"""Every type with edge values, read by COPY as psycopg reads it; both ways to read agree."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg.types.string import TextLoader

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.read.batches import read_batches
from lakebase_provider.core.bulk.read.statement import is_plain_query, query_text
from lakebase_provider.core.errors import LoadError
from lakebase_provider.local import LocalLakebase
from tests.depth import examples

_UTC = dt.timezone.utc


def _decimals(digits: int, places: int) -> st.SearchStrategy[Decimal]:
    # By text: arithmetic would round to the context's 28 digits.
    return st.integers(1 - 10**digits, 10**digits - 1).map(lambda number: Decimal(f"{number}E-{places}"))


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20) | st.just("x" * 300)
_TIMES = st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30))
_INTS = st.integers(-(2**31), 2**31 - 1)

#: By type, its values; all read as the same Python values.
SAME: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int2": st.integers(-(2**15), 2**15 - 1),
    "int4": _INTS,
    "int8": st.integers(-(2**63), 2**63 - 1),
    "oid": st.integers(0, 2**32 - 1),
    "float4": st.floats(width=32, allow_nan=False),
    "float8": st.floats(allow_nan=False),
    "numeric(12,2)": _decimals(12, 2),
    "numeric(5,0)": _decimals(5, 0),
    "numeric(3,5)": _decimals(3, 5),
    "numeric(38,9)": _decimals(38, 9),
    "numeric(50,20)": _decimals(50, 20),
    "numeric": _decimals(6, 3) | _decimals(18, 18) | _decimals(38, 18) | st.just(Decimal("1E-18")),
    "text": _TEXT,
    "varchar(30)": st.text(st.characters(codec="ascii", min_codepoint=1), max_size=30),
    "char(7)": st.text(st.characters(codec="ascii", min_codepoint=32), max_size=7),
    "name": st.text(st.characters(codec="ascii", min_codepoint=32), max_size=60),
    "bytea": st.binary(max_size=30),
    "date": st.dates(),
    "time": st.times(),
    "timestamp": _TIMES,
    "timestamptz": _TIMES.map(lambda value: value.replace(tzinfo=_UTC)),
    "interval": st.timedeltas(dt.timedelta(days=-99999), dt.timedelta(days=99999)),
    "int4[]": st.lists(st.none() | _INTS, max_size=5),
    "text[]": st.lists(st.none() | _TEXT, max_size=5),
    "bool[]": st.lists(st.none() | st.booleans(), max_size=5),
    "numeric(10,2)[]": st.lists(st.none() | _decimals(10, 2), max_size=5),
    "timestamptz[]": st.lists(_TIMES.map(lambda value: value.replace(tzinfo=_UTC)), max_size=3),
}
#: By type, values as text; read as the text that Postgres writes.
AS_TEXT: dict[str, list[str]] = {
    "json": ['{"a": [1, 2.50, null]}', '"x"', "null"],
    "jsonb": ['{"b": 1, "a": "\\u00e9"}', "[]", "12345678901234567890.5"],
    "uuid": ["00000000-0000-0000-0000-000000000000", "FFeeDDcc-1234-5678-9abc-def012345678"],
    "inet": ["10.0.0.1", "10.0.0.0/8", "::1"],
    "cidr": ["10.0.0.0/8", "::/0"],
    "macaddr": ["08:00:2b:01:02:03"],
    "money": ["12.34", "-1"],
    "int4range": ["[1,5)", "empty", "(,)"],
    "tstzrange": ["[2024-01-01 00:00+00,)"],
    "int4multirange": ["{[1,3),[5,7)}"],
    "timetz": ["12:00:00+02"],
    "bit(3)": ["101"],
    "point": ["(1,2)"],
    "tsvector": ["'a':1 'b'"],
    "read_mood": ["calm", "läut"],
    "read_pair": ["(1,)", "(,)"],
    "regclass": ["pg_class"],
}


@pytest.fixture(scope="module")
def client(lakebase_server: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lakebase_server.config()) as client:
        with client.connection() as connection:
            connection.execute("DROP TYPE IF EXISTS read_mood, read_pair, read_price CASCADE")
            connection.execute("CREATE TYPE read_mood AS ENUM ('calm', 'läut')")
            connection.execute("CREATE TYPE read_pair AS (a int, b text)")
            connection.execute("CREATE DOMAIN read_price AS numeric(9,4)")
        yield client
        with client.connection() as connection:
            connection.execute("DROP TYPE read_mood, read_pair, read_price")


#: Before a query: it might change something, so it is not read by COPY.
BY_CURSOR = "WITH c AS (SELECT 1 AS update) "


@pytest.mark.deep
@pytest.mark.parametrize("kind", SAME)
@given(data=st.data())
@settings(
    max_examples=examples(6, 60),
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_values_are_those_of_psycopg(client: LakebaseClient, kind: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.none() | SAME[kind], max_size=8))
    # NULL and a second column at the end: a field's place follows from the one before.
    rows = "(" + "), (".join(["%s::" + kind + ", %s::int8"] * len(values)) + ")"
    query = (
        f"SELECT a, b FROM (VALUES {rows}) v (a, b)" if values else f"SELECT NULL::{kind} a, 1 b WHERE false"
    )
    params = [item for number, value in enumerate(values) for item in (value, number)] if values else None
    with client.connection() as connection:
        connection.execute("SET LOCAL timezone TO 'Pacific/Chatham'")
        expected = connection.execute(query, params).fetchall()
        with read_batches(connection, query, params, batch_rows=3) as reader:
            found = reader.read_all()
        # As one text: of parameters the server does not know the declared precision.
        by_cursor = BY_CURSOR.encode() + query_text(connection, query, params)
        assert not is_plain_query(by_cursor)
        with read_batches(connection, by_cursor, batch_rows=3) as reader:
            assert reader.read_all().equals(found)
    assert found["b"].to_pylist() == [row[1] for row in expected]
    values = [row[0] for row in expected]
    if kind == "float4":  # its text has no more digits than tell it from its neighbours
        values = pa.array(values, pa.float32()).to_pylist()
    assert found["a"].to_pylist() == values
    assert pa.types.is_floating(found["a"].type) == kind.startswith("float")


@pytest.mark.parametrize("kind", AS_TEXT)
def test_what_arrow_has_no_type_for_comes_as_postgres_writes_it(client: LakebaseClient, kind: str) -> None:
    values = [*AS_TEXT[kind], None]
    query = f"SELECT v::{kind} AS v FROM unnest(%s::text[]) WITH ORDINALITY u (v, n) ORDER BY n"
    with client.connection() as connection, psycopg.Cursor(connection) as cursor:
        described = cursor.execute(query, [values]).description
        assert described is not None
        cursor.adapters.register_loader(described[0].type_code, TextLoader)
        expected = [row[0] for row in cursor.execute(query, [values])]
        with read_batches(connection, query, [values]) as reader:
            found = reader.read_all()
        assert found["v"].to_pylist() == expected
        assert found["v"].type == pa.string()
        array = f"SELECT array_agg(v) AS v FROM ({query_text(connection, query, [values]).decode()}) q"
        with read_batches(connection, array) as reader:
            assert reader.read_all()["v"].to_pylist() == [expected]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("'NaN'::numeric", "NaN or an infinity"),
        ("'Infinity'::numeric", "NaN or an infinity"),
        ("1e76", "77 digits before the point"),
        ("1e-77", "77 behind it"),
        ("'infinity'::date", "an infinite date"),
        ("'-infinity'::date", "an infinite date"),
        ("'infinity'::timestamp", "an infinite time"),
        ("'-infinity'::timestamptz", "an infinite time"),
        ("'294270-01-01'::timestamp", "a time after"),
        ("'24:00'::time", "24:00:00"),
        ("'1 mon'::interval", "months or years"),
        ("'-200000000 days'::interval", "an interval of more"),
        ("ARRAY[[1, 2], [3, 4]]", "more than one dimension"),
        ("ARRAY[['1.1.1.1'::inet]]", "more than one dimension"),
        ("ARRAY['infinity'::date]", "an infinite date"),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_the_column(
    client: LakebaseClient, value: str, says: str
) -> None:
    with pytest.raises(LoadError, match=rf'(?s)Column "odd" .*({says})'):
        client.fetch_arrow(f"SELECT 1 AS a, {value} AS odd")
    text = client.fetch_arrow(f"SELECT ({value})::text AS odd")
    assert text["odd"].null_count == 0


def test_dates_and_times_beyond_pythons_range(client: LakebaseClient) -> None:
    table = client.fetch_arrow(
        "SELECT d, t, d - date '1970-01-01' AS days, (extract(epoch FROM t) * 1000000)::int8 AS microseconds"
        " FROM (VALUES (date '4713-01-01 BC', timestamp '0044-03-15 12:00 BC'),"
        " (date '5874897-12-31', timestamp '294246-12-31 23:59:59.999999')) v (d, t)"
    )
    assert table["d"].cast(pa.int32()).equals(table["days"])
    assert table["t"].cast(pa.int64()).equals(table["microseconds"])


def test_a_domain_is_what_lies_below_it(client: LakebaseClient) -> None:
    assert client.fetch_arrow("SELECT 1.5::read_price AS p").schema.field("p").type == pa.decimal128(9, 4)


def test_nan_stays_in_floats_and_an_array_of_none_stays_empty(client: LakebaseClient) -> None:
    row = client.fetch_arrow("SELECT 'NaN'::float8 AS x, '{}'::int[] AS a, NULL::int[] AS n").to_pylist()[0]
    assert row["x"] != row["x"]
    assert (row["a"], row["n"]) == ([], None)
