"""What get_df makes of the server's types for Polars: the right value, or an error that names the column."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import ConfigError, LoadError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase

#: An SQL expression, the type of its column and the value that is right.
RIGHT = {
    "1/3.0": (pl.Decimal(38, 20), Decimal("0.33333333333333333333")),
    "avg(1.0 * g) over ()": (pl.Decimal(38, 16), Decimal("2.0000000000000000")),
    "5e-9::numeric": (pl.Decimal(38, 9), Decimal("5E-9")),
    "1.5e20::numeric": (pl.Decimal(38, 0), Decimal("1.5E20")),
    "1234::numeric(4, -2)": (pl.Decimal(38, 0), Decimal(1200)),
    "1.5::numeric(50, 2)": (pl.Decimal(38, 2), Decimal("1.50")),
    "null::numeric": (pl.Decimal(38, 0), None),
    "'10.0.0.1/8'::inet": (pl.String, "10.0.0.1/8"),
    "'10.0.0.0/8'::cidr": (pl.String, "10.0.0.0/8"),
    "int4range(1, 3)": (pl.String, "[1,3)"),
    "'{[1,3)}'::int4multirange": (pl.String, "{[1,3)}"),
    "'12:00+02'::timetz": (pl.String, "12:00:00+02"),
    "row(1, 'a')": (pl.String, "(1,a)"),
    "b'101'": (pl.String, "101"),
    "'a'::\"char\"": (pl.String, "a"),
    "array[1, null, 3]": (pl.List(pl.Int32), [1, None, 3]),
    "array[[1, 2], [3, 4]]": (pl.List(pl.List(pl.Int32)), [[1, 2], [3, 4]]),
    "array['10.0.0.1'::inet]": (pl.List(pl.String), ["10.0.0.1"]),
    "array['{\"a\": 1}'::jsonb]": (pl.List(pl.String), ['{"a": 1}']),
    "array[1.25, 2.5]": (pl.List(pl.Decimal(38, 2)), [Decimal("1.25"), Decimal("2.50")]),
    "array['2025-01-01'::date]": (pl.List(pl.Date), [date(2025, 1, 1)]),
    "'{}'::int[]": (pl.List(pl.Int32), []),
    "null::text[]": (pl.List(pl.String), None),
    "interval '36 hours'": (pl.Duration("us"), timedelta(hours=36)),
}
#: An SQL expression of the column "x" that Polars has no value for.
REFUSED = {
    "'NaN'::numeric": "holds NaN or an infinity",
    "'Infinity'::numeric": "holds NaN or an infinity",
    "array['NaN'::numeric]": "holds NaN or an infinity",
    "repeat('9', 45)::numeric": "45 digits before the point and 0 after it",
    "repeat('9', 45)::numeric(50, 2)": "45 digits before the point and 2 after it",
    "(repeat('9', 20) || '.' || repeat('9', 20))::numeric": "20 digits before the point and 20 after it",
    "1e-50::numeric": "0 digits before the point and 50 after it",
    "array[1e-50::numeric]": "0 digits before the point and 50 after it",
    "1e-50::numeric(60, 55)": "0 digits before the point and 55 after it",
    "'1 mon'::interval": "months or years, which have no fixed length",
    "array[null, '1 year 2 days'::interval]": "months or years, which have no fixed length",
    "interval '200000000 days' * 10": "a value of type interval that Python cannot represent",
    "'infinity'::date": "a value of type date that Python cannot represent",
    "'0044-03-15 BC'::date": "a value of type date that Python cannot represent",
    "'24:00'::time": "a value of type time that Python cannot represent",
    "'-infinity'::timestamp": "a value of type timestamp that Python cannot represent",
    "'infinity'::timestamptz": "a value of type timestamptz that Python cannot represent",
    "array[array['2026-01-01', 'infinity']::date[]]": "a value of type date that Python cannot represent",
    "array['24:00'::time]": "a value of type time that Python cannot represent",
    "case g when 1 then array[1] else array[[1]] end": r"holds a value that List\(List\(Int32\)\) cannot",
}

Read = Callable[..., pl.DataFrame]


def whole(sql: str, **options: Any) -> pl.DataFrame:
    frame = LakebaseHook().get_df(sql, df_type="polars", **options)
    assert isinstance(frame, pl.DataFrame)
    return frame


def in_chunks(sql: str, **options: Any) -> pl.DataFrame:
    chunks = list(LakebaseHook().get_df_by_chunks(sql, df_type="polars", chunksize=2, **options))
    assert len({tuple(chunk.schema.items()) for chunk in chunks}) == 1
    return pl.concat(chunks)


@pytest.mark.parametrize("expression", RIGHT)
def test_a_value_is_right(lake: LocalLakebase, expression: str) -> None:
    dtype, value = RIGHT[expression]
    frame = whole(f"select {expression} as x from generate_series(1, 3) g")
    assert frame.schema == {"x": dtype}
    assert frame["x"].to_list() == [value] * 3


@pytest.mark.parametrize("expression", RIGHT)
def test_chunks_have_one_schema_and_the_same_values(lake: LocalLakebase, expression: str) -> None:
    sql = f"select g, case when g > 1 then {expression} end as x from generate_series(1, 5) g"
    frame = in_chunks(sql)
    assert frame["x"].to_list() == whole(sql)["x"].to_list()


@pytest.mark.parametrize("expression", REFUSED)
@pytest.mark.parametrize("read", [whole, in_chunks])
def test_what_polars_has_no_value_for_is_refused_by_its_column(
    lake: LocalLakebase, read: Read, expression: str
) -> None:
    with pytest.raises(LoadError, match=f"(?s)^Column 'x' .*{REFUSED[expression]}") as refused:
        read(f"select g, {expression} as x from generate_series(1, 2) g")
    assert "in the query" in str(refused.value)


@pytest.mark.parametrize("read", [whole, in_chunks])
def test_two_columns_of_one_name_are_refused(lake: LocalLakebase, read: Read) -> None:
    with pytest.raises(LoadError, match=r"(?s)2 columns of the result are named 'a'.*AS"):
        read("select 1 as a, 2 as b, 3 as a")


def test_a_read_of_the_core_refuses_them_too(lake: LocalLakebase) -> None:
    with (
        LakebaseClient(lake.config()) as client,
        pytest.raises(LoadError, match=r"(?s)2 columns .* named 'a'"),
    ):
        client.fetch_polars("select 1 as a, 2 as b, 3 as a")


@pytest.mark.parametrize(
    ("first", "later", "problem"),
    [
        ("12345678901234567.5", "1e-25", "25 after it"),
        ("null", "1e19", "20 digits before the point"),
        ("null", "array[[1]]", "holds a value that"),
    ],
)
def test_a_later_chunk_that_the_first_ones_types_do_not_hold_is_refused(
    lake: LocalLakebase, first: str, later: str, problem: str
) -> None:
    with pytest.raises(LoadError, match=f"(?s)Column 'x' .*{problem}"):
        in_chunks(f"select case when g = 3 then {later} else {first} end as x from generate_series(1, 3) g")


@pytest.mark.parametrize("read", [whole, in_chunks])
def test_a_type_of_the_callers_is_taken(lake: LocalLakebase, read: Read) -> None:
    sql = "select 'NaN'::numeric as f, repeat('9', 45)::numeric as s, 7 as i, 1.5 as d, '1' as t"
    overrides = {"f": pl.Float64, "s": pl.String, "i": pl.Int64, "d": pl.Float32, "t": pl.Int8()}
    frame = read(sql, schema_overrides=overrides)
    expected = {"f": [float("nan")], "s": ["9" * 45], "i": [7], "d": [1.5], "t": [1]}
    assert_frame_equal(frame, pl.DataFrame(expected, schema=overrides))


def test_a_type_of_the_callers_that_no_value_has_is_refused(lake: LocalLakebase) -> None:
    with pytest.raises(LoadError, match="Column 't' is String, and one of its values is not of type Int8"):
        whole("select 'one' as t", schema_overrides={"t": pl.Int8})


def test_the_session_is_as_before(lake: LocalLakebase) -> None:
    sql = "select '10.0.0.1'::inet"
    before = LakebaseHook().get_first(sql)
    whole(sql)
    assert LakebaseHook().get_first(sql) == before


@pytest.mark.parametrize("value", [
    "'infinity'::date", "'0044-03-15 BC'::date", "'24:00'::time", "'-infinity'::timestamp",
    "array['infinity'::timestamptz]", "interval '1 mon'", "array[interval '1 year']",
])  # fmt: skip
@pytest.mark.parametrize("by_chunks", [False, True])
def test_what_pandas_cannot_have_is_refused_by_its_column(
    lake: LocalLakebase, value: str, by_chunks: bool
) -> None:
    hook = LakebaseHook()
    sql = f"select n as fine, now() as at, case n when 2 then {value} end as odd from generate_series(1, 3) n"
    read = partial(hook.get_df_by_chunks, chunksize=1) if by_chunks else hook.get_df
    with pytest.raises(LoadError, match=r"Column 'odd' holds an? "):
        [*read(sql)]
    frame = hook.get_df("select interval '1 day 2 seconds' as d, 'infinity' as t")
    assert frame["d"][0] == pd.Timedelta(days=1, seconds=2)


@pytest.mark.parametrize("df_type", ["pandas", "polars"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_statement_without_columns_is_no_frame(lake: LocalLakebase, df_type: Any, chunked: bool) -> None:
    hook = LakebaseHook()
    hook.run("drop table if exists framed; create table framed (a int)")

    def read(sql: Any) -> list[Any]:
        if chunked:
            return list(hook.get_df_by_chunks(sql, chunksize=2, df_type=df_type))
        return [hook.get_df(sql, df_type=df_type)]

    for sql in ("insert into framed values (1)", "delete from framed", ["select 1", "truncate framed"]):
        with pytest.raises(LoadError, match="returns no columns"):
            read(sql)
    assert hook.get_first("select count(*) from framed") == (0,)
    assert [frame.shape for frame in read("insert into framed values (1) returning a")] == [(1, 1)]
    assert {frame.shape[1] for frame in read("select from generate_series(1, 3)")} == {0}
    hook.run("drop table framed")


@pytest.mark.parametrize("df_type", ["pandas", "polars"])
@pytest.mark.parametrize("chunksize", [0, -1, 1.5, None, True, "2"])
def test_chunks_of_no_size_are_refused(lake: LocalLakebase, df_type: Any, chunksize: Any) -> None:
    with pytest.raises(ConfigError, match="chunksize"):
        list(LakebaseHook().get_df_by_chunks("select 1", chunksize=chunksize, df_type=df_type))


def test_a_frame_with_nan_is_loaded_as_it_was_read(lake: LocalLakebase) -> None:
    hook = LakebaseHook()
    hook.run("drop table if exists framed; create table framed (v numeric);"
             " insert into framed values ('NaN'), ('Infinity'), (1.10), (null)")  # fmt: skip
    before = hook.get_records("select v::text from framed")
    hook.client.load(hook.get_df("select v from framed"), "framed", mode="replace")
    assert hook.get_records("select v::text from framed") == before
    hook.run("drop table framed")
