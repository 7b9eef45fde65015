"""A text that a type would cut, or a fraction that it would round, is refused: from Python, Arrow and CSV."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Json, Jsonb
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.types.target_columns import BadValueError, target_of
from lakebase_provider.core.bulk.types.values import refuse_cut
from lakebase_provider.core.database.catalog import Column
from lakebase_provider.core.errors import BadRowError, ColumnMismatchError
from tests.core.bulk.sample_tables import run
from tests.depth import examples

_HALF = dt.timedelta(seconds=1, microseconds=500_000)
#: The column's type, a value, and what arrives; None where it is refused.
VALUES: list[tuple[str, Any, str | None]] = [
    ('"char"', "A", "A"),
    ('"char"', "", ""),
    ('"char"', "\\", "\\"),
    ('"char"', "AB", None),
    ('"char"', "é", None),
    ('"char"', "\\x", None),
    ('"char"', "\\303", "\\303"),
    ('"char"[]', ["A", None, ""], '{A,NULL,""}'),
    ('"char"[]', ["A", "AB"], None),
    ('"char"[]', [["A"], ["é"]], None),
    ('"char"[]', '{A,"",NULL,"\\""}', '{A,"",NULL,"\\""}'),
    ('"char"[]', "[0:0]={A}", "[0:0]={A}"),
    ('"char"[]', "{A,AB}", None),
    ('"char"[]', '{A,"AB"}', None),
    ("name[]", ["n" * 64], None),
    ("interval(0)", _HALF, None),
    ("interval(1)", _HALF, "00:00:01.5"),
    ("interval(0)[]", [_HALF], None),
    ("interval(0)", "1.5 sec", None),
    ("interval", _HALF, "00:00:01.5"),
    ("interval day to second(0)", _HALF, None),
    ("timetz(0)", dt.time(12, 0, 0, 5, dt.timezone.utc), None),
    ("timetz(0)", dt.time(12, tzinfo=dt.timezone.utc), "12:00:00+00"),
]


def stored(client: LakebaseClient, kind: str, source: Any) -> str | None:
    run(client, f"drop table if exists t; create table t (v {kind})")
    try:
        client.load(source, "t", columns=["v"])
    except (BadRowError, ColumnMismatchError):
        return None
    ((found,),) = run(client, "select v::text from t")
    return str(found)


def test_values_of_python(client: LakebaseClient) -> None:
    for kind, value, shown in VALUES:
        assert stored(client, kind, [(value,)]) == shown, (kind, value)


def test_texts_of_arrow_and_files(client: LakebaseClient, tmp_path: Path) -> None:
    texts = [case for case in VALUES if isinstance(case[1], str)]
    for kind, value, shown in [*texts, ("name[]", "{" + "n" * 64 + "}", None)]:
        assert stored(client, kind, pa.table({"v": [value]})) == shown, (kind, value)
        if value and '"' not in value:
            (tmp_path / "v.csv").write_text(f'v\n"{value}"\n')
            assert stored(client, kind, tmp_path / "v.csv") == shown, (kind, value)


def test_the_row_is_named(client: LakebaseClient) -> None:
    run(client, 'create table t (v "char")')
    with pytest.raises(BadRowError, match="row 2, column 'v': str, longer than the one byte of") as caught:
        client.load([("A",), ("AB",)], "t")
    assert caught.value.row == 2


#: What each type would cut from a text that it reads: the column's type, the text, and what remains of one
#: that it holds whole; None where it is refused.
TEXTS: list[tuple[str, str, str | None]] = [
    ("interval year", "1 year 2 mons", None),
    ("interval year", "14 mons", None),
    ("interval year", "24 mons", "2 years"),
    ("interval year", "3", "3 years"),
    ("interval month", "1 mon 5 days", None),
    ("interval month", "1.5 mons", None),
    ("interval month", "0.5 years", "6 mons"),
    ("interval year to month", "P1Y2M3D", None),
    ("interval year to month", "P1Y2M", "1 year 2 mons"),
    ("interval year to month", "1-2", "1 year 2 mons"),
    ("interval year to month", "@ 1 year 2 mons ago", "-1 years -2 mons"),
    ("interval day", "1 day 3:00", None),
    ("interval day", "1.5 days", None),
    ("interval day", "1 mon 2 weeks", "1 mon 14 days"),
    ("interval day", "2 00:00", "2 days"),
    ("interval day to hour", "1 day 3:45", None),
    ("interval day to hour", "1 day 3:00", "1 day 03:00:00"),
    ("interval day to hour", "some days", None),
    ("interval hour to minute", "PT1H2M3S", None),
    ("interval minute", "90 minutes", "01:30:00"),
    ("interval hour to second(2)", "1:02:03.456", None),
    ("interval day to second", "1 day 00:00:00.000001", "1 day 00:00:00.000001"),
    ("interval(0)", "1500 ms", None),
    ("interval(0)", "1.5 hours", "01:30:00"),
    ("interval", "1.123456789 s", None),
    ("interval", "00:00:00.1234567", None),
    ("interval", "0.0000001 s", None),
    ("interval", "1.5 us", None),
    ("interval", "0.0001 ms", None),
    ("interval", "0.33 years", None),
    ("interval", "P0.5Y", "6 mons"),
    ("interval", "1.50000000 s", "00:00:01.5"),
    ("interval", "1.0000001 hours", "01:00:00.00036"),
    ("interval[]", "{1.123456789 s}", None),
    ("interval year[]", "{1 year,1 year 2 mons}", None),
    ("interval year[]", "{1 year,NULL}", '{"1 year",NULL}'),
    ("money", "1.255", None),
    ("money", "$1,000.25", "$1,000.25"),
    ("money[]", "{1.255}", None),
    ("timetz", "12:00:00.1234567+02", None),
    ("timetz", "12:00:00.1234560+02", "12:00:00.123456+02"),
    ("timetz[]", "{12:00:00.1234567+02}", None),
    ("time[]", "{12:00:00.1234567}", None),
    ("time[]", "{12:00:00+05}", None),
    ("time[]", "{NULL,24:00:00}", "{NULL,24:00:00}"),
    ("date[]", "{2020-01-01 12:00}", None),
    ("date[]", "{2020-01-01}", "{2020-01-01}"),
    ("timestamp", "2020-01-01 00:00:00+05", None),
    ("timestamp", "2020-01-01 00:00:00+05 BC", None),
    ("timestamp[]", "{2020-01-01 04:05 PM}", '{"2020-01-01 16:05:00"}'),
    ("timestamp[]", "{2020-01-01 00:00:00+05}", None),
    ("timestamp[]", '{"2020-01-01 00:00:00","2020-01-01 00:00:00 EST"}', None),
    ("timestamp[]", '[0:0]={"2020-01-01 00:00:00"}', '[0:0]={"2020-01-01 00:00:00"}'),
    ("timestamp(0)[]", "{2020-01-01 00:00:00.6}", None),
    ("timestamptz[]", "{2020-01-01 00:00:00.1234567+00}", None),
    ("timestamptz[]", "{2020-01-01 00:00:00+05}", '{"2019-12-31 19:00:00+00"}'),
    ("tsrange", "[2020-01-01 00:00:00.1234567,)", None),
    ("tsrange", "[2020-01-01 00:00:00+05,)", None),
    ("tsrange", '(,"2020-01-01 00:00:00+05")', None),
    ("tsrange", "[2020-01-01 00:00:00,2021-01-01]", '["2020-01-01 00:00:00","2021-01-01 00:00:00"]'),
    ("tsrange", "empty", "empty"),
    ("tsrange[]", '{"[2020-01-01 00:00:00+05,)"}', None),
    ("tsmultirange", "{[2020-01-01 00:00:00,),[2020-01-01 00:00:00+05,)}", None),
    ("tstzrange", "[2020-01-01 00:00:00.1234567+00,)", None),
    ("tstzrange", "[2020-01-01 00:00:00+00,)", '["2020-01-01 00:00:00+00",)'),
    ("tstzmultirange", "{[2020-01-01 00:00:00.1234567+00,)}", None),
    ("daterange", "[2020-01-01 12:00,)", None),
    ("daterange", "[2020-01-01,2020-01-02)", "[2020-01-01,2020-01-02)"),
    ("datemultirange", "{[2020-01-01,2020-01-02 12:00)}", None),
    ("numrange", "[1.25,)", "[1.25,)"),
    ("cut_range", "[1.25,)", None),
    ("cut_range", "[1.2,)", "[1.2,)"),
    ("cut_multirange", "{[1.2,1.25]}", None),
    ("cut_range[]", '{NULL,"[,1.25]"}', None),
    ("cut_number[]", "{1.25}", None),
    ("cut_number[]", "{1.2}", "{1.2}"),
    ("cut_numbers", "{1.25}", None),
    ("cut_term", "1 year 2 mons", None),
    ("cut_term[]", "{1 year 2 mons}", None),
    ("cut_record", "(1.25,1 year,x)", None),
    ("cut_record", '(,"1 year 2 mons",x)', None),
    ("cut_record", '(1.2,"1 year",",""")', '(1.2,"1 year",",""")'),
    ("cut_record", "(1.2,,)", "(1.2,,)"),
    ("double precision", "9007199254740993", None),
    ("double precision", "9007199254740992", "9.007199254740992e+15"),
    ("double precision", "123456789012345680000", "1.2345678901234568e+20"),
    ("double precision", "0.12345678901234567890123", None),
    ("double precision", "0.10000000000000000555", "0.1"),
    ("double precision", "0.10000000000000001", "0.1"),
    ("double precision", "-1.7976931348623157e308", "-1.7976931348623157e+308"),
    ("double precision[]", "{9007199254740993}", None),
    ("real[]", "{0.1234567891}", "{0.12345679}"),
]
_OWN = """
drop type if exists cut_record; drop type if exists cut_range cascade;
drop domain if exists cut_number, cut_numbers, cut_term cascade;
create domain cut_number as numeric(3,1); create domain cut_numbers as numeric(3,1)[];
create domain cut_term as interval year;
create type cut_range as range (subtype = cut_number, multirange_type_name = cut_multirange);
create type cut_record as (n numeric(3,1), i interval year, c text)
"""


def test_a_text_that_says_more_than_the_type_keeps(client: LakebaseClient, tmp_path: Path) -> None:
    run(client, _OWN)
    wrong = []
    for kind, text, shown in TEXTS:
        quoted = text.replace('"', '""')
        (tmp_path / "v.csv").write_text(f'v\n"{quoted}"\n')
        (tmp_path / "v.jsonl").write_text(json.dumps({"v": text}) + "\n")
        sources: list[Any] = [tmp_path / "v.csv", tmp_path / "v.jsonl", pl.DataFrame({"v": [text]})]
        if not kind.endswith("[]") or kind.startswith(("interval", "money", "timetz", "cut", "tsrange")):
            sources.append([(text,)])
        found = {stored(client, kind, source) for source in sources}
        wrong += [] if found == {shown} else [(kind, text, found)]
    assert wrong == []


def test_an_array_of_json_is_checked_as_a_text_is(client: LakebaseClient, tmp_path: Path) -> None:
    run(client, _OWN)
    for kind, value in [
        ("timestamp[]", ["2020-01-01 00:00:00+05"]),
        ("date[]", ["2020-01-01", "2020-01-01 12:00"]),
        ("interval year[]", ["1 year 2 mons"]),
        ("tsrange[]", ["[2020-01-01 00:00:00+05,)"]),
        ("cut_number[]", ["1.25"]),
        ("double precision[]", [9007199254740993]),
    ]:
        (tmp_path / "v.jsonl").write_text(json.dumps({"v": value}) + "\n")
        assert stored(client, kind, tmp_path / "v.jsonl") is None, kind


def test_values_that_say_more_than_the_type_keeps(client: LakebaseClient) -> None:
    run(client, _OWN)
    zoned = dt.datetime(2020, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=5)))
    values: list[tuple[str, Any, str | None]] = [
        ("interval year to month", dt.timedelta(days=45), None),
        ("interval month", dt.timedelta(0), "00:00:00"),
        ("interval day", dt.timedelta(days=1, hours=2), None),
        ("interval day", dt.timedelta(days=1), "1 day"),
        ("interval day", dt.timedelta(days=-1), "-1 days"),
        ("interval hour", dt.timedelta(hours=2, minutes=1), None),
        ("interval hour", dt.time(2), "02:00:00"),
        ("interval hour", dt.time(2, 1), None),
        ("interval minute[]", [[dt.timedelta(seconds=90)]], None),
        ("cut_term", dt.timedelta(days=400), None),
        ("tsrange", Range(zoned, None), None),
        ("tstzrange", Range(zoned, None), '["2019-12-31 19:00:00+00",)'),
        ("daterange", Range(dt.date(2020, 1, 1), None), "[2020-01-01,)"),
        ("cut_range", Range(Decimal("1.25"), None), None),
        ("cut_range", Range(Decimal("1.2"), None), "[1.2,)"),
        ("cut_range[]", [Range(Decimal("1.25"), None)], None),
        ("cut_multirange", Multirange([Range(Decimal("1.25"), None)]), None),
        ("cut_number[]", [Decimal("1.25")], None),
        ("cut_number[]", [Decimal("1.2"), None], "{1.2,NULL}"),
        ("cut_record", (Decimal("1.25"), "1 year", "x"), None),
        ("cut_record", (Decimal("1.2"), "1 year", "x"), '(1.2,"1 year",x)'),
    ]
    for kind, value, shown in values:
        assert stored(client, kind, [(value,)]) == shown, (kind, value)
    months = pa.array([pa.MonthDayNano([14, 0, 0])], pa.month_day_nano_interval())
    assert stored(client, "interval year", pa.table({"v": months})) is None
    assert stored(client, "interval year to month", pa.table({"v": months})) == "1 year 2 mons"
    days = pa.array([dt.timedelta(days=40, hours=2)])
    assert stored(client, "interval day", pa.table({"v": days})) is None


@pytest.mark.parametrize("kind", ["oid", "regclass", "cut_oid"])
def test_a_number_beyond_those_of_oids_is_refused(client: LakebaseClient, kind: str) -> None:
    run(client, "drop domain if exists cut_oid; create domain cut_oid as oid")
    for number in (-1, 2**32, 2**63 - 1, 2**64 - 1, -(2**31)):
        for source in (
            [(number,)],
            pa.table({"v": pa.array([number], pa.uint64() if number > 0 else pa.int64())}),
            pl.DataFrame({"v": pl.Series([number], dtype=pl.UInt64 if number > 0 else pl.Int64)}),
        ):
            assert stored(client, kind, source) is None, number
        for many in ([([number],)], pa.table({"v": [[number]]}) if number < 2**63 else [([number],)]):
            assert stored(client, f"{kind}[]", many) is None, number
    for number in (0, 1, 2**32 - 1):
        assert stored(client, kind, [(number,)]) is not None
        assert stored(client, f"{kind}[]", pa.table({"v": [[number]]})) is not None
    if kind == "oid":
        assert stored(client, kind, [("-1",)]) == "4294967295"  # a text is read by Postgres' own rule


@pytest.mark.parametrize(
    "value", [Json([1]), Json(5), Jsonb("1 day"), Range(1, 2), Multirange([Range(1, 2)])]
)
def test_a_wrapper_of_psycopgs_is_no_value_of_another_type(client: LakebaseClient, value: Any) -> None:
    for kind in ("interval", "money", "oid", "timetz", "inet", "bit(3)"):
        assert stored(client, kind, [(value,)]) is None, kind
        assert stored(client, f"{kind}[]", [([value],)]) is None, kind


_SPANS = st.tuples(
    st.integers(-99, 99), st.integers(-99, 99), st.integers(-(10**11), 10**11), st.integers(0, 6)
).map(lambda s: (s[0], s[1], s[2] // 10 ** s[3] * 10 ** s[3]))
_FIELDS = [
    "year",
    "month",
    "year to month",
    "day",
    "hour",
    "day to hour",
    "minute",
    "hour to minute",
    "second",
]


@settings(max_examples=examples(30, 400), deadline=None, suppress_health_check=list(HealthCheck))
@given(span=_SPANS, style=st.sampled_from(["postgres", "postgres_verbose", "sql_standard", "iso_8601"]))
def test_an_interval_is_the_same_or_refused(client: LakebaseClient, span: Any, style: str) -> None:
    """Whatever the fields: what the server would change is refused, and nothing else."""
    months, days, micro = span
    with client.connection() as connection:
        connection.execute(f"set local intervalstyle = '{style}'")
        spelled = f"'{months} mons {days} days {micro} us'::interval"
        kinds = [f"interval {field}" for field in _FIELDS] + ["interval(0)", "interval(3)"]
        kept = ", ".join(f"({spelled}::{kind})::text = ({spelled})::text" for kind in kinds)
        (text, *whole) = connection.execute(f"select ({spelled})::text, {kept}").fetchone()
    for kind, fits in zip(kinds, whole, strict=True):
        target = target_of(Column("v", kind, 1186, typmod=_modifier(client, kind)))
        try:
            refuse_cut(text, target)
            refused = False
        except BadValueError:
            refused = True
        # sql_standard leaves the sign to the first field: another reading of the text may be refused.
        assert refused is not fits, (kind, text)


@cache
def _modifier(client: LakebaseClient, kind: str) -> int:
    run(client, f"drop table if exists modifiers; create table modifiers (v {kind})")
    ((found,),) = run(
        client, "select atttypmod from pg_attribute where attrelid = 'modifiers'::regclass and attnum = 1"
    )
    return int(found)
