"""The same resource on another branch, and branches that Dagster's deployments have of their own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from dagster_lakebase import (
    LakebaseBranchDeployment,
    LakebaseIOManager,
    LakebaseResource,
    build_lakebase_rehearsal_asset,
    build_lakebase_sweep_sensor,
    lakebase_create_branch_op,
    lakebase_delete_branch_op,
    lakebase_sweep_branches_op,
)
from lakebase_provider.core import LakebaseClient, branch_id_for
from lakebase_provider.core.errors import ConfigError, EndpointNotFoundError
from lakebase_provider.local import LocalLakebase
from tests.dagster.runs import causes, materialize

SERVED: list[str] = []


@pytest.fixture
def client(lake: LocalLakebase) -> Iterator[LakebaseClient]:
    """Who looks after the branches."""
    with LakebaseClient(lake.config()) as client:
        yield client


@dg.asset
def where(lakebase: LakebaseResource) -> None:
    SERVED.append(lakebase.client.target().host)
    lakebase.execute("CREATE TABLE IF NOT EXISTS on_a_branch (n int)")


def test_a_branch_is_the_same_connection_elsewhere(
    lake: LocalLakebase, client: LakebaseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    SERVED.clear()
    made = client.workspace.branches.create("side", ttl=600)
    client.branches.wait_ready(made.name)
    full = LakebaseResource(endpoint=lake.env()["ENDPOINT_NAME"], host=lake.env()["PGHOST"])
    # Definitions that name all of the endpoint, and a run that names the branch alone.
    chosen = {"resources": {"lakebase": {"config": {"branch": "side"}}}}
    assert materialize([where], resources={"lakebase": full}, run_config=chosen).success
    monkeypatch.setenv("TEAM_BRANCH", "side")
    of_variable = LakebaseResource(branch=dg.EnvVar("TEAM_BRANCH"))
    assert materialize([where], resources={"lakebase": of_variable}).success
    assert of_variable.lakebase_config.endpoint == f"{made.name}/endpoints/primary"
    assert of_variable.lakebase_config.host is None

    [endpoint] = client.workspace.endpoints.list("side")
    assert [endpoint.host, endpoint.host] == SERVED
    assert lake.admin.execute("SELECT to_regclass('on_a_branch')") == [(None,)]


# A branch deployment.


@pytest.fixture
def pull_request(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> LocalLakebase:
    """What Dagster+ sets in a branch deployment."""
    monkeypatch.setenv("DAGSTER_CLOUD_IS_BRANCH_DEPLOYMENT", "1")
    monkeypatch.setenv("DAGSTER_CLOUD_GIT_BRANCH", "Faster/Pages")
    monkeypatch.setenv("DAGSTER_CLOUD_PULL_REQUEST_ID", "7")
    lake.admin.execute("DROP SCHEMA IF EXISTS site CASCADE")
    lake.admin.execute(f'CREATE SCHEMA site AUTHORIZATION "{lake.client_id}"')
    lake.admin.execute("CREATE TABLE site.visits AS SELECT 'production' AS page, 3 AS n")
    lake.admin.execute(f'ALTER TABLE site.visits OWNER TO "{lake.client_id}"')
    return lake


@dg.asset(key_prefix="site", io_manager_key="tables")
def pages(visits: pd.DataFrame) -> pd.DataFrame:
    return visits


@dg.job
def opened() -> None:
    lakebase_create_branch_op()


@dg.job
def closed() -> None:
    lakebase_delete_branch_op()


def of_a_deployment(**fields: Any) -> dict[str, Any]:
    lakebase = LakebaseBranchDeployment(**fields)
    return {"lakebase": lakebase, "tables": LakebaseIOManager(lakebase=lakebase)}


def branches(client: LakebaseClient) -> list[str]:
    return [branch.id for branch in client.workspace.branches.list() if not branch.is_default]


def run(job: dg.JobDefinition, resources: dict[str, Any], config: Any = None) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return job.execute_in_process(
            instance=instance, resources=resources, run_config=config, raise_on_error=False
        )


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.get_asset_materialization_events()
    return {key: value.value for key, value in event.materialization.metadata.items()}


def error_of(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return str(event.step_failure_data.error)


# Dagster's own, of a nested resource.
@pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")
def test_a_pull_request_reads_production_and_writes_to_its_branch(
    pull_request: LocalLakebase, client: LakebaseClient
) -> None:
    resources = of_a_deployment()
    source = dg.AssetSpec(["site", "visits"], metadata={"dagster/io_manager_key": "tables"})
    for _ in range(2):  # the second run finds the branch
        result = materialize([source, pages], resources=resources)
        metadata = metadata_of(result)
    [branch] = branches(client)
    assert branch == branch_id_for("Faster/Pages", "pr") == resources["lakebase"].branch_id
    assert (metadata["lakebase/branch"], metadata["lakebase/parent"]) == (branch, "production")
    assert pull_request.admin.execute("SELECT to_regclass('site.pages')") == [(None,)]
    with LakebaseClient(client.config.on_branch(branch)) as there:
        assert list(there.iter_rows("SELECT page, n FROM site.pages")) == [("production", 3)]
        with there.connection() as connection:
            [past] = connection.execute(
                "SELECT pg_current_wal_lsn() >= %s::pg_lsn", [metadata["lakebase/lsn"]]
            ).fetchall()
        assert past == (True,)
    found = client.workspace.branches.get(branch)
    assert found.expire_time is not None
    assert found.source_branch_lsn == metadata.get("lakebase/parent_lsn")

    assert run(opened, resources).success
    assert branches(client) == [branch]
    # What is deleted is not made for that.
    for _ in range(2):
        assert run(closed, resources).success
        assert branches(client) == []


def test_a_branch_deployment_does_not_rehearse_on_its_own_branch(
    pull_request: LocalLakebase, client: LakebaseClient
) -> None:
    asset = build_lakebase_rehearsal_asset("UPDATE site.visits SET n = 0", asset="changed")
    resources = {"lakebase": of_a_deployment()["lakebase"]}
    result = materialize([asset], resources=resources, raise_on_error=False)
    told = error_of(result)
    assert "expiration date cannot have child branches" in told
    assert "A change may be tried on it at once" in told
    # Neither there nor in production.
    with LakebaseClient(client.config.on_branch(resources["lakebase"].branch_id)) as there:
        assert list(there.iter_rows("SELECT n FROM site.visits")) == [(3,)]
    assert pull_request.admin.execute("SELECT n FROM site.visits") == [(3,)]
    assert branches(client) == [resources["lakebase"].branch_id]


def test_in_production_it_is_the_resource(lake: LocalLakebase, client: LakebaseClient) -> None:
    lakebase = LakebaseBranchDeployment()
    assert lakebase.lakebase_config == LakebaseResource().lakebase_config
    assert (lakebase.branch_id, lakebase.open_branch(), lakebase.branch_metadata()) == (None, None, {})
    lakebase.close_branch()
    assert lakebase.fetch("SELECT 1") == [(1,)]
    for job in (opened, closed):
        assert "No branch is named, and this is no branch deployment" in error_of(
            run(job, {"lakebase": lakebase})
        )
    assert branches(client) == []


def test_which_deployment_it_is(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(**fields: Any) -> str | None:
        return LakebaseBranchDeployment(**fields).branch_id

    monkeypatch.setenv("DAGSTER_CLOUD_IS_BRANCH_DEPLOYMENT", "0")
    assert found() is None
    assert found(deployment="") is None
    assert found(deployment="PR 7", prefix="ci") == branch_id_for("PR 7", "ci")
    monkeypatch.setenv("DAGSTER_CLOUD_IS_BRANCH_DEPLOYMENT", "1")
    # Never production instead.
    with pytest.raises(ConfigError, match="says which"):
        found()
    with (
        pytest.raises(dg.DagsterError) as caught,
        dg.build_resources({"lakebase": LakebaseBranchDeployment()}),
    ):
        pass
    assert any(isinstance(error, ConfigError) for error in causes(caught.value))
    monkeypatch.setenv("DAGSTER_CLOUD_PULL_REQUEST_ID", "7")
    assert found() == branch_id_for("7", "pr")
    monkeypatch.setenv("DAGSTER_CLOUD_GIT_BRANCH", "fix")
    assert found() == branch_id_for("fix", "pr")
    monkeypatch.setenv("DAGSTER_CLOUD_GIT_REPO", "acme/site")
    assert found() == branch_id_for("acme/site/fix", "pr")
    with pytest.raises(ConfigError, match="'TEAM_DEPLOYMENT', which is not set"):
        found(deployment=dg.EnvVar("TEAM_DEPLOYMENT"))
    monkeypatch.setenv("TEAM_DEPLOYMENT", "seven")
    assert found(deployment=dg.EnvVar("TEAM_DEPLOYMENT")) == branch_id_for("seven", "pr")
    with pytest.raises(ConfigError, match="'prefix' is 'PR'"):
        found(prefix="PR")


def test_a_tick_makes_no_branch_and_an_async_step_does(
    pull_request: LocalLakebase, client: LakebaseClient
) -> None:
    @dg.sensor(job=opened)
    def watcher(lakebase: LakebaseBranchDeployment) -> dg.SkipReason:
        lakebase.execute("SELECT 1")
        return dg.SkipReason("")

    @dg.asset
    async def counted(lakebase: LakebaseResource) -> None:
        async with lakebase.get_async_connection() as connection:
            await connection.execute("DELETE FROM site.visits")

    with (
        dg.build_sensor_context(resources={"lakebase": LakebaseBranchDeployment()}) as context,
        pytest.raises(EndpointNotFoundError),
    ):
        watcher(context)
    assert branches(client) == []
    assert materialize([counted], resources=of_a_deployment(deployment="other")).success
    assert branches(client) == [branch_id_for("other", "pr")]
    assert pull_request.admin.execute("SELECT n FROM site.visits") == [(3,)]


def test_steps_that_begin_at_once_share_one_branch(lake: LocalLakebase, client: LakebaseClient) -> None:
    with ThreadPoolExecutor(2) as pool:
        opened = pool.map(lambda _: LakebaseBranchDeployment(deployment="both").open_branch(), range(2))
        found = {branch and branch.uid for branch in opened}
    [there] = [branch for branch in client.workspace.branches.list() if not branch.is_default]
    assert found == {there.uid}


# What looks after branches.


@dg.job
def swept() -> None:
    lakebase_sweep_branches_op()


def test_branches_are_made_swept_and_deleted_by_name(lake: LocalLakebase, client: LakebaseClient) -> None:
    resources = {"lakebase": LakebaseResource()}
    made = {"lakebase_create_branch_op": {"config": {"branch": "run-1", "ttl": 600.0}}}
    assert run(opened, resources, {"ops": made}).success
    assert branches(client) == ["run-1"]
    sweep = {"lakebase_sweep_branches_op": {"config": {"older_than": 0.0}}}
    # Just made, so it may be held.
    assert run(swept, resources, {"ops": sweep}).success
    assert branches(client) == ["run-1"]
    sensor = build_lakebase_sweep_sensor(older_than=3600)
    with dg.build_sensor_context(resources=resources) as context:
        told = sensor.evaluate_tick(context).skip_message
    assert told == "0 of 1 branches that begin with run- were deleted."
    deleted = {"lakebase_delete_branch_op": {"config": {"branch": "run-1"}}}
    for _ in range(2):
        assert run(closed, resources, {"ops": deleted}).success
    assert branches(client) == []
    deleted = {"lakebase_delete_branch_op": {"config": {"branch": "production"}}}
    assert "production" in error_of(run(closed, resources, {"ops": deleted}))
