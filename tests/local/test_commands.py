from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.eventually import eventually

from .test_lifetime import is_running


class Shell:
    """Runs `lakebase` with the user's folders in a temporary place."""

    def __init__(self, home: Path) -> None:
        folders = {"XDG_RUNTIME_DIR": home / "run", "XDG_DATA_HOME": home / "data", "HOME": home}
        for folder in folders.values():
            folder.mkdir(mode=0o700, exist_ok=True)
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PG")},
            **{name: str(folder) for name, folder in folders.items()},
        }
        self.note = home / "run" / "lakebase-provider" / "local-default.json"

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "lakebase_provider.cli", *words],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell's background job, as CI may be, ignores SIGINT and lets its children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *words: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
        answer = subprocess.run(
            [sys.executable, "-m", "lakebase_provider.cli", *words],
            env=self.env | (env or {}),
            capture_output=True,
            text=True,
            timeout=60,
        )
        return answer.returncode, answer.stdout, answer.stderr


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    if shell.note.exists():
        shell.run("local", "down")


def parse(exports: str) -> dict[str, str]:
    found = {}
    for line in exports.splitlines():
        assert re.fullmatch(r"export [A-Z_]+='[^']*'", line)
        name, _, value = line.removeprefix("export ").partition("=")
        found[name] = shlex.split(value)[0]
    return found


def test_up_env_token_down(shell: Shell) -> None:
    code, out, err = shell.run("local", "up", "--detach", "--token-lifetime", "600")
    assert (code, err) == (0, "")
    variables = parse(out)
    assert "PGSSLMODE" not in variables
    assert shell.note.stat().st_mode & 0o777 == 0o600
    assert shell.run("local", "env") == (0, out, "")

    code, again, err = shell.run("local", "up")
    assert (code, again) == (1, "")
    assert "already running" in err
    assert len(err.splitlines()) == 2

    code, token, err = shell.run("token", env=variables)
    assert (code, err) == (0, "")
    with psycopg.connect(
        host=variables["PGHOST"],
        port=variables["PGPORT"],
        user=variables["PGUSER"],
        dbname=variables["PGDATABASE"],
        sslrootcert=variables["PGSSLROOTCERT"],
        sslmode="verify-full",
        password=token.strip(),
    ) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)

    authority = Path(variables["PGSSLROOTCERT"])
    certificate = authority.read_text()
    code, out, err = shell.run("local", "down")
    assert (code, out) == (0, "")
    assert not shell.note.exists()
    for command in ("env", "down"):
        code, out, err = shell.run("local", command)
        assert (code, out) == (1, "")
        assert "No local Lakebase 'default' is running" in err

    assert shell.run("local", "up", "--detach")[0] == 0
    assert authority.read_text() == certificate, "sslrootcert survives a restart"
    assert authority.with_name("authority.pem").stat().st_mode & 0o777 == 0o600


def test_what_env_prints_for_airflow_connects_its_hook(shell: Shell) -> None:
    assert shell.run("local", "up", "--detach")[0] == 0
    code, out, err = shell.run("local", "env", "--airflow")
    assert (code, err) == (0, "")
    assert set(parse(out)) == {"AIRFLOW_CONN_LAKEBASE_DEFAULT", "LAKEBASE_ALLOW_LOOPBACK"}
    test = (
        "from lakebase_provider.hooks.lakebase import LakebaseHook;"
        "print(LakebaseHook('lakebase_default').test_connection())"
    )
    # A shell that has nothing else, as a user's who has only evaluated this.
    answer = subprocess.run(
        ["/bin/sh", "-c", f'eval "$1"; exec "$2" -c "{test}"', "sh", out, sys.executable],
        env={
            name: value
            for name, value in shell.env.items()
            if not name.startswith(("AIRFLOW_CONN", "DATABRICKS_", "LAKEBASE_", "ENDPOINT_NAME"))
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stderr
    assert any(line.startswith("(True, ") for line in answer.stdout.splitlines()), answer.stdout
    secret = json.loads(parse(out)["AIRFLOW_CONN_LAKEBASE_DEFAULT"])["password"]
    assert secret not in answer.stdout + answer.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_stays_until_a_signal(shell: Shell, number: signal.Signals) -> None:
    with shell.start("local", "up") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("export DATABRICKS_HOST=")
        assert "Ctrl-C" in process.stderr.readline()
        process.send_signal(number)
        assert process.wait(30) == 0
        assert process.stderr.read() == ""
    assert not shell.note.exists()


def test_down_ends_an_up_that_stays(shell: Shell) -> None:
    with shell.start("local", "up") as process:
        assert process.stderr is not None
        assert "Ctrl-C" in process.stderr.readline()
        assert shell.run("local", "down")[0] == 0
        assert process.wait(30) == 0


def test_a_note_of_a_killed_server_is_no_obstacle(shell: Shell) -> None:
    assert shell.run("local", "up", "--detach")[0] == 0
    pid = int(re.findall(r'"pid": (\d+)', shell.note.read_text())[0])
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not is_running(pid))
    assert shell.run("local", "env")[0] == 1
    assert not shell.note.exists()
    assert shell.run("local", "up", "--detach")[0] == 0


def test_ports_are_taken_as_given_and_refused_in_one_line(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = shell.run("local", "up", "--port", str(port))
    assert (code, out) == (1, "")
    assert f"Port {port} on 127.0.0.1 is already in use" in err
    assert len(err.splitlines()) == 2
    code, out, _ = shell.run("local", "up", "--detach", "--port", str(port))
    assert code == 0
    assert parse(out)["PGPORT"] == str(port)


def test_a_bad_name_is_refused(shell: Shell) -> None:
    code, _, err = shell.run("local", "env", "--name", "../x")
    assert code == 1
    assert "--name '../x' is not valid" in err
