"""Programs that connect by themselves: their environment, their pass file, and signals on their way."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.base.clock import SystemClock
from lakebase_provider.core.connect.target import Target
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.tokens.token import Token
from lakebase_provider.core.upkeep.programs import pass_file
from lakebase_provider.core.upkeep.programs.foreground import Foreground
from lakebase_provider.core.upkeep.programs.pass_file import PassFile
from lakebase_provider.local import LocalLakebase
from tests.eventually import eventually

#: Programs that connect twice, and wait between for somebody to say so.
PSQL = (
    "psql --no-password -Atc \"SELECT 'first'\" && read line && psql --no-password -Atc \"SELECT 'second'\""
)
PYTHON = """
import os, sys, {driver} as driver
for word in ("first", "second"):
    {connect}.close()
    print(word, flush=True)
    word == "second" or sys.stdin.readline()
"""
#: As dbt-postgres connects, with a password that is empty.
LIKE_DBT = "driver.connect(host=os.environ['PGHOST'], user=os.environ['PGUSER'], password='')"
TWICE = {
    "psql": ["/bin/sh", "-c", PSQL],
    "psycopg": [sys.executable, "-c", PYTHON.format(driver="psycopg", connect="driver.connect('')")],
    "psycopg2": [sys.executable, "-c", PYTHON.format(driver="psycopg2", connect=LIKE_DBT)],
}
TARGET = Target("host", 5432, "orders", "me")


class SetClock(SystemClock):
    """The machine's clocks, which a test sets forward."""

    ahead = 0.0

    def wall(self) -> float:
        return super().wall() + self.ahead

    def elapsed(self) -> float:
        return super().elapsed() + self.ahead


def token(value: str) -> Token:
    return Token(value, None, 0.0, 0.0)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where pass files are made; none may be left."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("kind", TWICE)
def test_a_program_connects_again_after_its_first_token_has_expired(
    lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if not (shutil.which(kind) or importlib.util.find_spec(kind)):
        # psql is the system's, psycopg2 another package's: neither is among what the tests install.
        pytest.skip(f"{kind} is not installed")
    monkeypatch.setattr(pass_file, "_MOST", 0.05)
    monkeypatch.setattr(pass_file, "_LEAST", 0.05)
    clock = SetClock()
    with (
        LakebaseClient(lakebase_env.config(), clock=clock) as client,
        client.program_environment() as variables,
    ):
        first, file = client.tokens.get(), Path(variables["PGPASSFILE"])
        with subprocess.Popen(
            TWICE[kind], env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as program:
            assert program.stdout is not None
            assert program.stdin is not None
            assert program.stdout.readline() == "first\n"
            for secret in (b"cmdline", b"environ"):
                assert (
                    first.reveal().encode() not in Path(f"/proc/{program.pid}", secret.decode()).read_bytes()
                )
            # The server's clock first: what was minted between the two would have expired at once.
            lakebase_env.admin.advance(3700)
            clock.ahead += 3700
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(variables["DATABASE_URL"], password=first.reveal())
            eventually(lambda: first.reveal() not in file.read_text())
            program.stdin.write("on\n")
            program.stdin.flush()
            assert program.stdout.readline() == "second\n"


def test_only_this_user_can_read_the_file_and_nothing_else_names_the_password(
    client: LakebaseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGPASSWORD", "PGSERVICE", "PGPASSFILE", "FLYWAY_PASSWORD"):
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.setenv("KEPT", "yes")
    before = os.umask(0)
    try:
        with client.program_environment() as variables:
            file = Path(variables["PGPASSFILE"])
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
            assert not {"PGPASSWORD", "PGSERVICE", "FLYWAY_PASSWORD"} & variables.keys()
            assert variables["KEPT"] == "yes"
            assert client.tokens.get().reveal() not in str(variables)
            for name in ("PGPASSWORD", "PGSERVICE", "PGPASSFILE"):
                monkeypatch.delenv(name)
            with psycopg.connect(variables["DATABASE_URL"], passfile=str(file)) as connection:
                assert connection.info.dbname == "databricks_postgres"
    finally:
        os.umask(before)


def test_a_renewal_that_fails_is_tried_again_and_disturbs_nobody(
    lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pass_file, "_MOST", 0.05)
    monkeypatch.setattr(pass_file, "_LEAST", 0.05)
    caplog.set_level(logging.WARNING)
    with LakebaseClient(lakebase_env.config()) as client, client.program_environment() as variables:
        file = Path(variables["PGPASSFILE"])
        before = file.read_text()
        get = client.tokens.get
        asked = threading.Event()

        def refuse(_timeout: float = 0) -> Token:
            asked.set()
            raise ConfigError("no token today")

        monkeypatch.setattr(client.tokens, "get", refuse)
        assert asked.wait(25)
        assert file.read_text() == before
        client.tokens.invalidate(get().fingerprint)
        monkeypatch.setattr(client.tokens, "get", get)
        eventually(lambda: file.read_text() != before)
    assert "not renewed, and is tried again: no token today" in caplog.text


@pytest.mark.parametrize(
    ("host", "password", "line"),
    [("host", "p:w\\d", "host:5432:*:me:p\\:w\\\\d\n"), ("::1", "x", "\\:\\:1:5432:*:me:x\n")],
)
def test_colons_and_backslashes_are_escaped(host: str, password: str, line: str) -> None:
    file = PassFile(Target(host, 5432, "orders", "me"), token(password))
    assert file.path.read_text() == line
    file.remove()
    file.write(token("later"))  # by a renewal that was under way


def test_a_password_with_a_line_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="holds a line end"):
        PassFile(TARGET, token("a\nb"))


def test_a_folder_that_cannot_be_written_to_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null")
    with pytest.raises(ConfigError, match="cannot be written: Not a directory"):
        PassFile(TARGET, token("x"))


def test_what_a_killed_process_left_is_removed_once_its_token_has_expired(
    client: LakebaseClient, own_folder: Path
) -> None:
    held = PassFile(TARGET, token("held"))
    left = own_folder / "lakebase-pass-left"
    fresh = own_folder / "lakebase-pass-fresh"
    for folder in (left, fresh):
        folder.mkdir(0o700)
        (folder / "pgpass").write_text("x")
    for folder in (left, held.path.parent):
        os.utime(folder, (time.time() - 7200,) * 2)
    with client.program_environment():
        assert not left.exists()
        assert fresh.exists()
        assert held.path.exists()
    held.remove()
    (fresh / "pgpass").unlink()
    fresh.rmdir()


def test_signals_are_handed_on_from_the_beginning_to_the_end() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Foreground() as foreground:
        with pytest.raises(SystemExit) as ended:
            os.kill(os.getpid(), signal.SIGTERM)
        assert ended.value.code == 143
        # By its parent, which is this process.
        script = "trap 'exit 7' TERM; kill $PPID; while :; do sleep 0.05; done"
        assert foreground.run(["sh", "-c", script], os.environ) == 7
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Foreground() as foreground:
            assert foreground.run(["sh", "-c", "kill -HUP $PPID; kill -HUP $$; exit 3"], os.environ) == 3
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_a_thread_a_program_runs_too() -> None:
    codes: list[int] = []

    def run() -> None:
        with Foreground() as foreground:
            codes.append(foreground.run([sys.executable, "-c", "exit(5)"], os.environ))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert codes == [5]
