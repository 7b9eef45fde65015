"""What an INSERT by psycopg stores of a Python value, each other way in stores too, or refuses."""

from __future__ import annotations

import datetime as dt
import enum
import ipaddress
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pendulum
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Json
from psycopg.types.range import Range

from dagster_lakebase import LakebaseResource
from lakebase_provider._airflow.rows import insert
from lakebase_provider._airflow.rows.insert import RowWriter
from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.load.load import load
from lakebase_provider.core.bulk.load.pipeline import executemany_pipeline
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.database.catalog import TableName
from lakebase_provider.core.errors import BadRowError, LakebaseError
from lakebase_provider.local import LocalLakebase
from tests.depth import examples
from tests.encoders import ENCODERS, encoded_by

KINDS = (
    "smallint", "bigint", "real", "double precision", "numeric", "numeric(6,2)", "text", "varchar(3)",
    "char(3)", "boolean", "date", "time", "timestamp", "timestamptz", "timestamp(3)", "interval", "bytea",
    "uuid", "jsonb", "json", "bigint[]", "text[]", "numeric[]", "timestamp[]", "interval[]", "inet",
    "int4range", "same_color",
)  # fmt: skip


class Color(str, enum.Enum):
    RED = "red"
    DARK = "dark"


class Plain(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 300


class Share(float, enum.Enum):
    HALF = 0.5


class Shouting(str):
    def __str__(self) -> str:
        return "OTHER"


class Odd(int):
    def __str__(self) -> str:
        return "99"


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5) | st.sampled_from(
    ["1", "1.5", "true", "red", "2026-01-02", "{}", "[1]", "10.0.0.1", "1 day"]
)
_MOMENTS = st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30))
_NANOSECONDS = st.integers(-(2**62), 2**62) | st.integers(-(2**52), 2**52).map(lambda n: n * 1_000)
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.decimals(allow_nan=False, allow_infinity=False),
    _TEXT,
    st.binary(max_size=5),
    st.uuids(),
    _MOMENTS,
    _MOMENTS.map(lambda moment: moment.replace(tzinfo=dt.timezone.utc)),
    st.dates(),
    st.times(),
    st.timedeltas(dt.timedelta(days=-(10**6)), dt.timedelta(days=10**6)),
    st.sampled_from([*Color, *Plain, *Level, *Share, Shouting("red"), Odd(7), Fraction(1, 3), 1 + 2j]),
    st.sampled_from([pd.NaT, pd.NA, np.datetime64("NaT"), np.timedelta64("NaT")]),
    _NANOSECONDS.map(pd.Timestamp),
    _NANOSECONDS.map(lambda n: pd.Timestamp(n, tz="UTC")),
    _NANOSECONDS.map(pd.Timedelta),
    _NANOSECONDS.map(lambda n: np.datetime64(n, "ns")),
    st.integers(-1000, 1000).map(lambda n: np.timedelta64(n, "s")),
    st.sampled_from([np.int8(-1), np.int64(2**62), np.uint64(2**63), np.float32(0.1), np.float64(0.1)]),
    st.sampled_from([np.bool_(True), np.str_("red"), np.bytes_(b"x"), np.longdouble("0.1")]),
    st.sampled_from([pendulum.duration(months=1), pendulum.duration(days=2), pendulum.datetime(2026, 1, 2)]),
    st.sampled_from([pd.Period("2026-01"), pd.Interval(0, 1), Range(1, 5), ipaddress.ip_address("10.0.0.1")]),
)
_VALUES = (
    _SCALARS | st.lists(_SCALARS, max_size=3) | st.dictionaries(_TEXT, _TEXT | st.integers(0, 9), max_size=2)
)

_FIRST_YEAR = dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=14)))
#: What is likely to be written differently, or found by the server alone.
_ODD = st.sampled_from(
    [
        *(
            _FIRST_YEAR,
            "\0",
            "\ud800",
            "a\tb\\N\n",
            '{"a": "\\u0000"}',
            {"a": "\0"},
            ["\0"],
            [b"\0\xff"],
            b"\0\\",
        ),
        *(2.0**30 + 2.0**6, 7.038531e-26, 1e-50, 1e39, 3.4028235677973366e38, -0.0, Decimal("-NaN")),
        *(
            Decimal("1E+3"),
            Decimal("-0.00"),
            Decimal("1E-20"),
            [["a", None], ["b", '"']],
            [[]],
            [1.1],
            {"\\": 1},
        ),
    ]
)


class _UndoneError(Exception):
    """What was written is not to stay."""


Write = Callable[[LakebaseConnection, Any], Any]


def by_insert(connection: LakebaseConnection, value: Any) -> None:
    connection.execute("insert into same (v) values (%s)", (value,))


def by_load(connection: LakebaseConnection, value: Any) -> None:
    load(connection, [(value,)], "same", columns=["v"])


def by_arrow(connection: LakebaseConnection, value: Any) -> None:
    with encoded_by("Arrow"):
        by_load(connection, value)


def by_row(connection: LakebaseConnection, value: Any) -> None:
    write_rows(connection, [(value,)])


def by_copy(connection: LakebaseConnection, value: Any) -> None:
    copy_rows(connection, [(value,)])


def by_copy_of_arrow(connection: LakebaseConnection, value: Any) -> None:
    with encoded_by("Arrow"):
        by_copy(connection, value)


def write_rows(connection: LakebaseConnection, rows: list[tuple[Any]]) -> None:
    statement = "INSERT INTO same (v) VALUES (%s)"
    RowWriter(connection, TableName("same"), ["v"], lambda width: statement).write(rows)


def copy_rows(connection: LakebaseConnection, rows: list[tuple[Any]]) -> None:
    """As :func:`write_rows`, by COPY, which by itself takes over when rows are many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(insert, "_COPY_FROM", 1)
        write_rows(connection, rows)


def by_pipeline(connection: LakebaseConnection, value: Any) -> None:
    executemany_pipeline(connection, "insert into same (v) values (%s)", [(value,)])


WAYS: dict[str, Write] = {
    "statement": by_insert,
    "load": by_load,
    "load by Arrow": by_arrow,
    "insert_rows": by_row,
    "insert_rows by COPY": by_copy,
    "insert_rows by COPY of Arrow": by_copy_of_arrow,
    "pipeline": by_pipeline,
}


def stored(connection: LakebaseConnection, write: Write, value: Any) -> Any:
    """What the server has of the value, as text; None for NULL, and `REFUSED`."""
    found: Any = REFUSED
    try:
        with connection.transaction():
            write(connection, value)
            ((found,),) = connection.execute("select distinct v::text from same").fetchall()
            raise _UndoneError
    except _UndoneError:
        return found
    except (psycopg.Error, LakebaseError, TypeError, ValueError):
        return REFUSED


REFUSED = object()


@pytest.fixture
def connection(lakebase_env: LocalLakebase) -> Iterator[LakebaseConnection]:
    with LakebaseClient(lakebase_env.config()) as client, client.connect() as found:
        # COPY reads times without a zone in UTC, and so does INSERT then.
        found.execute("set time zone 'UTC'; create type same_color as enum ('red', 'dark')")
        found.commit()
        yield found
        found.rollback()
        found.execute("drop table if exists same; drop type same_color")
        found.commit()


def meant(value: Any) -> Any:
    """The value as psycopg itself takes it, where it would not: by hand, and not by our own code."""
    if isinstance(value, list):
        if {Decimal, int} <= set(map(type, value)):
            return [Decimal(item) if type(item) is int else meant(item) for item in value]
        # psycopg takes [Level.HIGH, 1], and refuses [Level.HIGH, 70000]: the int is wider than the enum.
        return [int(item) if isinstance(item, enum.IntEnum) else meant(item) for item in value]
    if value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, (np.datetime64, np.timedelta64)) and value != value:
        return None
    if isinstance(value, np.timedelta64):
        return dt.timedelta(seconds=int(value / np.timedelta64(1, "s")))
    if isinstance(value, np.datetime64):
        return pd.Timestamp(value).to_pydatetime(warn=False)
    if isinstance(value, Plain):
        return value.value  # psycopg writes the name
    return value


def loses(value: Any) -> bool:
    """Whether psycopg by itself would drop digits of it."""
    if isinstance(value, list):
        return any(map(loses, value))
    if isinstance(value, np.datetime64) and value == value:
        value = pd.Timestamp(value)
    if value is pd.NaT:
        return False
    if isinstance(value, pd.Timestamp):
        return bool(value.nanosecond)
    if isinstance(value, pd.Timedelta):
        return bool(value.nanoseconds)
    return isinstance(value, pendulum.Duration) and bool(value.months)


@contextmanager
def as_psycopg_comes(connection: LakebaseConnection) -> Iterator[None]:
    """Without any rule of this package."""
    connection._adapters = psycopg.adapt.AdaptersMap(psycopg.adapters)
    try:
        yield
    finally:
        connection._adapters = None


def for_statement(value: Any, kind: str) -> Any:
    """The value as a statement's parameter: psycopg wants to be told what JSON is."""
    json_too = kind.startswith("json") and value is not None and not isinstance(value, str)
    return Json(value) if isinstance(value, dict) or json_too else value


def alike(found: Any, expected: Any, kind: str, value: Any) -> bool:
    """Whether a load means the same, and keeps more than INSERT does: known, and documented."""
    if expected is REFUSED:
        # A load has a JSON form for more than Python's json has, such as for dates and a Decimal.
        return kind.startswith("json")
    if kind == "json" and found is not None and expected is not None:
        return bool(json.loads(found) == json.loads(expected))
    if kind.startswith("numeric") and isinstance(value, float) and math.isfinite(value):
        return Decimal(found) == Decimal(repr(float(value)))  # the cast to numeric drops the last digits
    return False


def patient(count: int) -> settings:
    """Each example is a dozen of round trips: to shrink one would take minutes."""
    return settings(
        max_examples=count,
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )


@pytest.mark.deep
@pytest.mark.parametrize("kind", KINDS)
def test_each_way_stores_what_insert_does_or_refuses(connection: LakebaseConnection, kind: str) -> None:
    connection.execute(f"drop table if exists same; create table same (v {kind})")
    connection.commit()

    @patient(examples(6, 200))
    @given(value=_VALUES)
    @example(value=[Level.HIGH, 127122])
    def same(value: Any) -> None:
        with as_psycopg_comes(connection):
            parameter = for_statement(meant(value), kind)
            expected = REFUSED if loses(value) else stored(connection, by_insert, parameter)
        for name, write in WAYS.items():
            passed = value if name.startswith(("load", "insert_rows")) else for_statement(value, kind)
            if name in ("statement", "pipeline") and meant(value) is None:
                passed = value  # as it is: of NULL there is no JSON
            found = stored(connection, write, passed)
            if found is not REFUSED and found != expected:
                json_too = ("insert_rows",) if kind.startswith("json") else ()
                assert name.startswith("load") or "COPY" in name or name in json_too, (name, found, expected)
                assert alike(found, expected, kind, value), (name, found, expected)

    same()


@pytest.mark.deep
@pytest.mark.parametrize("kind", KINDS)
def test_a_column_of_values_of_several_types_stores_what_each_alone_does(
    connection: LakebaseConnection, kind: str
) -> None:
    connection.execute(f"drop table if exists same; create table same (place serial, v {kind})")
    connection.commit()
    # Three of them fit most kinds, so that each example has some that do.
    likely = st.one_of(st.integers(-(10**45), 10**45), st.integers(-99, 99), st.decimals("-9", "9", places=1))

    @patient(examples(3, 60))
    @given(values=st.lists(likely | _TEXT | _VALUES, min_size=3, max_size=9))
    @example(values=[Decimal("1.5"), 1, None, 10**38, -(10**50), 1.5, "7", Decimal("NaN"), Decimal("1E+3")])
    def same(values: list[Any]) -> None:
        for name in ("load", "load by Arrow", "insert_rows by COPY", "insert_rows by COPY of Arrow"):
            alone = [(value, stored(connection, WAYS[name], value)) for value in values]
            fitting = [(value, text) for value, text in alone if text is not REFUSED]
            together: list[tuple[Any, ...]] = []
            rows = [(value,) for value, _ in fitting]
            with suppress(_UndoneError), connection.transaction():
                with encoded_by("Arrow" if name.endswith("Arrow") else "psycopg"):
                    if name.startswith("load"):
                        load(connection, rows, "same", columns=["v"])
                    else:
                        copy_rows(connection, rows)
                together = connection.execute("select v::text from same order by place").fetchall()
                raise _UndoneError
            assert together[: len(fitting)] == [(text,) for _, text in fitting], name

    same()


@pytest.mark.deep
@pytest.mark.parametrize("kind", KINDS)
def test_few_rows_and_many_are_taken_or_refused_alike(connection: LakebaseConnection, kind: str) -> None:
    connection.execute(f"drop table if exists same; create table same (place serial, v {kind})")
    connection.commit()

    def outcome(encoder: str, values: list[Any]) -> Any:
        """The rows as the server has them, or the error's class, row and column."""
        found: Any = None
        try:
            with encoded_by(encoder), connection.transaction():
                load(connection, [(value,) for value in values], "same", columns=["v"])
                found = connection.execute("select v::text from same order by place").fetchall()
                raise _UndoneError
        except _UndoneError:
            return found
        except BadRowError as error:
            return type(error), error.row, error.column

    @patient(examples(8, 200))
    @given(values=st.lists(_TEXT | _VALUES | _ODD, min_size=1, max_size=3))
    @example(values=[_FIRST_YEAR])
    @example(values=[_FIRST_YEAR, dt.datetime(2026, 1, 2)])
    @example(values=["9" * 5_000])
    @example(values=[Decimal("9" * 5_000)])
    @example(values=[Decimal("1E-2000000000")])
    @example(values=[Decimal("0E-2000000000"), 1])
    @example(values=[Decimal("-1E+2000000000")])
    @example(values=["[" * 3_000 + "]" * 3_000])
    def same(values: list[Any]) -> None:
        expected = outcome("Arrow", values)
        for encoder in ENCODERS:
            assert outcome(encoder, values) == expected, encoder

    same()


@pytest.mark.deep
@pytest.mark.parametrize("kind", KINDS)
def test_the_resource_stores_the_same(
    connection: LakebaseConnection, lakebase_env: LocalLakebase, kind: str
) -> None:
    resource = LakebaseResource()
    connection.execute("set time zone default")  # as in the resource's sessions
    connection.execute(f"drop table if exists same; create table same (v {kind})")
    connection.commit()

    @patient(examples(6, 200))
    @given(value=_VALUES)
    @example(value=[pd.NaT])
    @example(value=pd.Timestamp(1_001))
    @example(value=pd.Timedelta(1_001))
    def same(value: Any) -> None:
        with as_psycopg_comes(connection):
            parameter = for_statement(meant(value), kind)
            expected = REFUSED if loses(value) else stored(connection, by_insert, parameter)
        connection.rollback()
        passed = value if meant(value) is None else for_statement(value, kind)
        try:
            resource.execute("insert into same values (%s)", (passed,))
        except (psycopg.Error, TypeError, ValueError):
            return
        ((found,),) = resource.fetch("delete from same returning v::text")
        assert found == expected

    same()
