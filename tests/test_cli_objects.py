"""The commands `lakebase branches` and `lakebase endpoints`, on a local Lakebase."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lakebase_provider.cli import main
from lakebase_provider.core.upkeep.branches.branch_upkeep import BranchUpkeep
from lakebase_provider.local import LocalLakebase
from tests.security.hostile_workspace import ENDPOINT, SECRET, HostileWorkspace

PRIMARY = "projects/local/branches/ci-1/endpoints/primary"


class Shell:
    """Runs commands in this process, which has the environment of a local Lakebase."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def run(self, *words: str, code: int = 0) -> str:
        assert main(words) == code
        out, err = self._capsys.readouterr()
        return out if code == 0 else err

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))


@pytest.fixture
def shell(lakebase_env: LocalLakebase, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def test_branches_are_created_listed_reset_and_deleted(shell: Shell) -> None:
    made = shell.json("branches", "create", "ci-1", "--ttl", "8h")
    assert (made["name"], made["state"]) == ("projects/local/branches/ci-1", "READY")
    assert "ci-1 exists" in shell.run("branches", "create", "ci-1", "--ttl", "8h", code=1)
    assert (
        shell.json("branches", "create", "ci-1", "--ttl", "8h", "--if-exists", "reuse")["uid"] == made["uid"]
    )
    lines = shell.run("branches", "list").splitlines()
    assert [line.split()[0] for line in lines] == [
        "name",
        "projects/local/branches/production",
        "projects/local/branches/ci-1",
    ]
    done = shell.json("branches", "reset", "ci-1")
    assert done["former_uid"] == made["uid"] != done["branch"]["uid"]
    assert "default branch" in shell.run("branches", "reset", "production", code=1)
    shell.run("branches", "delete", "ci-1")
    assert len(shell.json("branches", "list")) == 1
    assert len(shell.json("branches", "list", "--deleted")) == 2
    err = shell.run("branches", "create", "ci-1", "--ttl", "8h", "--if-exists", "reuse", code=1)
    assert "`lakebase branches undelete projects/local/branches/ci-1`" in err
    assert shell.json("branches", "undelete", "ci-1")["state"] == "READY"
    shell.run("branches", "delete", "ci-1")
    shell.run("branches", "create", "ci-1", "--no-expiry", "--if-exists", "recreate")
    shell.run("branches", "delete", "ci-1", "--purge")
    shell.run("branches", "delete", "ci-1", "--purge", "--missing-ok")
    assert "branch id not found" in shell.run("branches", "delete", "ci-1", code=1)


def test_a_reset_that_failed_half_way_is_finished_by_what_its_error_says(
    shell: Shell, lakebase_env: LocalLakebase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BranchUpkeep, "plans_folder", tmp_path)
    shell.run("branches", "create", "ci-1", "--ttl", "8h")
    lakebase_env.admin.fault("POST", "/api/2.0/postgres/projects/local/branches", status=403, message="no")
    err = shell.run("branches", "reset", "ci-1", code=1)
    assert "Run 'lakebase branches reset projects/local/branches/ci-1' again on this machine." in err
    lakebase_env.admin.clear_faults()
    assert shell.json("branches", "recover") == ["projects/local/branches/ci-1"]
    assert shell.run("branches", "recover") == "No reset was left half-way.\n"


def test_what_was_left_is_swept_and_counted(shell: Shell, lakebase_env: LocalLakebase) -> None:
    shell.run("branches", "create", "run-1", "--ttl", "8h")
    assert shell.json("branches", "budget")["unarchived"] == {"used": 2, "limit": 10}
    assert "2 of 10 unarchived branches" in shell.run("branches", "budget")
    [kept] = shell.json("branches", "sweep", "--older-than", "1s")["branches"]
    assert "so it is held" in kept["reason"]
    assert "younger than 86400 s" in shell.run("branches", "sweep", "--dry-run")
    assert "would be deleted" in shell.run("branches", "sweep", "--dry-run")
    shell.run("branches", "sweep", "--older-than", "0.001s", "--held", "0.001s")
    assert len(shell.json("branches", "list")) == 1
    assert "'prefix' is" in shell.run("branches", "sweep", "--prefix", "Run", code=1)
    assert shell.json("branches", "sweep", "--prefix", "ci")["branches"] == []


def test_a_workspace_that_fails_once_is_asked_again(shell: Shell, lakebase_env: LocalLakebase) -> None:
    branches = "/api/2.0/postgres/projects/local/branches"
    shell.run("branches", "create", "ci-1", "--ttl", "8h")
    lakebase_env.admin.fault("POST", branches, status=503, times=1)
    assert "ci-1" in shell.run("branches", "create", "ci-1", "--ttl", "8h", code=1)
    for method, words in [("GET", ("list",)), ("DELETE", ("delete", "ci-1", "--purge"))]:
        lakebase_env.admin.fault(method, f"{branches}*", status=503, times=1)
        shell.run("branches", *words)


def test_endpoints_are_changed(shell: Shell) -> None:
    shell.run("branches", "create", "ci-1", "--ttl", "1d")
    shell.run("endpoints", "create", PRIMARY.replace("primary", "reader"), "--max-cu", "1", "--min-cu", "0.5")
    found = shell.json("endpoints", "list", "--branch", "ci-1")
    assert [one["endpoint_type"] for one in found] == ["READ_WRITE", "READ_ONLY"]
    changed = shell.json("endpoints", "update", PRIMARY, "--max-cu", "4", "--suspend-timeout", "5m")
    assert (changed["max_cu"], changed["suspend_timeout"]) == (4, 300)
    assert shell.json("endpoints", "suspend", PRIMARY)["disabled"]
    assert not shell.json("endpoints", "enable", PRIMARY)["disabled"]
    shell.run("endpoints", "delete", PRIMARY.replace("primary", "reader"))
    assert "managed_by_parent" in shell.run("endpoints", "delete", PRIMARY, code=1)
    assert "READ_WRITE" in shell.run("endpoints", "list", "--branch", "ci-1")


def test_words_that_make_no_sense(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["branches", "create", "x", "--ttl", "soon"],
        ["branches", "create", "x", "--ttl", "1h", "--no-expiry"],
        ["branches", "create", "x", "--ttl", "1h", "--lsn", "0/1", "--snapshot", "s"],
        ["branches", "list", "--timeout", "0"],
        ["branches", "list", "--timeout", "-5s"],
        ["branches", "list", "--timeout", "nan"],
        ["branches"],
        ["endpoints", "list", "--x"],
    ):
        with pytest.raises(SystemExit):
            main(words)
    assert "no duration" in capsys.readouterr().err
    assert "Give --ttl or --no-expiry" in shell.run("branches", "create", "x", code=1)
    assert "Give a time" in shell.run("branches", "create", "x", "--ttl", "1d", "--at", "noon", code=1)


def test_remedies_speak_of_the_command_line(shell: Shell) -> None:
    shell.run("branches", "create", "ci-1", "--ttl", "8h")
    said = {
        "--if-exists reuse or recreate": ("branches", "create", "ci-1", "--ttl", "8h"),
        "a shorter --ttl": ("branches", "create", "ci-2", "--ttl", "31d"),
        "`lakebase branches list`": ("branches", "reset", "absent"),
        "delete it first": ("endpoints", "create", PRIMARY),
        "history that": ("branches", "create", "ci-2", "--ttl", "1h", "--at", "2020-01-01T00:00:00Z"),
    }
    for remedy, words in said.items():
        err = shell.run(*words, code=1)
        assert remedy in err
        assert not any(python in err for python in ("=True", "ensure()", "on_exists"))


def test_json_also_of_errors_and_of_what_is_gone(shell: Shell) -> None:
    told = json.loads(shell.run("branches", "reset", "absent", "--json", code=1))["error"]
    assert told["code"] == "endpoint_not_found"
    assert told["remedy"].startswith("Check the branch")
    shell.run("branches", "create", "ci-1", "--ttl", "8h")
    name = "projects/local/branches/ci-1"
    reader = PRIMARY.replace("primary", "reader")
    shell.run("endpoints", "create", reader)
    assert shell.json("endpoints", "delete", reader) == {"name": reader, "deleted": True}
    assert shell.json("branches", "delete", "ci-1") == {"name": name, "deleted": True}


@pytest.mark.parametrize("kind", ["branches", "endpoints"])
def test_what_a_workspace_calls_its_objects_does_not_reach_the_terminal_as_codes(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    codes = "\x1b]0;gotcha\x07\x9b2J\u202e\ud800\r\nprojects/p/forged"
    parent = "projects/p" if kind == "branches" else "projects/p/branches/b"
    item = {
        "name": f"{parent}/{kind}/x{codes}",
        "uid": "u",
        "status": {
            "current_state": "READY" if kind == "branches" else "ACTIVE",
            "hosts": {"host": f"h{codes}"},
        },
    }
    with HostileWorkspace() as workspace:
        listed = f"/api/2.0/postgres/{parent}/{kind}"
        workspace.answers |= {listed + query: {kind: [item]} for query in ("", "?page_size=100")}
        for name, value in {
            "LAKEBASE_ALLOW_LOOPBACK": "1",
            "LAKEBASE_ENDPOINT": ENDPOINT,
            "DATABRICKS_CONFIG_FILE": str(tmp_path / "none"),
            "DATABRICKS_HOST": workspace.url,
            "DATABRICKS_CLIENT_ID": "client",
            "DATABRICKS_CLIENT_SECRET": SECRET,
        }.items():
            monkeypatch.setenv(name, value)
        code = main([kind, "list"])
    out, err = capsys.readouterr()
    shown = out + err
    assert "gotcha" in shown
    assert all(line.isprintable() for line in shown.split("\n")), ascii(shown)
    assert code or (len(out.splitlines()), "\\x1b]0;gotcha\\x07\\x9b2J\\u202e" in out) == (2, True)
