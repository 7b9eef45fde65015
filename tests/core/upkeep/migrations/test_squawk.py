"""squawk as an optional lint."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import ConfigError, MigrationError
from tests.core.upkeep.migrations.conftest import Write

#: What squawk 2.70 writes about `ALTER TABLE t ADD COLUMN n int NOT NULL` in the first line of a file.
SAID = """#!{python}
import json, os, sys
options, files = sys.argv[1:], [word for word in sys.argv[1:] if word.endswith(".sql")]
if "--help" in options:
    print("--assume-in-transaction --no-assume-in-transaction")
    sys.exit(0)
assert options[:2] == ["--reporter", "json"]
assert "--exclude" not in options  # it would take in what the configuration leaves out
assert ("--no-assume-in-transaction" in options) == ("0003_c.sql" in files[0])
assert os.environ["SQUAWK_DISABLE_GITHUB_ANNOTATIONS"] == "1" and sys.stdin.read() == ""
print(json.dumps([{{
    "file": file, "line": 0, "column": 0, "level": "Warning", "column_end": 9, "line_end": 0,
    "message": "Adding a new column that is `NOT NULL` and has no default value", "help": None,
    "rule_name": rule,
}} for file in files for rule in ("adding-not-nullable-field", "require-lock-timeout")]))
sys.exit(1)
"""


@pytest.fixture
def squawk(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name on the path, which answers as squawk does; it is not installed for the tests."""
    program = tmp_path_factory.mktemp("bin") / "squawk"
    program.write_text(SAID.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    return program


def test_without_squawk_the_error_says_how_to_have_it(
    client: LakebaseClient, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="pip install squawk-cli"):
        client.migrations.run(write(**{"0001_a": "SELECT 1"}), lint=True)


def test_nothing_is_run_that_squawk_finds_fault_with(
    client: LakebaseClient, write: Write, squawk: Path
) -> None:
    folder = write(**{"0001_a": "SELECT 1"})
    client.migrations.run(folder)
    write(**{"0002_b": "CREATE TABLE t (n int)", "0003_c": "VACUUM"})
    found = client.migrations.run(folder, lint=True, dry_run=True).findings
    assert [(one.file, one.line, one.rule) for one in found] == [
        ("0002_b.sql", 1, "adding-not-nullable-field"),
        ("0003_c.sql", 1, "adding-not-nullable-field"),
    ]
    with pytest.raises(MigrationError, match=r"squawk finds: 0002_b.sql:1: Adding a new column"):
        client.migrations.run(folder, lint=True)
    assert len(client.migrations.status(folder).pending) == 2


def test_a_squawk_that_fails(client: LakebaseClient, write: Write, squawk: Path) -> None:
    squawk.write_text("#!/bin/sh\necho 'unknown option' >&2; exit 2\n")
    with pytest.raises(MigrationError, match="squawk ended with 2, without findings: unknown option"):
        client.migrations.run(write(**{"0001_a": "SELECT 1"}), lint=True)


@pytest.mark.skipif(shutil.which("squawk") is None, reason="squawk is not installed")
def test_the_real_one(client: LakebaseClient, write: Write) -> None:
    folder = write(**{"0001_a": "ALTER TABLE t ADD COLUMN n int NOT NULL", "0002_b": "VACUUM"})
    found = client.migrations.run(folder, lint=True, dry_run=True).findings
    assert "0001_a.sql" in {one.file for one in found}
