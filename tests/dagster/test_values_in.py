"""What assets return and statements are given: types that Postgres has not, and what is read again."""

from __future__ import annotations

import enum
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import polars as pl
import psycopg
import pyarrow as pa
import pytest

from dagster_lakebase import LakebaseIOManager, LakebaseResource
from lakebase_provider.core.errors import ColumnMismatchError, ConfigError
from lakebase_provider.local import LocalLakebase

# Dagster's own, of its I/O managers.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")


class Color(str, enum.Enum):
    RED = "red"


@pytest.fixture
def resource(lake: LocalLakebase) -> LakebaseResource:
    found = LakebaseResource()
    found.execute("drop table if exists public.handed")
    return found


def hand(value: Any) -> dg.ExecuteInProcessResult:
    """One run in which an asset returns the value."""

    @dg.asset(name="handed", key_prefix="public")
    def asset() -> Any:
        return value

    manager = LakebaseIOManager(lakebase=LakebaseResource())
    return dg.materialize([asset], resources={"io_manager": manager}, raise_on_error=True)


def test_statements_take_missing_values_for_null(resource: LakebaseResource) -> None:
    resource.execute("create table public.handed (at timestamptz, name text, took interval)")
    for missing in (pd.NaT, pd.NA, np.datetime64("NaT"), np.timedelta64("NaT")):
        resource.execute("insert into handed values (%s, %s, %s)", (missing, Color.RED, missing))
        assert resource.fetch("select * from handed where name = %s", (Color.RED,)) == [(None, "red", None)]
        assert resource.fetch("select %(x)s::date", {"x": missing}, as_="arrow").column(0).to_pylist() == [
            None
        ]
        resource.execute("delete from handed")
    with pytest.raises(psycopg.DataError, match="Timedelta: a fraction of a microsecond"):
        resource.execute("insert into handed (took) values (%s)", (pd.Timedelta(1_001),))


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (pd.DataFrame({"v": pd.period_range("2026", periods=2)}), "pandas.period"),
        (pd.DataFrame({"v": pd.interval_range(0, 2)}), "pandas.interval"),
        (pd.DataFrame({"v": [1 + 2j]}), "complex128"),
        (pd.DataFrame({"v": pd.Series([pd.Period("2026")], dtype=object)}), "objects"),
        (pl.DataFrame({"v": [[1]]}, {"v": pl.List(pl.Int128)}), "Int128"),
        (pl.DataFrame({"v": [[1]]}, {"v": pl.List(pl.Int128)}).lazy(), "Int128"),
    ],
    ids=["period", "interval", "complex", "objects", "Int128", "lazy"],
)
def test_columns_without_a_form_are_refused_by_name(
    resource: LakebaseResource, value: Any, name: str
) -> None:
    with pytest.raises(dg.Failure, match=name) as caught:
        hand(value)
    assert isinstance(caught.value.__cause__, (ColumnMismatchError, ConfigError))
    assert resource.fetch("select to_regclass('public.handed')") == [(None,)]


@pytest.mark.parametrize(
    ("value", "rows"),
    [
        (pd.DataFrame({"v": pd.arrays.SparseArray([0, 0, 7])}), [0, 0, 7]),
        (pl.DataFrame({"v": [2**127 - 1]}, {"v": pl.Int128}), [2**127 - 1]),
        (pl.LazyFrame({"v": [2**100]}, {"v": pl.UInt128}), [2**100]),
        (pl.DataFrame({"v": [["x", "y"]]}, {"v": pl.List(pl.Categorical)}), [["x", "y"]]),
        (
            pa.table({"v": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([0, 5], pa.int8()))}),
            [False, True],
        ),
    ],
    ids=["sparse", "Int128", "lazy UInt128", "categories", "bool8"],
)
def test_columns_with_a_meaning_are_decoded(resource: LakebaseResource, value: Any, rows: list[Any]) -> None:
    hand(value)
    assert [found for (found,) in resource.fetch("select v from public.handed")] == rows


@pytest.mark.parametrize("kind", ["iterator", "reader"])
def test_batches_that_an_earlier_run_read_empty_no_table(resource: LakebaseResource, kind: str) -> None:
    table = pa.table({"v": [1, 2, 3]})
    batches: Any = iter(table.to_batches()) if kind == "iterator" else table.to_reader()
    hand(batches)
    with pytest.raises(dg.Failure, match="to its end by an earlier attempt"):
        hand(batches)
    assert resource.fetch("select v from public.handed order by v") == [(1,), (2,), (3,)]
