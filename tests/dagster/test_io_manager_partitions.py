"""Partitions: what is replaced and what is loaded are exactly their rows."""

# No "from __future__ import annotations": Dagster reads the annotations of assets as objects.

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pyarrow as pa
import pytest

from dagster_lakebase.io_manager.partitions import rows_of_partitions
from lakebase_provider.core import LakebaseConfig, shared_client
from lakebase_provider.core.bulk.tables.replace import delete_rows
from lakebase_provider.core.database.catalog import read_table
from lakebase_provider.core.errors import ConfigError, LoadError
from lakebase_provider.local import LocalLakebase
from tests.dagster.runs import causes
from tests.dagster.tables import FORMS, Run, metadata_of, to_rows
from tests.eventually import eventually

pytestmark = [
    # Dagster calls its own deprecated method when it sets up a nested resource.
    pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning"),
]

FRAMES = list(FORMS)
NEW_YORK = ZoneInfo("America/New_York")
TZ = pa.timestamp("us", "UTC")
WALL = pa.timestamp("us")


@pytest.fixture
def run(lake: LocalLakebase) -> Iterator[Run]:
    lake.admin.execute("DROP SCHEMA IF EXISTS io CASCADE")
    with dg.DagsterInstance.ephemeral() as instance:
        yield Run(lake, instance)


def partitioned(
    form: str,
    definition: dg.PartitionsDefinition[Any],
    expression: str | Mapping[str, str] | None,
    build: Any,
    **metadata: Any,
) -> dg.AssetsDefinition:
    """The asset io.orders, whose partition is what `build` makes of the key, as a table."""
    kind, make = FORMS[form]
    if expression is not None:
        metadata["partition_expr"] = expression

    def orders(context: dg.AssetExecutionContext) -> Any:
        return make(pa.concat_tables([build(key) for key in context.partition_keys]))

    orders.__annotations__["return"] = kind
    return dg.asset(key_prefix="io", partitions_def=definition, metadata=metadata)(orders)


def load_error(run: Run, asset: dg.AssetsDefinition, key: str) -> LoadError:
    with pytest.raises(Exception) as caught:  # noqa: PT011 # Dagster wraps it or does not
        run.materialize(asset, partition_key=key)
    [error] = [step for step in causes(caught.value) if isinstance(step, LoadError)]
    return error


def config_error(run: Run, asset: dg.AssetsDefinition, key: str) -> ConfigError:
    with pytest.raises(Exception) as caught:  # noqa: PT011 # Dagster wraps it or does not
        run.materialize(asset, partition_key=key)
    [error] = [step for step in causes(caught.value) if isinstance(step, ConfigError)]
    return error


def hours_of(start: datetime, count: int) -> pa.Table:
    """A row for each hour from a moment on."""
    moments = [start.astimezone(timezone.utc) + timedelta(hours=n) for n in range(count)]
    return pa.table({"at": pa.array(moments, TZ), "n": list(range(count))})


@pytest.mark.parametrize("form", FRAMES)
def test_a_static_partition_is_replaced_alone(run: Run, form: str) -> None:
    values = {"north": 1, "it's": 2}
    orders = partitioned(
        form,
        dg.StaticPartitionsDefinition(list(values)),
        "the region",
        lambda key: pa.table({"n": [values[key]], "the region": [key]}),
    )
    for key in (*values, "it's"):
        result = run.materialize(orders, partition_key=key)
    assert run.rows("orders") == [(1, "north"), (2, "it's")]
    metadata = metadata_of(result)
    assert metadata["dagster/partition_row_count"] == 1
    assert "dagster/row_count" not in metadata
    assert metadata["Query"].endswith("""WHERE "the region" IN ('it''s')\n```""")


def test_two_runs_that_replace_the_same_partition_follow_each_other(run: Run, lake: LocalLakebase) -> None:
    definition = dg.StaticPartitionsDefinition(["north"])
    orders = partitioned(
        "arrow", definition, "region", lambda key: pa.table({"n": [2], "region": pa.array([key])})
    )
    run.materialize(orders, partition_key="north")

    def somebody_waits() -> bool:
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        return bool(lake.admin.execute(waiting)[0][0])

    with ThreadPoolExecutor(1) as pool:
        with shared_client(LakebaseConfig.from_env()).connection() as first:
            table = read_table(first, ("io", "orders"))
            delete_rows(first, table, rows_of_partitions(first, table, definition, ["north"], "region"))
            second = pool.submit(run.materialize, orders, partition_key="north")
            eventually(somebody_waits)
            first.execute("INSERT INTO io.orders VALUES (1, 'north')")
        second.result()
    # Had they not waited, the second one would not have seen the first one's row, and left it there.
    assert run.rows("orders") == [(2, "north")]


@pytest.mark.parametrize("form", FRAMES)
@pytest.mark.parametrize("day", ["2026-03-08", "2026-11-01"])
def test_a_day_of_new_york_written_twice_has_no_duplicates(run: Run, form: str, day: str) -> None:
    """Days of 23 and of 25 hours."""
    hours = 23 if day == "2026-03-08" else 25
    orders = partitioned(
        form,
        dg.DailyPartitionsDefinition("2026-01-01", timezone="America/New_York"),
        "at",
        lambda key: hours_of(datetime.fromisoformat(key).replace(tzinfo=NEW_YORK), hours),
    )
    for _ in range(2):
        run.materialize(orders, partition_key=day)
        assert len(run.rows("orders")) == hours


@pytest.mark.parametrize("form", FRAMES)
def test_dynamic_partitions(run: Run, form: str) -> None:
    definition = dg.DynamicPartitionsDefinition(name="customers")
    run.instance.add_dynamic_partitions("customers", ["a", "b"])
    orders = partitioned(form, definition, "customer", lambda key: pa.table({"customer": [key], "n": [1]}))
    for key in ("a", "b", "a"):
        run.materialize(orders, partition_key=key)
    assert run.rows("orders") == [("a", 1), ("b", 1)]


MULTI = dg.MultiPartitionsDefinition(
    {
        "day": dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-01-06"),
        "region": dg.StaticPartitionsDefinition(["east", "north", "west"]),
    }
)


def cell(key: Any) -> pa.Table:
    day, region = key.split("|")
    return pa.table({"at": pa.array([datetime.fromisoformat(day)], WALL), "region": [region]})


@pytest.mark.parametrize("form", FRAMES)
def test_multi_partitions(run: Run, form: str) -> None:
    orders = partitioned(form, MULTI, {"day": "at", "region": "region"}, cell)
    cells = ["2026-01-01|east", "2026-01-01|west", "2026-01-03|east", "2026-01-01|west"]
    for key in cells:
        run.materialize(orders, partition_key=key)
    assert sorted(run.rows("orders")) == [
        (datetime(2026, 1, 1), "east"),
        (datetime(2026, 1, 1), "west"),
        (datetime(2026, 1, 3), "east"),
    ]


def test_cells_that_are_no_rectangle_are_loaded_one_by_one(run: Run) -> None:
    loaded: list[Any] = []
    orders = partitioned("arrow", MULTI, {"day": "at", "region": "region"}, cell)
    corners_of_the_grid = dg.SpecificPartitionsPartitionMapping(["2026-01-01|east", "2026-01-05|west"])

    @dg.asset(
        partitions_def=dg.StaticPartitionsDefinition(["all"]),
        ins={"orders": dg.AssetIn(key=["io", "orders"], partition_mapping=corners_of_the_grid)},
    )
    def corners(orders: pa.Table) -> None:
        loaded.extend(to_rows(orders))

    for day in range(1, 6):
        for region in ("east", "north", "west"):
            run.materialize(orders, partition_key=f"2026-01-0{day}|{region}")
    run.materialize(orders.to_source_asset(), corners, partition_key="all", selection=[corners])
    assert sorted((row["at"].day, row["region"]) for row in loaded) == [(1, "east"), (5, "west")]


@pytest.mark.parametrize("form", FRAMES)
def test_a_range_of_partitions_in_one_run(run: Run, form: str) -> None:
    orders = partitioned(
        form,
        dg.DailyPartitionsDefinition("2026-01-01"),
        "at",
        lambda key: pa.table({"at": pa.array([datetime.fromisoformat(key)], WALL)}),
    )
    run.materialize(orders, partition_key="2026-01-01")
    tags = {
        "dagster/asset_partition_range_start": "2026-01-01",
        "dagster/asset_partition_range_end": "2026-01-04",
    }
    result = run.materialize(orders, tags=tags)
    assert [at.day for (at,) in run.rows("orders")] == [1, 2, 3, 4]
    assert metadata_of(result)["dagster/partition_row_count"] == 4


@pytest.mark.parametrize("form", [name for name in FRAMES if name != "iterator"])
def test_an_asset_that_depends_on_its_own_yesterday(run: Run, form: str) -> None:
    kind, make = FORMS[form]
    seen: list[int] = []

    def totals(context: dg.AssetExecutionContext, totals: Any) -> Any:
        rows = to_rows(totals)
        seen.append(len(rows))
        total = sum(row["total"] for row in rows) + 1
        day = datetime.fromisoformat(context.partition_key)
        return make(pa.table({"at": pa.array([day], WALL), "total": [total]}))

    totals.__annotations__.update({"totals": kind, "return": kind})
    asset = dg.asset(
        key_prefix="io",
        partitions_def=dg.DailyPartitionsDefinition("2026-01-01"),
        metadata={"partition_expr": "at"},
        ins={
            "totals": dg.AssetIn(
                key=["io", "totals"],
                partition_mapping=dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1),
            )
        },
    )(totals)
    for day in (1, 2, 3):
        run.materialize(asset, partition_key=f"2026-01-0{day}")
    assert seen == [0, 1, 1]
    assert [total for _, total in run.rows("totals")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.date32(), date(2026, 3, 8)),
        (WALL, datetime(2026, 3, 8)),
        (TZ, datetime(2026, 3, 8, 5, tzinfo=timezone.utc)),
    ],
)
def test_time_windows_are_compared_in_the_columns_type(run: Run, kind: pa.DataType, value: Any) -> None:
    orders = partitioned(
        "arrow",
        dg.DailyPartitionsDefinition("2026-01-01", timezone="America/New_York"),
        "at",
        lambda key: pa.table({"at": pa.array([value], kind)}),
    )
    for _ in range(2):
        run.materialize(orders, partition_key="2026-03-08")
    assert len(run.rows("orders")) == 1


def test_an_expression_tells_the_partition(run: Run) -> None:
    orders = partitioned(
        "arrow",
        dg.DailyPartitionsDefinition("2026-01-01"),
        "to_timestamp(day, 'YYYY-MM-DD')::timestamp",
        lambda key: pa.table({"day": [key]}),
    )
    for key in ("2026-01-01", "2026-01-02", "2026-01-01"):
        run.materialize(orders, partition_key=key)
    assert run.rows("orders") == [("2026-01-01",), ("2026-01-02",)]


def test_keys_are_read_in_the_columns_type(run: Run) -> None:
    orders = partitioned(
        "arrow", dg.StaticPartitionsDefinition(["1", "2"]), "n", lambda key: pa.table({"n": [int(key)]})
    )
    for key in ("1", "2", "1"):
        run.materialize(orders, partition_key=key)
    assert run.rows("orders") == [(1,), (2,)]


def test_the_hour_that_comes_twice(run: Run) -> None:
    def build(key: str) -> pa.Table:
        window = definition.time_window_for_partition_key(key)
        return pa.table({"at": pa.array([window.start.astimezone(timezone.utc)], TZ)})

    definition = dg.HourlyPartitionsDefinition("2026-11-01-00:00", timezone="America/New_York")
    keys = definition.get_partition_keys(current_time=datetime(2026, 11, 1, 8, tzinfo=timezone.utc))
    orders = partitioned("arrow", definition, "at", build)
    for key in [*keys, *keys]:
        run.materialize(orders, partition_key=key)
    assert len(run.rows("orders")) == len(keys)
    run.execute("DROP TABLE io.orders")
    wall = partitioned(
        "arrow", definition, "at", lambda key: pa.table({"at": pa.array([datetime(2026, 11, 1, 1)], WALL)})
    )
    twice = next(key for key in keys if "01:00" in key)
    assert "timestamptz" in config_error(run, wall, twice).remedy


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        (None, "partition_expr"),
        ("absent", "'absent'"),
        ("note", "type text"),
        ({"day": "at"}, "partition_expr"),
    ],
)
def test_a_wrong_partition_expr_is_named_and_nothing_is_written(
    run: Run, expression: Any, named: str
) -> None:
    orders = partitioned(
        "arrow",
        dg.DailyPartitionsDefinition("2026-01-01"),
        expression,
        lambda key: pa.table({"at": pa.array([datetime.fromisoformat(key)], WALL), "note": ["x"]}),
    )
    assert named in config_error(run, orders, "2026-01-01").message
    assert run.execute("SELECT to_regclass('io.orders')") == [(None,)]


def test_a_dimension_without_a_column_is_named(run: Run) -> None:
    orders = partitioned("arrow", MULTI, {"day": "at"}, cell)
    assert "'region'" in config_error(run, orders, "2026-01-01|east").message


MODES: dict[str, dict[str, Any]] = {
    "replace": {},
    "append": {"lakebase/mode": "append"},
    "merge": {"lakebase/mode": "merge", "lakebase/keys": ["n"]},
}


@pytest.mark.parametrize("mode", MODES)
def test_rows_outside_of_the_partition_are_refused(run: Run, mode: str) -> None:
    rows = {
        "a": pa.table({"part": ["a", "b", None], "n": [1, 2, 3]}),
        "b": pa.table({"part": ["b"], "n": [7]}),
    }
    definition = dg.StaticPartitionsDefinition(["a", "b"])
    orders = partitioned("arrow", definition, "part", lambda key: rows[key], **MODES[mode])
    run.materialize(orders, partition_key="b")
    assert "2 of 3 rows" in load_error(run, orders, "a").message
    assert run.rows("orders") == [("b", 7)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", FRAMES)
def test_each_mode_tells_what_became_of_the_rows(run: Run, mode: str, form: str) -> None:
    rows = {"a": [(1, "x"), (2, "x")], "b": [(7, "x")]}
    definition = dg.StaticPartitionsDefinition(["a", "b"])

    def build(key: str) -> pa.Table:
        keys, texts = zip(*rows[key], strict=True)
        return pa.table({"n": keys, "text": texts, "part": [key] * len(keys)})

    orders = partitioned(form, definition, "part", build, **MODES[mode])
    run.materialize(orders, partition_key="b")
    run.materialize(orders, partition_key="a")
    rows["a"] = [(1, "x"), (2, "y"), (3, "z")]
    told = metadata_of(run.materialize(orders, partition_key="a"))
    names = ("lakebase/inserted", "lakebase/updated", "lakebase/unchanged", "lakebase/deleted")
    expected = {"replace": (3, 0, 0, 2), "append": (3, 0, 0, 0), "merge": (1, 1, 1, 0)}
    assert tuple(told[name] for name in names) == expected[mode]
    assert told["dagster/partition_row_count"] == (5 if mode == "append" else 3)
    assert told["lakebase/rows_written"] == 3
    assert "dagster/row_count" not in told


@pytest.mark.parametrize("mode", MODES)
def test_the_server_may_compute_what_tells_the_partition(run: Run, mode: str) -> None:
    run.execute("CREATE SCHEMA io; GRANT ALL ON SCHEMA io TO PUBLIC")
    run.execute(
        "CREATE TABLE io.orders"
        " (n bigint PRIMARY KEY, at timestamp, day date GENERATED ALWAYS AS (at::date) STORED)"
    )
    run.execute("GRANT ALL ON io.orders TO PUBLIC")
    days = iter(["2026-01-01", "2026-01-01", "2026-01-02"])
    orders = partitioned(
        "arrow",
        dg.DailyPartitionsDefinition("2026-01-01"),
        "day",
        lambda key: pa.table({"n": [len(seen)], "at": pa.array([datetime.fromisoformat(next(days))], WALL)}),
        **{**MODES[mode], "lakebase/schema_evolution": "add"},
    )
    seen: list[int] = []
    for _ in range(2):
        told = metadata_of(run.materialize(orders, partition_key="2026-01-01"))
        seen.append(told["dagster/partition_row_count"])
    assert seen == ([1, 1] if mode == "replace" else [1, 2])
    assert "1 of 1 rows" in load_error(run, orders, "2026-01-01").message


def test_missing_rows_are_deleted_from_the_partition_of_the_run(run: Run) -> None:
    rows = {"a": [1, 2, 3], "b": [7, 8]}
    definition = dg.StaticPartitionsDefinition(["a", "b"])
    orders = partitioned(
        "arrow",
        definition,
        "part",
        lambda key: pa.table(
            {"n": pa.array(rows[key], pa.int64()), "part": pa.array([key] * len(rows[key]))}
        ),
        **MODES["merge"],
        **{"lakebase/delete": "missing"},
    )
    for key in ("a", "b"):
        run.materialize(orders, partition_key=key)
    rows["a"] = [1, 4]
    told = metadata_of(run.materialize(orders, partition_key="a"))
    assert run.rows("orders") == [(1, "a"), (4, "a"), (7, "b"), (8, "b")]
    assert (told["lakebase/deleted"], told["lakebase/inserted"], told["lakebase/unchanged"]) == (2, 1, 1)
    assert told["dagster/partition_row_count"] == 2


def test_recreating_a_table_for_one_partition_is_refused(run: Run) -> None:
    definition = dg.StaticPartitionsDefinition(["a", "b"])
    plain = partitioned("arrow", definition, "part", lambda key: pa.table({"part": [key]}))
    run.materialize(plain, partition_key="a")
    more = partitioned(
        "arrow",
        definition,
        "part",
        lambda key: pa.table({"part": [key], "n": [1]}),
        **{"lakebase/schema_evolution": "recreate"},
    )
    assert "rows that stay" in config_error(run, more, "b").message
    assert run.rows("orders") == [("a",)]
