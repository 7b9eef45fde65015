"""What "Launch Run" in the Launchpad sends: the definitions' configuration, with a mask for each secret."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg
import pandas as pd
import pytest
import yaml
from dagster._core.snap.snap_to_yaml import default_values_yaml_from_type_snap

from dagster_lakebase import LakebaseIOManager, LakebaseResource, lakebase_health_check_op
from dagster_lakebase.components import LakebaseConnectionComponent
from dagster_lakebase.components.connection import EnvironmentVariable
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.local import LocalLakebase

#: Dagster's own, of a nested resource.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")

MASK = "********"


@dg.asset
def who(lakebase: LakebaseResource) -> str:
    ((name,),) = lakebase.fetch("SELECT current_user")
    return str(name)


@dg.asset(key_prefix="launched", io_manager_key="tables")
def stored() -> pd.DataFrame:
    return pd.DataFrame({"id": [1, 2]})


@dg.job
def health_job() -> None:
    lakebase_health_check_op()


def prefilled(job: dg.JobDefinition) -> dict[str, Any]:
    """The configuration that the Launchpad is opened with, from where its web server takes it."""
    snapshot = job.get_job_snapshot()
    schema = snapshot.config_schema_snapshot
    root = schema.get_config_snap(snapshot.mode_def_snaps[0].root_config_key)
    config: dict[str, Any] = yaml.safe_load(default_values_yaml_from_type_snap(schema, root))
    return config


def launch(defs: dg.Definitions, change: dict[str, Any] | None = None) -> dg.ExecuteInProcessResult:
    """Press the button, after having changed some of the resource's fields."""
    job = defs.resolve_implicit_global_asset_job_def()
    config = prefilled(job)
    config["resources"]["lakebase"]["config"].update(change or {})
    with dg.DagsterInstance.ephemeral() as instance:
        return job.execute_in_process(instance=instance, run_config=config, raise_on_error=False)


def error_of(result: dg.ExecuteInProcessResult) -> str:
    return str(next(event.event_specific_data for event in result.all_events if event.is_failure))


def of_the_environment(_lake: LocalLakebase) -> Any:
    return LakebaseResource()


def of_variables(_lake: LocalLakebase) -> Any:
    return LakebaseResource(client_id=dg.EnvVar("TEAM_ID"), client_secret=dg.EnvVar("TEAM_SECRET"))


def of_literals(lake: LocalLakebase) -> Any:
    return LakebaseResource(client_id=lake.client_id, client_secret=lake.client_secret)


def at_launch(_lake: LocalLakebase) -> Any:
    return LakebaseResource.configure_at_launch()


def of_variables_at_launch(_lake: LocalLakebase) -> Any:
    return LakebaseResource.configure_at_launch(
        client_id=dg.EnvVar("TEAM_ID"), client_secret=dg.EnvVar("TEAM_SECRET")
    )


def of_the_component(lake: LocalLakebase) -> Any:
    return LakebaseConnectionComponent(
        client_id=lake.client_id, client_secret=EnvironmentVariable(env="TEAM_SECRET")
    ).resource()


def of_a_function(_lake: LocalLakebase) -> Any:
    @dg.resource(config_schema=LakebaseResource.to_config_schema())
    def lakebase(context: dg.InitResourceContext) -> Any:
        with LakebaseResource.from_resource_context_cm(context) as resource:
            yield resource

    return lakebase


MAKERS = [
    of_the_environment,
    of_variables,
    of_literals,
    at_launch,
    of_variables_at_launch,
    of_the_component,
    of_a_function,
]


@pytest.mark.parametrize("make", MAKERS)
def test_a_launch_runs_as_the_definitions_say(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch, make: Callable[[LocalLakebase], Any]
) -> None:
    if make in (of_variables, of_variables_at_launch, of_the_component):
        monkeypatch.setenv("TEAM_ID", lake.client_id)
        monkeypatch.setenv("TEAM_SECRET", lake.client_secret)
        # What the definitions say is the only way in: the environment's own principal is refused.
        monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "not-the-secret")
    defs = dg.Definitions(assets=[who], resources={"lakebase": make(lake)})
    assert MASK in str(prefilled(defs.resolve_implicit_global_asset_job_def()))

    result = launch(defs)

    assert result.success, error_of(result)
    assert result.output_for_node("who") == lake.client_id


def test_a_secret_that_is_typed_in_goes_before_the_definitions(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEAM_SECRET", lake.client_secret)
    defs = dg.Definitions(
        assets=[who],
        resources={
            "lakebase": LakebaseResource(client_id=lake.client_id, client_secret=dg.EnvVar("OTHER_SECRET"))
        },
    )
    result = launch(defs, {"client_secret": {"env": "TEAM_SECRET"}})
    assert result.success, error_of(result)


def test_a_variable_of_the_definitions_that_is_not_set_is_named(lake: LocalLakebase) -> None:
    defs = dg.Definitions(
        assets=[who], resources={"lakebase": LakebaseResource(client_secret=dg.EnvVar("ABSENT_SECRET"))}
    )
    result = launch(defs)
    assert not result.success
    assert "ABSENT_SECRET" in error_of(result)


def test_the_io_manager_and_the_ops_are_launched_too(lake: LocalLakebase) -> None:
    lakebase = LakebaseResource(client_secret=dg.EnvVar("DATABRICKS_CLIENT_SECRET"))
    defs = dg.Definitions(
        assets=[who, stored],
        jobs=[health_job],
        resources={"lakebase": lakebase, "tables": LakebaseIOManager(lakebase=lakebase)},
    )
    lake.admin.execute(f'CREATE SCHEMA IF NOT EXISTS launched AUTHORIZATION "{lake.client_id}"')
    result = launch(defs)
    assert result.success, error_of(result)
    assert lake.admin.execute("SELECT count(*) FROM launched.stored") == [(2,)]
    lake.admin.execute("DROP SCHEMA launched CASCADE")

    job = defs.resolve_job_def("health_job")
    with dg.DagsterInstance.ephemeral() as instance:
        assert job.execute_in_process(instance=instance, run_config=prefilled(job)).success


def test_an_io_manager_of_a_resource_that_is_configured_at_launch(lake: LocalLakebase) -> None:
    lakebase = LakebaseResource.configure_at_launch()
    defs = dg.Definitions(
        assets=[who, stored],
        resources={"lakebase": lakebase, "tables": LakebaseIOManager(lakebase=lakebase)},
    )
    lake.admin.execute(f'CREATE SCHEMA IF NOT EXISTS launched AUTHORIZATION "{lake.client_id}"')
    result = launch(defs)
    lake.admin.execute("DROP SCHEMA launched CASCADE")
    assert result.success, error_of(result)


def test_a_mask_outside_of_a_run_stands_for_what_is_left_out(lake: LocalLakebase) -> None:
    assert LakebaseResource(client_secret=MASK).lakebase_config == LakebaseResource().lakebase_config


@pytest.mark.parametrize("field", [{"client_secret": dg.EnvVar("ABSENT")}, {"port": dg.EnvVar.int("ABSENT")}])
def test_a_variable_that_is_not_set_is_named_in_a_script_too(
    lake: LocalLakebase, field: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=f"(?s){next(iter(field))}.* 'ABSENT', which is not set"):
        _ = LakebaseResource(**field).lakebase_config
