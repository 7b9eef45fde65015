"""The command `lakebase inspect`, and what `lakebase doctor` says of it, on a local Lakebase."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lakebase_provider.cli import main
from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.upkeep.inspection.checks import CHECK_NAMES
from lakebase_provider.local import LocalLakebase
from tests.core.conftest import empty_database
from tests.own_server import lakebase_server as lakebase_server
from tests.test_cli_objects import Shell
from tests.test_cli_objects import shell as shell

KEYLESS = ("--check", "tables_without_primary_key")
#: What other tests have done to the server is not to be bad.
ANY = [word for name in CHECK_NAMES for word in ("--limit", f"{name}=1" if "key" in name else f"{name}=")]


@pytest.fixture(autouse=True)
def keyless(lakebase_env: LocalLakebase) -> None:
    with LakebaseClient(lakebase_env.config()) as client:
        empty_database(client)
        with client.connection() as connection:
            connection.execute("CREATE TABLE keyless (n int)")


def test_a_script_learns_from_the_exit_code_what_is_wrong(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    told = shell.json("inspect", *ANY)
    assert [one["check"] for one in told["findings"]] == list(CHECK_NAMES)
    assert told["status"] == "warn"
    assert main(["inspect", *KEYLESS]) == 0
    assert "    public.keyless\n    remedy: ALTER TABLE" in capsys.readouterr().out
    assert main(["inspect", *KEYLESS, "--fail-on", "warn"]) == 1
    assert main(["inspect", *KEYLESS, "--limit", "tables_without_primary_key=,1"]) == 1
    assert main(["inspect", *KEYLESS, "--limit", "tables_without_primary_key=2", "--fail-on", "warn"]) == 0


def test_growth_is_told_from_what_was_printed_before(shell: Shell, tmp_path: Path) -> None:
    earlier = tmp_path / "earlier.json"
    earlier.write_text(shell.run("inspect", "--check", "database_size", "--json"))
    told = shell.json("inspect", "--check", "growth", "--earlier", str(earlier))
    assert told["findings"][0]["status"] == "ok"
    earlier.write_text("{")
    refused = json.loads(shell.run("inspect", "--earlier", str(earlier), "--json", code=1))
    assert "it is no JSON" in refused["error"]["message"]


def test_a_page_is_written_for_a_browser(shell: Shell, tmp_path: Path) -> None:
    page = tmp_path / "inspection.html"
    shell.run("inspect", *ANY, "--html", str(page))
    text = page.read_text(encoding="utf-8")
    assert "public.keyless" in text
    assert "The way to the database" in text
    refused = shell.run("inspect", *KEYLESS, "--html", str(tmp_path / "absent/page.html"), code=1)
    assert "--html: No such file or directory" in refused


def test_doctor_writes_a_page_and_looks_into_the_database_too(
    shell: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "doctor.html"
    code = main(["doctor", "--inspect", "--html", str(page), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    assert code == (1 if told["inspection"]["status"] == "bad" else 0)
    assert "public.keyless" in page.read_text()
    main(["doctor", "--inspect"])
    assert "    public.keyless\n    remedy: ALTER TABLE" in capsys.readouterr().out
    assert "inspection" not in shell.json("doctor", "--html", str(page))
    assert "keyless" not in page.read_text()


@pytest.mark.parametrize("limit", ["bloat", "bloat=x", "bloat=1,2,3"])
def test_a_limit_that_is_none_is_refused(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["inspect", "--limit", limit])
    assert ended.value.code == 2
    assert "is no limit such as bloat=0.5" in capsys.readouterr().err


def test_an_unknown_check_is_refused_with_the_names(shell: Shell) -> None:
    told = json.loads(shell.run("inspect", "--check", "bloated", "--json", code=1))
    assert told["error"]["code"] == "config"
    assert "bloat, invalid_indexes" in told["error"]["remedy"]
