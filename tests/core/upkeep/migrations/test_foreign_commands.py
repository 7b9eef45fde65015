"""Commands of others that migrate, with a token in their environment."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from traceback import TracebackException
from types import FrameType

import pytest
from psycopg.conninfo import conninfo_to_dict

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.base.secret import Secret
from lakebase_provider.core.errors import ConfigError, LakebaseError, MigrationError
from lakebase_provider.core.upkeep.migrations import foreign_commands
from lakebase_provider.core.upkeep.programs.program_environment import program_environment
from tests.eventually import eventually

MIGRATE = """
import os, sys, psycopg
with psycopg.connect("") as connection:  # by libpq's variables alone
    connection.execute("CREATE TABLE made (n int)")
with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    print("made", connection.execute("SELECT count(*) FROM made").fetchone())
print(os.environ["PGPASSWORD"], os.environ["FLYWAY_PASSWORD"], file=sys.stderr)
assert os.environ["PGPASSWORD"] not in os.environ["DATABASE_URL"] + os.environ["FLYWAY_URL"]
assert "PGSERVICE" not in os.environ
"""


def is_gone(pid: Path) -> bool:
    """Whether the process whose number the file holds is there no more."""
    state = Path(f"/proc/{pid.read_text().strip()}/stat")
    return not state.exists() or state.read_text().split()[2] == "Z"


def test_a_command_finds_the_database_and_its_output_is_logged_without_the_token(
    client: LakebaseClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO)
    for name in ("PGSERVICE", "PGHOSTADDR", "PGPASSFILE"):
        monkeypatch.setenv(name, "elsewhere")
    (tmp_path / "migrate.py").write_text(MIGRATE)
    report = client.migrations.command([sys.executable, "migrate.py"], tmp_path)
    assert report.output[0] == "made (0,)"
    assert report.output[1] == "*** ***"
    assert "made (0,)" in caplog.text
    assert client.tokens.get().reveal() not in caplog.text + repr(report)


def test_a_command_that_fails_says_its_last_line(client: LakebaseClient) -> None:
    with pytest.raises(MigrationError, match=r"ended with 3\. no such revision"):
        client.migrations.command([sys.executable, "-c", "print('no such revision\\n'); exit(3)"])


def test_a_command_is_ended_at_the_deadline_with_what_it_started(
    client: LakebaseClient, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    script = f"sleep 300 & echo $! > {pid}; wait"
    began = time.monotonic()
    with pytest.raises(MigrationError, match="was not done within 3 s, and was ended"):
        client.migrations.command(["sh", "-c", script], timeout=3)
    assert time.monotonic() - began < 30

    eventually(lambda: is_gone(pid))


def test_what_a_command_started_is_ended_even_if_it_outlives_it(
    client: LakebaseClient, tmp_path: Path
) -> None:
    """Its leader ends when it is told to; what it started does not."""
    pid = tmp_path / "pid"
    script = f"(trap '' TERM; echo $(sh -c 'echo $PPID') > {pid}; while :; do sleep 0.1; done) & wait"
    with pytest.raises(MigrationError, match="was not done within 3 s, and was ended"):
        client.migrations.command(["sh", "-c", script], timeout=3)
    eventually(lambda: is_gone(pid))


def test_a_path_with_a_space_stands_in_a_url_of_libpq(client: LakebaseClient) -> None:
    tls = {"sslrootcert": "/a path/root.crt"}
    found = program_environment({}, client.target(), tls, {})
    assert conninfo_to_dict(found["DATABASE_URL"])["sslrootcert"] == "/a path/root.crt"


def test_no_line_is_lost_where_reading_takes_longer_than_the_command(client: LakebaseClient) -> None:
    # Each is looked for in every line.
    alive = [Secret(secrets.token_hex(100)) for _ in range(500)]
    report = client.migrations.command([sys.executable, "-c", "for i in range(5000): print('line', i)"])
    alive.clear()
    assert report.output[-1] == "line 4999"


def test_no_line_is_lost_that_is_looked_through_for_long(
    client: LakebaseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_commands, "_READING", 0.02)
    looking = threading.Event()

    def slowly(line: str) -> str:
        looking.wait(0.2)  # as where a line is long, and the machine busy
        return line

    monkeypatch.setattr(foreign_commands, "lines_redactor", lambda: slowly)
    report = client.migrations.command([sys.executable, "-c", "print('first'); print('last')"])
    assert report.output == ("first", "last")


def test_a_long_line_is_cut_where_no_secret_is_cut_in_two(client: LakebaseClient) -> None:
    script = "import os; print('x' * 9_990 + os.environ['PGPASSWORD']); print('end')"
    long, end = client.migrations.command([sys.executable, "-c", script]).output
    assert (long, end) == ("x" * 9_990 + "***", "end")


def test_what_is_no_command(client: LakebaseClient) -> None:
    token = client.tokens.get().reveal()
    for words in (
        "alembic upgrade head",
        [],
        [3],
        ["psql", f"postgresql://x:{token}@y/z"],
        ["no-such-program"],
    ):
        with pytest.raises(ConfigError) as caught:
            client.migrations.command(words)  # type: ignore[arg-type]
        assert token not in str(caught.value)


@pytest.mark.parametrize(
    "words", [["false"], ["sleep", "300"], ["no-such-program"], ["\0"], "false"], ids=repr
)
def test_no_frame_shows_the_environment(
    client: LakebaseClient, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv("SOMEBODYS", "dose-of-somebody")
    with pytest.raises(LakebaseError) as caught:
        client.migrations.command(words, timeout=1)
    step: BaseException | None = caught.value
    while step is not None:
        shown = "".join(TracebackException.from_exception(step, capture_locals=True).format())
        assert client.tokens.get().reveal() not in shown
        assert "dose-of-somebody" not in shown
        step = step.__context__


def test_a_signal_that_comes_as_a_command_starts_ends_it(client: LakebaseClient) -> None:
    started: list[int] = []

    def signal_as_it_starts(frame: FrameType, event: str, _value: object) -> None:
        if event == "return" and frame.f_code is subprocess.Popen.__init__.__code__:
            started.append(frame.f_locals["self"].pid)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    former = signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for module in (threading, sys):
        module.setprofile(signal_as_it_starts)
    try:
        with pytest.raises(SystemExit):
            client.migrations.command(["sleep", "600"])
    finally:
        for module in (threading, sys):
            module.setprofile(None)
        signal.signal(signal.SIGTERM, former)
    (pid,) = started
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_arguments_show_no_token(client: LakebaseClient) -> None:
    report = client.migrations.command(["cat", "/proc/self/cmdline"])
    assert report.output == (r"cat\x00/proc/self/cmdline\x00",)
    assert os.environ.get("PGPASSWORD") is None
