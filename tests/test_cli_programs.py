"""The command `lakebase exec`, on a local Lakebase."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lakebase_provider.cli import main
from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.local import LocalLakebase
from tests.test_cli_objects import Shell
from tests.test_cli_objects import shell as shell

#: The system's programs; test_programs.py tries the same way by psycopg, which is always there.
needs_psql = pytest.mark.skipif(
    not shutil.which("psql") or not shutil.which("pg_dump"), reason="no psql here"
)
PSQL = ("psql", "--no-password", "--no-psqlrc", "-At")
#: A shell cannot trap what was ignored when it began, as other tests in this process may have it.
_DEFAULT_SIGNALS = ("env", "--default-signal=TERM,HUP,INT")


def begun(folder: Path, *words: str) -> subprocess.Popen[str]:
    """A process of the command whose pass file is in that folder."""
    return subprocess.Popen(
        [*_DEFAULT_SIGNALS, sys.executable, "-m", "lakebase_provider.cli", "exec", "--", *words],
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@needs_psql
def test_a_program_finds_the_database_and_its_exit_code_is_passed_on(
    lakebase_env: LocalLakebase, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["exec", "--", *PSQL, "-c", "SELECT current_user"]) == 0
    assert capfd.readouterr().out == f"{lakebase_env.client_id}\n"
    assert main(["exec", *PSQL, "-c", "SELECT 1/0"]) == 1
    assert main(["exec", "sh", "-c", "exit 42"]) == 42
    assert main(["exec", "sh", "-c", "kill -KILL $$"]) == 137
    assert main(["exec", "no-such-program"]) == 127
    assert "cannot be started: No such file" in capfd.readouterr().err
    assert main(["exec", "/dev/null"]) == 126


def test_another_branch_and_another_database(
    lakebase_env: LocalLakebase, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["branches", "create", "ci-1", "--ttl", "8h"]) == 0
    with LakebaseClient(LakebaseConfig.from_env().on_branch("ci-1")) as client:
        host = client.target().host
    assert (
        main(["exec", "--branch", "ci-1", "--database", "other", "sh", "-c", "echo $PGHOST/$PGDATABASE"]) == 0
    )
    assert f"{host}/other\n" in capfd.readouterr().out


def test_what_is_no_command_is_refused(shell: Shell) -> None:
    assert "no program to run" in shell.run("exec", "--", code=1)
    assert "branch" in shell.run("exec", "--branch", "", "true", code=1)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_signals_reach_the_program_and_nothing_is_left(
    lakebase_env: LocalLakebase, tmp_path: Path, name: str
) -> None:
    script = f"trap 'echo caught; exit 7' {name[3:]}; echo ready; while :; do sleep 0.05; done"
    with begun(tmp_path, "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        [folder] = tmp_path.iterdir()
        assert {file.name for file in folder.iterdir()} >= {"pgpass"}
        process.send_signal(getattr(signal, name))
        assert process.stdout.readline() == "caught\n"
        assert process.wait(30) == 7
    assert list(tmp_path.iterdir()) == []


@needs_psql
def test_a_program_has_the_standard_input(lakebase_env: LocalLakebase, tmp_path: Path) -> None:
    with begun(tmp_path, *PSQL) as process:
        out, _ = process.communicate("SELECT 6 * 7;\n", timeout=60)
    assert (out, process.returncode) == ("42\n", 0)


@needs_psql
def test_a_database_is_dumped(
    lakebase_env: LocalLakebase, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with LakebaseClient(lakebase_env.config()) as client, client.connection() as connection:
        connection.execute("DROP TABLE IF EXISTS dumped; CREATE TABLE dumped (n int)")
    file = tmp_path / "dump.sql"
    code = main(["exec", "--", "pg_dump", "--no-password", "-t", "dumped", "-f", str(file)])
    told = capfd.readouterr().err
    if "server version mismatch" in told:
        # It has connected and logged in, and refuses by itself: no pg_dump dumps a newer server.
        pytest.skip("pg_dump is older than the server")
    assert code == 0, told
    assert "CREATE TABLE public.dumped" in file.read_text()
