"""Attacks by who may start a run, and is trusted with no host: a run's configuration from the Launchpad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from dagster_lakebase import LakebaseIOManager, LakebaseResource
from lakebase_provider.local import LocalLakebase
from tests.dagster.test_launchpad import (
    at_launch,
    error_of,
    launch,
    of_literals,
    of_the_component,
    of_the_environment,
    of_variables,
    of_variables_at_launch,
    stored,
    who,
)

#: Dagster's own, of a nested resource.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")


def moved(name: str) -> Any:
    """Another value of a setting that says where a secret goes."""
    return {
        "workspace_host": "https://another.cloud.databricks.com",
        "host": "ep-another.database.us-east-1.cloud.databricks.com",
        "port": 5433,
        "sslmode": "require",
        "sslrootcert": "authority.pem",
    }[name]


@pytest.mark.parametrize(
    "make",
    [of_the_environment, at_launch, of_variables, of_literals, of_variables_at_launch, of_the_component],
)
@pytest.mark.parametrize("name", ["workspace_host", "host", "port", "sslmode", "sslrootcert"])
def test_the_definitions_secrets_do_not_follow_a_run_elsewhere(
    lakebase_env: LocalLakebase,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[LocalLakebase], Any],
    name: str,
) -> None:
    monkeypatch.setenv("TEAM_ID", lakebase_env.client_id)
    monkeypatch.setenv("TEAM_SECRET", lakebase_env.client_secret)
    lakebase_env.admin.reset_counters()
    result = launch(
        dg.Definitions(assets=[who], resources={"lakebase": make(lakebase_env)}), {name: moved(name)}
    )
    assert not result.success
    assert f"changes '{name}'" in error_of(result)
    assert lakebase_env.admin.counters().workspace_tokens == 0


def test_who_enters_a_secret_says_where_it_goes(lakebase_env: LocalLakebase) -> None:
    # Nobody is there, which one second is enough to find out.
    change = {
        "workspace_host": "https://another.cloud.databricks.com",
        "client_secret": "of-another",
        "connect_budget": 1.0,
    }
    result = launch(dg.Definitions(assets=[who], resources={"lakebase": of_literals(lakebase_env)}), change)
    assert "changes" not in error_of(result)


@pytest.mark.parametrize(
    "entered",
    [
        # The environment's own, by its name.
        {"client_id": "x", "client_secret": {"env": "DATABRICKS_CLIENT_SECRET"}},
        # One that does not log in.
        {"token": "x", "auth_type": "oauth-m2m"},
        {"password": "x"},
        {"azure_client_id": "a", "azure_client_secret": {"env": "TEAM_SECRET"}, "azure_tenant_id": "t"},
    ],
    ids=["variable", "other-kind", "password", "azure"],
)
@pytest.mark.parametrize("make", [of_the_environment, at_launch, of_variables, of_literals])
@pytest.mark.parametrize("name", ["workspace_host", "host"])
def test_nor_beside_a_secret_that_is_not_the_runs_own(
    lakebase_env: LocalLakebase,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[LocalLakebase], Any],
    name: str,
    entered: dict[str, Any],
) -> None:
    monkeypatch.setenv("TEAM_ID", lakebase_env.client_id)
    monkeypatch.setenv("TEAM_SECRET", lakebase_env.client_secret)
    lakebase_env.admin.reset_counters()
    defs = dg.Definitions(assets=[who], resources={"lakebase": make(lakebase_env)})
    result = launch(defs, {name: moved(name), **entered})
    assert not result.success
    assert f"changes '{name}'" in error_of(result)
    assert lakebase_env.admin.counters().workspace_tokens == 0


def test_the_io_managers_resource_is_led_nowhere_either(lakebase_env: LocalLakebase) -> None:
    lakebase = LakebaseResource.configure_at_launch()
    tables = LakebaseIOManager(lakebase=lakebase)
    defs = dg.Definitions(assets=[stored], resources={"lakebase": lakebase, "tables": tables})
    result = launch(defs, {"host": moved("host")})
    assert not result.success
    assert "changes 'host'" in error_of(result)


def test_the_definitions_themselves_say_where_the_environments_secrets_go(
    lakebase_env: LocalLakebase,
) -> None:
    named = LakebaseResource(host=lakebase_env.host, sslmode="verify-ca")
    lakebase_env.admin.execute(
        f'CREATE SCHEMA IF NOT EXISTS launched AUTHORIZATION "{lakebase_env.client_id}"'
    )
    tables = LakebaseIOManager(lakebase=named)
    result = launch(dg.Definitions(assets=[who, stored], resources={"lakebase": named, "tables": tables}))
    lakebase_env.admin.execute("DROP SCHEMA launched CASCADE")
    assert result.success, error_of(result)
