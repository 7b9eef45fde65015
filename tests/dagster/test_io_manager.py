"""The I/O manager's contract, with each kind of frame that it takes."""

# No "from __future__ import annotations": Dagster reads the annotations of assets as objects.

from collections.abc import Iterator
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any, Optional

import dagster as dg
import pandas as pd
import polars as pl
import psycopg
import pyarrow as pa
import pytest

from dagster_lakebase import LakebaseIOManager, LakebaseResource
from lakebase_provider.core.bulk.load.plan import LOAD_OPTIONS
from lakebase_provider.core.errors import ColumnMismatchError, ConfigError, LoadError, TableNotFoundError
from lakebase_provider.local import LocalLakebase
from tests.dagster.runs import causes, open_connections
from tests.dagster.tables import FORMS, Run, metadata_of, to_rows
from tests.eventually import eventually

# Dagster calls its own deprecated method when it sets up a nested resource.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")

FRAMES = list(FORMS)
LOADED = [name for name in FORMS if name != "iterator"]
ORDERS = pa.table(
    {
        "id": pa.array([1, 2, 3], pa.int64()),
        "name": ["ann", None, "c'é"],
        "amount": pa.array([Decimal("0.10"), Decimal("2.50"), None], pa.decimal128(10, 2)),
        "at": pa.array(
            [datetime(2026, 1, day, tzinfo=timezone.utc) for day in (1, 2, 3)], pa.timestamp("us", "UTC")
        ),
    }
)
ROWS = [tuple(row.values()) for row in ORDERS.to_pylist()]


@pytest.fixture
def run(lake: LocalLakebase) -> Iterator[Run]:
    lake.admin.execute("DROP SCHEMA IF EXISTS io CASCADE")
    with dg.DagsterInstance.ephemeral() as instance:
        yield Run(lake, instance)


def asset_of(form: str, table: pa.Table, name: str = "orders", **arguments: Any) -> dg.AssetsDefinition:
    """An asset in schema io that returns the table in that form."""
    kind, make = FORMS[form]

    def build() -> Any:
        return make(table)

    build.__annotations__["return"] = kind
    return dg.asset(name=name, key_prefix="io", **arguments)(build)


@pytest.mark.parametrize("form", FRAMES)
def test_an_asset_becomes_a_table_and_stays_one(run: Run, form: str) -> None:
    orders = asset_of(form, ORDERS)
    for _ in range(2):
        result = run.materialize(orders)
        assert run.rows("orders") == ROWS
    metadata = metadata_of(result)
    assert metadata["dagster/row_count"] == metadata["lakebase/rows_written"] == 3
    assert metadata["dagster/table_name"] == "io.orders"
    assert metadata["Query"] == '```sql\nSELECT * FROM "io"."orders"\n```'
    columns = {column.name: column.type for column in metadata["dagster/column_schema"].columns}
    assert columns == {
        "id": "bigint",
        "name": "text",
        # pandas holds decimals as objects, which say nothing of precision and scale.
        "amount": "numeric" if form == "pandas" else "numeric(10,2)",
        "at": "timestamp with time zone",
    }


@pytest.mark.parametrize("form", LOADED)
def test_an_input_is_loaded_as_it_is_annotated(run: Run, form: str) -> None:
    kind, _ = FORMS[form]
    loaded: list[list[dict[str, Any]]] = []

    def take(orders: Any) -> None:
        assert isinstance(orders, kind)
        loaded.append(to_rows(orders))

    take.__annotations__["orders"] = kind
    consumer = dg.asset(name="consumer", ins={"orders": dg.AssetIn(key=["io", "orders"])})(take)
    run.materialize(asset_of("arrow", ORDERS), consumer)
    [rows] = loaded
    assert sorted(rows, key=lambda row: row["id"]) == ORDERS.to_pylist()


@pytest.mark.parametrize("form", LOADED)
def test_what_is_loaded_keeps_every_digit(run: Run, form: str) -> None:
    kind, _ = FORMS[form]
    loaded: list[dict[str, Any]] = []
    big, long_ago = 2**53 + 1, datetime(1, 1, 1)
    moment = datetime(2026, 3, 29, 1, 2, 3, 456789)
    exact = Decimal("123456789012345678.012345678901234567")
    run.execute("CREATE SCHEMA io")
    run.execute(
        "CREATE TABLE io.orders AS SELECT * FROM (VALUES"
        f" (1::smallint, {big}::bigint, {exact}::numeric, '{moment}'::timestamp, true, ARRAY[{big}]),"
        f" (NULL, NULL, NULL, '{long_ago}', NULL, ARRAY[NULL::bigint]))"
        " AS v (small, big, exact, at, flag, list)"
    )
    run.execute("GRANT USAGE ON SCHEMA io TO public")
    run.execute("GRANT SELECT ON io.orders TO public")

    def take(orders: Any) -> None:
        loaded.extend(to_rows(orders))

    take.__annotations__["orders"] = kind
    consumer = dg.asset(name="consumer", ins={"orders": dg.AssetIn(key=["io", "orders"])})(take)
    run.materialize(asset_of("arrow", ORDERS), consumer, selection=[consumer])
    rows = [{**row, "list": list(row["list"])} for row in loaded]
    assert rows == [
        {"small": 1, "big": big, "exact": exact, "at": moment, "flag": True, "list": [big]},
        {"small": None, "big": None, "exact": None, "at": long_ago, "flag": None, "list": [None]},
    ]
    assert not any(isinstance(value, float) for row in rows for value in row.values())


@pytest.mark.parametrize("form", LOADED)
def test_only_the_columns_that_are_wanted_are_loaded(run: Run, form: str) -> None:
    kind, _ = FORMS[form]
    loaded: list[Any] = []

    def take(orders: Any) -> None:
        loaded.extend(to_rows(orders))

    take.__annotations__["orders"] = kind
    wanted = dg.AssetIn(key=["io", "orders"], metadata={"columns": ["name", "id"]})
    run.materialize(asset_of("arrow", ORDERS), dg.asset(name="consumer", ins={"orders": wanted})(take))
    assert [list(row) for row in loaded] == [["name", "id"]] * 3


@pytest.mark.parametrize("form", FRAMES)
def test_an_output_without_rows_creates_its_table_and_empties_it(run: Run, form: str) -> None:
    # An empty column of objects, as pandas holds decimals, tells no type: it becomes text.
    orders = ORDERS.drop_columns(["amount"])
    result = run.materialize(asset_of(form, orders.slice(0, 0)))
    assert run.rows("orders") == []
    columns = {column.name: column.type for column in metadata_of(result)["dagster/column_schema"].columns}
    assert columns == {"id": "bigint", "name": "text", "at": "timestamp with time zone"}
    run.materialize(asset_of("arrow", orders))
    result = run.materialize(asset_of(form, orders.slice(0, 0)))
    assert run.rows("orders") == []
    assert metadata_of(result)["dagster/row_count"] == 0


@pytest.mark.parametrize("form", FRAMES)
def test_append(run: Run, form: str) -> None:
    orders = asset_of(form, ORDERS, metadata={"lakebase/mode": "append"})
    for _ in range(2):
        result = run.materialize(orders)
    assert run.rows("orders") == sorted(ROWS * 2)
    metadata = metadata_of(result)
    assert (metadata["lakebase/rows_written"], metadata["dagster/row_count"]) == (3, 6)


@pytest.mark.parametrize("form", FRAMES)
def test_merge(run: Run, form: str) -> None:
    metadata = {"lakebase/mode": "merge", "lakebase/keys": ["id"]}
    run.materialize(asset_of(form, ORDERS, metadata=metadata))
    constraints = "SELECT conkey::text FROM pg_constraint WHERE conrelid = 'io.orders'::regclass"
    assert run.execute(constraints) == [("{1}",)]
    changed = pa.concat_tables([ORDERS.slice(2)] * 3)
    changed = changed.set_column(0, "id", pa.array([3, 4, 4])).set_column(
        1, "name", [["new", "four", "last"]]
    )
    result = run.materialize(asset_of(form, changed, metadata=metadata))
    names = {row[0]: row[1] for row in run.rows("orders")}
    assert names == {1: "ann", 2: None, 3: "new", 4: "last"}
    assert metadata_of(result)["dagster/row_count"] == 4


@pytest.mark.parametrize("form", FRAMES)
def test_a_failed_write_keeps_the_rows(run: Run, form: str) -> None:
    run.materialize(asset_of(form, ORDERS))
    wider = ORDERS.append_column("extra", pa.array([1, 2, 3]))
    result = run.materialize(asset_of(form, wider), raise_on_error=False)
    assert not result.success
    assert run.rows("orders") == ROWS
    letters = ORDERS.set_column(0, "id", pa.array(["x", "y", "z"]))
    assert not run.materialize(asset_of(form, letters), raise_on_error=False).success
    assert run.rows("orders") == ROWS


@pytest.mark.parametrize("form", FRAMES)
def test_a_new_column_is_added_where_that_is_allowed(run: Run, form: str) -> None:
    run.materialize(asset_of(form, ORDERS))
    wider = ORDERS.drop_columns(["name"]).append_column("an extra", pa.array([1, 2, 3], pa.int32()))
    result = run.materialize(asset_of(form, wider, metadata={"lakebase/schema_evolution": "add"}))
    assert [row[0:2] + row[4:] for row in run.rows("orders")] == [(1, None, 1), (2, None, 2), (3, None, 3)]
    assert [c.name for c in metadata_of(result)["dagster/column_schema"].columns][-1] == "an extra"


@pytest.mark.parametrize("form", FRAMES)
def test_a_type_is_widened_where_that_is_allowed(run: Run, form: str) -> None:
    run.materialize(
        asset_of(form, pa.table({"n": pa.array([1], pa.int32()), "d": pa.array([Decimal("1.5")])}))
    )
    big = pa.table({"n": pa.array([2**40], pa.int64()), "d": pa.array([Decimal("1234.567")])})
    assert not run.materialize(asset_of(form, big), raise_on_error=False).success
    run.materialize(asset_of(form, big, metadata={"lakebase/schema_evolution": "widen"}))
    assert run.rows("orders") == [(2**40, Decimal("1234.567"))]


@pytest.mark.parametrize("form", FRAMES)
def test_a_table_is_recreated_where_that_is_allowed(run: Run, form: str) -> None:
    run.materialize(asset_of(form, ORDERS))
    run.execute("GRANT SELECT ON io.orders TO PUBLIC")
    other = pa.table({"id": ["a", "b"], "flag": [True, False]})
    run.materialize(asset_of(form, other, metadata={"lakebase/schema_evolution": "recreate"}))
    assert run.rows("orders") == [("a", True), ("b", False)]
    assert run.execute("SELECT has_table_privilege('public', 'io.orders', 'select')") == [(True,)]


@pytest.mark.parametrize("form", FRAMES)
def test_names_are_taken_as_they_stand(run: Run, form: str) -> None:
    run.execute('DROP SCHEMA IF EXISTS "my-Schema; --" CASCADE')
    odd = pa.table({'a "b"; %s': [1], "select": [2], "ÄÖ": [3]})
    kind, make = FORMS[form]

    def build() -> Any:
        return make(odd)

    build.__annotations__["return"] = kind
    asset = dg.asset(name="Odd_Table", metadata={"schema": "my-Schema; --"})(build)
    for _ in range(2):
        run.materialize(asset)
    assert run.rows("Odd_Table", "my-Schema; --") == [(1, 2, 3)]
    run.execute('DROP SCHEMA "my-Schema; --" CASCADE')


@pytest.mark.parametrize("form", LOADED)
def test_ops_store_and_load_by_the_names_of_outputs(run: Run, form: str) -> None:
    kind, make = FORMS[form]
    loaded: list[Any] = []

    def produce() -> Any:
        return make(ORDERS)

    def consume(orders: Any) -> None:
        loaded.extend(to_rows(orders))

    produce.__annotations__["return"] = kind
    consume.__annotations__["orders"] = kind
    first = dg.op(out=dg.Out(metadata={"schema": "io", "table": "by_op"}))(produce)
    second = dg.op(consume)

    @dg.job(resource_defs={"io_manager": LakebaseIOManager(lakebase=LakebaseResource())})
    def both() -> None:
        second(first())

    assert both.execute_in_process(instance=run.instance).success
    assert run.rows("by_op") == ROWS
    assert len(loaded) == 3


@pytest.mark.parametrize(
    ("key", "metadata", "configured", "schema"),
    [
        (["whereabouts"], {}, None, "public"),
        (["io_prefix", "whereabouts"], {}, None, "io_prefix"),
        (["deep", "io_prefix", "whereabouts"], {}, None, "io_prefix"),
        (["io_prefix", "whereabouts"], {}, "io_config", "io_config"),
        (["io_prefix", "whereabouts"], {"schema": "io_metadata"}, "io_config", "io_metadata"),
    ],
)
def test_where_the_schema_comes_from(
    run: Run, key: list[str], metadata: dict[str, str], configured: str | None, schema: str
) -> None:
    @dg.asset(key=key, metadata=metadata)
    def whereabouts() -> pa.Table:
        return pa.table({"n": [7]})

    manager = LakebaseIOManager(lakebase=LakebaseResource(), schema=configured)
    result = run.materialize(whereabouts, manager=manager)
    assert run.rows("whereabouts", schema) == [(7,)]
    assert metadata_of(result)["dagster/table_name"] == f"{schema}.whereabouts"


def test_columns_tell_their_constraints_and_comments(run: Run) -> None:
    merge = {"lakebase/mode": "merge", "lakebase/keys": "id"}
    run.materialize(asset_of("arrow", ORDERS, metadata=merge))
    run.execute("COMMENT ON COLUMN io.orders.name IS 'Who ordered.'")
    result = run.materialize(asset_of("arrow", ORDERS, metadata=merge))
    columns = {column.name: column for column in metadata_of(result)["dagster/column_schema"].columns}
    assert columns["name"].description == "Who ordered."
    assert not columns["id"].constraints.nullable
    assert columns["id"].constraints.unique
    assert columns["amount"].constraints.nullable


@pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning")
def test_a_column_schema_change_is_noticed(run: Run) -> None:
    evolving = {"lakebase/schema_evolution": "add"}
    first = asset_of("polars", ORDERS, metadata=evolving)
    [check] = dg.build_column_schema_change_checks(assets=[first])
    run.materialize(first)
    run.materialize(first, check)
    second = asset_of("polars", ORDERS.append_column("extra", pa.array([1, 2, 3])), metadata=evolving)
    [evaluation] = run.materialize(second, check).get_asset_check_evaluations()
    assert not evaluation.passed
    [evaluation] = run.materialize(second, check).get_asset_check_evaluations()
    assert evaluation.passed


def test_a_stream_without_a_batch_keeps_what_table_there_is(run: Run) -> None:
    @dg.asset(key_prefix="io")
    def orders() -> Any:
        return iter([])

    result = run.materialize(orders, raise_on_error=False)
    assert not result.success
    run.materialize(asset_of("arrow", ORDERS))
    run.materialize(orders)
    assert run.rows("orders") == []


@pytest.mark.parametrize("mode", ["replace", "append"])
@pytest.mark.parametrize("make", [iter, lambda b: filter(None, iter(b)), lambda b: (one for one in b)])
def test_an_iterator_that_others_have_read_is_refused(run: Run, make: Any, mode: str) -> None:
    batches = make(ORDERS.to_batches())
    assert list(batches)

    @dg.asset(key_prefix="io", metadata={"lakebase/mode": mode})
    def orders() -> dg.Output[Any]:
        return dg.Output(batches)

    run.materialize(asset_of("arrow", ORDERS))
    for _ in range(2):  # a retry in the same process finds the same iterator
        result = run.materialize(orders, raise_on_error=False)
        failure = result.failure_data_for_node("io__orders")
        assert "can be read only once" in str(failure.error)
    assert run.rows("orders") == ROWS


def test_a_reader_without_rows_is_told(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.materialize(asset_of("reader", ORDERS))
    assert "the reader gave no rows" not in capsys.readouterr().err
    run.materialize(asset_of("reader", ORDERS.slice(0, 0)))
    assert "Table io.orders: the reader gave no rows; 3 were removed." in capsys.readouterr().err


def test_a_stream_that_breaks_keeps_the_rows(run: Run) -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield from ORDERS.to_batches()
        raise ZeroDivisionError

    @dg.asset(key_prefix="io")
    def orders() -> dg.Output[Any]:
        # Dagster takes a bare generator for the op's own events.
        return dg.Output(broken())

    run.materialize(asset_of("arrow", ORDERS))
    result = run.materialize(orders, raise_on_error=False)
    assert "ZeroDivisionError" in str(result.failure_data_for_node("io__orders").error)
    assert run.rows("orders") == ROWS


def test_a_reader_that_is_thrown_away_gives_its_connection_back(run: Run, lake: LocalLakebase) -> None:
    @dg.asset(ins={"orders": dg.AssetIn(key=["io", "orders"])})
    def consumer(lakebase: LakebaseResource, orders: pa.RecordBatchReader) -> None:
        assert next(orders).num_rows == 3
        del orders

    io_manager = LakebaseIOManager(lakebase=LakebaseResource())
    dg.materialize(
        [asset_of("arrow", ORDERS), consumer],
        instance=run.instance,
        resources={"io_manager": io_manager, "lakebase": LakebaseResource()},
    )
    eventually(lambda: open_connections(lake) == 0)


@pytest.mark.parametrize(
    "kind",
    [
        Optional[pd.DataFrame],  # noqa: UP045 # both ways to write it
        pd.DataFrame | None,
        Optional[pl.DataFrame],  # noqa: UP045
        pl.DataFrame | None,
    ],
)
def test_an_input_that_may_be_none_is_none_until_there_is_a_table(run: Run, kind: Any) -> None:
    seen: list[Any] = []

    def take(orders: Any) -> None:
        seen.append(orders)

    take.__annotations__["orders"] = kind
    consumer = dg.asset(name="consumer", ins={"orders": dg.AssetIn(key=["io", "orders"])})(take)
    orders = asset_of("arrow", ORDERS)
    run.materialize(orders, consumer, selection=[consumer])
    assert seen.pop() is None
    run.materialize(orders, consumer)
    assert isinstance(seen[0], kind)
    assert len(to_rows(seen[0])) == 3


@pytest.mark.parametrize(("columns", "names"), [("id", ["id"]), (["at", "id"], ["at", "id"])])
def test_one_column_may_be_named_as_text(run: Run, columns: Any, names: list[str]) -> None:
    loaded: list[Any] = []

    @dg.asset(ins={"orders": dg.AssetIn(key=["io", "orders"], metadata={"columns": columns})})
    def consumer(orders: pa.Table) -> None:
        loaded.extend(orders.column_names)

    run.materialize(asset_of("arrow", ORDERS), consumer)
    assert loaded == names


@pytest.mark.parametrize(("columns", "named"), [(["id", "nmae"], "no column 'nmae'"), (7, "of type int")])
def test_a_wrong_column_is_named(run: Run, columns: Any, named: str) -> None:
    @dg.asset(ins={"orders": dg.AssetIn(key=["io", "orders"], metadata={"columns": columns})})
    def consumer(orders: pa.Table) -> None: ...

    error = error_of(run, asset_of("arrow", ORDERS), consumer)
    [found] = [step for step in causes(error) if isinstance(step, (ColumnMismatchError, ConfigError))]
    assert named in found.message
    assert "columns" in str(found)


def test_inputs_without_annotation_need_a_default(run: Run) -> None:
    seen: list[type] = []

    @dg.asset(ins={"orders": dg.AssetIn(key=["io", "orders"])})
    def consumer(orders) -> None:  # type: ignore[no-untyped-def] # the point of the test
        seen.append(type(orders))

    orders = asset_of("arrow", ORDERS)
    for form, kind in (("pandas", pd.DataFrame), ("polars", pl.DataFrame), ("arrow", pa.Table)):
        manager = LakebaseIOManager(lakebase=LakebaseResource(), default_load_type=form)
        run.materialize(orders, consumer, manager=manager)
        assert seen.pop() is kind
    with pytest.raises(dg.DagsterInvariantViolationError, match="default_load_type"):
        run.materialize(orders, consumer)


def error_of(run: Run, *assets: Any) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 # which one is the caller's question
        run.materialize(*assets)
    return caught.value


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"lakebase/mode": "overwrite"}, "lakebase/mode"),
        ({"lakebase/mode": "merge"}, "lakebase/keys"),
        ({"lakebase/mode": "upsert", "lakebase/keys": ["id"]}, "'merge'"),
        ({"lakebase/keys": ["id"]}, "lakebase/keys"),
        ({"lakebase/mode": "merge", "lakebase/keys": {"id": 1}}, "lakebase/keys"),
        ({"lakebase/schema_evolution": "any"}, "lakebase/schema_evolution"),
        ({"lakebase/modus": "append"}, "lakebase/modus"),
        ({"lakebase/delete": "missing"}, "lakebase/delete"),
        ({"lakebase/restore_point": "yes"}, "lakebase/restore_point"),
        ({"lakebase/mode": "merge", "lakebase/keys": ["id"], "lakebase/delete": "all"}, "lakebase/delete"),
    ],
)
def test_wrong_metadata_are_named_before_anything_is_sent(
    run: Run, lake: LocalLakebase, metadata: dict[str, Any], field: str
) -> None:
    logins = lake.admin.counters().logins
    error = error_of(run, asset_of("arrow", ORDERS, metadata=metadata))
    [config] = [step for step in causes(error) if isinstance(step, ConfigError)]
    assert field in str(config)
    assert lake.admin.counters().logins == logins


@pytest.mark.parametrize(
    ("value", "expected", "hint"),
    [
        (pd.DataFrame({1: [1]}), ColumnMismatchError, "int"),
        (pd.DataFrame({"a": [1]}).set_index("a"), ColumnMismatchError, "reset_index"),
        (pd.DataFrame({"a": [1]}, index=["x"]), ColumnMismatchError, "reset_index"),
        (pd.DataFrame({"a": [1]}, index=[pd.Timestamp("2026-01-02")]), ColumnMismatchError, "reset_index"),
        (pd.DataFrame({"a": [1]}, index=[0.5]), ColumnMismatchError, "reset_index"),
        (pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([(1, 2)])), ColumnMismatchError, "index"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), ColumnMismatchError, "'a'"),
        (pd.DataFrame(), ColumnMismatchError, "no columns"),
        (pl.DataFrame({"o": pl.Series([object()], dtype=pl.Object)}), ColumnMismatchError, "'o'"),
        (pa.table({"x" * 64: [1]}), ConfigError, "63"),
        (iter([1]), LoadError, "int"),
        ({"a": 1}, dg.DagsterInvariantViolationError, "load dict"),
        ({"a": 1}, dg.DagsterInvariantViolationError, "Return one of these"),
    ],
)
def test_an_output_that_is_no_table_is_refused_with_a_reason(
    run: Run, value: Any, expected: type[Exception], hint: str
) -> None:
    @dg.asset(key_prefix="io")
    def orders() -> Any:
        return value

    error = error_of(run, orders)
    assert any(isinstance(step, expected) and hint in str(step) for step in causes(error)), error


def test_none_is_refused(run: Run) -> None:
    @dg.asset(key_prefix="io")
    def orders() -> Any:
        return None

    assert "-> None" in str(causes(error_of(run, orders)))


@pytest.mark.parametrize("form", FRAMES)
def test_missing_rows_are_deleted_where_metadata_say_so(run: Run, form: str) -> None:
    metadata = {"lakebase/mode": "merge", "lakebase/keys": "id", "lakebase/delete": "missing"}
    run.materialize(asset_of(form, ORDERS, metadata=metadata))
    told = metadata_of(run.materialize(asset_of(form, ORDERS.slice(1), metadata=metadata)))
    assert run.rows("orders") == ROWS[1:]
    assert (told["lakebase/deleted"], told["lakebase/unchanged"], told["dagster/row_count"]) == (1, 2, 2)


def test_a_stream_without_a_batch_deletes_what_is_missing_from_it(run: Run) -> None:
    metadata = {"lakebase/mode": "merge", "lakebase/keys": "id", "lakebase/delete": "missing"}
    run.materialize(asset_of("arrow", ORDERS, metadata=metadata))

    @dg.asset(key_prefix="io", metadata=metadata)
    def orders() -> Any:
        return iter([])

    assert metadata_of(run.materialize(orders))["lakebase/deleted"] == 3
    assert run.rows("orders") == []


def test_a_bad_row_is_told_with_a_remedy_that_there_is(run: Run) -> None:
    run.execute("CREATE SCHEMA io; GRANT ALL ON SCHEMA io TO PUBLIC")
    run.execute("CREATE TABLE io.orders (id smallint CHECK (id < 9)); GRANT ALL ON io.orders TO PUBLIC")
    for column in (pa.array([1, 70000], pa.int32()), pa.array([1, 10], pa.int16())):
        error = error_of(run, asset_of("arrow", pa.table({"id": column}), metadata=dict(ADDING)))
        [bad] = [step for step in causes(error) if isinstance(step, LoadError)]
        assert not any(option in bad.remedy for option in ("on_error", "create=True", "columns="))


ADDING = {"lakebase/schema_evolution": "add"}


def test_a_missing_table_says_what_to_do(run: Run) -> None:
    @dg.asset(ins={"orders": dg.AssetIn(key=["io", "orders"])})
    def consumer(orders: pa.Table) -> None: ...

    error = error_of(run, dg.AssetSpec(["io", "orders"]), consumer)
    [missing] = [step for step in causes(error) if isinstance(step, TableNotFoundError)]
    assert "Materialize the upstream asset" in missing.remedy


@pytest.mark.parametrize(
    ("table", "value"),
    [
        ("id int", pa.table({"id": [1 << 40]})),
        ("id bigint CHECK (id > 0)", pa.table({"id": [-1]})),
        ("id bigint UNIQUE", pa.table({"id": [1, 1]})),
        ("id bigint NOT NULL", pa.table({"id": pa.array([None], pa.int64())})),
        ("other bigint NOT NULL", pa.table({"id": [1]})),
    ],
)
def test_a_remedy_names_no_option_that_an_output_has_not(run: Run, table: str, value: pa.Table) -> None:
    run.execute("CREATE SCHEMA io; GRANT ALL ON SCHEMA io TO PUBLIC")
    run.execute(f"CREATE TABLE io.orders ({table}); GRANT ALL ON io.orders TO PUBLIC")
    error = error_of(run, asset_of("arrow", value))
    [refused] = [step for step in causes(error) if isinstance(step, LoadError)]
    for option in (*LOAD_OPTIONS, "reject"):
        assert f"{option}=" not in refused.remedy
    assert "on_error" not in refused.remedy


def test_a_role_without_create_can_write_where_the_schema_is(run: Run) -> None:
    run.execute("CREATE SCHEMA io; GRANT ALL ON SCHEMA io TO PUBLIC")
    run.materialize(asset_of("arrow", ORDERS))
    assert run.rows("orders") == ROWS


def test_one_connection_serves_the_whole_run(run: Run, lake: LocalLakebase) -> None:
    @dg.asset(ins={"orders": dg.AssetIn(key=["io", "orders"])}, key_prefix="io")
    def copied(lakebase: LakebaseResource, orders: pd.DataFrame) -> pl.DataFrame:
        assert lakebase.fetch("SELECT count(*) FROM io.orders") == [(3,)]
        return pl.from_pandas(orders)

    before = lake.admin.counters()
    dg.materialize(
        [asset_of("reader", ORDERS), copied],
        instance=run.instance,
        resources={
            "io_manager": LakebaseIOManager(lakebase=LakebaseResource()),
            "lakebase": LakebaseResource(),
        },
    )
    after = lake.admin.counters()
    assert (after.logins - before.logins, after.mints - before.mints) == (1, 1)
    assert run.rows("copied") == ROWS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", "spark"),
        # It takes the keys of an asset.
        ("mode", "merge"),
        ("schema_evolution", "spark"),
        ("default_load_type", "spark"),
    ],
)
def test_an_unknown_default_is_refused_where_definitions_load(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is '{value}'") as caught:
        LakebaseIOManager(lakebase=LakebaseResource(), **{name: value})
    assert "Use one of" in caught.value.remedy


@pytest.mark.parametrize("name", ["mode", "schema_evolution", "default_load_type"])
def test_an_unknown_default_of_the_environment_is_refused_at_set_up(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("A_DEFAULT", "spark")
    manager = LakebaseIOManager(lakebase=LakebaseResource(), **{name: dg.EnvVar("A_DEFAULT")})
    with pytest.raises(dg.DagsterResourceFunctionError) as caught:
        run.materialize(asset_of("arrow", ORDERS), manager=manager)
    [error] = [step for step in causes(caught.value) if isinstance(step, ConfigError)]
    assert name in str(error)


def test_it_is_not_dagsters(lake: LocalLakebase) -> None:
    assert LakebaseIOManager._is_dagster_maintained() is False
    with pytest.raises(ValueError, match="shema"):
        LakebaseIOManager(lakebase=LakebaseResource(), shema="x")  # type: ignore[call-arg] # the point of the test


def test_a_server_error_reaches_the_author(run: Run) -> None:
    run.execute("CREATE SCHEMA io; GRANT ALL ON SCHEMA io TO PUBLIC")
    run.execute("CREATE VIEW io.orders AS SELECT 1 AS id")
    error = error_of(run, asset_of("arrow", ORDERS))
    assert any(isinstance(step, (psycopg.Error, LoadError)) for step in causes(error))
