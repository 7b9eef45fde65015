"""Which table an asset is: one name, by whatever stores, loads or looks at it."""

# No "from __future__ import annotations": Dagster reads the annotations of assets as objects.

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from dagster_lakebase import (
    LakebaseIOManager,
    LakebaseLoadComponent,
    LakebaseResource,
    LakebaseSqlComponent,
    build_lakebase_table_observation,
    build_lakebase_table_observation_sensor,
)
from dagster_lakebase.tables.assets import table_of
from lakebase_provider.core.database.facts import TableRef
from lakebase_provider.local import LocalLakebase
from tests.dagster.runs import causes
from tests.dagster.tables import Run, metadata_of

# Dagster calls its own deprecated method when it sets up a nested resource.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")

SCHEMAS = ("io", "io_other", "io_config", "pr_1", "silver")


@pytest.fixture
def run(lake: LocalLakebase) -> Iterator[Run]:
    for schema in SCHEMAS:
        lake.admin.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
    lake.admin.execute("DROP TABLE IF EXISTS public.lonely")
    with dg.DagsterInstance.ephemeral() as instance:
        yield Run(lake, instance)


def asset_of(key: list[str], **metadata: Any) -> dg.AssetsDefinition:
    @dg.asset(key=key, metadata=metadata)
    def made() -> pa.Table:
        return pa.table({"n": [7]})

    return made


@pytest.mark.parametrize(
    ("metadata", "configured", "table"),
    [
        ({"dagster/table_name": "io.orders"}, None, ("io", "orders")),
        ({"dagster/table_name": "io.orders"}, "io_config", ("io", "orders")),
        ({"dagster/table_name": "databricks_postgres.io.orders"}, None, ("io", "orders")),
        ({"dagster/table_name": dg.MetadataValue.text('io."Odd.Orders"')}, None, ("io", "Odd.Orders")),
        ({"dagster/table_name": "lonely"}, None, ("public", "lonely")),
        ({"dagster/table_name": "lonely"}, "io_config", ("io_config", "lonely")),
        ({"dagster/table_name": "lonely", "schema": "io"}, "io_config", ("io", "lonely")),
        ({"dagster/table_name": "io.orders", "schema": "io"}, None, ("io", "orders")),
    ],
)
def test_the_table_is_the_one_that_metadata_name(
    run: Run, metadata: dict[str, Any], configured: str | None, table: tuple[str, str]
) -> None:
    made = asset_of(["silver", "sales"], **metadata)
    loaded: list[pa.Table] = []

    @dg.asset(ins={"made": dg.AssetIn(key=made.key)})
    def taken(made: pa.Table) -> None:
        loaded.append(made)

    manager = LakebaseIOManager(lakebase=LakebaseResource(), schema=configured)
    result = run.materialize(made, taken, manager=manager)
    assert loaded[0].to_pylist() == [{"n": 7}]
    assert run.rows(table[1], table[0]) == [(7,)]
    assert run.execute("SELECT to_regclass('silver.sales')") == [(None,)]
    stored = result.asset_materializations_for_node("silver__sales")[0].metadata
    assert stored["Query"].value == f'```sql\nSELECT * FROM "{table[0]}"."{table[1]}"\n```'


def test_an_observation_shows_the_same_name(run: Run) -> None:
    made = asset_of(["Sales"], schema="io_other")
    stored = metadata_of(run.materialize(made))
    sensor = build_lakebase_table_observation_sensor([made])
    with dg.build_sensor_context(
        instance=run.instance,
        resources={"lakebase": LakebaseResource()},
        definitions=dg.Definitions(assets=[made], sensors=[sensor]),
    ) as context:
        [observed] = sensor.evaluate_tick(context).asset_events
    shown = observed.metadata["dagster/table_name"].value
    assert shown == stored["dagster/table_name"] == 'io_other."Sales"'
    assert table_of(dg.AssetKey("x"), {"dagster/table_name": shown}) == TableRef("io_other", "Sales")


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ({"dagster/table_name": "a.b.c.d"}, "Use [database.][schema.]table"),
        ({"dagster/table_name": "io.or\nders"}, "Use [database.][schema.]table"),
        ({"dagster/table_name": "io.orders", "schema": "io_other"}, "Leave one of them out"),
        ({"schema": 5}, "Metadata 'schema' of asset io/orders is 5. Use a name, as text."),
    ],
)
def test_a_name_that_cannot_be_obeyed_is_refused(run: Run, metadata: dict[str, Any], named: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 # Dagster wraps it or does not
        run.materialize(asset_of(["io", "orders"], **metadata))
    assert any(
        isinstance(e, dg.DagsterInvalidDefinitionError) and named in str(e) for e in causes(caught.value)
    )


def definitions(*assets: Any, **arguments: Any) -> dg.Definitions:
    manager = LakebaseIOManager(lakebase=LakebaseResource(), **arguments)
    return dg.Definitions(assets=list(assets), resources={"io_manager": manager})


def problem_of(defs: dg.Definitions, run: Run, key: list[str]) -> str:
    """Why the asset, alone in its run, cannot be materialized; empty if it can."""
    job = defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=run.instance, asset_selection=[dg.AssetKey(key)], raise_on_error=False
    )
    failures = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
    return "\n".join(map(str, failures))


def test_two_assets_that_would_share_a_table_are_refused(run: Run) -> None:
    silver, bronze = asset_of(["silver", "things"]), asset_of(["bronze", "things"])

    @dg.asset
    def taken() -> None: ...

    @dg.asset(ins={"things": dg.AssetIn(key=["bronze", "things"])})
    def reader(things: pa.Table) -> None: ...

    defs = definitions(silver, bronze, asset_of(["gold"]), taken, reader, schema="pr_1")
    for key in (["silver", "things"], ["bronze", "things"], ["reader"]):
        problem = problem_of(defs, run, key)
        assert "Assets bronze/things, silver/things would share table pr_1.things" in problem
        assert '{"dagster/table_name": "pr_1.' in problem
    assert run.execute("SELECT to_regnamespace('pr_1')") == [(None,)]
    assert problem_of(defs, run, ["gold"]) == ""
    apart = definitions(
        silver, asset_of(["bronze", "things"], **{"dagster/table_name": "pr_1.raw"}), schema="pr_1"
    )
    assert problem_of(apart, run, ["bronze", "things"]) == ""


def test_an_asset_that_stores_nothing_has_no_table(run: Run) -> None:
    @dg.asset(key=["bronze", "things"])
    def bronze() -> None: ...

    @dg.multi_asset(specs=[dg.AssetSpec(["gold", "things"])])
    def gold() -> Any:
        yield dg.MaterializeResult(asset_key=["gold", "things"])

    defs = definitions(
        asset_of(["silver", "things"]), bronze, gold, dg.AssetSpec(["raw", "things"]), schema="pr_1"
    )
    assert problem_of(defs, run, ["silver", "things"]) == ""


def test_assets_of_another_io_manager_have_tables_of_their_own(run: Run) -> None:
    @dg.asset(key=["bronze", "things"], io_manager_key="other")
    def bronze() -> pa.Table:
        return pa.table({"n": [1]})

    defs = dg.Definitions(
        assets=[asset_of(["silver", "things"]), bronze],
        resources={
            "io_manager": LakebaseIOManager(lakebase=LakebaseResource(), schema="pr_1"),
            "other": LakebaseIOManager(lakebase=LakebaseResource(), schema="io_other"),
        },
    )
    for key in (["silver", "things"], ["bronze", "things"]):
        assert problem_of(defs, run, key) == ""


def test_the_table_that_is_suggested_is_nobodys(run: Run) -> None:
    both = {"dagster/table_name": "public.same2"}
    defs = definitions(asset_of(["same2"], **both), asset_of(["other"], **both), asset_of(["same2_table"]))
    problem = problem_of(defs, run, ["same2"])
    assert "Assets other, same2 would share table public.same2" in problem
    assert '"public.same2_2"' in problem


def test_another_database_is_refused_by_all(run: Run, tmp_path: Path) -> None:
    elsewhere, here = "warehouse2.io.orders", "databricks_postgres.io.orders"
    told = "database 'warehouse2', and the connection leads to database 'databricks_postgres'"

    @dg.asset
    def taken(orders: pa.Table) -> None: ...

    def problems(name: str) -> list[str]:
        made = asset_of(["orders"], **{"dagster/table_name": name})
        spec = dg.AssetSpec("orders", metadata={"dagster/table_name": name})
        statement = LakebaseSqlComponent(sql="SELECT 1", assets=[spec])
        files = LakebaseLoadComponent(source=str(tmp_path / "*.csv"), asset=spec, allow_no_files=True)
        resources = {"lakebase": LakebaseResource()}
        component_defs = [
            one.build_defs(dg.ComponentTree.for_test().load_context) for one in (statement, files)
        ]
        observed = build_lakebase_table_observation([spec])
        return [
            problem_of(definitions(made), run, ["orders"]),
            problem_of(definitions(spec, taken), run, ["taken"]),
            *(
                problem_of(dg.Definitions(assets=one.assets, resources=resources), run, ["orders"])
                for one in component_defs
            ),
            problem_of(dg.Definitions(assets=[observed], resources=resources), run, ["orders"]),
        ]

    assert all(told in problem for problem in problems(elsewhere)), problems(elsewhere)
    assert problems(here) == [""] * 5


def test_an_io_manager_without_a_connection_says_so(run: Run) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 # Dagster wraps it
        dg.materialize(
            [asset_of(["x"])], resources={"io_manager": LakebaseIOManager()}, instance=run.instance
        )
    assert any("LakebaseIOManager has no connection" in str(e) for e in causes(caught.value))


def test_one_name_is_no_list_of_assets() -> None:
    for build in (build_lakebase_table_observation, build_lakebase_table_observation_sensor):
        with pytest.raises(dg.DagsterInvalidDefinitionError, match=r"list of assets: \['public.sc'\]"):
            build("public.sc")


@pytest.mark.parametrize("name", ["dagster/table_name", "schema", "table"])
def test_a_name_that_is_no_text_is_named_for_an_op(run: Run, name: str) -> None:
    @dg.op(out=dg.Out(metadata={name: 5}))
    def made() -> pa.Table:
        return pa.table({"n": [7]})

    @dg.job(resource_defs={"io_manager": LakebaseIOManager(lakebase=LakebaseResource())})
    def job() -> None:
        made()

    with pytest.raises(Exception) as caught:  # noqa: PT011 # Dagster wraps it or does not
        job.execute_in_process(instance=run.instance)
    assert any(
        isinstance(e, dg.DagsterInvalidDefinitionError) and name in str(e) for e in causes(caught.value)
    )
