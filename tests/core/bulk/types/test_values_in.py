"""What becomes of values whose types pass for others: NULL, the value that is meant, or refused by name."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import enum
import json
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pendulum
import polars as pl
import psycopg
import pyarrow as pa
import pytest
from psycopg.types.enum import EnumInfo, register_enum
from sqlalchemy.exc import DBAPIError

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import BadRowError, LakebaseError
from tests.core.bulk.sample_tables import run

MISSING = [pd.NaT, pd.NA, np.datetime64("NaT"), np.timedelta64("NaT")]
Write = Callable[[LakebaseClient, Any], None]


class Color(str, enum.Enum):
    RED = "red"


class Plain(enum.Enum):
    RED = "red"
    FIVE = 5
    GREAT = 5_000_000_000
    YES = True
    NO = False
    HALF = 0.5
    EXACT = Decimal("1.50")
    DAY = dt.date(2026, 1, 2)
    MISSING = None
    NUMPY = np.int64(7)
    PAIR = (1, 2)


class Blob(enum.Enum):
    ONE = b"x"


class Size(enum.IntEnum):
    BIG = 7


class Share(float, enum.Enum):
    HALF = 0.5


class Shouting(str):
    def __str__(self) -> str:
        return "OTHER"


class Moment(dt.datetime):
    def __str__(self) -> str:
        return "some day"


def by_load(client: LakebaseClient, value: Any) -> None:
    client.load([(value,)], "taken")


def by_pipeline(client: LakebaseClient, value: Any) -> None:
    client.executemany_pipeline("insert into taken values (%s)", [(value,)])


def by_statement(client: LakebaseClient, value: Any) -> None:
    with client.connection() as connection:
        connection.execute("insert into taken values (%s)", (value,))


def by_text(client: LakebaseClient, value: Any) -> None:
    with client.connection() as connection:
        connection.execute("insert into taken values (%t)", (value,))


def by_client_cursor(client: LakebaseClient, value: Any) -> None:
    with client.connection() as connection:
        psycopg.ClientCursor(connection).execute("insert into taken values (%s)", (value,))


def by_asyncio(client: LakebaseClient, value: Any) -> None:
    async def insert() -> None:
        async with client.aconnection() as connection:
            await connection.execute("insert into taken values (%s)", (value,))
        await client.aclose()

    asyncio.run(insert())


def by_engine(client: LakebaseClient, value: Any) -> None:
    engine = client.engine()
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("insert into taken values (%s)", (value,))
    finally:
        engine.dispose()


LOSSY: list[tuple[str, Any]] = [
    ("interval", pd.Timedelta(1_001)),
    ("interval", np.timedelta64(1_001, "ns")),
    ("interval", np.timedelta64(1, "M")),
    ("interval", pendulum.duration(months=1)),
    ("interval", [dt.timedelta(days=1)]),
    ("timetz", [dt.time(12, tzinfo=dt.timezone.utc)]),
    ("timestamp", pd.Timestamp(1_001)),
    ("timestamp", np.datetime64(1_001, "ns")),
    ("timestamp[]", [pd.Timestamp(1_001), pd.Timestamp(1_000)]),
    ("bigint", pd.Period("2026-01", "M")),
    ("text", pd.Period("2026-01", "M")),
    ("text", pd.Interval(0, 1)),
    ("double precision", 1 + 2j),
    ("double precision", np.complex128(1 + 2j)),
    ("double precision", np.longdouble("0.1")),
    ("double precision", Fraction(1, 3)),
]
MEANT: list[tuple[str, Any, str | None]] = [
    ("text", Plain.RED, "red"),
    ("bigint", Plain.FIVE, "5"),
    ("boolean", Plain.YES, "true"),
    ("boolean", Plain.NO, "false"),
    ("double precision", Plain.HALF, "0.5"),
    ("numeric", Plain.EXACT, "1.50"),
    ("date", Plain.DAY, "2026-01-02"),
    ("text", Plain.MISSING, None),
    ("bigint", Plain.NUMPY, "7"),
    ("text[]", [Plain.RED], "{red}"),
    ("bigint[]", [Plain.FIVE, 6], "{5,6}"),
    ("bigint[]", [[Plain.GREAT, Plain.FIVE], [Plain.MISSING, 1]], "{{5000000000,5},{NULL,1}}"),
    ("text", Color.RED, "red"),
    ("varchar(3)", Color.RED, "red"),
    ("char(3)", Color.RED, "red"),
    ("jsonb", {"color": Color.RED}, '{"color": "red"}'),
    ("json", [Color.RED], '["red"]'),
    ("text[]", [Color.RED], "{red}"),
    ("text", Shouting("quiet"), "quiet"),
    ("inet", Shouting("10.0.0.1"), "10.0.0.1/32"),
    ("bigint", Size.BIG, "7"),
    ("numeric", Size.BIG, "7"),
    ("text", Size.BIG, "7"),
    ("double precision", Share.HALF, "0.5"),
    ("real", Share.HALF, "0.5"),
    ("bigint", np.int16(3), "3"),
    ("numeric", np.uint64(2**63), str(2**63)),
    ("double precision", np.float64(0.1), "0.1"),
    ("boolean", np.bool_(True), "true"),
    ("text", np.str_("a"), "a"),
    ("bytea", np.bytes_(b"a"), "\\x61"),
    ("timestamp", pd.Timestamp("2026-01-02 03:04:05.000006"), "2026-01-02 03:04:05.000006"),
    ("timestamp", np.datetime64("2026-01-02T03:04:05"), "2026-01-02 03:04:05"),
    ("date", np.datetime64("2026-01-02"), "2026-01-02"),
    ("timestamp", Moment(2026, 1, 2), "2026-01-02 00:00:00"),
    ("interval", pd.Timedelta(days=1, microseconds=2), "1 day 00:00:00.000002"),
    ("interval", np.timedelta64(5, "s"), "00:00:05"),
    ("interval", pendulum.duration(days=1, hours=2), "1 day 02:00:00"),
    ("numeric", Decimal("1.50"), "1.50"),
]
WRITERS = [by_load, by_pipeline, by_statement, by_text, by_client_cursor, by_asyncio, by_engine]


@pytest.fixture(params=WRITERS, ids=lambda write: write.__name__)
def write(request: pytest.FixtureRequest) -> Write:
    found: Write = request.param
    return found


def taken(client: LakebaseClient, kind: str, write: Write, value: Any) -> Any:
    """What the server has of a value, as text."""
    run(client, f"drop table if exists taken; create table taken (v {kind})")
    write(client, value)
    ((found,),) = run(client, "select v::text from taken")
    return found


def test_what_pandas_and_numpy_call_missing_is_null(client: LakebaseClient, write: Write) -> None:
    for kind in ("timestamptz", "timestamp", "date", "interval", "text", "bigint", "jsonb"):
        for value in MISSING:
            assert taken(client, kind, write, value) is None, (kind, value)


@pytest.mark.parametrize("format", ["text", "binary"])
def test_a_copy_whose_types_are_set_takes_them_alike(client: LakebaseClient, format: str) -> None:
    def copy(kind: str, value: Any) -> Any:
        run(client, f"drop table if exists taken; create table taken (v {kind})")
        with client.connection() as connection:
            with connection.cursor().copy(f"copy taken from stdin (format {format})".encode()) as copy:
                copy.set_types([kind])
                copy.write_row([value])
            return connection.execute("select v::text from taken").fetchone()

    for kind, of_numpy in (("timestamptz", "M8"), ("timestamp", "M8"), ("interval", "m8")):
        for value in (pd.NaT, np.array(["NaT"], of_numpy)[0]):
            assert copy(kind, value) == (None,)
    assert copy("timestamp", pd.Timestamp("2026-01-02")) == ("2026-01-02 00:00:00",)
    assert copy("interval", pd.Timedelta(days=1)) == ("1 day",)
    for kind, value in LOSSY:
        if kind in ("timestamp", "interval") and not isinstance(value, list):
            with pytest.raises(psycopg.DataError, match=type(value).__name__):
                copy(kind, value)


def test_missing_elements_of_an_array_are_null(client: LakebaseClient, write: Write) -> None:
    for kind, value, missing, shown in (
        ("timestamp[]", pd.Timestamp("2026-01-02 03:04:05"), pd.NaT, '"2026-01-02 03:04:05"'),
        ("interval[]", pd.Timedelta(days=1), pd.NaT, '"1 day"'),
        ("bigint[]", 5, pd.NA, "5"),
    ):
        assert taken(client, kind, write, [value, missing]) == f"{{{shown},NULL}}"
        assert taken(client, kind, write, [missing, value]) == f"{{NULL,{shown}}}"
        nested = [[value, missing], [missing, value]]
        assert taken(client, kind, write, nested) == f"{{{{{shown},NULL}},{{NULL,{shown}}}}}"


def test_what_would_lose_something_is_refused(client: LakebaseClient, write: Write) -> None:
    for kind, value in LOSSY:
        run(client, f"drop table if exists taken; create table taken (v {kind})")
        with pytest.raises((psycopg.Error, LakebaseError, DBAPIError)) as caught:
            write(client, value)
        # The server names its own type of an array that does not fit.
        if not (isinstance(value, list) and write is not by_load):
            found = value[0] if isinstance(value, list) and kind.endswith("[]") else value
            assert type(found).__name__ in str(caught.value)
        assert run(client, "select * from taken") == []


def test_a_subclass_is_stored_as_the_value_that_it_is(client: LakebaseClient, write: Write) -> None:
    for kind, value, shown in MEANT:
        if kind.startswith("json") and write is not by_load:
            value = psycopg.types.json.Jsonb(value)
        if isinstance(value, Moment) and write in (by_text, by_client_cursor):
            continue  # psycopg's own text of a datetime is its str()
        assert taken(client, kind, write, value) == shown, (kind, value)


def test_missing_is_refused_where_null_is(client: LakebaseClient) -> None:
    run(client, "create table taken (v timestamp not null)")
    with pytest.raises(BadRowError, match=r"(?s)row 2.*NaTType, NULL, which the column refuses"):
        client.load([(dt.datetime(2026, 1, 2),), (pd.NaT,)], "taken")


def test_an_enum_member_whose_value_is_nothing_of_the_kind_is_refused(
    client: LakebaseClient, write: Write
) -> None:
    run(client, "create table taken (v text)")
    with pytest.raises((psycopg.Error, LakebaseError, DBAPIError), match=r"(?s)Plain.*member of an enum"):
        write(client, Plain.PAIR)


def test_an_enum_that_is_registered_is_written_as_its_label(client: LakebaseClient) -> None:
    run(client, "drop type if exists plain_label; create type plain_label as enum ('RED', 'PAIR')")
    with client.connection() as connection:
        info = EnumInfo.fetch(connection, "plain_label")
        assert info is not None
        register_enum(info, connection, Plain)
        found = connection.execute("select %s::text, %s::text", (Plain.RED, [Plain.RED])).fetchone()
        assert found == ("RED", "{RED}")
    run(client, "drop type plain_label")


def test_a_connection_keeps_to_the_rules_of_whoever_registers_later(client: LakebaseClient) -> None:
    class Own:
        pass

    class OwnDumper(psycopg.adapt.Dumper):
        def dump(self, obj: Any) -> bytes:
            return b"own"

    with client.connection() as connection:
        connection.execute("select %s", (pd.NaT,))
    psycopg.adapters.register_dumper(Own, OwnDumper)
    with client.connection() as connection:
        assert connection.execute("select %s::text, %s::text", (Own(), pd.NaT)).fetchone() == ("own", None)


def test_psycopg_of_others_in_the_process_stays_as_it_is(client: LakebaseClient) -> None:
    with client.connection() as connection:
        connection.execute("select %s", (pd.NaT,))
    with pytest.raises(psycopg.ProgrammingError, match="NAType"):
        psycopg.adapt.Transformer().get_dumper(pd.NA, psycopg.adapt.PyFormat.AUTO)


@dataclasses.dataclass
class Note:
    text: Any


BYTES_IN_JSON: list[tuple[Any, str]] = [
    ({"b": b"x"}, "bytes at key 'b'"),
    ({"a": [{"b": bytearray(b"x")}]}, r"bytearray at key 'a\[0\].b'"),
    ([1, (memoryview(b"x"),)], r"memoryview at key '\[1\]\[0\]'"),
    (OrderedDict(a={"b": b""}), "bytes at key 'a.b'"),
    ({"a": Note({"b": b"x"})}, "Note at key 'a'"),
    ({"a": Blob.ONE}, "Blob at key 'a'"),
]


@pytest.mark.parametrize(("value", "where"), BYTES_IN_JSON, ids=[where for _, where in BYTES_IN_JSON])
def test_bytes_have_no_form_in_json(client: LakebaseClient, value: Any, where: str) -> None:
    for kind in ("json", "jsonb"):
        run(client, f"drop table if exists taken; create table taken (v {kind})")
        for rows in ([(value,)], [({"a": 1},), (value,)], [({"a": None},), (value,)]):
            with pytest.raises(BadRowError, match=where):
                client.load(rows, "taken")
        frame = pd.DataFrame({"v": [{"a": 1}, value]})
        with pytest.raises(BadRowError, match=where):
            client.load(frame, "taken")
        assert run(client, "select * from taken") == []
    loaded = client.load([(b'{"a": 1}',)], "taken")  # as JSON that is encoded already
    assert loaded.rows == 1


def test_bytes_within_arrow_have_no_form_in_json(client: LakebaseClient) -> None:
    run(client, "create table taken (v jsonb)")
    for table in (
        pa.table({"v": pa.array([{"b": b"x"}])}),
        pa.table({"v": pa.array([[b"x"]])}),
        pl.DataFrame({"v": [{"b": b"x"}]}),
    ):
        with pytest.raises(BadRowError, match=r"bytes at key"):
            client.load(table, "taken")


FLOAT4 = pa.float32()
NARROW: dict[str, tuple[pa.Array, str]] = {
    "struct": (pa.array([{"a": 0.1}], pa.struct([("a", FLOAT4)])), '{"a": 0.1}'),
    "structs": (pa.array([[{"a": 0.1}, None]], pa.list_(pa.struct([("a", FLOAT4)]))), '[{"a": 0.1}, null]'),
    "list": (pa.array([[0.1, None]], pa.list_(FLOAT4)), "[0.1, null]"),
    "fixed list": (pa.array([[0.1, 16777216]], pa.list_(FLOAT4, 2)), "[0.1, 16777216.0]"),
    "large list": (pa.array([[0.1]], pa.large_list(FLOAT4)), "[0.1]"),
    "list view": (
        pa.ListViewArray.from_arrays(
            pa.array([1], pa.int32()), pa.array([2], pa.int32()), pa.array([7, 0.1, 0.2], FLOAT4)
        ),
        "[0.1, 0.2]",
    ),
    "map": (pa.array([[("k", 0.1)]], pa.map_(pa.string(), FLOAT4)), '{"k": 0.1}'),
    "plain": (pa.array([0.1], FLOAT4), "0.1"),
    "dictionary": (
        pa.StructArray.from_arrays([pa.array([0.1], FLOAT4).dictionary_encode()], ["a"]),
        '{"a": 0.1}',
    ),
    "beside": (
        pa.array(
            [{"a": 0.1, "b": [{"c": 1e-7}], "d": 0.1, "e": 123456789}],
            pa.struct([
                ("a", FLOAT4),
                ("b", pa.list_(pa.struct([("c", FLOAT4)]))),
                ("d", pa.float64()),
                ("e", pa.int64()),
            ]),
        ),
        '{"a": 0.1, "b": [{"c": 1e-07}], "d": 0.1, "e": 123456789}',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NARROW)
def test_a_float4_within_json_keeps_its_digits(client: LakebaseClient, name: str) -> None:
    array, shown = NARROW[name]
    run(client, "create table taken (v jsonb)")
    client.load(pa.table({"v": array}), "taken")
    ((found,),) = run(client, "select v from taken")
    assert found == json.loads(shown)
    assert "0.10000000149" not in str(found)


def test_a_list_view_keeps_its_elements(client: LakebaseClient) -> None:
    """Arrow's own cast to lists loses some."""
    run(client, "create table taken (a bigint[], b text[], c jsonb)")
    columns = {
        name: pa.ListViewArray.from_arrays(
            pa.array([1, 0, 0], pa.int32()), pa.array([2, 1, 0], pa.int32()), pa.array(values)
        )
        for name, values in (("a", [1, 2, 3]), ("b", ["x", "y", "z"]), ("c", [1, 2, 3]))
    }
    client.load(pa.table(columns), "taken")
    assert run(client, "select a, b, c from taken") == [
        ([2, 3], ["y", "z"], [2, 3]),
        ([1], ["x"], [1]),
        ([], [], []),
    ]


def test_a_float4_within_a_polars_struct_keeps_its_digits(client: LakebaseClient) -> None:
    run(client, "create table taken (v jsonb)")
    frame = pl.DataFrame({"v": [{"a": 0.1}]}, schema={"v": pl.Struct({"a": pl.Float32})})
    client.load(frame, "taken")
    assert run(client, "select v::text from taken") == [('{"a": 0.1}',)]


def test_a_float4_within_an_array_is_as_one_beside(client: LakebaseClient) -> None:
    run(client, "create table taken (a numeric, b numeric[], c float8, d float8[], e int8, f int8[])")
    one, whole = pa.array([0.1], FLOAT4), pa.array([123456792.0], FLOAT4)
    client.load(
        pa.table(
            {
                "a": one,
                "b": pa.array([[0.1]], pa.list_(FLOAT4)),
                "c": one,
                "d": pa.array([[0.1]], pa.list_(FLOAT4)),
                "e": whole,
                "f": pa.array([[123456792.0]], pa.list_(FLOAT4)),
            }
        ),
        "taken",
    )
    ((a, b, c, d, e, f),) = run(client, "select * from taken")
    assert ([a], [c], [e]) == (b, d, f)
    assert (str(a), e) == ("0.1", 123456792)


OLD = dt.timezone(dt.timedelta(minutes=19, seconds=32))
AMSTERDAM = ZoneInfo("Europe/Amsterdam")


@dataclasses.dataclass
class Noted:
    at: Any


OFFSETS: list[tuple[Any, Any]] = [
    (dt.datetime(1900, 1, 1, tzinfo=AMSTERDAM), "1900-01-01T00:00:00+00:19:32"),
    (dt.time(1, 2, 3, tzinfo=OLD), "01:02:03+00:19:32"),
    ({"at": dt.datetime(1900, 1, 1, tzinfo=OLD)}, {"at": "1900-01-01T00:00:00+00:19:32"}),
    ([(dt.time(1, 2, tzinfo=OLD), None)], [["01:02:00+00:19:32", None]]),
    ({dt.datetime(1900, 1, 1, tzinfo=OLD): [1]}, {"1900-01-01T00:00:00+00:19:32": [1]}),
    ({"a": {"b": Noted(dt.time(1, tzinfo=OLD))}}, {"a": {"b": {"at": "01:00:00+00:19:32"}}}),
    (
        [dt.datetime(1900, 1, 1, tzinfo=dt.timezone(-dt.timedelta(seconds=1, microseconds=5)))],
        ["1900-01-01T00:00:00-00:00:01.000005"],
    ),
    ({"at": dt.datetime(2026, 1, 2, tzinfo=AMSTERDAM)}, {"at": "2026-01-02T00:00:00+01:00"}),
    ([dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc), dt.time(1)], ["2026-01-02T00:00:00Z", "01:00:00"]),
]


@pytest.mark.parametrize(("value", "meant"), OFFSETS, ids=[str(meant) for _, meant in OFFSETS])
def test_an_offset_with_seconds_stays_exact_in_json(client: LakebaseClient, value: Any, meant: Any) -> None:
    for kind in ("json", "jsonb"):
        run(client, f"drop table if exists taken; create table taken (v {kind})")
        others: list[Any] = [{"a": 1}] * 3
        for rows in ([(value,)], [*((other,) for other in others), (value,)]):
            client.load(rows, "taken", mode="replace")
            assert [found for (found,) in run(client, "select v from taken")][-1] == meant
        client.load(pd.DataFrame({"v": pd.Series([value, *others], dtype=object)}), "taken", mode="replace")
        assert run(client, "select v from taken")[0] == (meant,)


def test_bytes_as_a_key_have_no_form_in_json(client: LakebaseClient) -> None:
    run(client, "create table taken (v jsonb)")
    with pytest.raises(BadRowError, match="'v'"):
        client.load([({"a": {b"x": 1}},)], "taken")
