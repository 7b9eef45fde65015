"""Columns of frames and Arrow data, of types that Postgres has not: decoded by meaning, or refused."""

from __future__ import annotations

import datetime as dt
import sys
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.types import json_text
from lakebase_provider.core.errors import BadRowError, ColumnMismatchError, LakebaseError
from tests.core.bulk.sample_tables import run

ONE = uuid.UUID(int=1)


class Unknown(pa.ExtensionType):
    """Its integers are what nobody here knows."""

    def __init__(self) -> None:
        super().__init__(pa.int64(), "shop.sealed")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> Unknown:
        return cls()


SEALED = pa.ExtensionArray.from_storage(Unknown(), pa.array([1, 2]))


def unregistered() -> pa.Table:
    """The same from a process that registered the type: here only the field's metadata tell of it."""
    return pa.table(
        [pa.array([1, 2])],
        pa.schema([pa.field("v", pa.int64(), metadata={"ARROW:extension:name": "shop.sealed"})]),
    )


def frame(values: Any) -> pd.DataFrame:
    return pd.DataFrame({"v": values})


def runs(values: pa.Array) -> pa.Array:
    """Two of each value."""
    ends = pa.array(range(2, 2 * len(values) + 1, 2), pa.int32())
    return pa.RunEndEncodedArray.from_arrays(ends, values)


def lists(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


JSON = ['{"a": 1.10,\n"a": 12345678901234567890.5}', None, '"x"']
#: The same within a list.
JSONS = '[{"a": 1.10, "a": 12345678901234567890.5},null,"x"]'


REFUSED: dict[str, tuple[str, Callable[[], Any], str]] = {
    "period": ("bigint", lambda: frame(pd.period_range("2026", periods=2)), "pandas.period"),
    "category of period": (
        "bigint",
        lambda: frame(pd.Series(pd.period_range("2026", periods=2)).astype("category")),
        "pandas.period",
    ),
    "objects of period": ("text", lambda: frame(pd.Series([pd.Period("2026")], dtype=object)), "Period"),
    "interval": ("jsonb", lambda: frame(pd.interval_range(0, 2)), "pandas.interval"),
    "objects of interval": ("text", lambda: frame(pd.Series([pd.Interval(0, 1)], dtype=object)), "Interval"),
    "complex": ("double precision", lambda: frame([1 + 2j]), "complex128"),
    "objects of complex": ("float8", lambda: frame(pd.Series([1 + 2j], dtype=object)), "complex"),
    "nanoseconds": ("interval", lambda: frame([pd.Timedelta(1_001)]), "microsecond"),
    "objects of nanoseconds": ("interval", lambda: frame(pd.Series([pd.Timedelta(1_001)], dtype=object)), ""),
    "unknown": ("bigint", lambda: pa.table({"v": SEALED}), "shop.sealed"),
    "unregistered": ("bigint", unregistered, "shop.sealed"),
    "batches": ("bigint", lambda: iter(unregistered().to_batches()), "shop.sealed"),
    "reader": ("bigint", lambda: unregistered().to_reader(), "shop.sealed"),
    "within a struct": (
        "jsonb",
        lambda: pa.table({"v": pa.StructArray.from_arrays([SEALED], ["x"])}),
        "shop.sealed",
    ),
    "within a list": (
        "bigint[]",
        lambda: pa.table({"v": pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), SEALED)}),
        "shop.sealed",
    ),
    "below a dictionary": (
        "bigint",
        lambda: pa.table({"v": pa.DictionaryArray.from_arrays(pa.array([0, 1]), SEALED)}),
        "shop.sealed",
    ),
    "below runs": ("bigint", lambda: pa.table({"v": runs(SEALED)}), "shop.sealed"),
    "batches below runs": ("bigint", lambda: iter(pa.table({"v": runs(SEALED)}).to_batches()), "shop.sealed"),
    "below runs in a list": (
        "jsonb",
        lambda: pa.table({"v": pa.StructArray.from_arrays([runs(SEALED)], ["x"])}),
        "shop.sealed",
    ),
    "map with a repeated key": (
        "jsonb",
        lambda: pa.table({"v": pa.array([[("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int64()))}),
        "jsonb",
    ),
    "duration beyond Python's": (
        "interval",
        lambda: pa.table({"v": pa.array([2**63 - 1], pa.duration("s"))}),
        "interval",
    ),
    "no JSON within": (
        "jsonb",
        lambda: pa.table({"v": lists(pa.array(["1], [2"], pa.json_()))}),
        "jsonb",
    ),
    "nanoseconds of Polars": (
        "interval",
        lambda: pl.select(v=pl.duration(nanoseconds=1_001, time_unit="ns")),
        "microsecond",
    ),
    "list of 128 bits": (
        "numeric[]",
        lambda: pl.DataFrame({"v": [[1]]}, {"v": pl.List(pl.Int128)}),
        "Int128",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_form_is_refused_by_name(client: LakebaseClient, case: str) -> None:
    kind, source, name = REFUSED[case]
    run(client, f"create table refused (v {kind})")
    with pytest.raises((ColumnMismatchError, BadRowError), match=f"(?s)'v'.*{name}"):
        client.load(source(), "refused")
    assert run(client, "select * from refused") == []


@pytest.mark.parametrize("case", ["period", "interval", "complex", "unknown", "list of 128 bits"])
def test_no_table_is_created_for_it(client: LakebaseClient, case: str) -> None:
    _, source, name = REFUSED[case]
    with pytest.raises(LakebaseError, match=f"(?s)'v'.*{name}"):
        client.load(source(), "refused", create=True)
    assert run(client, "select to_regclass('refused')") == [(None,)]


def extension(kind: Any, storage: Any) -> pa.Table:
    return pa.table({"v": pa.ExtensionArray.from_storage(kind, storage)})


DECODED: dict[str, tuple[str, Callable[[], Any], list[Any]]] = {
    "arrow.json": (
        "jsonb",
        lambda: extension(pa.json_(pa.string()), pa.array(['{"a": 1}', None, "2"])),
        [{"a": 1}, None, 2],
    ),
    "arrow.uuid": (
        "uuid",
        lambda: extension(pa.uuid(), pa.array([ONE.bytes, None], pa.binary(16))),
        [ONE, None],
    ),
    "arrow.bool8": (
        "boolean",
        lambda: extension(pa.bool8(), pa.array([0, 1, None, 5, -1], pa.int8())),
        [False, True, None, True, True],
    ),
    "list of arrow.bool8": (
        "boolean[]",
        lambda: pa.table(
            {
                "v": pa.ListArray.from_arrays(
                    pa.array([0, 2], pa.int32()),
                    pa.ExtensionArray.from_storage(pa.bool8(), pa.array([0, 5], pa.int8())),
                )
            }
        ),
        [[False, True]],
    ),
    "list of arrow.uuid": (
        "uuid[]",
        lambda: pa.table(
            {
                "v": pa.ListArray.from_arrays(
                    pa.array([0, 1], pa.int32()),
                    pa.ExtensionArray.from_storage(pa.uuid(), pa.array([ONE.bytes], pa.binary(16))),
                )
            }
        ),
        [[ONE]],
    ),
    "sparse floats": (
        "double precision",
        lambda: frame(pd.arrays.SparseArray([0.0, 1.5, float("nan")])),
        [0.0, 1.5, None],
    ),
    "sparse integers": ("bigint", lambda: frame(pd.arrays.SparseArray([0, 0, 7])), [0, 0, 7]),
    "sparse booleans": ("boolean", lambda: frame(pd.arrays.SparseArray([True, False])), [True, False]),
    "sparse objects": (
        "text",
        lambda: frame(pd.arrays.SparseArray(["a", None, "b"], dtype=pd.SparseDtype(object))),
        ["a", None, "b"],
    ),
    "Int128": (
        "numeric",
        lambda: pl.DataFrame({"v": [2**127 - 1, -(2**127), None, 0]}, {"v": pl.Int128}),
        [2**127 - 1, -(2**127), None, 0],
    ),
    "UInt128": ("numeric(39,0)", lambda: pl.DataFrame({"v": [2**128 - 1]}, {"v": pl.UInt128}), [2**128 - 1]),
    "Int128 that fits": ("bigint", lambda: pl.DataFrame({"v": [5, None]}, {"v": pl.Int128}), [5, None]),
    "lazy Int128": ("numeric(30,2)", lambda: pl.LazyFrame({"v": [10**27]}, {"v": pl.Int128}), [10**27]),
    "list of categories": (
        "text[]",
        lambda: pl.DataFrame({"v": [["x", "y", None], None, []]}, {"v": pl.List(pl.Categorical)}),
        [["x", "y", None], None, []],
    ),
    "list of an enum": (
        "text[]",
        lambda: pl.DataFrame({"v": [["x"]]}, {"v": pl.List(pl.Enum(["x", "y"]))}),
        [["x"]],
    ),
    "array of categories": (
        "text[]",
        lambda: pl.DataFrame({"v": [["x", "y"]]}, {"v": pl.Array(pl.Categorical, 2)}),
        [["x", "y"]],
    ),
    "whole durations": (
        "interval",
        lambda: frame([pd.Timedelta(days=1), pd.NaT]),
        [dt.timedelta(days=1), None],
    ),
}


@pytest.mark.parametrize("case", DECODED)
def test_what_has_a_meaning_is_decoded(client: LakebaseClient, case: str) -> None:
    kind, source, values = DECODED[case]
    run(client, f"create table decoded (n int generated always as identity, v {kind})")
    client.load(source(), "decoded")
    assert [value for (value,) in run(client, "select v from decoded order by n")] == values


@pytest.mark.parametrize("case", DECODED)
def test_a_table_is_created_for_it(client: LakebaseClient, case: str) -> None:
    kind, source, values = DECODED[case]
    client.load(source(), "decoded", create=True)
    found = [value for (value,) in run(client, "select v from decoded")]
    assert sorted(found, key=repr) == sorted(values, key=repr)
    ((made,),) = run(client, "select format_type(atttypid, -1) from pg_attribute"
                             " where attrelid = 'decoded'::regclass and attname = 'v'")  # fmt: skip
    expected = "numeric" if "Int128" in case else kind
    assert made == expected.partition("(")[0]


MISSING: dict[str, Callable[[], Any]] = {
    "objects": lambda: pd.Series([float("nan"), "a", None, pd.NA, pd.NaT], dtype=object),
    "texts": lambda: pd.Series([float("nan"), "a", None, None, None]),
}


@pytest.mark.parametrize("case", MISSING)
@pytest.mark.parametrize("kind", ["text", "varchar(5)", "char(1)"])
def test_a_missing_text_of_pandas_is_null(client: LakebaseClient, case: str, kind: str) -> None:
    run(client, f"create table texts (v {kind})")
    client.load(frame(MISSING[case]()), "texts")
    assert run(client, "select v, count(*) from texts group by v order by v") == [("a", 1), (None, 4)]


VOID: dict[str, Any] = {
    "float64": [float("nan")] * 3,
    "Float64": pd.array([pd.NA] * 3, dtype="Float64"),
    "Int64": pd.array([pd.NA] * 3, dtype="Int64"),
    "moments": pd.Series([pd.NaT] * 3),
    "sparse": pd.arrays.SparseArray([float("nan")] * 3),
    "objects": pd.Series([float("nan")] * 3, dtype=object),
}


@pytest.mark.parametrize("case", VOID)
def test_a_column_of_nothing_goes_anywhere(client: LakebaseClient, case: str) -> None:
    # A frame's column of texts that are all missing is one of floats.
    kinds = ("text", "timestamptz", "jsonb", "uuid", "text[]", "inet", "boolean", "numeric(4,1)", "bytea")
    for kind in kinds:
        run(client, f"drop table if exists void; create table void (k text, v {kind})")
        rows = pd.DataFrame({"v": VOID[case], "k": ["a", "b", "c"]})
        client.load(rows, "void")

        assert run(client, "select k, v from void") == [("a", None), ("b", None), ("c", None)]


def test_a_column_of_some_numbers_is_none_of_texts(client: LakebaseClient) -> None:
    run(client, "create table texts (v text)")
    with pytest.raises(ColumnMismatchError, match="does not take Arrow's double"):
        client.load(frame([float("nan"), 1.5]), "texts")


def test_a_column_of_nothing_is_created_with_its_type(client: LakebaseClient) -> None:
    client.load(frame(np.array([np.nan, np.nan])), "void", create=True)
    assert run(client, "select pg_typeof(v)::text, v from void limit 1") == [("double precision", None)]


def test_a_column_of_nothing_is_refused_where_null_is(client: LakebaseClient) -> None:
    run(client, "create table void (v text not null)")
    with pytest.raises(BadRowError, match="NULL, which the column refuses"):
        client.load(frame([float("nan")]), "void")


def test_arrows_intervals_of_months_are_postgres_intervals(client: LakebaseClient) -> None:
    parts = [(1, 2, 3_000_000_000), (-14, 5, -1_500_000), (0, 0, 90_000_000_000_000), None, (0, 0, 0)]
    kind = pa.month_day_nano_interval()
    run(client, "create table spans (n int, v interval, s interval[])")
    table = pa.table(
        {"n": range(5), "v": pa.array(parts, kind), "s": pa.array([[part] for part in parts], pa.list_(kind))}
    )
    client.load(table, "spans")
    texts = ["1 mon 2 days 00:00:03", "-1 years -2 mons +5 days -00:00:00.0015", "25:00:00", None, "00:00:00"]
    assert run(client, "select v::text from spans order by n") == [(text,) for text in texts]
    assert run(client, "select s[1]::text from spans order by n") == [(text,) for text in texts]
    lost = pa.table({"n": [1, 2], "v": pa.array([(0, 0, 1000), (0, 0, 1)], kind)})
    with pytest.raises(BadRowError, match=r"row 2, column 'v'.*nanoseconds"):
        client.load(lost, "spans")


WITHIN: dict[str, tuple[str, Callable[[], pa.Array], str]] = {
    "list": ("json", lambda: lists(pa.array(JSON, pa.json_())), JSONS),
    "large list": (
        "json",
        lambda: pa.LargeListArray.from_arrays(pa.array([0, 3], pa.int64()), pa.array(JSON, pa.json_())),
        JSONS,
    ),
    "list of lists": ("json", lambda: lists(lists(pa.array(JSON, pa.json_()))), f"[{JSONS}]"),
    "struct": (
        "json",
        lambda: pa.StructArray.from_arrays([lists(pa.array(JSON, pa.json_())), pa.array([1])], ["x", "y"]),
        f'{{"x":{JSONS},"y":1}}',
    ),
    "map": (
        "jsonb",
        lambda: pa.MapArray.from_arrays(
            pa.array([0, 1], pa.int32()), pa.array(["k"]), pa.array(["1.10"], pa.json_())
        ),
        '{"k": 1.10}',
    ),
    "elements": (
        "jsonb[]",
        lambda: lists(pa.array(['{"a": 1.10}', None], pa.json_())),
        '{"{\\"a\\": 1.10}",NULL}',
    ),
    "structs as elements": (
        "jsonb[]",
        lambda: lists(pa.StructArray.from_arrays([pa.array(["1.10"], pa.json_())], ["x"])),
        '{"{\\"x\\": 1.10}"}',
    ),
}


@pytest.mark.parametrize("case", WITHIN)
def test_json_within_another_type_is_json(client: LakebaseClient, case: str) -> None:
    kind, array, text = WITHIN[case]
    run(client, f"create table decoded (v {kind})")
    client.load(pa.table({"v": array()}), "decoded")
    assert run(client, "select v::text from decoded") == [(text,)]


def test_json_within_another_type_is_the_same_without_msgspec(
    client: LakebaseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cached in (json_text._msgspec, json_text._encoder):
        cached.cache_clear()
    monkeypatch.setitem(sys.modules, "msgspec", None)
    run(client, "create table decoded (v jsonb)")
    try:
        client.load(pa.table({"v": lists(pa.array(['{"a":1}', None], pa.json_()))}), "decoded")
        with pytest.raises(BadRowError, match="'v'"):
            client.load(pa.table({"v": lists(pa.array(["1.10"], pa.json_()))}), "decoded")
    finally:
        json_text._msgspec.cache_clear()
        json_text._encoder.cache_clear()
    assert run(client, "select v::text from decoded") == [('[{"a": 1}, null]',)]


ENCODED: dict[str, tuple[str, Callable[[], pa.Array], list[Any]]] = {
    "dictionary": ("text", lambda: pa.array(["a", "b"]).dictionary_encode(), ["a", "a", "b", "b"]),
    "dictionary of views": (
        "text",
        lambda: pa.DictionaryArray.from_arrays(pa.array([1, 0]), pa.array(["a", "b"], pa.string_view())),
        ["b", "b", "a", "a"],
    ),
    "arrow.json": ("jsonb", lambda: pa.array(["1", None], pa.json_()), [1, 1, None, None]),
    "arrow.bool8": (
        "boolean",
        lambda: pa.ExtensionArray.from_storage(pa.bool8(), pa.array([5, 0], pa.int8())),
        [True, True, False, False],
    ),
    "dictionary of arrow.uuid": (
        "uuid",
        lambda: pa.DictionaryArray.from_arrays(pa.array([0, None]), pa.array([ONE.bytes], pa.uuid())),
        [ONE, ONE, None, None],
    ),
}


@pytest.mark.parametrize("case", ENCODED)
@pytest.mark.parametrize(("start", "stop"), [(0, 4), (1, 3), (3, 4), (0, 0)])
def test_runs_of_what_is_encoded_itself(client: LakebaseClient, case: str, start: int, stop: int) -> None:
    kind, array, values = ENCODED[case]
    run(client, f"create table decoded (n int generated always as identity, v {kind})")
    client.load(pa.table({"v": runs(array()).slice(start, stop - start)}), "decoded")
    assert [value for (value,) in run(client, "select v from decoded order by n")] == values[start:stop]


def test_a_row_of_what_python_cannot_say_is_set_aside(client: LakebaseClient) -> None:
    run(client, "create table decoded (v interval, d jsonb)")
    table = pa.table(
        {
            "v": pa.array([1, 2**63 - 1, 1], pa.duration("s")),
            "d": pa.array([[("a", 1)], [], [("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int64())),
        }
    )
    result = client.load(table, "decoded", on_error="reject", reject_to="rejected")
    assert (result.rows, result.rejected) == (1, 2)
    assert run(client, "select column_name, row ->> 'v' like '9223372036854775807%' from rejected") == [
        ("v", True),
        ("d", False),
    ]


def test_a_decimals_nan_is_a_number(client: LakebaseClient) -> None:
    numbers = [Decimal("NaN"), None, float("nan"), pd.NaT, pd.NA, Decimal("1.50")]
    for create in (False, True):
        if not create:
            run(client, "create table numbers (v numeric)")
        client.load(frame(pd.Series(numbers, dtype=object)), "numbers", create=create)
        found = [value for (value,) in run(client, "select v::text from numbers")]
        assert found == ["NaN", None, None, None, None, "1.50"]
        run(client, "drop table numbers")
    client.load(frame(pd.Series([Decimal("NaN")], dtype=object)), "numbers", create=True)
    assert run(client, "select v::text, pg_typeof(v)::text from numbers") == [("NaN", "numeric")]


def test_a_list_view_of_many_goes_into_an_array(client: LakebaseClient) -> None:
    run(client, "create table decoded (v bigint[])")
    for kind in (pa.list_view(pa.int64()), pa.large_list_view(pa.int64())):
        table = pa.table({"v": pa.array([[1, 2], None, [], [3]], kind)[1:]})
        client.load(table, "decoded", mode="replace")
        assert run(client, "select v from decoded") == [(None,), ([],), ([3],)]
        client.load(table, "made", create=True, mode="replace")
        assert run(client, "select v from made") == [(None,), ([],), ([3],)]


#: A type, and an element that pandas gets as an array of NumPy's.
ELEMENTS = {
    "dint": "1", "int4range": "'[1,3)'", "int4multirange": "'{[1,3)}'", "inet": "'10.0.0.1'",
    "timetz": "'12:00+02'", "oid": "4294967295", "bit(3)": "'101'", "comp": "'(1,x)'", "letters": "'a,b'",
    "money": "'$1.50'", "interval": "'1 day 00:00:00.000001'", "xid8": "'5'",
    "timestamp": "'2026-01-02 03:04'",
    "timestamptz": "'2026-01-02 03:04+00'", "date": "'2026-01-02'", "time": "'03:04:05.000006'",
    "bigint": "9007199254740993", "real": "0.1", "float8": "1.5", "numeric(5,2)": "1.10", "boolean": "true",
    "uuid": f"'{ONE}'", "jsonb": """'{"a": 1.10}'""", "bytea": r"'\x00'", "text": "'a'",
}  # fmt: skip


@pytest.mark.parametrize("kind", ELEMENTS)
def test_arrays_by_way_of_pandas(client: LakebaseClient, kind: str) -> None:
    run(client, "drop domain if exists dint cascade; drop type if exists comp, letters cascade;"
                " create domain dint as int; create type comp as (a int, b text);"
                " create type letters as enum ('a,b', 'c')")  # fmt: skip
    one = f"{ELEMENTS[kind]}::{kind}"
    run(client, f"create table origin (n int, v {kind}[]); create table arrays (n int, v {kind}[]);"
                f" insert into origin values (1, array[{one}, {one}]), (2, '{{}}'), (3, null)")  # fmt: skip
    for nulls in (False, True):
        if nulls:
            run(client, f"insert into origin values (4, array[null, {one}]), (5, '{{NULL}}')")
        frame = client.fetch_pandas("select * from origin order by n")
        client.load(frame, "arrays", mode="replace")
        assert run(client, "select n, v::text from arrays") == run(client, "select n, v::text from origin")


def test_null_and_nan_stay_apart_in_a_list_of_pandas(client: LakebaseClient) -> None:
    query = "select v from (values (1, array[1.5, null, 'NaN']::{}[]), (2, null), (3, '{{}}')) as x (n, v)"
    for kind in ("real", "float8"):
        frame = client.fetch_pandas(query.format(kind))
        run(client, f"create table arrays (v {kind}[])")
        client.load(frame, "arrays")
        found = run(client, "select v::text from arrays; drop table arrays")
        assert found == [("{1.5,NULL,NaN}",), (None,), ("{}",)]
    assert client.fetch_pandas("select array[1.5]::float8[] v")["v"][0].dtype == float


NUMPYS: dict[str, tuple[str, Any, str]] = {
    "moments": (
        "timestamp[]",
        np.array(["2026-01-02T03:04", "NaT"], "M8[ns]"),
        '{"2026-01-02 03:04:00",NULL}',
    ),
    "moments as numbers": ("bigint[]", np.array(["2026-01-02"], "M8[ns]"), "refused"),
    "nanoseconds": ("timestamp[]", np.array(["2026-01-02T03:04:05.000000001"], "M8[ns]"), "refused"),
    "durations": ("interval[]", np.array([1, "NaT"], "m8[s]"), "{00:00:01,NULL}"),
    "rows": ("int[]", np.array([[1, 2], [3, 4]]), "{{1,2},{3,4}}"),
    "rows of ranges": ("int4range[]", np.array([["[1,2)"], ["empty"]]), '{{"[1,2)"},{empty}}'),
    "rows within": ("int[]", np.array([None, None], object), "{NULL,NULL}"),
    "arrays within": ("inet[]", [np.array(["10.0.0.1"]), np.array(["10.0.0.2"])], "{{10.0.0.1},{10.0.0.2}}"),
    "masked": ("int[]", np.ma.MaskedArray([1, 2], [False, True]), "{1,NULL}"),
    "json": ("jsonb", np.array([1, 2]), "[1, 2]"),
    "one": ("int", np.array(7), "7"),
}


@pytest.mark.parametrize("case", NUMPYS)
def test_an_array_of_numpy_is_a_list(client: LakebaseClient, case: str) -> None:
    kind, value, text = NUMPYS[case]
    run(client, f"create table arrays (v {kind})")
    for source in ([(value,)], frame(pd.Series([value, None], dtype=object))[:1]):
        if text == "refused":
            with pytest.raises(BadRowError, match="'v'"):
                client.load(source, "arrays")
        else:
            client.load(source, "arrays", mode="replace")
            assert run(client, "select v::text from arrays") == [(text,)]
