"""Commands of others that migrate, with a token in their environment."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import ConfigError, MigrationError
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
    with pytest.raises(MigrationError, match="was not done within 1 s, and was ended"):
        client.migrations.command(["sh", "-c", script], timeout=1)
    assert time.monotonic() - began < 30

    def gone() -> bool:
        state = Path(f"/proc/{pid.read_text().strip()}/stat")
        return not state.exists() or state.read_text().split()[2] == "Z"

    eventually(gone)


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


def test_arguments_show_no_token(client: LakebaseClient) -> None:
    report = client.migrations.command(["cat", "/proc/self/cmdline"])
    assert report.output == ("cat\0/proc/self/cmdline\0",)
    assert os.environ.get("PGPASSWORD") is None
