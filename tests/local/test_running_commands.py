"""`lakebase local branch`, `suspend`, `crash` and `fault`, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lakebase_provider.cli import main
from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.local.contract.options import FAULT_METHODS
from tests.local.test_commands import Shell, parse
from tests.local.test_commands import shell as shell


@pytest.fixture
def up(shell: Shell) -> Iterator[dict[str, str]]:
    code, out, err = shell.run("local", "up", "--detach", "--postgres", "16")
    assert code == 0, err
    yield parse(out)
    shell.run("local", "down")


def query(environment: dict[str, str], statement: str) -> list[Any]:
    with LakebaseClient(LakebaseConfig.from_env(environment)) as client, client.connection() as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_a_branch_from_its_creation_to_its_end(shell: Shell, up: dict[str, str]) -> None:
    query(up, "CREATE TABLE t AS SELECT 1 AS i")
    ((before,),) = query(up, "SELECT pg_current_wal_insert_lsn()::text")
    query(up, "DELETE FROM t")
    code, out, err = shell.run("local", "branch", "create", "dev", "--at-lsn", before)
    assert (code, err) == (0, "")
    dev = {**up, **parse(out)}
    assert dev["PGHOST"] != up["PGHOST"]
    assert query(dev, "SELECT i FROM t") == [(1,)]

    code, out, err = shell.run("local", "branch", "list")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["BRANCH", "STATE", "SOURCE", "HOST"],
        ["production", "READY", "-", "localhost"],
        ["dev", "READY", "production", dev["PGHOST"]],
    ]
    listed = json.loads(shell.run("local", "branch", "list", "--json")[1])
    assert [branch["branch_id"] for branch in listed] == ["production", "dev"]

    assert shell.run("local", "suspend", "dev") == (0, "", "")
    assert query(dev, "SELECT i FROM t") == [(1,)]
    assert shell.run("local", "crash", "dev") == (0, "", "")
    assert query(dev, "SELECT i FROM t") == [(1,)]

    code, out, err = shell.run("local", "branch", "reset", "dev")
    assert (code, err) == (0, "")
    assert query({**up, **parse(out)}, "SELECT i FROM t") == []
    assert shell.run("local", "branch", "delete", "dev") == (0, "", "")
    code, out, err = shell.run("local", "branch", "delete", "dev")
    assert (code, out) == (1, "")
    assert "branch id not found" in err


def test_faults(shell: Shell, up: dict[str, str]) -> None:
    assert shell.run("local", "fault", "GET", "*/branches", "--status", "500", "--message", "as told")[0] == 0
    code, out, err = shell.run("local", "branch", "list")
    assert (code, out) == (1, "")
    assert "as told" in err
    assert shell.run("local", "fault", "--clear")[0] == 0
    assert shell.run("local", "branch", "list")[0] == 0
    code, out, err = shell.run("local", "fault", "GET")
    assert code == 1
    assert "needs a method, a path" in err
    for words, what in (
        (("fault", "GET", "*", "--status", "99999"), "A fault's status must be 200 to 599, not 99999."),
        (("fault", "GET", "*", "--status", "503", "--times", "-1"), "A fault's times must be 1 or more"),
        (("fault", "GET", "*", "--hang", "-3"), "A fault's hang must be 0 or more"),
        (("crash", "--downtime", "-1"), "Downtime must be 0 or more"),
    ):
        code, out, err = shell.run("local", *words)
        assert (code, out) == (1, "")
        assert what in err
    assert shell.run("local", "branch", "list")[0] == 0


@pytest.mark.parametrize("more", [(), ("*", "--status", "503"), ("--clear",)], ids=["alone", "set", "clear"])
def test_a_method_that_does_not_exist_is_refused(
    shell: Shell, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["local", "fault", "BOGUS", *more])
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert "BOGUS" in told
    assert all(method in told for method in FAULT_METHODS)


def test_names_that_are_not_known_are_refused_with_those_that_are(shell: Shell, up: dict[str, str]) -> None:
    for words, known in (
        (("fault", "GET", "projects/*", "--status", "503"), "/api/2.0/, /oidc/"),
        (("fault", "GET", "/api/2.1/*", "--status", "503"), "/api/2.0/, /oidc/"),
        (("suspend", "bogus"), "lakebase local branch list"),
        (("crash", "bogus"), "lakebase local branch list"),
        (("branch", "create", "dev", "--source", "bogus"), "lakebase local branch list"),
        (("branch", "reset", "bogus"), "lakebase local branch list"),
        (("branch", "list", "--name", "bogus"), "--name of one that runs: default"),
        (("env", "--name", "bogus"), "--name of one that runs: default"),
        (("down", "--name", "bogus"), "--name of one that runs: default"),
    ):
        code, out, err = shell.run("local", *words)
        assert (code, out) == (1, ""), words
        assert known in err
    assert shell.run("local", "fault", "get", "*/branches", "--status", "503")[0] == 0
    assert shell.run("local", "branch", "list")[0] == 1


@pytest.mark.parametrize("words", [("branch", "list"), ("suspend",), ("crash",), ("fault", "--clear")])
def test_they_need_one_that_runs(shell: Shell, words: tuple[str, ...]) -> None:
    code, out, err = shell.run("local", *words)
    assert (code, out) == (1, "")
    assert "No local Lakebase 'default' is running" in err


def test_a_delta_table_is_made_and_grows(shell: Shell, up: dict[str, str]) -> None:
    code, out, err = shell.run("local", "delta", "--rows", "5")
    assert (code, err) == (0, "")
    assert out.startswith("main.samples.trips has 5 rows at version 0: ")
    assert shell.run("local", "delta", "--rows", "2")[1].startswith(
        "main.samples.trips has 7 rows at version 1"
    )
    with LakebaseClient(LakebaseConfig.from_env(up)) as client:
        tables = client.workspace.synced_tables
        options: dict[str, Any] = {"source_table": "main.samples.trips", "primary_key": ["id"]}
        options |= {"scheduling_policy": "SNAPSHOT", "postgres_database": "databricks_postgres"}
        tables.create("main.public.trips", **options)
        tables.wait("main.public.trips", version=1)
    assert query(up, "SELECT count(*), max(stops ->> 0) FROM trips") == [(7, "stop-6")]
    for wrong in ("../trips", "trips"):
        code, out, err = shell.run("local", "delta", wrong)
        assert code == 1
        assert "<catalog>.<schema>.<table>" in err
    assert shell.run("local", "delta", "--rows", "0")[0] == 1
