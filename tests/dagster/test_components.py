from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster.components.testing.utils import DefsFolderSandbox, create_defs_folder_sandbox

from dagster_lakebase import (
    LakebaseConnectionComponent,
    LakebaseHealthComponent,
    LakebaseObservationComponent,
    LakebaseResource,
    LakebaseSqlComponent,
)
from lakebase_provider.core.config import settings
from lakebase_provider.local import LocalLakebase
from tests.dagster.runs import open_connections
from tests.eventually import eventually

# Dagster's own loader of YAML uses what Dagster calls unfinished, and what pydantic has renamed.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.parse_obj_as. is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.* is currently in beta:dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore:.* is currently in preview:dagster.PreviewWarning"),
]


@pytest.fixture
def sandbox() -> Iterator[DefsFolderSandbox]:
    with create_defs_folder_sandbox() as sandbox:
        write(sandbox, "lakebase", LakebaseConnectionComponent, {})
        yield sandbox


@pytest.fixture
def table(lake: LocalLakebase) -> Iterator[LocalLakebase]:
    lake.admin.execute("DROP SCHEMA IF EXISTS components CASCADE")
    lake.admin.execute(f'CREATE SCHEMA components AUTHORIZATION "{lake.client_id}"')
    lake.admin.execute("CREATE TABLE components.sales (day timestamptz, region text, amount int)")
    lake.admin.execute(f'ALTER TABLE components.sales OWNER TO "{lake.client_id}"')
    yield lake
    lake.admin.execute("DROP SCHEMA components CASCADE")


def write(sandbox: DefsFolderSandbox, path: str, component: type, attributes: dict[str, Any]) -> None:
    folder = sandbox.defs_folder_path / path
    folder.mkdir(parents=True, exist_ok=True)
    content = {"type": f"dagster_lakebase.{component.__name__}", "attributes": attributes}
    (folder / "defs.yaml").write_text(yaml.safe_dump(content))


def write_sql(
    sandbox: DefsFolderSandbox, sql: Any, *, asset: dict[str, Any] | None = None, **more: Any
) -> None:
    assets = [{"key": "sales", **(asset or {})}]
    write(sandbox, "sales", LakebaseSqlComponent, {"sql": sql, "assets": assets, **more})


@contextlib.contextmanager
def loaded(sandbox: DefsFolderSandbox) -> Iterator[dg.Definitions]:
    with sandbox.build_all_defs() as defs:
        yield defs


def run(sandbox: DefsFolderSandbox, partition: Any = None, tags: Any = None) -> dg.ExecuteInProcessResult:
    with loaded(sandbox) as defs, dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            instance=instance, partition_key=partition, tags=tags, raise_on_error=False
        )


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return str(event.step_failure_data.error)


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    assert result.success, [str(e.step_failure_data.error) for e in result.all_events if e.is_step_failure]
    (event,) = result.get_asset_materialization_events()
    return {key: value.value for key, value in event.materialization.metadata.items()}


def problem_of(sandbox: DefsFolderSandbox) -> str:
    with pytest.raises(Exception, match=r".") as caught, loaded(sandbox):
        pass
    chain: list[str] = []
    step: BaseException | None = caught.value
    while step is not None:
        chain.append(str(step))
        step = step.__cause__ or step.__context__
    return "\n".join(chain)


def sales(lake: LocalLakebase) -> list[tuple[Any, ...]]:
    return lake.admin.execute("SELECT day::date::text, region, amount FROM components.sales ORDER BY 1, 2, 3")


def test_the_connection_has_every_setting() -> None:
    rows = {row.name: row for row in settings()}
    schema = LakebaseConnectionComponent.get_model_cls().model_json_schema()["properties"]
    assert set(schema) == {*rows, "resource_key", "branch_deployments"}
    for name, row in rows.items():
        assert schema[name]["description"].startswith(row.description)


def test_the_connection_binds_the_resource(lake: LocalLakebase) -> None:
    with create_defs_folder_sandbox() as sandbox:
        write(
            sandbox,
            "reports",
            LakebaseConnectionComponent,
            {
                "resource_key": "reports",
                "database": "databricks_postgres",
                "max_size": 2,
                "client_secret": {"env": "DATABRICKS_CLIENT_SECRET"},
            },
        )
        with loaded(sandbox) as defs:
            resource = (defs.resources or {})["reports"]
    assert isinstance(resource, LakebaseResource)
    assert (resource.max_size, resource.client_secret) == (2, dg.EnvVar("DATABRICKS_CLIENT_SECRET"))
    assert resource.health(["login"]).ok


@pytest.mark.parametrize("secret", ["canary", "{{ env.CANARY_VARIABLE }}"])
def test_a_secret_as_text_is_refused(sandbox: DefsFolderSandbox, monkeypatch: Any, secret: str) -> None:
    monkeypatch.setenv("CANARY_VARIABLE", "canary")
    write(sandbox, "lakebase", LakebaseConnectionComponent, {"client_secret": secret})
    problem = problem_of(sandbox)
    assert "client_secret: {env: DATABRICKS_CLIENT_SECRET}" in problem


def test_dagsters_own_sql_component_runs_on_it(table: LocalLakebase, sandbox: DefsFolderSandbox) -> None:
    folder = sandbox.defs_folder_path / "templated"
    folder.mkdir()
    content = {
        "type": "dagster.TemplatedSqlComponent",
        "attributes": {
            "connection": "{{ context.load_component('lakebase') }}",
            "sql_template": "INSERT INTO components.sales (amount) VALUES (7)",
            "assets": [{"key": "sales"}],
        },
    }
    (folder / "defs.yaml").write_text(yaml.safe_dump(content))
    assert run(sandbox).success
    assert table.admin.execute("SELECT amount FROM components.sales") == [(7,)]
    # It knows of no resource's end, so nothing may stay open for one.
    eventually(lambda: open_connections(table) == 0)


def test_values_are_bound_and_rows_counted(table: LocalLakebase, sandbox: DefsFolderSandbox) -> None:
    write_sql(
        sandbox,
        "DELETE FROM components.sales;"
        " INSERT INTO components.sales SELECT now(), %(region)s, n FROM unnest(%(amounts)s) n;"
        " UPDATE components.sales SET amount = amount + 1 WHERE amount > %(least)s",
        parameters={"region": "'; DROP TABLE components.sales; --", "amounts": [1, 2, 3], "least": 1},
        asset={"metadata": {"dagster/table_name": "components.sales"}},
        count_rows=True,
    )
    values = metadata_of(run(sandbox))
    assert values["lakebase/rows_affected"] == 5
    assert values["dagster/row_count"] == 3
    assert [column.name for column in values["dagster/column_schema"].columns] == ["day", "region", "amount"]
    assert {row[1] for row in sales(table)} == {"'; DROP TABLE components.sales; --"}


def test_a_file_of_sql_and_a_per_cent_sign(table: LocalLakebase, sandbox: DefsFolderSandbox) -> None:
    write_sql(sandbox, {"path": "sales.sql"})
    (sandbox.defs_folder_path / "sales" / "sales.sql").write_text(
        "CREATE TABLE components.copy AS SELECT 1 AS n WHERE 'abc' LIKE 'a%'"
    )
    values = metadata_of(run(sandbox))
    assert values["lakebase/rows_affected"] == 1


def test_a_failure_leaves_everything_as_it_was(table: LocalLakebase, sandbox: DefsFolderSandbox) -> None:
    table.admin.execute("INSERT INTO components.sales (amount) VALUES (1)")
    write_sql(sandbox, "DELETE FROM components.sales; SELECT 1 / 0")
    result = run(sandbox)
    assert not result.success
    assert table.admin.execute("SELECT amount FROM components.sales") == [(1,)]
    eventually(lambda: open_connections(table) == 0)


REPLACE_DAY = """
    DELETE FROM components.sales WHERE day >= %(partition_start)s AND day < %(partition_end)s;
    INSERT INTO components.sales VALUES (%(partition_start)s, %(partition_key)s, 1);
"""


def test_partitions_by_time(table: LocalLakebase, sandbox: DefsFolderSandbox) -> None:
    daily = {"type": "daily", "start_date": "2026-03-01", "timezone": "America/New_York"}
    write_sql(sandbox, REPLACE_DAY, asset={"partitions_def": daily})
    for _ in range(2):
        # The day on which the clock is turned forward has 23 hours.
        assert metadata_of(run(sandbox, "2026-03-08"))["lakebase/rows_affected"] >= 1
        assert metadata_of(run(sandbox, "2026-03-09"))["lakebase/rows_affected"] >= 1
    assert [row[1:] for row in sales(table)] == [("2026-03-08", 1), ("2026-03-09", 1)]
    hours = "SELECT extract(epoch FROM max(day) - min(day)) / 3600 FROM components.sales"
    assert table.admin.execute(hours) == [(23,)]


def test_static_partitions(table: LocalLakebase, sandbox: DefsFolderSandbox) -> None:
    static = {"type": "static", "partition_keys": ["north", "o'south"]}
    write_sql(
        sandbox,
        "INSERT INTO components.sales (region, amount) SELECT k, 1 FROM unnest(%(partition_keys)s::text[]) k",
        asset={"partitions_def": static},
    )
    assert metadata_of(run(sandbox, "o'south"))["lakebase/rows_affected"] == 1
    assert table.admin.execute("SELECT region FROM components.sales") == [("o'south",)]


def test_multi_partitions(table: LocalLakebase) -> None:
    partitions = dg.MultiPartitionsDefinition(
        {
            "day": dg.DailyPartitionsDefinition("2026-01-01"),
            "region": dg.StaticPartitionsDefinition(["north", "south"]),
        }
    )
    component = LakebaseSqlComponent(
        sql="INSERT INTO components.sales SELECT %(partition_start)s, %(partition_region)s, 1"
        " WHERE %(partition_day)s::date = (%(partition_end)s::timestamptz AT TIME ZONE 'UTC')::date - 1",
        assets=[dg.AssetSpec("sales", partitions_def=partitions)],
    )
    defs = dg.Definitions.merge(
        component.build_defs(dg.ComponentTree.for_test().load_context),
        dg.Definitions(resources={"lakebase": LakebaseResource()}),
    )
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance, partition_key=dg.MultiPartitionKey({"day": "2026-01-05", "region": "south"})
        )
    assert metadata_of(result)["lakebase/rows_affected"] == 1
    assert sales(table) == [("2026-01-05", "south", 1)]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"sql": "  \n"}, "sql is empty"),
        ({"sql": {"path": "absent.sql"}}, "sql.path is not a file: 'absent.sql'"),
        ({"sql": "SELECT 1", "assets": []}, "assets is empty"),
        ({"sql": "SELECT 1", "parameters": {"partition_key": "x"}}, "are reserved for the partition"),
        ({"sql": "SELECT 1", "parameters": {"order": {"id": 1}}}, "%(order)s::jsonb"),
        ({"sql": "SELECT 1", "connection": "{{ 3 }}"}, "connection is a int"),
        (
            {"sql": "SELECT 1; -- COMMIT\ncommit"},
            "sql: statement 2 is COMMIT, which would end the transaction",
        ),
        ({"sql": "BEGIN; SELECT 1; END"}, "statement 3 is END"),
        ({"sql": "SAVEPOINT a; ROLLBACK TO a; ROLLBACK WORK"}, "statement 3 is ROLLBACK"),
        ({"sql": "SELECT 1", "assets": [{"key": "a", "metadata": {"dagster/table_name": 5}}]}, "is 5. Use"),
    ],
)
def test_what_cannot_run_is_refused_when_it_is_loaded(
    sandbox: DefsFolderSandbox, attributes: dict[str, Any], message: str
) -> None:
    write(sandbox, "sales", LakebaseSqlComponent, {"assets": [{"key": "sales"}], **attributes})
    assert message in problem_of(sandbox)


STATIC = {"type": "static", "partition_keys": ["north", "south"]}


def test_what_is_scaffolded_runs_once_its_asset_is_partitioned(
    lake: LocalLakebase, sandbox: DefsFolderSandbox
) -> None:
    folder = sandbox.scaffold_component(component_cls=LakebaseSqlComponent, defs_path="made")
    content = yaml.safe_load((folder / "defs.yaml").read_text())
    content["attributes"]["assets"][0]["partitions_def"] = STATIC
    (folder / "defs.yaml").write_text(yaml.safe_dump(content))
    assert metadata_of(run(sandbox, "north"))["lakebase/rows_affected"] == 0


@pytest.mark.parametrize("parameters", [{}, {"region": "it's"}])
def test_comments_quotes_and_percent_signs_ask_for_no_value(
    table: LocalLakebase, sandbox: DefsFolderSandbox, parameters: dict[str, Any]
) -> None:
    write_sql(
        sandbox,
        """
        -- %(absent)s, and 100 %
        /* %(absent)s /* %s */ */
        CREATE TABLE components."%(absent)s" AS SELECT '%(absent)s, 50%' AS t, 7 % 4 AS n
        WHERE 'abc' LIKE 'a%' AND %(partition_key)s = 'north' AND $$%(absent)s$$ <> 'x'
        """,
        parameters=parameters,
        asset={"partitions_def": STATIC},
    )
    assert metadata_of(run(sandbox, "north"))["lakebase/rows_affected"] == 1
    rows = table.admin.execute('SELECT * FROM components."%(absent)s"')
    assert rows == [("%(absent)s, 50%", 3)]


@pytest.mark.parametrize(
    ("attributes", "given"),
    [
        ({"parameters": {"present": 1, "region": "x"}}, "There are: 'present', 'region'."),
        ({}, "There are: none."),
        (
            {"assets": [{"key": "sales", "partitions_def": STATIC}]},
            "There are: 'partition_key', 'partition_keys'.",
        ),
    ],
)
def test_a_missing_parameter_is_named_with_its_file_when_it_is_loaded(
    sandbox: DefsFolderSandbox, attributes: dict[str, Any], given: str
) -> None:
    write_sql(sandbox, {"path": "sales.sql"}, **attributes)
    (sandbox.defs_folder_path / "sales" / "sales.sql").write_text("SELECT %(absent)s")
    problem = problem_of(sandbox)
    assert "sales/sales.sql: Parameter missing: %(absent)s." in problem
    assert given in problem


def test_what_only_a_single_partition_gives_is_named(
    table: LocalLakebase, sandbox: DefsFolderSandbox
) -> None:
    write_sql(sandbox, {"path": "sales.sql"}, asset={"partitions_def": STATIC})
    (sandbox.defs_folder_path / "sales" / "sales.sql").write_text("SELECT %(partition_key)s")
    tags = {
        "dagster/asset_partition_range_start": "north",
        "dagster/asset_partition_range_end": "south",
    }
    problem = failure_of(run(sandbox, tags=tags))
    assert "sales/sales.sql: Parameter missing: %(partition_key)s. There are: 'partition_keys'." in problem
    assert "Materialize one partition" in problem


def test_a_value_that_would_not_get_into_its_quotes_is_an_error(
    table: LocalLakebase, sandbox: DefsFolderSandbox
) -> None:
    write_sql(sandbox, "SELECT '%(days)s days'", parameters={"days": 3})
    assert "sql: A placeholder is inside quotes (days)" in failure_of(run(sandbox))


def test_a_named_table_that_the_sql_did_not_make_is_an_error(
    table: LocalLakebase, sandbox: DefsFolderSandbox
) -> None:
    write_sql(
        sandbox,
        "INSERT INTO components.sales (amount) VALUES (1)",
        asset={"metadata": {"dagster/table_name": "components.Sales"}},
    )
    problem = failure_of(run(sandbox))
    assert "there is no table components" in problem
    assert "There is a table components.sales" in problem
    assert sales(table) == []
    eventually(lambda: open_connections(table) == 0)


def test_a_step_is_named_after_its_asset_and_its_sql_is_shown(
    table: LocalLakebase, sandbox: DefsFolderSandbox
) -> None:
    write_sql(sandbox, {"path": "some.sql"}, asset={"key": "shop/sales-2"})
    (sandbox.defs_folder_path / "sales" / "some.sql").write_text("SELECT 1 -- not much\n")
    write(
        sandbox,
        "several",
        LakebaseSqlComponent,
        {"sql": "SELECT 2", "assets": [{"key": "b"}, {"key": "shop/a"}]},
    )
    with loaded(sandbox) as defs:
        names = {asset.op.name for asset in defs.resolve_asset_graph().assets_defs}
        spec = defs.resolve_asset_graph().get(dg.AssetKey(["shop", "sales-2"]))
    assert {re.sub("_[0-9a-f]{8}$", "", name) for name in names} == {"shop__sales_2", "b_and_1_more"}
    assert spec.metadata["lakebase/sql"].value == "```sql\nSELECT 1 -- not much\n```"
    assert spec.metadata["lakebase/sql_file"].endswith("defs/sales/some.sql")
    assert not spec.metadata["lakebase/sql_file"].startswith("/")
    result = run(sandbox)
    values = [
        event.materialization.metadata["lakebase/sql"].value
        for event in result.get_asset_materialization_events()
        if event.materialization.asset_key == dg.AssetKey("b")
    ]
    assert values == ["```sql\nSELECT 2\n```"]


def test_health_in_yaml(lake: LocalLakebase, sandbox: DefsFolderSandbox) -> None:
    write_sql(sandbox, "SELECT 1")
    write(
        sandbox,
        "health",
        LakebaseHealthComponent,
        {
            "connection": "{{ context.load_component('lakebase') }}",
            "assets": ["sales"],
            "limits": {"max_connections_used": 0.9},
            "sensor_interval_seconds": 600,
        },
    )
    result = run(sandbox)
    (evaluation,) = result.get_asset_check_evaluations()
    assert (evaluation.check_name, evaluation.passed) == ("lakebase_health", True)
    with loaded(sandbox) as defs:
        sensor = defs.resolve_sensor_def("lakebase_health_sensor")
    assert sensor.minimum_interval_seconds == 600


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"checks": ["pign"]}, "Unknown health check 'pign'"),
        ({"limits": {"max_connections_used": 90}}, "is above 1"),
        ({"assets": []}, "no assets"),
    ],
)
def test_health_that_cannot_be_checked_is_refused(
    sandbox: DefsFolderSandbox, attributes: dict[str, Any], message: str
) -> None:
    write(sandbox, "health", LakebaseHealthComponent, {"assets": ["sales"], **attributes})
    assert message in problem_of(sandbox)


def test_observation_in_yaml(table: LocalLakebase, sandbox: DefsFolderSandbox) -> None:
    table.admin.execute("INSERT INTO components.sales VALUES ('2026-01-01Z', 'north', 1)")
    write(
        sandbox,
        "observation",
        LakebaseObservationComponent,
        {
            "connection": "{{ context.load_component('lakebase') }}",
            "assets": [{"key": "sold", "metadata": {"dagster/table_name": "components.sales"}}],
            "materialized_assets": ["components/sales"],
            "rows": "count",
            "timestamp_column": "day",
            "cron_schedule": "@hourly",
            "sensor_interval_seconds": 600,
            "name": "shop",
        },
    )
    with loaded(sandbox) as defs, dg.DagsterInstance.ephemeral() as instance:
        schedule = defs.resolve_schedule_def("shop_schedule")
        assert (schedule.cron_schedule, schedule.job_name) == ("@hourly", "shop_job")
        result = defs.resolve_job_def("shop_job").execute_in_process(instance=instance)
        sensor = defs.resolve_sensor_def("shop_sensor")
        assert sensor.minimum_interval_seconds == 600
        with dg.build_sensor_context(
            instance=instance, definitions=defs, resources={"lakebase": LakebaseResource()}
        ) as context:
            (of_sensor,) = sensor.evaluate_tick(context).asset_events
    (event,) = result.get_asset_observation_events()
    of_schedule = event.asset_observation_data.asset_observation
    assert "dagster/data_version" in (of_schedule.tags or {})
    for observation, key in ((of_schedule, "sold"), (of_sensor, "components/sales")):
        assert observation.asset_key.to_user_string() == key
        assert observation.metadata["dagster/row_count"].value == 1
        assert observation.metadata["dagster/last_updated_timestamp"].value == 1767225600


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "materialized_assets"),
        ({"assets": [{"key": "sales"}], "rows": "exact"}, "rows"),
        (
            {"assets": [{"key": "s", "metadata": {"dagster/table_name": "a..b"}}]},
            "dagster/table_name of asset s",
        ),
    ],
)
def test_an_observation_that_cannot_be_is_refused(
    sandbox: DefsFolderSandbox, attributes: dict[str, Any], message: str
) -> None:
    write(sandbox, "observation", LakebaseObservationComponent, attributes)
    assert message in problem_of(sandbox)


@pytest.mark.parametrize(
    "component", [LakebaseSqlComponent, LakebaseHealthComponent, LakebaseObservationComponent]
)
def test_what_is_scaffolded_loads(component: type, tmp_path: Path) -> None:
    with create_defs_folder_sandbox() as sandbox:
        sandbox.scaffold_component(component_cls=component, defs_path="made")
        sandbox.scaffold_component(component_cls=LakebaseConnectionComponent, defs_path="lakebase")
        with loaded(sandbox) as defs:
            assert isinstance((defs.resources or {})["lakebase"], LakebaseResource)
