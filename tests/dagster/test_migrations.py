"""Migrations as an asset, and as a component; branches as one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster.components.testing.utils import DefsFolderSandbox, create_defs_folder_sandbox

from dagster_lakebase import (
    LakebaseBranchComponent,
    LakebaseBranchDeployment,
    LakebaseConnectionComponent,
    LakebaseMaintenanceComponent,
    LakebaseMigrationComponent,
    LakebaseRehearsalComponent,
    LakebaseResource,
    LakebaseRestoreComponent,
    LakebaseSqlComponent,
    build_lakebase_migration_asset,
)
from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase
from tests.dagster.runs import causes, materialize

pytestmark = [
    pytest.mark.filterwarnings("ignore:.parse_obj_as. is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.* is currently in beta:dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore:.* is currently in preview:dagster.PreviewWarning"),
]

ASSET = "lakebase_migrations"


@pytest.fixture
def folder(lake: LocalLakebase, tmp_path: Path) -> Iterator[Path]:
    lake.admin.execute("DROP SCHEMA IF EXISTS migrated CASCADE; DROP TABLE IF EXISTS lakebase_migration")
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_orders.sql").write_text("CREATE SCHEMA migrated; CREATE TABLE migrated.orders (id int);")
    yield folder
    lake.admin.execute("DROP SCHEMA IF EXISTS migrated CASCADE; DROP TABLE IF EXISTS lakebase_migration")


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.get_asset_materialization_events()
    return {key: value.value for key, value in event.materialization.metadata.items()}


def test_files_run_once_and_the_code_version_follows_from_them(lake: LocalLakebase, folder: Path) -> None:
    resources = {"lakebase": LakebaseResource()}
    first = build_lakebase_migration_asset(folder, asset=["shop", "migrations"])
    for applied in (1, 0):
        metadata = metadata_of(materialize([first], resources=resources))
        assert metadata["lakebase/migrations_applied"] == applied
    [row] = metadata["lakebase/migrations"].records
    assert (row.data["file"], row.data["state"]) == ("0001_orders.sql", "done")

    (folder / "0002_note.sql").write_text("ALTER TABLE migrated.orders ADD note text;")
    second = build_lakebase_migration_asset(folder, asset=dg.AssetSpec(["shop", "migrations"]))
    key = dg.AssetKey(["shop", "migrations"])
    assert first.code_versions_by_key[key] != second.code_versions_by_key[key]
    assert metadata_of(materialize([second], resources=resources))["lakebase/migrations_applied"] == 1


def test_an_edited_file_fails_without_a_retry(lake: LocalLakebase, folder: Path) -> None:
    asset = build_lakebase_migration_asset(folder)
    resources = {"lakebase": LakebaseResource()}
    assert materialize([asset], resources=resources).success
    (folder / "0001_orders.sql").write_text("CREATE SCHEMA other;")
    result = materialize([asset], resources=resources, raise_on_error=False)
    (event,) = [event for event in result.all_events if event.is_step_failure]
    assert "0001_orders.sql" in str(event.step_failure_data.error)
    assert not result.success


def test_a_database_from_before_its_ledger(lake: LocalLakebase, folder: Path) -> None:
    asset = build_lakebase_migration_asset(folder, ledger="lakebase_migration")
    config = dg.RunConfig(ops={"lakebase_migrations": {"config": {"baseline": 1}}})
    result = materialize([asset], resources={"lakebase": LakebaseResource()}, run_config=config)
    assert metadata_of(result)["lakebase/migrations_applied"] == 0
    assert lake.admin.execute("SELECT to_regclass('migrated.orders')") == [(None,)]


@pytest.mark.parametrize("name", ["absent", "notes.txt"])
def test_what_is_no_folder_of_migrations_is_refused_when_it_is_loaded(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "migrations"
    if name != "absent":
        folder.mkdir()
        (folder / name).write_text("x")
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="migrations"):
        build_lakebase_migration_asset(folder)


# Components.


def write(sandbox: DefsFolderSandbox, path: str, component: type, attributes: dict[str, Any]) -> Path:
    folder = sandbox.defs_folder_path / path
    folder.mkdir(parents=True, exist_ok=True)
    content = {"type": f"dagster_lakebase.{component.__name__}", "attributes": attributes}
    (folder / "defs.yaml").write_text(yaml.safe_dump(content))
    return folder


def test_components(lake: LocalLakebase, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with create_defs_folder_sandbox() as sandbox:
        write(
            sandbox, "shop", LakebaseConnectionComponent, {"resource_key": "shop", "branch_deployments": {}}
        )
        connection = {"connection": "{{ context.load_component('shop') }}"}
        write(sandbox, "branches", LakebaseBranchComponent, {**connection, "sensor_interval_seconds": 600})
        made = write(sandbox, "migrated", LakebaseMigrationComponent, connection)
        shutil.copytree(folder, made / "migrations")
        query = {"sql": "DELETE FROM migrated.orders", "assets": [{"key": "emptied", "deps": [ASSET]}]}
        write(sandbox, "emptied", LakebaseSqlComponent, {**connection, **query})
        with sandbox.build_all_defs() as defs, dg.DagsterInstance.ephemeral() as instance:
            found = (defs.resources or {})["shop"]
            assert isinstance(found, LakebaseBranchDeployment)
            assert (found.prefix, found.ttl, found.branch_id) == ("pr", 604_800, None)
            sensor = defs.resolve_sensor_def("lakebase_branch_sweep_sensor")
            assert sensor.minimum_interval_seconds == 600
            monkeypatch.setenv("DAGSTER_CLOUD_IS_BRANCH_DEPLOYMENT", "1")
            monkeypatch.setenv("DAGSTER_CLOUD_GIT_BRANCH", "components")
            jobs = [
                "lakebase_branch_create",
                "lakebase_branch_sweep",
                "__ASSET_JOB",
                "lakebase_branch_delete",
            ]
            for job in jobs:
                assert defs.resolve_job_def(job).execute_in_process(instance=instance).success
            event = instance.get_latest_materialization_event(dg.AssetKey("emptied"))
            assert event is not None
            assert event.asset_materialization is not None
            branch = event.asset_materialization.metadata["lakebase/branch"]
            assert branch.value == found.branch_id
    # On the branch, which is gone.
    assert lake.admin.execute("SELECT to_regclass('migrated.orders')") == [(None,)]


def test_a_rehearsal_and_jobs_that_bring_rows_back_as_components(lake: LocalLakebase) -> None:
    with LakebaseClient(lake.config()) as client, client.connection() as connection:
        connection.execute("DROP TABLE IF EXISTS tried; CREATE TABLE tried (id int PRIMARY KEY)")
        connection.execute("INSERT INTO tried VALUES (1), (2)")
    change = {
        "asset": {"key": "tried_less"},
        "sql": "DELETE FROM tried WHERE id = 2",
        "checks": ["SELECT count(*) = 1 FROM tried"],
        "tables": ["tried"],
    }
    with create_defs_folder_sandbox() as sandbox:
        write(sandbox, "lakebase", LakebaseConnectionComponent, {})
        write(sandbox, "less", LakebaseRehearsalComponent, change)
        write(sandbox, "back", LakebaseRestoreComponent, {"name": "back"})
        with sandbox.build_all_defs() as defs, dg.DagsterInstance.ephemeral() as instance:

            def run(job: str, **config: Any) -> dict[str, Any]:
                settings = {"ops": {f"{job}_op": {"config": config}}} if config else None
                result = defs.resolve_job_def(job).execute_in_process(instance=instance, run_config=settings)
                [output] = [event for event in result.all_events if event.is_successful_output]
                return {key: one.value for key, one in output.step_output_data.metadata.items()}

            point = run("back_point")
            assert defs.resolve_job_def("__ASSET_JOB").execute_in_process(instance=instance).success
            event = instance.get_latest_materialization_event(dg.AssetKey("tried_less"))
            assert event is not None
            assert event.asset_materialization is not None
            told = {key: one.value for key, one in event.asset_materialization.metadata.items()}
            assert (told["lakebase/ran"], len(told["lakebase/checksum"])) == (True, 64)
            assert lake.admin.execute("SELECT id FROM tried") == [(1,)]
            for at in (told["lakebase/restore_lsn"], point["lakebase/restore_time"]):
                assert run("back_rows", table="tried", at=at)["lakebase/put_back"] == 1
            run("back_rows", table="tried", at=told["lakebase/restore_lsn"], dry_run=False)
    assert lake.admin.execute("SELECT id FROM tried ORDER BY id") == [(1,), (2,)]
    with LakebaseClient(lake.config()) as client, client.connection() as connection:
        connection.execute("DROP TABLE tried")


@pytest.mark.parametrize("given", [{}, {"sql": "SELECT 1", "folder": "migrations"}])
def test_a_component_rehearses_one_change(given: dict[str, Any]) -> None:
    with create_defs_folder_sandbox() as sandbox:
        write(sandbox, "lakebase", LakebaseConnectionComponent, {})
        write(sandbox, "less", LakebaseRehearsalComponent, {"asset": {"key": "less"}, **given})
        with pytest.raises(Exception, match="building definitions") as caught, sandbox.build_all_defs():
            pass
        assert any("of sql or of a folder" in str(error) for error in causes(caught.value))


@pytest.mark.parametrize(
    "component",
    [
        LakebaseBranchComponent,
        LakebaseMaintenanceComponent,
        LakebaseMigrationComponent,
        LakebaseRehearsalComponent,
        LakebaseRestoreComponent,
    ],
)
def test_what_is_scaffolded_loads(component: type) -> None:
    with create_defs_folder_sandbox() as sandbox:
        sandbox.scaffold_component(component_cls=component, defs_path="made")
        sandbox.scaffold_component(component_cls=LakebaseConnectionComponent, defs_path="lakebase")
        with sandbox.build_all_defs() as defs:
            assert isinstance((defs.resources or {})["lakebase"], LakebaseResource)
