"""squawk as an optional lint."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import ConfigError, MigrationError
from tests.core.upkeep.migrations.conftest import Write

#: Three findings, each in a file of its own kind, and one of the two rules that are left out.
FILES = {
    "0002_b": "CREATE TABLE t (n int);\nALTER TABLE t ADD COLUMN m int NOT NULL",
    "0003_c": "VACUUM",
    "0004_d": "ALTER TABLE absent DROP COLUMN n",
}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """squawk's configuration, in the folder of this process."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".squawk.toml"


@pytest.fixture
def open_standard_input() -> Iterator[None]:
    """A standard input that nobody writes to and nobody closes, such as a supervisor's."""
    mine, its, kept = *os.pipe(), os.dup(0)
    os.dup2(mine, 0)
    try:
        yield
    finally:
        os.dup2(kept, 0)
        for one in (mine, its, kept):
            os.close(one)


def test_without_squawk_the_error_says_how_to_have_it(
    client: LakebaseClient, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: f"/nowhere/{name}")
    with pytest.raises(ConfigError, match="pip install squawk-cli"):
        client.migrations.run(write(**{"0001_a": "SELECT 1"}), lint=True)


@pytest.mark.usefixtures("open_standard_input")
def test_nothing_is_run_that_squawk_finds_fault_with(
    client: LakebaseClient, write: Write, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    folder = write(**{"0001_a": "SELECT 1"})
    client.migrations.run(folder)
    write(**FILES)
    found = client.migrations.run(folder, lint=True, dry_run=True).findings
    assert {(one.file, one.line, one.rule) for one in found} >= {
        ("0002_b.sql", 2, "adding-required-field"),
        ("0004_d.sql", 1, "ban-drop-column"),
    }
    assert not [one for one in found if "timeout" in one.rule]
    with pytest.raises(MigrationError, match=r"squawk finds: 0002_b.sql:") as caught:
        client.migrations.run(folder, lint=True)
    assert "0004_d.sql:1: " in str(caught.value)
    assert len(client.migrations.status(folder).pending) == 3
    # What the configuration leaves out is left out.
    settings.write_text('excluded_rules = ["ban-drop-column"]\n')
    found = client.migrations.run(folder, lint=True, dry_run=True).findings
    assert "ban-drop-column" not in {one.rule for one in found}


def test_squawk_is_found_beside_this_python(
    client: LakebaseClient, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert shutil.which("squawk") is None
    found = client.migrations.run(write(**FILES), lint=True, dry_run=True).findings
    assert "0002_b.sql" in {one.file for one in found}


def test_a_squawk_that_fails(
    client: LakebaseClient,
    write: Write,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = tmp_path_factory.mktemp("bin") / "squawk"
    program.write_text("#!/bin/sh\necho 'unknown option' >&2; exit 2\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    with pytest.raises(MigrationError, match="squawk ended with 2, without findings: unknown option"):
        client.migrations.run(write(**{"0001_a": "SELECT 1"}), lint=True)
