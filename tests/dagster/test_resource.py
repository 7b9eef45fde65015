from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_shared.libraries import DagsterLibraryRegistry
from pydantic import ValidationError
from sqlalchemy import text

import dagster_lakebase
import lakebase_provider
from dagster_lakebase import LakebaseResource
from lakebase_provider.core import LakebaseConfig
from lakebase_provider.core.config import settings
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.local import LocalLakebase
from tests.dagster.runs import causes, materialize, open_connections
from tests.eventually import eventually

ENDPOINT = "projects/p/branches/b/endpoints/e"
KINDS = {"string": str | None, "secret": str | None, "integer": int | None, "number": float | None}


def test_public_names() -> None:
    assert dagster_lakebase.__all__ == [
        "LakebaseHealthCheckConfig",
        "LakebaseResource",
        "build_lakebase_health_checks",
        "lakebase_health_check_op",
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
    assert LakebaseResource(endpoint="").lakebase_config.endpoint == lakebase_env.env()["ENDPOINT_NAME"]


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
