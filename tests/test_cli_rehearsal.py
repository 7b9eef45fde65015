"""The command `lakebase rehearse`, on a local Lakebase."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lakebase_provider.cli import main
from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase
from tests.test_cli_objects import Shell
from tests.test_cli_objects import shell as shell


@pytest.fixture
def file(tmp_path: Path, lakebase_env: LocalLakebase) -> str:
    with LakebaseClient(lakebase_env.config()) as client, client.connection() as connection:
        connection.execute("DROP TABLE IF EXISTS stock")
        connection.execute("CREATE TABLE stock AS SELECT 1 AS id, 2 AS n")
    path = tmp_path / "change.sql"
    path.write_text("UPDATE stock SET n = 3")
    return str(path)


def test_a_file_is_rehearsed_and_run(
    shell: Shell,
    file: str,
    lakebase_env: LocalLakebase,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    check = ("--check", "SELECT n = 3 FROM stock", "--table", "stock:id", "--max-cu", "1")
    told = shell.json("rehearse", file, *check, "--then", "run")
    assert told["ok"]
    assert told["ran"][0]["rows"] == 1
    assert told["tables"][0]["examples"][0]["after"] == {"n": "3"}

    page = tmp_path / "rehearsal.html"
    words = ("rehearse", file, "--check", "SELECT n = 4 FROM stock", "--then", "run", "--html", str(page))
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert "## Rehearsal: failed" in out
    assert "not true in 1 of 1 rows" in page.read_text(encoding="utf-8")
    assert "SELECT n = 4 FROM stock: not true in 1 of 1 rows" in err
    with LakebaseClient(lakebase_env.config()) as client, client.connection() as connection:
        assert connection.execute("SELECT n FROM stock").fetchall() == [(3,)]


def test_what_cannot_be_read_is_refused(shell: Shell, tmp_path: Path) -> None:
    told = json.loads(shell.run("rehearse", str(tmp_path / "absent.sql"), "--json", code=1))
    assert told["error"]["code"] == "config"
