from __future__ import annotations

import re
from contextlib import suppress
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster.components.lib.sql_component.sql_client import SQLClient
from dagster_shared.libraries import DagsterLibraryRegistry
from psycopg.pq import TransactionStatus
from pydantic import ValidationError
from sqlalchemy import text

import dagster_lakebase
import lakebase_provider
from dagster_lakebase import LakebaseResource
from dagster_lakebase.resource.step_name import step_name
from lakebase_provider.core import LakebaseConfig
from lakebase_provider.core.config import settings
from lakebase_provider.core.errors import ConfigError, LoadError, NotAuthenticatedError, TableNotFoundError
from lakebase_provider.local import LocalLakebase
from tests.dagster.runs import causes, materialize, open_connections
from tests.eventually import eventually

ENDPOINT = "projects/p/branches/b/endpoints/e"
KINDS = {"string": str | None, "secret": str | None, "integer": int | None, "number": float | None}


def test_public_names() -> None:
    assert dagster_lakebase.__all__ == [
        "LakebaseBranchComponent",
        "LakebaseBranchDeployment",
        "LakebaseConnectionComponent",
        "LakebaseCreateBranchConfig",
        "LakebaseDeleteBranchConfig",
        "LakebaseHealthCheckConfig",
        "LakebaseHealthComponent",
        "LakebaseIOManager",
        "LakebaseIOManagerComponent",
        "LakebaseLoadComponent",
        "LakebaseMaintenanceComponent",
        "LakebaseMaintenanceConfig",
        "LakebaseMigrationComponent",
        "LakebaseMigrationConfig",
        "LakebaseObservationComponent",
        "LakebaseRehearsalComponent",
        "LakebaseRehearseConfig",
        "LakebaseResource",
        "LakebaseRestoreComponent",
        "LakebaseRestoreRowsConfig",
        "LakebaseSqlComponent",
        "LakebaseSweepBranchesConfig",
        "LakebaseSyncConfig",
        "LakebaseSyncedTableComponent",
        "LakebaseUnloadComponent",
        "build_lakebase_failure_hook",
        "build_lakebase_health_checks",
        "build_lakebase_health_sensor",
        "build_lakebase_inspection_checks",
        "build_lakebase_maintenance_job",
        "build_lakebase_migration_asset",
        "build_lakebase_mirror_checks",
        "build_lakebase_rehearsal_asset",
        "build_lakebase_sweep_sensor",
        "build_lakebase_sync_asset",
        "build_lakebase_sync_checks",
        "build_lakebase_synced_table_observation",
        "build_lakebase_table_observation",
        "build_lakebase_table_observation_sensor",
        "lakebase_create_branch_op",
        "lakebase_delete_branch_op",
        "lakebase_health_check_op",
        "lakebase_maintenance_op",
        "lakebase_rehearse_op",
        "lakebase_restore_point_op",
        "lakebase_restore_rows_op",
        "lakebase_sweep_branches_op",
        "lakebase_sync_op",
        "validate_table_owners",
    ]
    for name in dagster_lakebase.__all__:
        assert hasattr(dagster_lakebase, name)


def test_library_is_registered() -> None:
    assert DagsterLibraryRegistry.get()["dagster-lakebase"] == lakebase_provider.__version__
    assert LakebaseResource._is_dagster_maintained() is False


def test_fields_are_the_table() -> None:
    fields = LakebaseResource.model_fields
    assert list(fields) == [row.name for row in settings()]
    for row in settings():
        field = fields[row.name]
        assert field.default is None
        assert field.annotation == KINDS[row.kind]
        assert field.description is not None
        assert field.description.startswith(row.description)
        for source in (*row.env, *([str(row.default)] if row.default is not None else [])):
            assert source in field.description


def test_secret_fields_are_marked_in_the_schema_that_dagster_shows() -> None:
    shape = LakebaseResource.to_config_schema().as_field().config_type
    assert isinstance(shape, dg.Shape)
    assert {name for name, field in shape.fields.items() if field.is_secret} == {
        row.name for row in settings() if row.kind == "secret"
    }


def test_without_fields_it_reads_the_documented_variables(
    lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGAPPNAME", "by variable")
    config = LakebaseResource().lakebase_config
    assert config == LakebaseConfig.from_env()
    assert config.application_name == "by variable"


def test_a_field_takes_precedence_over_its_variable(
    lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGDATABASE", "by_variable")
    resource = LakebaseResource(database="by_field", max_size=2)
    assert resource.lakebase_config == LakebaseConfig.from_env(database="by_field", max_size=2)


def test_an_empty_field_counts_as_left_out(lakebase_env: LocalLakebase) -> None:
    assert LakebaseResource(user="").lakebase_config == LakebaseConfig.from_env()


@pytest.mark.parametrize("name", ["branch", "endpoint", "host"])
def test_but_not_an_empty_place_which_would_be_production(lakebase_env: LocalLakebase, name: str) -> None:
    with pytest.raises(ConfigError, match=f"The {name} is empty"):
        _ = LakebaseResource(**{name: ""}).lakebase_config  # type: ignore[arg-type] # a text each


def test_env_vars_are_read_in_a_script_too(
    lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEAM_SECRET", "team-canary")
    monkeypatch.setenv("TEAM_PORT", "6543")
    resource = LakebaseResource(client_secret=dg.EnvVar("TEAM_SECRET"), port=dg.EnvVar.int("TEAM_PORT"))
    config = resource.lakebase_config
    assert config.client_secret is not None
    assert config.client_secret.reveal() == "team-canary"
    assert config.port == 6543


def test_env_vars_are_read_in_a_run(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_SECRET", lake.client_secret)
    monkeypatch.setenv("TEAM_PORT", str(lake.port))
    monkeypatch.delenv("DATABRICKS_CLIENT_SECRET")
    monkeypatch.delenv("PGPORT")

    @dg.asset
    def reader(lakebase: LakebaseResource) -> None:
        with lakebase.get_connection() as conn:
            assert conn.execute("SELECT current_user").fetchone() == (lake.client_id,)

    resource = LakebaseResource(client_secret=dg.EnvVar("TEAM_SECRET"), port=dg.EnvVar.int("TEAM_PORT"))
    assert materialize([reader], resources={"lakebase": resource}).success


def test_a_misspelt_field_is_refused_without_showing_its_value() -> None:
    with pytest.raises(ValidationError) as caught:
        LakebaseResource(clientsecret="canary")  # type: ignore[call-arg] # the point of the test
    assert "clientsecret" in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "absent", "problem", "remedy"),
    [
        ({"endpoint": "my-endpoint"}, [], "'endpoint' is 'my-endpoint'", "projects/<project>/branches/"),
        ({"endpoint": ENDPOINT, "instance": "i"}, [], "'endpoint' and 'instance'", "Keep 'endpoint'"),
        ({}, ["ENDPOINT_NAME", "LAKEBASE_ENDPOINT"], "'endpoint' is missing", "Set it to projects/"),
        (
            {},
            ["DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET"],
            "'client_id' and 'client_secret' are missing",
            "Set client_id and client_secret",
        ),
        ({"sslmode": "prefer"}, [], "'sslmode' is 'prefer'", "verify-full"),
        ({"host": "db.example.com"}, [], "'host' is 'db.example.com'", "LAKEBASE_ALLOWED_HOST_SUFFIXES"),
        ({"max_size": 0}, [], "'max_size' is 0", "at least 1"),
    ],
)
def test_bad_settings_fail_before_any_network_call(
    lake: LocalLakebase,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fields: dict[str, Any],
    absent: list[str],
    problem: str,
    remedy: str,
) -> None:
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "absent"))
    for name in absent:
        monkeypatch.delenv(name)

    @dg.asset
    def reader(lakebase: LakebaseResource) -> None:
        raise AssertionError("the body must not run")

    with pytest.raises(dg.DagsterError) as caught:
        materialize([reader], resources={"lakebase": LakebaseResource(**fields)})
    (error,) = [step for step in causes(caught.value) if isinstance(step, ConfigError)]
    assert problem in error.message
    assert remedy in error.remedy
    assert lake.admin.requests() == []


def test_a_connection_commits(lake: LocalLakebase) -> None:
    @dg.asset
    def writer(lakebase: LakebaseResource) -> None:
        with lakebase.get_connection() as conn:
            conn.execute("DROP TABLE IF EXISTS dagster_commits")
            conn.execute("CREATE TABLE dagster_commits AS SELECT 1 AS n")

    assert materialize([writer], resources={"lakebase": LakebaseResource()}).success
    assert lake.admin.execute("SELECT n FROM dagster_commits") == [(1,)]


def test_a_body_that_raises_rolls_back_and_leaks_nothing(lake: LocalLakebase) -> None:
    lake.admin.execute("DROP TABLE IF EXISTS dagster_rolls_back")
    during: list[dict[str, int]] = []

    @dg.asset
    def writer(lakebase: LakebaseResource) -> None:
        try:
            with lakebase.get_connection() as conn:
                conn.execute("CREATE TABLE dagster_rolls_back (n int)")
                raise ZeroDivisionError
        finally:
            during.append(lakebase.client.pool.get_stats())

    result = materialize([writer], resources={"lakebase": LakebaseResource()}, raise_on_error=False)
    assert not result.success
    assert during[0]["pool_size"] == during[0]["pool_available"] == 1
    eventually(lambda: open_connections(lake) == 0)
    assert lake.admin.execute("SELECT to_regclass('dagster_rolls_back')") == [(None,)]


def test_ten_connections_of_a_step_are_one_login_and_one_mint(lake: LocalLakebase) -> None:
    @dg.asset
    def reader(lakebase: LakebaseResource) -> None:
        for _ in range(10):
            with lakebase.get_connection() as conn:
                conn.execute("SELECT 1")
        assert lakebase.client.stats().checkouts == 10

    assert materialize([reader], resources={"lakebase": LakebaseResource()}).success
    counters = lake.admin.counters()
    assert (counters.logins, counters.mints) == (1, 1)


class Nested(dg.ConfigurableResource["Nested"]):
    lakebase: LakebaseResource

    def backend(self) -> int:
        with self.lakebase.get_connection() as conn:
            return conn.info.backend_pid


# Dagster calls its own deprecated method when it sets up a nested resource.
@pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")
def test_nested_and_top_level_instances_share_a_pool(lake: LocalLakebase) -> None:
    @dg.asset
    def reader(lakebase: LakebaseResource, nested: Nested) -> None:
        assert nested.lakebase is not lakebase
        assert nested.lakebase.client is lakebase.client
        with lakebase.get_connection() as conn:
            own = conn.info.backend_pid
        assert nested.backend() == own

    resources = {
        "lakebase": LakebaseResource(),
        "nested": Nested(lakebase=LakebaseResource()),
    }
    assert materialize([reader], resources=resources).success
    assert lake.admin.counters().logins == 1


def test_the_last_to_leave_closes_the_pool(lake: LocalLakebase) -> None:
    with dg.build_resources({"a": LakebaseResource()}) as outer:
        with dg.build_resources({"b": LakebaseResource()}) as inner:
            with inner.b.get_connection() as conn:
                conn.execute("SELECT 1")
            engine = inner.b.get_engine()
            assert outer.a.get_engine() is engine
        with outer.a.get_connection() as conn:
            conn.execute("SELECT 1")
        assert open_connections(lake) == 1
    eventually(lambda: open_connections(lake) == 0)
    assert lake.admin.counters().logins == 1


def test_resources_with_other_settings_do_not_share(lake: LocalLakebase) -> None:
    resources = {"a": LakebaseResource(), "b": LakebaseResource(statement_timeout=5)}
    with dg.build_resources(resources) as built:
        assert built.a.client is not built.b.client
        with built.b.get_connection() as conn:
            assert conn.execute("SHOW statement_timeout").fetchone() == ("5s",)


def test_the_next_run_logs_in_without_minting(lake: LocalLakebase) -> None:
    @dg.asset
    def reader(lakebase: LakebaseResource) -> None:
        with lakebase.get_connection() as conn:
            conn.execute("SELECT 1")

    for logins in (1, 2):
        assert materialize([reader], resources={"lakebase": LakebaseResource()}).success
        counters = lake.admin.counters()
        assert (counters.logins, counters.mints) == (logins, 1)
        eventually(lambda: open_connections(lake) == 0)


def test_a_refused_token_is_renewed_between_runs(lake: LocalLakebase) -> None:
    @dg.asset
    def reader(lakebase: LakebaseResource) -> None:
        with lakebase.get_connection() as conn:
            conn.execute("SELECT 1")

    assert materialize([reader], resources={"lakebase": LakebaseResource()}).success
    lake.admin.expire_tokens()
    assert materialize([reader], resources={"lakebase": LakebaseResource()}).success
    assert lake.admin.counters().mints == 2


def test_the_engine_works_and_is_disposed_of(lake: LocalLakebase) -> None:
    @dg.asset
    def writer(lakebase: LakebaseResource) -> None:
        engine = lakebase.get_engine()
        assert engine is lakebase.get_engine()
        assert engine.pool.size() == 2  # type: ignore[attr-defined] # QueuePool's, which is the default
        assert engine.url.password is None
        with engine.begin() as conn:
            conn.execute(text("DROP TABLE IF EXISTS dagster_engine"))
            conn.execute(text("CREATE TABLE dagster_engine AS SELECT 2 AS n"))
        assert open_connections(lake) == 1

    assert materialize([writer], resources={"lakebase": LakebaseResource(max_size=2)}).success
    assert lake.admin.execute("SELECT n FROM dagster_engine") == [(2,)]
    eventually(lambda: open_connections(lake) == 0)


def test_outside_of_a_run_it_works_as_it_is(lake: LocalLakebase) -> None:
    lakebase = LakebaseResource()
    with lakebase.get_connection() as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    engine = lakebase.get_engine()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    engine.dispose()
    assert lakebase.health().ok
    assert lakebase.client is LakebaseResource().client


def test_a_sensor_tick_reuses_the_token(lake: LocalLakebase) -> None:
    @dg.sensor(job_name="none")
    def watcher(lakebase: LakebaseResource) -> dg.SkipReason:
        with lakebase.get_connection() as conn:
            row = conn.execute("SELECT 1").fetchone()
        return dg.SkipReason(str(row))

    for _ in range(2):
        with dg.build_sensor_context(resources={"lakebase": LakebaseResource()}) as context:
            assert watcher(context) == dg.SkipReason("(1,)")
        eventually(lambda: open_connections(lake) == 0)
    assert lake.admin.counters().mints == 1


def test_execute_commits_and_counts(lake: LocalLakebase) -> None:
    with dg.build_resources({"lakebase": LakebaseResource()}) as built:
        lakebase: LakebaseResource = built.lakebase
        assert lakebase.execute("DROP TABLE IF EXISTS dagster_execute") == -1
        lakebase.execute("CREATE TABLE dagster_execute (n int, note text)")
        assert lakebase.execute("INSERT INTO dagster_execute VALUES (%s, %s), (2, '5 %%')", [1, "one"]) == 2
        assert lakebase.execute("UPDATE dagster_execute SET note = %(note)s", {"note": "x"}) == 2
        script = (
            "DELETE FROM dagster_execute WHERE n = 1; INSERT INTO dagster_execute VALUES (3, '%'), (4, '')"
        )
        assert lakebase.execute(script) == 2
        lakebase.connect_and_execute("INSERT INTO dagster_execute VALUES (5, '100 %')")
    assert lake.admin.execute("SELECT n FROM dagster_execute ORDER BY n") == [(2,), (3,), (4,), (5,)]


def test_a_failed_script_changes_nothing(lake: LocalLakebase) -> None:
    lakebase = LakebaseResource()
    lakebase.execute("DROP TABLE IF EXISTS dagster_script")
    with pytest.raises(psycopg.errors.UndefinedTable):
        lakebase.execute("CREATE TABLE dagster_script (n int); SELECT * FROM dagster_absent")
    assert lakebase.fetch("SELECT to_regclass('dagster_script')") == [(None,)]


TYPES = """SELECT 1::int2 AS i2, 2::int4 AS i4, 9007199254740993 AS i8, 1.5::float8 AS f8,
    0.1::numeric(10,2) AS n,
    1.25::numeric AS free, 'é'::text AS t, true AS b, '2026-03-08 02:30'::timestamp AS ts,
    '2026-03-08 12:00+00'::timestamptz AS tz, '2026-03-08'::date AS d, '01:02:03.000004'::time AS tm,
    '\\x00ff'::bytea AS raw, '{"a": 1}'::jsonb AS js, '00000000-0000-0000-0000-000000000001'::uuid AS u,
    ARRAY[1, NULL, 3] AS li, '2 days 00:00:01'::interval AS iv,
    int4range(1, 3) AS r, '10.0.0.1'::inet AS ip"""


def test_fetch_as_arrow_keeps_types(lake: LocalLakebase) -> None:
    table = LakebaseResource().fetch(TYPES, as_="arrow")
    moment = datetime(2026, 3, 8, 12, tzinfo=timezone.utc)
    assert table.to_pylist() == [
        {
            "i2": 1,
            "i4": 2,
            "i8": 9007199254740993,
            "f8": 1.5,
            "n": Decimal("0.10"),
            "free": Decimal("1.25"),
            "t": "é",
            "b": True,
            "ts": datetime(2026, 3, 8, 2, 30),
            "tz": moment,
            "d": date(2026, 3, 8),
            "tm": time(1, 2, 3, 4),
            "raw": b"\x00\xff",
            "js": '{"a": 1}',
            "u": "00000000-0000-0000-0000-000000000001",
            "li": [1, None, 3],
            "iv": timedelta(days=2, seconds=1),
            "r": "[1,3)",
            "ip": "10.0.0.1",
        }
    ]
    assert str(table.schema.field("n").type) == "decimal128(10, 2)"


def test_fetch_as_a_frame_keeps_integers_and_decimals(lake: LocalLakebase) -> None:
    lakebase = LakebaseResource()
    query = "SELECT * FROM (VALUES (9007199254740993, 0.10::numeric(4,2)), (NULL, NULL)) v (i, n) WHERE %s"
    pandas = lakebase.fetch(query, [True], as_="pandas")
    assert pandas["i"].tolist()[0] == 9007199254740993
    assert str(pandas["i"].dtype) == "Int64"
    assert pandas["n"].tolist() == [Decimal("0.10"), None]
    polars = lakebase.fetch(query, [True], as_="polars")
    assert polars.rows() == [(9007199254740993, Decimal("0.10")), (None, None)]
    assert lakebase.fetch(query, [False], as_="polars").schema == polars.schema
    assert lakebase.fetch(query, [False]) == []


@pytest.mark.parametrize(
    ("query", "column"),
    [
        ("SELECT 1e76 AS big", "big"),
        ("SELECT 'NaN'::numeric AS nan", "nan"),
        ("SELECT '1 mon'::interval", "interval"),
    ],
)
def test_a_value_that_does_not_fit_is_an_error_that_names_the_column(
    lake: LocalLakebase, query: str, column: str
) -> None:
    with pytest.raises(LoadError) as caught:
        LakebaseResource().fetch(query, as_="arrow")
    assert column in caught.value.message
    assert "ast the column" in caught.value.remedy or "cast it to text" in caught.value.remedy


def test_numerics_as_text_have_any_number_of_digits(lake: LocalLakebase) -> None:
    query = "SELECT 1e76 AS big, 'NaN'::numeric AS nan"
    found = LakebaseResource().fetch(query, as_="arrow", numeric="text").to_pylist()
    assert found == [{"big": "1" + "0" * 76, "nan": "NaN"}]


def test_fetch_refuses_an_unknown_form_and_a_statement_without_rows(lake: LocalLakebase) -> None:
    with pytest.raises(ConfigError, match="as_ is 'spark'"):
        LakebaseResource().fetch("SELECT 1", as_="spark")  # type: ignore[call-overload] # the point of the test
    with pytest.raises(LoadError, match="returns no rows"):
        LakebaseResource().fetch("SET search_path TO public", as_="arrow")


def test_an_asyncio_asset(lake: LocalLakebase) -> None:
    @dg.asset
    async def writer(lakebase: LakebaseResource) -> None:
        async with lakebase.get_async_connection() as conn:
            await conn.execute("DROP TABLE IF EXISTS dagster_async")
            await conn.execute("CREATE TABLE dagster_async AS SELECT 1 AS n")
        with suppress(ZeroDivisionError):
            async with lakebase.get_async_connection() as conn:
                await conn.execute("INSERT INTO dagster_async VALUES (2)")
                raise ZeroDivisionError

    assert materialize([writer], resources={"lakebase": LakebaseResource()}).success
    assert lake.admin.execute("SELECT n FROM dagster_async") == [(1,)]
    eventually(lambda: open_connections(lake) == 0)


def test_sessions_show_run_and_step(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> None:
    default = "lakebase-provider"
    monkeypatch.setenv("PGAPPNAME", default)
    shown: list[str] = []
    ask = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"

    @dg.asset
    async def named(lakebase: LakebaseResource) -> None:
        with lakebase.get_connection() as conn:
            assert conn.info.transaction_status == TransactionStatus.IDLE
            shown.append(conn.execute(ask).fetchall()[0][0])
        async with lakebase.get_async_connection() as aconn:
            shown.append((await (await aconn.execute(ask)).fetchall())[0][0])
        with lakebase.client.connection() as conn:
            shown.append(conn.execute(ask).fetchall()[0][0])

    result = materialize([named], resources={"lakebase": LakebaseResource()})
    name = f"dagster:{result.run_id[:8]}:named"
    assert shown == [name, name, default]


def test_a_long_step_key_is_cut_at_63_bytes() -> None:
    assert step_name("0123456789", "é" * 40) == "dagster:01234567:" + "é" * 23


def test_a_chosen_application_name_stays(lake: LocalLakebase) -> None:
    shown: list[str] = []

    @dg.asset
    def named(lakebase: LakebaseResource) -> None:
        shown.append(lakebase.fetch("SHOW application_name")[0][0])

    resources = {"lakebase": LakebaseResource(application_name="nightly")}
    assert materialize([named], resources=resources).success
    assert shown == ["nightly"]


def test_last_updated_by_a_column(lake: LocalLakebase) -> None:
    lakebase = LakebaseResource()
    lakebase.execute('DROP SCHEMA IF EXISTS "fresh-ness" CASCADE')
    lakebase.execute(
        'CREATE SCHEMA "fresh-ness"; CREATE TABLE "fresh-ness"."A b" ("at Time" timestamptz);'
        'CREATE TABLE "fresh-ness".naive ("at Time" timestamp);'
        'CREATE TABLE "fresh-ness".none ("at Time" date);'
        """INSERT INTO "fresh-ness"."A b" VALUES ('2026-01-01 00:00-05'), ('2025-01-01 00:00Z');"""
        """INSERT INTO "fresh-ness".naive VALUES ('2026-01-01 05:00')"""
    )
    found = lakebase.fetch_last_updated_timestamps(
        ["A b", "naive", "none", "absent"],
        schema="fresh-ness",
        timestamp_column="at Time",
        ignore_missing_tables=True,
    )
    moment = datetime(2026, 1, 1, 5, tzinfo=timezone.utc)
    assert found == {"A b": moment, "naive": moment, "none": None}
    with pytest.raises(TableNotFoundError, match="absent"):
        lakebase.fetch_last_updated_timestamps(["absent"], timestamp_column="at")


def test_last_updated_without_a_column_needs_a_server_that_knows(lake: LocalLakebase) -> None:
    lakebase = LakebaseResource()
    assert lakebase.fetch("SHOW track_commit_timestamp") == [("off",)]
    with pytest.raises(ConfigError, match="track_commit_timestamp") as caught:
        lakebase.fetch_last_updated_timestamps(["any"])
    assert "timestamp_column" in caught.value.remedy


# Dagster calls its SQL components a preview.
@pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.PreviewWarning")
def test_a_sql_component_of_dagster_runs_on_it(lake: LocalLakebase) -> None:
    lakebase = LakebaseResource()
    assert isinstance(lakebase, SQLClient)
    component = dg.TemplatedSqlComponent(
        connection=lakebase,
        sql_template="DROP TABLE IF EXISTS {{ name }}; CREATE TABLE {{ name }} AS SELECT 7 AS n",
        sql_template_vars={"name": "dagster_templated"},
        assets=[dg.AssetSpec("dagster_templated")],
    )
    defs = component.build_defs(dg.ComponentTree.for_test().load_context)
    assert materialize(list(defs.assets or [])).success
    assert lakebase.fetch("SELECT n FROM dagster_templated") == [(7,)]


def test_a_client_id_without_its_secret_names_what_is_missing(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABRICKS_CLIENT_SECRET")
    with pytest.raises(
        NotAuthenticatedError, match="'client_secret' is missing although 'client_id'"
    ) as caught:
        LakebaseResource().fetch("SELECT 1")
    assert "DATABRICKS_CLIENT_SECRET" in caught.value.remedy


kept: list[Any] = []


@dg.asset
def leaks(lakebase: LakebaseResource) -> None:
    manager = lakebase.get_connection()
    connection = manager.__enter__()
    connection.execute("CREATE TABLE leaked (n int)")
    kept.extend((manager, connection))


@dg.asset
async def leaks_in_a_task(lakebase: LakebaseResource) -> None:
    manager = lakebase.get_async_connection()
    connection = await manager.__aenter__()
    await connection.execute("CREATE TABLE leaked (n int)")
    kept.extend((manager, connection))


@dg.asset
def closes_by_hand(lakebase: LakebaseResource) -> None:
    manager = lakebase.get_connection()
    connection = manager.__enter__()
    kept.extend((manager, connection))
    connection.close()


def warnings_of_a_run(asset: dg.AssetsDefinition) -> list[str]:
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([asset], resources={"lakebase": LakebaseResource()}, instance=instance)
        logged = instance.all_logs(result.run_id)
    return [entry.user_message for entry in logged if "was not returned" in entry.user_message]


@pytest.mark.parametrize("asset", [leaks, leaks_in_a_task])
def test_what_is_not_handed_back_is_closed_at_teardown(
    lake: LocalLakebase, asset: dg.AssetsDefinition
) -> None:
    kept.clear()
    (said,) = warnings_of_a_run(asset)
    assert kept[1].closed
    assert re.search(rf"lent at {re.escape(__file__)}:\d+ ", said)
    assert "\nRemedy: " in said
    eventually(lambda: open_connections(lake) == 0)
    assert lake.admin.execute("SELECT to_regclass('leaked')") == [(None,)]
    kept.clear()


def test_a_leak_is_closed_though_others_use_the_pool(lake: LocalLakebase) -> None:
    kept.clear()
    with LakebaseResource().process_config_and_initialize_cm():
        assert len(warnings_of_a_run(leaks)) == 1
        assert kept[1].closed
    kept.clear()


def test_what_was_closed_by_hand_is_no_leak(lake: LocalLakebase) -> None:
    kept.clear()
    assert warnings_of_a_run(closes_by_hand) == []
    kept.clear()
