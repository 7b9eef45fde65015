"""Attacks by who may start a run, and is trusted with no host: a run's configuration from the Launchpad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from lakebase_provider.local import LocalLakebase
from tests.dagster.test_launchpad import (
    error_of,
    launch,
    of_literals,
    of_the_component,
    of_variables,
    of_variables_at_launch,
    who,
)


@pytest.mark.parametrize("make", [of_variables, of_literals, of_variables_at_launch, of_the_component])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workspace_host", "https://another.cloud.databricks.com"),
        ("host", "ep-another.database.us-east-1.cloud.databricks.com"),
        ("port", 5433),
        ("sslmode", "require"),
        ("sslrootcert", "authority.pem"),
    ],
)
def test_the_definitions_secrets_do_not_follow_a_run_elsewhere(
    lakebase_env: LocalLakebase,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[LocalLakebase], Any],
    name: str,
    value: object,
) -> None:
    monkeypatch.setenv("TEAM_ID", lakebase_env.client_id)
    monkeypatch.setenv("TEAM_SECRET", lakebase_env.client_secret)
    lakebase_env.admin.reset_counters()
    result = launch(dg.Definitions(assets=[who], resources={"lakebase": make(lakebase_env)}), {name: value})
    assert not result.success
    assert f"changes '{name}'" in error_of(result)
    assert lakebase_env.admin.counters().workspace_tokens == 0


def test_who_enters_a_secret_says_where_it_goes(lakebase_env: LocalLakebase) -> None:
    change = {"workspace_host": "https://another.cloud.databricks.com", "client_secret": "of-another"}
    result = launch(dg.Definitions(assets=[who], resources={"lakebase": of_literals(lakebase_env)}), change)
    assert "changes" not in error_of(result)
