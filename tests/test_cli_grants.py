"""The command `lakebase grants`, on a local Lakebase."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakebase_provider.local import LocalLakebase
from tests.core.upkeep.test_grants import forget
from tests.test_cli_objects import Shell
from tests.test_cli_objects import shell as shell

FILE = """
roles:
  readers-of-a-file: {type: ROLE}
grants:
  - {to: readers-of-a-file, privileges: USAGE, schemas: public}
"""


@pytest.fixture
def file(lakebase_env: LocalLakebase, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "grants.yaml"
    path.write_text(FILE)
    yield path
    forget(lakebase_env, "readers-of-a-file")


def test_a_file_is_planned_and_applied(shell: Shell, file: Path) -> None:
    planned = shell.run("grants", "plan", str(file))
    assert planned == (
        'CREATE ROLE "readers-of-a-file" NOLOGIN;\nGRANT USAGE ON SCHEMA public TO "readers-of-a-file";\n'
    )
    shell.run("grants", "plan", str(file), "--exit-code", code=1)
    assert shell.json("grants", "apply", str(file))["applied"]
    assert shell.run("grants", "plan", str(file), "--exit-code") == "-- All is as it is declared.\n"
    file.with_suffix(".json").write_text(
        json.dumps({"grants": [{"to": "readers-of-a-file", "privileges": "CREATE", "schemas": "public"}]})
    )
    told = shell.json("grants", "plan", str(file.with_suffix(".json")), "--revoke")
    assert [words.split()[0] for words in told["statements"]] == ["REVOKE", "GRANT"]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.json", "{", "FILE is no JSON"),
        ("a.yaml", "{", "FILE is no YAML"),
        ("a.yaml", "- 1", "FILE has not 'grants'"),
        ("a.yaml", "grants: []\nrole: x", "FILE has not 'grants'"),
        ("a.yaml", None, "FILE: No such file"),
    ],
)
def test_what_is_no_such_file(shell: Shell, tmp_path: Path, name: str, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    assert told in shell.run("grants", "plan", str(tmp_path / name), code=1)
