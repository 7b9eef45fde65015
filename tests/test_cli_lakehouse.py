"""The command `lakebase synced-tables`, on a local Lakebase."""

from __future__ import annotations

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase
from tests.core.workspace.lakehouse import shop
from tests.test_cli_objects import Shell
from tests.test_cli_objects import shell as shell


def test_a_synced_table_is_shown_synced_and_deleted(shell: Shell, lakebase_env: LocalLakebase) -> None:
    trips = shop(lakebase_env)
    with LakebaseClient(lakebase_env.config()) as client:
        trips.create(client.workspace.synced_tables)
        client.workspace.synced_tables.wait(trips.name, version=0)
    version = trips.write({"id": [3], "name": ["c"]})
    shown = shell.json("synced-tables", "get", trips.name)
    assert (shown["name"], shown["synced_version"]) == (f"synced_tables/{trips.name}", 0)
    assert shell.json("synced-tables", "sync", trips.name, "--version", str(version))["synced_version"] == 1
    titles, row = shell.run("synced-tables", "sync", trips.name, "--full-refresh").splitlines()
    assert titles.split() == ["name", "state", "version", "sync_end_time", "pipeline_id"]
    assert row.split()[:3] == [shown["name"], "SYNCED_TABLE_ONLINE_NO_PENDING_UPDATE", "1"]
    lakebase_env.admin.operation_fault("pipeline_update", message="no compute")
    assert "no compute" in shell.run("synced-tables", "sync", trips.name, code=1)
    assert "LAKEBASE_INSTANCE" in shell.run("synced-tables", "list", code=1)
    assert shell.json("synced-tables", "delete", trips.name)["deleted"]
    shell.run("synced-tables", "delete", trips.name, "--missing-ok")
    assert "not found" in shell.run("synced-tables", "get", trips.name, code=1)


def test_those_of_an_instance_are_listed(
    shell: Shell, lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ENDPOINT_NAME", "LAKEBASE_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LAKEBASE_INSTANCE", "local")
    trips = shop(lakebase_env)
    from lakebase_provider.core import LakebaseConfig

    with LakebaseClient(LakebaseConfig.from_env()) as client:
        trips.create(client.workspace.synced_tables)
    assert [one["name"] for one in shell.json("synced-tables", "list")] == [f"synced_tables/{trips.name}"]
