"""insert_rows takes rows by position or by name, and nothing that only looks like a row or a value."""

from __future__ import annotations

import asyncio
import csv
import enum
import io
import re
from collections import OrderedDict, namedtuple
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import psycopg
import pyarrow as pa
import pytest

from lakebase_provider.core.errors import BadRowError, ConfigError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase

#: Few rows go as statements, many by COPY.
SIZES = [3, 900]
Pair = namedtuple("Pair", ["a", "b"])


class Color(str, enum.Enum):
    RED = "red"


@pytest.fixture
def hook(lake: LocalLakebase) -> Iterator[LakebaseHook]:
    hook = LakebaseHook(log_sql=False)
    hook.run("drop table if exists shaped; create table shaped (a text, b text, c text default 'none')")
    yield hook
    hook.run("drop table if exists shaped")


def stored(hook: LakebaseHook) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in hook.get_records("select a, b, c from shaped order by a::int")]


def expected(size: int) -> list[tuple[str, str, str]]:
    return [(str(i), f"b{i}", "none") for i in range(size)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fields", [None, ["a", "b"], ["b", "a"], ["B", '"a"']])
def test_mappings_are_stored_by_name(hook: LakebaseHook, size: int, fields: list[str] | None) -> None:
    kinds = (dict, OrderedDict, lambda pairs: MappingProxyType(dict(pairs)))
    rows = [kinds[i % 3]([("b", f"b{i}"), ("a", str(i))][:: 1 if i % 2 else -1]) for i in range(size)]
    hook.insert_rows("shaped", rows, fields)
    assert stored(hook) == expected(size)


def test_a_generator_of_many_mappings(hook: LakebaseHook) -> None:
    hook.insert_rows("shaped", ({"b": f"b{i}", "a": str(i)} for i in range(12_000)))
    assert stored(hook) == expected(12_000)


@pytest.mark.parametrize("order", ["a, b", "b, a"])
@pytest.mark.parametrize("size", SIZES)
def test_sqlalchemys_rows_by_name(hook: LakebaseHook, size: int, order: str) -> None:
    """The view of their keys compares in order, and a set has the order of its hashes: here, either."""
    engine = hook.get_sqlalchemy_engine()
    with engine.connect() as connection:
        made = f"select i::text as a, 'b' || i as b from generate_series(0, {size - 1}) i"
        rows = connection.exec_driver_sql(f"select {order} from ({made}) made").mappings().all()
    engine.dispose()
    hook.run("alter table shaped add primary key (a)")
    hook.insert_rows("shaped", rows)
    hook.upsert_rows("shaped", rows, ["a", "b"], ["a"])
    assert stored(hook) == expected(size)


def test_rows_of_a_csv_file_by_name(hook: LakebaseHook) -> None:
    hook.insert_rows("shaped", csv.DictReader(io.StringIO("b,a\nb0,0\nb1,1\n")))
    assert stored(hook) == expected(2)


def test_a_mapping_of_one_column(hook: LakebaseHook) -> None:
    hook.insert_rows("shaped", [{"a": "0"}, {"a": "1"}])
    assert stored(hook) == [("0", None, "none"), ("1", None, "none")]


def test_names_that_need_quotes(hook: LakebaseHook) -> None:
    hook.run('drop table shaped; create table shaped (a text, "B b" text, "100%" text)')
    hook.insert_rows("shaped", [{"100%": "c", "B b": "b", "a": "0"}])
    assert hook.get_first("select * from shaped") == ("0", "b", "c")


@pytest.mark.parametrize("size", [3, 2500])
def test_mappings_replace_by_name(hook: LakebaseHook, size: int) -> None:
    hook.run("alter table shaped add primary key (a)")
    hook.insert_rows("shaped", [(str(i), "old", "kept") for i in range(size)], commit_every=0)
    rows: list[dict[str, str]] = [{"b": f"b{i}", "a": str(i)} for i in range(size)]
    hook.insert_rows("shaped", rows, replace=True, commit_every=0)
    assert stored(hook) == [(str(i), f"b{i}", "kept") for i in range(size)]
    hook.upsert_rows("shaped", [{"a": "0", "b": "new"}], ["a", "b"], ["a"])
    assert stored(hook)[0] == ("0", "new", "kept")


@pytest.mark.parametrize(
    "rows",
    [
        np.array([["0", "b0"], ["1", "b1"]]),
        [pd.Series(["0", "b0"]), pd.Series(["1", "b1"])],
        [Pair("0", "b0"), Pair("1", "b1")],
        [{"x": "0", "y": "b0"}.values(), {"x": "1", "y": "b1"}.values()],
    ],
    ids=["ndarray", "Series", "namedtuple", "values"],
)
def test_other_rows_of_values_in_order(hook: LakebaseHook, rows: Any) -> None:
    hook.insert_rows("shaped", rows, ["a", "b"])
    assert stored(hook) == expected(2)


def test_a_row_may_be_an_iterator(hook: LakebaseHook) -> None:
    hook.insert_rows("shaped", [(v for v in ("0", "b0")), iter(["1", "b1"])], ["a", "b"])
    assert stored(hook) == expected(2)


@pytest.mark.parametrize("before", [0, 2, 900])
@pytest.mark.parametrize(
    "row", ["ab", b"ab", bytearray(b"ab"), {"a", "b"}, frozenset("ab"), 7, None, object()]
)
def test_what_is_no_row_is_refused(hook: LakebaseHook, before: int, row: Any) -> None:
    rows = [*((str(i), f"b{i}") for i in range(before)), row]
    with pytest.raises(BadRowError, match=rf"Row {before + 1:,} \({type(row).__name__}\)") as caught:
        hook.insert_rows("shaped", rows, ["a", "b"], commit_every=0)
    assert caught.value.row == before + 1
    assert stored(hook) == []


@pytest.mark.parametrize(
    ("rows", "fields", "reason"),
    [
        ([{"a": "0", "b": "1"}, ("1", "2")], None, r"Row 2 \(tuple\): not a mapping"),
        ([("1", "2"), {"a": "0", "b": "1"}], ["a", "b"], r"Row 2 \(dict\): a mapping, unlike the first"),
        ([{"a": "0", "b": "1"}, {"a": "0"}], None, r"Row 2 \(dict\): it has no value for 'b'"),
        ([{"a": "0"}, {"a": "0", "b": "1"}], None, r"Row 2 \(dict\): it has a value for 'b'"),
        ([{"a": "0"}], ["a", "b"], r"Row 1 \(dict\): it has no value for 'b'"),
        ([{"a": "0", "b": "1"}], ["a"], r"Row 1 \(dict\): it has a value for 'b'"),
        ([()], None, r"Row 1 \(tuple\): it has no values"),
        ([[], ("1", "2")], ["a", "b"], r"Row 1 \(list\): it has no values"),
        ([{}], None, r"Row 1 \(dict\): its keys"),
        ([{1: "a"}], None, r"Row 1 \(dict\): its keys"),
    ],
)
def test_rows_of_other_columns_are_refused(
    hook: LakebaseHook, rows: list[Any], fields: list[str] | None, reason: str
) -> None:
    with pytest.raises(BadRowError, match=reason):
        hook.insert_rows("shaped", rows, fields)
    assert stored(hook) == []


@pytest.mark.parametrize(
    "rows",
    [
        pd.DataFrame({"a": ["0", "1"], "b": ["b0", "b1"]}),
        pl.DataFrame({"a": ["0", "1"], "b": ["b0", "b1"]}),
        pa.table({"a": ["0", "1"], "b": ["b0", "b1"]}),
        {"a": "0", "b": "1"},
        "ab",
        b"ab",
    ],
    ids=lambda value: type(value).__module__ + type(value).__name__,
)
def test_what_gives_no_rows_is_refused(hook: LakebaseHook, rows: Any) -> None:
    with pytest.raises(ConfigError, match="not an iterable of rows"):
        hook.insert_rows("shaped", rows, ["a", "b"])
    assert stored(hook) == []


@pytest.mark.parametrize("size", SIZES)
def test_a_second_attempt_is_not_taken_for_no_rows(hook: LakebaseHook, size: int) -> None:
    rows = ((str(i), f"b{i}") for i in range(size))
    hook.insert_rows("shaped", rows, ["a", "b"])
    with pytest.raises(ConfigError, match="to its end by an earlier attempt"):
        hook.insert_rows("shaped", rows, ["a", "b"])
    assert stored(hook) == expected(size)
    broken = iter([("0", "b0"), ("1", "b1", "c1", "d1"), *[("2", "b2")] * 3000])
    with pytest.raises(BadRowError, match=r"Row 2 \(tuple\): it has 4 values for 2 columns"):
        hook.insert_rows("shaped", broken, ["a", "b"])
    with pytest.raises(ConfigError, match="in part by an earlier attempt"):
        hook.insert_rows("shaped", broken, ["a", "b"])
    assert stored(hook) == expected(size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fields", [None, ["a", "b"]])
@pytest.mark.parametrize("odd", [("x",), ("x", "y", "z")])
def test_a_row_of_another_length_is_named(
    hook: LakebaseHook, size: int, fields: list[str] | None, odd: tuple[str, ...]
) -> None:
    rows = [*[("0", "b0")] * size, odd]
    with pytest.raises(BadRowError, match=rf"Row {size + 1} \(tuple\): it has {len(odd)} values for 2"):
        hook.insert_rows("shaped", rows, fields, commit_every=0)
    assert stored(hook) == []


@pytest.mark.parametrize("size", [1, 900])
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"a": Decimal("1.10")}, '{"a": 1.10}'),
        ({"a": [date(2026, 1, 2)]}, '{"a": ["2026-01-02"]}'),
        ([Decimal("1.10")], "[1.10]"),
        ({"a": np.int64(1)}, None),
        ({"a": pd.NaT}, None),
        ({"a": object()}, None),
        ({"a": b"x"}, None),
        ({"a": [{"b": bytearray(b"x")}]}, None),
        ([1, (b"x",)], None),
        ({"a": date(2026, 1, 2), "b": [memoryview(b"x")]}, None),
        ([{object()}], None),
    ],
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", repr(value)),
)
def test_json_is_the_same_for_few_rows_and_many(
    hook: LakebaseHook, size: int, value: Any, shown: str | None
) -> None:
    hook.run("drop table shaped; create table shaped (id int, v jsonb)")
    rows = [(1, {"a": 1})] * (size - 1) + [(2, value)]
    if shown is not None:
        hook.insert_rows("shaped", rows)
        assert hook.get_first("select v::text from shaped where id = 2") == (shown,)
        return
    with pytest.raises(BadRowError, match=rf"row {size}, column 'v': {type(value).__name__}, ") as caught:
        hook.insert_rows("shaped", rows, commit_every=0)
    assert caught.value.row == size
    assert hook.get_first("select count(*) from shaped") == (0,)


@pytest.mark.parametrize("size", [1, 900])
def test_half_of_a_surrogate_pair_is_named(hook: LakebaseHook, size: int) -> None:
    rows = [("0", "b")] * (size - 1) + [("1", "\ud800")]
    with pytest.raises(BadRowError, match=rf"row {size}, column 'b': str, text that is not valid Unicode"):
        hook.insert_rows("shaped", rows, ["a", "b"], commit_every=0)
    assert stored(hook) == []


@pytest.mark.parametrize("size", [1, 900])
def test_missing_values_are_null_and_members_their_values(hook: LakebaseHook, size: int) -> None:
    hook.run("drop table shaped; create table shaped (a timestamptz, b text, c interval, d bigint[])")
    for missing in (pd.NaT, pd.NA, np.datetime64("NaT")):
        hook.run("truncate shaped")
        hook.insert_rows("shaped", [(missing, Color.RED, missing, [1, missing])] * size)
        assert hook.get_records("select distinct a, b, c, d from shaped") == [(None, "red", None, [1, None])]
    with pytest.raises(psycopg.DataError, match="Timedelta: a fraction of a microsecond"):
        hook.insert_rows("shaped", [(None, "x", pd.Timedelta(1_001), None)] * size)
    with pytest.raises(psycopg.DataError, match="Timestamp: a fraction of a microsecond"):
        hook.insert_rows("shaped", [(pd.Timestamp(1_001, tz="UTC"), "x", None, None)] * size)


@pytest.mark.parametrize("asked", [pd.NaT, pd.NA, np.timedelta64("NaT"), np.datetime64("NaT")])
def test_missing_parameters_are_null(hook: LakebaseHook, asked: Any) -> None:
    query = "select %s::timestamptz is null, %s::text is null, %s::interval is null"
    nulls = (True, True, True)
    assert hook.get_first(query, parameters=(asked,) * 3) == nulls
    assert hook.get_records(query, parameters=[asked] * 3) == [nulls]
    named = "select %(x)s::timestamptz is null, %(y)s::text is null, %(z)s::interval is null"
    assert (
        hook.run(named, parameters=dict.fromkeys("xyz", asked), handler=lambda cursor: cursor.fetchone())
        == nulls
    )
    # Several statements take their values in the client.
    several = f"select 1; {named}"
    assert (
        hook.run(several, parameters=dict.fromkeys("xyz", asked), handler=lambda cursor: cursor.fetchone())
        == nulls
    )
    assert list(hook.get_df(query, parameters=(asked,) * 3).iloc[0]) == [True] * 3

    async def ask() -> Any:
        return await LakebaseHook(log_sql=False).aget_first(query, parameters=(asked,) * 3)

    assert asyncio.run(ask()) == nulls


def test_a_parameter_that_would_lose_something_is_refused(hook: LakebaseHook) -> None:
    for value in (pd.Timedelta(1_001), pd.Timestamp(1_001)):
        with pytest.raises(psycopg.DataError, match="a fraction of a microsecond"):
            hook.get_first("select %s", parameters=(value,))
        with pytest.raises(psycopg.DataError, match="a fraction of a microsecond"):
            hook.run("select 1; select %s", parameters=(value,))


@pytest.mark.parametrize("size", SIZES)
def test_an_offset_with_seconds_stays_exact_in_json(hook: LakebaseHook, size: int) -> None:
    at = datetime(1900, 1, 1, tzinfo=ZoneInfo("Europe/Amsterdam"))
    hook.run("drop table shaped; create table shaped (a int, b jsonb)")
    hook.insert_rows("shaped", [(i, {"at": [at, {"t": at.timetz()}]}) for i in range(size)])
    found = hook.get_records("select distinct b, (b -> 'at' ->> 0)::timestamptz from shaped")
    assert found == [({"at": ["1900-01-01T00:00:00+00:19:32", {"t": at.timetz().isoformat()}]}, at)]
