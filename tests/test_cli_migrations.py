"""The command `lakebase migrate`, on a local Lakebase."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase
from tests.test_cli_objects import Shell
from tests.test_cli_objects import shell as shell


@pytest.fixture
def folder(tmp_path: Path, lakebase_env: LocalLakebase) -> Path:
    with LakebaseClient(lakebase_env.config()) as client, client.connection() as connection:
        connection.execute("DROP TABLE IF EXISTS stock, lakebase_migration, ops_ledger")
    (tmp_path / "0001_stock.sql").write_text("CREATE TABLE stock (n int)")
    (tmp_path / "0002_index.sql").write_text("CREATE INDEX CONCURRENTLY stock_n ON stock (n)")
    return tmp_path


def test_files_are_run_and_looked_at(shell: Shell, folder: Path) -> None:
    where = str(folder)
    assert shell.run("migrate", "run", where, "--dry-run").count("pending") == 2
    told = shell.json("migrate", "run", where, "--target", "1", "--lock-timeout", "5s")
    assert [file["state"] for file in told["files"]] == ["applied", "pending"]
    told = shell.run("migrate", "run", where)
    assert "0002_index.sql, outside of a transaction: line 1 CREATE INDEX CONCURRENTLY" in told
    assert shell.run("migrate", "status", where).count("done") == 2
    (folder / "0001_stock.sql").write_text("CREATE TABLE stock (n bigint)")
    assert json.loads(shell.run("migrate", "run", where, "--json", code=1))["error"]["code"] == "migration"
    assert "was edited after it ran" in shell.run("migrate", "run", where, code=1)


def test_remedies_speak_of_the_command_line(shell: Shell, folder: Path) -> None:
    (folder / "20270101_later.sql").write_text("SELECT 1")
    shell.run("migrate", "run", str(folder), "--ledger", "ops_ledger")
    (folder / "20260101_earlier.sql").write_text("SELECT 1")
    assert "--out-of-order" in shell.run("migrate", "run", str(folder), "--ledger", "ops_ledger", code=1)
    shell.run("migrate", "run", str(folder), "--ledger", "ops_ledger", "--out-of-order")


def test_branches_are_compared(shell: Shell, folder: Path, lakebase_env: LocalLakebase) -> None:
    shell.run("branches", "create", "ci-1", "--ttl", "8h")
    assert shell.run("migrate", "diff", "ci-1") == "No differences.\n"
    with LakebaseClient(lakebase_env.config().on_branch("ci-1")) as client:
        client.migrations.run(folder)
    assert "- table `public.stock`" in shell.run("migrate", "diff", "ci-1")
    told = shell.json("migrate", "diff", "production", "--from", "ci-1")
    assert "public.stock" in [one["name"] for one in told["removed"]]
