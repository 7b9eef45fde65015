"""What becomes of values whose types pass for others: NULL, the value that is meant, or refused by name."""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pendulum
import psycopg
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
