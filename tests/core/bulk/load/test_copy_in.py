"""COPY into a table: what is refused, how it is named, what is put aside, what fast paths would corrupt."""

from __future__ import annotations

import datetime as dt
import importlib.util
import logging
import math
import pickle
import traceback
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import pandas as pd
import polars as pl
import psycopg
import pyarrow as pa
import pytest
from psycopg import errors
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.core.bulk.load.copy_in import CopyResult, RejectedRow, copy_in
from lakebase_provider.core.bulk.load.load import load as bulk_load
from lakebase_provider.core.database.catalog import TableName, read_table
from lakebase_provider.core.errors import BadRowError, ColumnMismatchError, LakebaseError, LoadError
from lakebase_provider.local import LocalLakebase

UTC = dt.timezone.utc
SECRET = "tr0ub4dor"


@pytest.fixture(scope="module")
def client(lakebase_server: LocalLakebase) -> Iterator[LakebaseClient]:
    lakebase_server.admin.reset()
    with LakebaseClient(LakebaseConfig.from_env(lakebase_server.env())) as found:
        yield found


@pytest.fixture
def connection(client: LakebaseClient) -> Iterator[psycopg.Connection[Any]]:
    with client.connection() as found:
        yield found
        found.rollback()


Load = Callable[..., list[Any]]


@pytest.fixture
def load(connection: psycopg.Connection[Any]) -> Load:
    """Copies a source into a new table of one column and returns what is in it."""

    def run(kind: str, source: Any, *, rejected: list[RejectedRow] | None = None) -> list[Any]:
        connection.execute(f"CREATE TEMP TABLE one (v {kind})".encode())
        reject = None if rejected is None else rejected.append
        copy_in(connection, source, read_table(connection, "one"), reject=reject)
        return [value for (value,) in connection.execute("SELECT v FROM one", binary=True)]

    return run


def _one(value: Any, kind: pa.DataType | None = None) -> pa.Table:
    return pa.table({"v": pa.array([value], type=kind)})


@pytest.mark.parametrize(
    ("kind", "source", "wanted"),
    [
        ("numeric", _one(7, pa.int64()), Decimal(7)),
        ("numeric(8,3)", _one(7, pa.uint64()), Decimal("7.000")),
        ("numeric(8,3)", _one(0.1), Decimal("0.100")),
        ("numeric", _one(0.1), Decimal("0.1")),
        ("numeric", _one(math.nan), "NaN"),
        ("numeric", [(Decimal("NaN"),)], "NaN"),
        ("numeric(6,2)", [(Decimal("NaN"),)], "NaN"),
        ("numeric(6,2)", [(0.25,)], Decimal("0.25")),
        ("numeric", [(Decimal("1E+40"),)], Decimal("1E+40")),
        ("float8", _one(7, pa.int64()), 7.0),
        ("int8", _one(7.0), 7),
        ("int2", _one(7, pa.uint64()), 7),
        ("int8", _one(Decimal("7.0")), 7),
        ("int8", [(7.0,)], 7),
        ("int8", _one(None, pa.null()), None),
        ("text[]", _one(None, pa.null()), None),
        (
            "timestamptz",
            _one(dt.datetime(2024, 5, 1, 12), pa.timestamp("ns")),
            dt.datetime(2024, 5, 1, 12, tzinfo=UTC),
        ),
        ("timestamptz", [(dt.datetime(2024, 5, 1, 12),)], dt.datetime(2024, 5, 1, 12, tzinfo=UTC)),
        ("timestamp", _one(dt.date(2024, 5, 1)), dt.datetime(2024, 5, 1)),
        ("date", _one(dt.date(2024, 5, 1), pa.date64()), dt.date(2024, 5, 1)),
        ("date", _one(dt.datetime(2024, 5, 1), pa.timestamp("s")), dt.date(2024, 5, 1)),
        ("jsonb", _one({"a": [1, None]}), {"a": [1, None]}),
        ("jsonb", _one([("a", 1)], pa.map_(pa.string(), pa.int64())), {"a": 1}),
        ("jsonb", [({"a": 2**70},)], {"a": 2**70}),
        ("jsonb", [('{"a": 1}',)], {"a": 1}),
        ("text", _one(5), "5"),
        ("text", _one("x").slice(0).cast(pa.schema({"v": pa.string_view()})), "x"),
        ("int4[]", _one([1, None], pa.large_list(pa.int32())), [1, None]),
        ("uuid", [("12345678123456781234567812345678",)], "12345678-1234-5678-1234-567812345678"),
    ],
)
def test_what_says_the_same_goes_in(load: Load, kind: str, source: Any, wanted: Any) -> None:
    (found,) = load(kind, source)
    assert found == wanted if not isinstance(wanted, str) else str(found) == wanted


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int2", 40_000),
        ("int8", 2**63),
        ("int8", 1.5),
        ("int8", True),
        ("int4", "x" + SECRET),
        ("float8", 2**53 + 1),
        ("float8", Decimal("0.1000000000000000055511151231257827")),
        ("float4", 1e300),
        ("numeric(5,2)", Decimal("1.005")),
        ("numeric(5,2)", Decimal(1000)),
        ("numeric(5,2)", 1.005),
        ("varchar(3)", "four"),
        ("varchar(3)", "abc "),
        ("text", "a\0b"),
        ("text", "\ud800"),
        ("text", b"bytes"),
        ("bytea", "text"),
        ("uuid", "no"),
        ("jsonb", {"a": math.nan}),
        ("jsonb", "{"),
        ("jsonb", {"a": object()}),
        ("date", dt.datetime(2024, 5, 1, 12)),
        ("time", dt.time(12, tzinfo=UTC)),
        ("timestamp", dt.datetime(2024, 5, 1, tzinfo=UTC)),
        ("timestamp(3)", dt.datetime(2024, 5, 1, microsecond=1)),
        ("timestamptz", 5),
        ("int4[]", [1, "x"]),
        ("int4[]", [[1, 2], [3]]),
        ("bool", 1),
        ("float4", 1e-60),
        ("float8", "1e400"),
        ("float8", "1e-400"),
        ("time", "12.345"),
        ("time", "12:00:00.1234567"),
        ("interval", Decimal("12.345")),
        ("interval[]", [[5]]),
        ("money", 1.5),
        ("money", Decimal("12.345")),
        ("timetz", dt.datetime(2024, 5, 1, 12, tzinfo=UTC)),
        ("bit(3)", 101),
    ],
)
def test_a_value_that_would_change_is_put_aside(load: Load, kind: str, value: Any) -> None:
    rejected: list[RejectedRow] = []
    assert load(kind, [(None,), (value,), (None,), (value,)], rejected=rejected) == [None, None]
    assert [(row.number, row.column, row.row) for row in rejected] == [(2, "v", (value,)), (4, "v", (value,))]
    assert SECRET not in rejected[0].reason


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int2", 40_000),
        ("numeric(5,2)", Decimal("1.005")),
        ("varchar(3)", "four"),
        ("text", "a\0" + SECRET),
        ("jsonb", SECRET),
    ],
)
@pytest.mark.parametrize("form", ["rows", "Arrow"])
def test_a_bad_row_is_named(connection: psycopg.Connection[Any], kind: str, value: Any, form: str) -> None:
    connection.execute(f"CREATE TEMP TABLE one (k int, v {kind})".encode())
    values = [None] * 12_345 + [value]
    source: Any = (
        [(1, v) for v in values] if form == "rows" else pa.table({"k": [1] * len(values), "v": values})
    )
    with pytest.raises((BadRowError, psycopg.DataError)) as caught:
        copy_in(connection, source, read_table(connection, "one"))
    if isinstance(caught.value, BadRowError):
        assert (caught.value.row, caught.value.column) == (12_346, "v")
        assert SECRET not in str(caught.value)
    else:  # the server's own: whoever calls names it, see failures.py
        assert "line 12346, column v" in (caught.value.diag.context or "")


@pytest.mark.parametrize(
    ("kind", "values", "sqlstate"),
    [
        ("text", ["a\0" + SECRET], "22021"),
        ("jsonb", ['{"a": ' + SECRET], "22P02"),
        ("int4", [SECRET], "22P02"),
        ("text PRIMARY KEY", [SECRET, SECRET], "23505"),
        ("text CHECK (v < 'a')", [SECRET], "23514"),
        ("text CHECK (pg_temp.refused(v))", [SECRET], "P0001"),
        # Its message has no value, but its context has the line.
        ("inet, CHECK (pg_temp.refused(v::text))", ["10.0.0.1"], "P0001"),
    ],
)
def test_the_servers_refusal_tells_no_value(
    connection: psycopg.Connection[Any], kind: str, values: list[str], sqlstate: str
) -> None:
    connection.execute(
        "CREATE FUNCTION pg_temp.refused(text) RETURNS bool LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$"
    )
    connection.execute(f"CREATE TEMP TABLE one (v {kind})".encode())
    with pytest.raises(LoadError) as caught:
        bulk_load(connection, pa.table({"v": values}), TableName("one", "pg_temp"))
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):  # noqa: S301 - our own
        text = "".join(traceback.format_exception(error))
        assert not [value for value in (SECRET, *values) if value in text]
        assert error.sqlstate == sqlstate
        assert isinstance(error, BadRowError) == (sqlstate != "P0001")


def test_the_servers_refusal_of_no_value_is_the_cause(connection: psycopg.Connection[Any]) -> None:
    with pytest.raises(LoadError, match="permission denied") as caught:
        bulk_load(connection, [(1,)], TableName("pg_authid", "pg_catalog"), columns=["oid"])
    assert (caught.value.sqlstate, type(caught.value.__cause__)) == ("42501", errors.InsufficientPrivilege)


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("int2", _one(40_000)),
        ("int8", _one(2**63, pa.uint64())),
        ("int8", _one(1.5)),
        ("float8", _one(2**53 + 1)),
        ("float4", _one(1e300)),
        ("numeric(5,2)", _one(Decimal("1.005"))),
        ("numeric(5,2)", _one(1.005)),
        ("numeric(5,2)", _one(1000)),
        ("numeric(5,2)", _one("1.005")),
        ("timestamp", _one("2024-05-01 12:00:00+02")),
        ("timestamptz", _one("2024-05-01 12:00:00.1234567Z")),
        ("date", _one("2024-05-01 12:00")),
        ("timestamptz", pa.table({"v": pa.array([1], type=pa.timestamp("ns"))})),
        ("timestamp", pa.table({"v": pa.array([-(2**63) + 5], type=pa.timestamp("us"))})),
        ("date", _one(dt.datetime(2024, 5, 1, 12))),
        ("timestamptz(0)", _one(dt.datetime(2024, 5, 1, 12, 0, 0, 5))),
        ("varchar(3)", _one("four")),
        ("jsonb", pa.table({"v": [{"a": math.nan}]})),
        ("numeric(5,2)[]", _one("{1.005}")),
    ],
)
def test_an_arrow_value_that_would_change_is_refused(load: Load, kind: str, source: pa.Table) -> None:
    with pytest.raises(BadRowError, match="row 1, column 'v'"):
        load(kind, source)


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("timestamp", _one(dt.datetime(2024, 5, 1, tzinfo=UTC))),
        ("timestamptz", _one(5)),
        ("int8", _one(True)),
        ("bool", _one(1)),
        ("text", _one(b"x")),
        ("int8", _one(dt.datetime(2024, 5, 1))),
        ("int8", _one([1])),
        ("int8[]", _one(1)),
        ("int8[]", _one([dt.date(2024, 5, 1)])),
        ("bytea", _one(5)),
    ],
)
def test_a_type_that_does_not_go_there_is_refused(load: Load, kind: str, source: pa.Table) -> None:
    with pytest.raises(ColumnMismatchError, match="'v'"):
        load(kind, source)


def test_rejected_rows_leave_the_rest(connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE TYPE pg_temp.mood AS ENUM ('calm')")
    connection.execute("CREATE TEMP TABLE few (k int NOT NULL, n int2, m pg_temp.mood, j jsonb, t text)")
    table = read_table(connection, "few")
    good = {"k": 1, "n": 1, "m": "calm", "j": "{}", "t": "x"}
    bad = [{"k": None}, {"n": 2**20}, {"m": "wild"}, {"j": "{"}, {"t": "\0"}, {"j": '"\\u0000"'}]
    rows = [good, *({**good, **change} for change in bad), good]
    for source in (rows, pa.Table.from_pylist(rows), pl.DataFrame(rows), pd.DataFrame(rows)):
        rejected: list[RejectedRow] = []
        result = copy_in(connection, source, table, reject=rejected.append)
        assert (result.rows, result.rejected) == (2, 6)
        assert [(row.number, row.column) for row in rejected] == list(zip(range(2, 8), "knmjtj", strict=True))


def test_texts_that_the_server_would_refuse_are_put_aside(connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE TEMP TABLE parsed (n int, x float8, at timestamptz, f bool)")
    good = ("7", "1e5", "2024-05-01 12:00:00+02", "yes")
    bad = [("seven", *good[1:]), (good[0], "x", *good[2:]), (*good[:2], "soon", "t"), (*good[:3], "maybe")]
    columns = zip(*[good, *bad, good], strict=True)
    source = pa.table(dict(zip(["n", "x", "at", "f"], map(list, columns), strict=True)))
    rejected: list[RejectedRow] = []
    assert copy_in(connection, source, read_table(connection, "parsed"), reject=rejected.append).rows == 2
    assert [(row.number, row.column) for row in rejected] == [(2, "n"), (3, "x"), (4, "at"), (5, "f")]


def test_the_servers_row_number_counts_the_rejected_ones(connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE TEMP TABLE positive (n int2 CHECK (n > 0))")
    source = [(1,), (99_999,), (1,), (-1,), (99_999,)]
    with pytest.raises(BadRowError) as caught:
        copy_in(connection, source, read_table(connection, "positive"), reject=lambda row: None)
    assert caught.value.row == 4


def test_naive_texts_are_utc_in_any_session(connection: psycopg.Connection[Any]) -> None:
    connection.execute("SET TIME ZONE 'Asia/Tokyo'")
    connection.execute("CREATE TEMP TABLE moments (at timestamptz)")
    copy_in(connection, pa.table({"at": ["2024-05-01 12:00"]}), read_table(connection, "moments"))
    found = connection.execute(
        "SELECT at AT TIME ZONE 'UTC', current_setting('timezone') FROM moments"
    ).fetchone()
    assert found == (dt.datetime(2024, 5, 1, 12), "Asia/Tokyo")


def test_nan_is_a_value_but_to_pandas(connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE TEMP TABLE measures (x float8)")
    table = read_table(connection, "measures")
    for source in (pa.table({"x": [math.nan]}), pl.DataFrame({"x": [math.nan]}), [(math.nan,)]):
        copy_in(connection, source, table)
    copy_in(connection, pd.DataFrame({"x": [math.nan]}), table)
    found = connection.execute(
        "SELECT count(*) FILTER (WHERE x = 'NaN'), count(*) - count(x) FROM measures"
    ).fetchone()
    assert found == (3, 1)


_NUMBERS = [
    "0", "-0", "+7", " 7 ", "1_000", "\u0661\u0662", "0x1F", "1e3", "1.", ".5", ".", "1e400", "1e-400",
    "1e-60", "\u00a07", "NaN", "-nan", "nan1", "Infinity", "-inf", "infinit", "", " ", "1,5", "70000", "٣.٥",
]  # fmt: skip
_TIMES = [
    "12.345", "12", "12:30", "12:30:05", "12:30:05.5", "12:30:05,5", "12:30:05.1234567", "12:30:05.1234560",
    "24:00", "12:60", "123005", "T12:30", "12:30Z", "12:30+02", "12:30+20:00", "12:30 PM",
]  # fmt: skip
_DATES = ["2024-05-01", "20240501", "2024-W18-3", "2024-122", "2024W183", " 2024-05-01 ", "0000-01-01", "now"]
_MOMENTS = [
    *_DATES, *(f"2024-05-01{mark}{time}" for mark in "T x_" for time in _TIMES), "2024-05-01T", "2024-05-01Z",
]  # fmt: skip
_UUID = "12345678-1234-5678-1234-567812345678"
_TEXTS = {
    **dict.fromkeys(["int2", "int8", "float4", "float8", "numeric", "numeric(8,2)"], _NUMBERS),
    "bool": ["t", " TRUE ", "\u2003t", "on", "1", "01", "tr", "\u212a", "no"],
    "uuid": [
        _UUID, f"{{{_UUID}}}", f"urn:uuid:{_UUID}", f"{{{_UUID}", f" {_UUID}", "1-" * 32,
        "1234-" * 7 + "1234",
    ],
    "time": _TIMES,
    "time(1)": _TIMES,
    "date": [*_DATES, "2024-05-01 00:00"],
    "timestamp": _MOMENTS,
    "timestamptz": _MOMENTS,
}  # fmt: skip
_AWARE = dt.datetime(2024, 5, 1, 12, tzinfo=UTC)
_VALUES = [
    None, 70_000, 2**40, 1.5, Decimal("12.5"), Decimal("12.345"), True, dt.timedelta(seconds=5),
    dt.date(2024, 5, 1), dt.datetime(2024, 5, 1), _AWARE, dt.time(12), dt.time(12, tzinfo=UTC), [70_000],
    [Decimal("1.5")], [_AWARE], ["1"], Range(1, 5), (1, "x"), b"x", UUID(_UUID),
]  # fmt: skip
_KINDS = [
    "interval", "interval[]", "money", "money[]", "timetz", "timetz[]", "bit(3)", "inet", "oid", "xid",
    "int4range", "tsvector", "tsquery", "xml", "point", "jsonpath", "macaddr", "oidvector",
    "refcursor", "varbit",
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "values"),
    [*_TEXTS.items(), *((kind, _VALUES) for kind in _KINDS)],
)
def test_nothing_is_taken_that_insert_refuses_or_reads_otherwise(
    connection: psycopg.Connection[Any], kind: str, values: list[Any]
) -> None:
    connection.execute("SET TIME ZONE 'UTC'")
    connection.execute(f"CREATE TEMP TABLE one (place serial, v {kind})".encode())
    table, taken = read_table(connection, "one"), []
    for value in values:
        try:
            with connection.transaction():
                copy_in(connection, [(value,)], table, columns=["v"])
        except (BadRowError, psycopg.Error):
            continue
        taken.append(value)
        with connection.transaction():
            connection.execute("INSERT INTO one (v) VALUES (%s)", [value])
    found = [text for (text,) in connection.execute("SELECT v::text FROM one ORDER BY place")]
    assert found[::2] == found[1::2], taken


def test_numbers_keep_their_own_scale(connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE TEMP TABLE amounts (n numeric)")
    values = ["1.5", "1.50", "0", "-0.001", "123456789012345678901234567890123456789.5"]
    copy_in(connection, [(Decimal(value),) for value in values], read_table(connection, "amounts"))
    assert [value for (value,) in connection.execute("SELECT n::text FROM amounts")] == values


def test_batches_whose_types_differ(connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE TEMP TABLE mixed (k int, n numeric)")
    # Rows come in batches of 10,000, in which all numbers have one scale, or not.
    numbers = [Decimal(f"1E-{k // 10_000}") for k in range(30_000)]
    numbers += [Decimal(f"1E-{k % 3}") for k in range(5)] + [Decimal("0.5")] * 10_000
    result = copy_in(connection, enumerate(numbers), read_table(connection, "mixed"))
    assert (result.format, result.rows) == ("binary", len(numbers))
    found = connection.execute("SELECT k, n FROM mixed ORDER BY k", binary=True).fetchall()
    assert [(k, str(n)) for k, n in found] == [(k, f"{n:f}") for k, n in enumerate(numbers)]


def test_ranges_and_composites_go_as_text(connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE TYPE pg_temp.part AS (n int, label text, at timestamptz)")
    connection.execute(
        "CREATE TEMP TABLE shapes (place serial, r int4range, t tstzrange, m nummultirange, p pg_temp.part,"
        " ps pg_temp.part[])"
    )
    table, columns = read_table(connection, "shapes"), ["r", "t", "m", "p", "ps"]
    at = dt.datetime(2024, 5, 1, 12, tzinfo=UTC)
    label = 'a, "b" (c) \\ \t{d}'
    first = (
        Range(1, 5),
        Range(at, None, "(]"),
        Multirange([Range(Decimal("0.5"), Decimal("1.50"), "[]")]),
        (7, label, at),
        [(7, label, at), None, (None, "", None)],
    )
    rows = [first, (Range(empty=True), None, Multirange(), (None, None, None), []), (None,) * 5]
    result = copy_in(connection, rows, table, columns=columns)
    assert (result.format, result.rows) == ("text", 3)
    texts = connection.execute("SELECT r::text, t::text, m::text, p::text, ps::text FROM shapes").fetchall()
    arrow = pa.table([pa.array(column, pa.string()) for column in zip(*texts, strict=True)], names=columns)
    assert copy_in(connection, arrow, table).format == "text"
    for begin in (0, 3):
        found = connection.execute(
            "SELECT r, t, m, (p).n, (p).label, (p).at, cardinality(ps), (ps[1]).label, (ps[2]).n,"
            " (ps[3]).label FROM shapes ORDER BY place OFFSET %s LIMIT 3",
            [begin],
        ).fetchall()
        assert found == [
            (*first[:3], 7, label, at, 3, label, None, ""),
            (Range(empty=True), None, Multirange(), None, None, None, 0, None, None, None),
            (None,) * 10,
        ]


def test_columns_by_name_and_into_another_relation(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        'CREATE TEMP TABLE target (a int, "B ""b""" text, c int GENERATED ALWAYS AS (a * 2) STORED)'
    )
    connection.execute("CREATE TEMP TABLE staged (LIKE target)")
    table = read_table(connection, "target")
    into = TableName("staged")
    copy_in(connection, [{'B "b"': "x", "a": 1, "more": 0}], table, into=into, columns=["a", 'B "b"'])
    copy_in(connection, [(2, "y")], table, into=into)
    assert connection.execute('SELECT a, "B ""b""" FROM staged').fetchall() == [(1, "x"), (2, "y")]
    for source, columns, words in (
        ([{"a": 1, "zz": 2}], None, "no column 'zz'"),
        ([(1, "x", 3)], None, "3 values"),
        ([{"a": 1}], ["c"], "has no column 'c'"),
        ([(1,)], ["c"], "computed"),
        ([(1, 1)], ["a", "a"], "twice"),
    ):
        with pytest.raises(ColumnMismatchError, match=words):
            copy_in(connection, source, table, columns=columns)


def test_progress_and_reason(connection: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture) -> None:
    connection.execute("CREATE TEMP TABLE counted (n int, address inet)")
    table = read_table(connection, "counted")
    seen: list[tuple[int, int]] = []
    with caplog.at_level(logging.INFO, logger="lakebase_provider"):
        result = copy_in(
            connection, ((n, None) for n in range(25_000)), table, progress=lambda *at: seen.append(at)
        )
    assert [rows for rows, _ in seen] == [10_000, 20_000, 25_000]
    assert result == CopyResult(25_000, seen[-1][1], "text", "pyarrow", result.reason, ("n", "address"))
    assert "'address' of type inet" in result.reason
    assert result.reason in caplog.text
    assert copy_in(connection, [], table).rows == 0
    assert copy_in(connection, pa.table({"n": pa.array([], pa.int32())}), table).format == "binary"


@pytest.mark.parametrize("missing", [{"pgpq"}, {"pyarrow", "pgpq"}])
def test_without_the_fast_libraries(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, missing: set[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in missing else find(name, *rest)
    )
    connection.execute(
        "CREATE TEMP TABLE slow"
        " (n int, t text, x numeric(6,2), at timestamptz, j jsonb, b bytea, a text[], w inet)"
    )
    table = read_table(connection, "slow")
    row = (
        1,
        "a\t\\N\n",
        Decimal("1.25"),
        dt.datetime(2024, 5, 1, tzinfo=UTC),
        {"a": "\\"},
        b"\0\xff",
        ["x", None, '"'],
        None,
    )
    result = copy_in(connection, [row, (None,) * 8], table)
    assert (result.format, result.encoder) == ("text", "pyarrow" if len(missing) == 1 else "psycopg")
    assert connection.execute("SELECT * FROM slow").fetchall() == [row, (None,) * 8]
    with pytest.raises(LakebaseError, match="row 2, column 'x'"):
        copy_in(connection, [row, (1, "", Decimal("1.255"), *row[3:])], table)


@pytest.mark.parametrize("bad", [(2,), (2, "b", 3), {"a": 2}, "ab"], ids=repr)
def test_a_row_of_another_shape_cannot_be_put_aside_nor_is_that_advised(
    client: LakebaseClient, bad: Any
) -> None:
    with client.connection() as connection:
        connection.execute("drop table if exists shapes; create table shapes (a int, b text)")
    reject: dict[str, Any] = {"on_error": "reject", "reject_to": "aside"}
    for options in ({}, reject):
        with pytest.raises(BadRowError) as caught:
            client.load([(1, "a"), bad], "shapes", **options)
        assert caught.value.row == 2
        assert "on_error" not in str(caught.value)
    with client.connection() as connection:
        assert connection.execute("select * from shapes").fetchall() == []
