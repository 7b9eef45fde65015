"""The command `lakebase doctor` and `lakebase token`, in a process of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lakebase_provider.cli.examples import example_dags
from lakebase_provider.local import LocalLakebase


def lakebase(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lakebase_provider.cli", *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_doctor_prints_a_table_and_says_all_is_well(lakebase_env: LocalLakebase) -> None:
    result = lakebase("doctor")
    assert result.returncode == 0, result.stderr
    stages = [line.split()[0] for line in result.stdout.splitlines()[1:]]
    assert stages == ["resolve", "credential", "dns", "tcp", "tls", "login", "query", "write"]


def test_doctor_prints_json(lakebase_env: LocalLakebase) -> None:
    report = json.loads(lakebase("doctor", "--json", "--check", "query").stdout)
    assert report["ok"] is True
    assert report["stages"][-1]["name"] == "query"


@pytest.mark.parametrize(
    ("environment", "stage", "remedy"),
    [
        ({"PGUSER": "Display Name"}, "login", "client id as user"),
        ({"PGDATABASE": "no_such_db"}, "login", "databricks_postgres"),
        ({"PGSSLROOTCERT": ""}, "tls", "sslrootcert"),
        ({"PGPORT": "1"}, "tcp", "check host and port"),
        ({"DATABRICKS_CLIENT_SECRET": "wrong"}, "credential", "client id and secret"),
        (
            {"ENDPOINT_NAME": "projects/x/branches/y/endpoints/z"},
            "credential",
            "with ids and not display names",
        ),
    ],
)
def test_doctor_says_what_to_do(
    lakebase_env: LocalLakebase, environment: dict[str, str], stage: str, remedy: str
) -> None:
    result = lakebase("doctor", "--timeout", "5", **environment)
    assert result.returncode == 1
    failed, advice = next(
        (line, following)
        for line, following in zip(result.stdout.splitlines(), result.stdout.splitlines()[1:], strict=False)
        if line.split()[1] == "failed"
    )
    assert failed.startswith(stage)
    assert remedy in advice
    # No variable of the environment sets it.
    assert "connect_budget" not in advice
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("API is disabled for users without workspace-access entitlement", "Workspace access"),
        ("Unauthorized network access to workspace: 1", "PrivateLink"),
    ],
)
def test_doctor_knows_the_refusals_of_the_documentation(
    lakebase_env: LocalLakebase, message: str, remedy: str
) -> None:
    lakebase_env.admin.fault(
        "POST", "/api/2.0/postgres/credentials", status=403, error_code="PERMISSION_DENIED", message=message
    )
    result = lakebase("doctor")
    assert result.returncode == 1
    assert remedy in result.stdout


def test_bad_settings_are_told_without_a_traceback(lakebase_env: LocalLakebase) -> None:
    result = lakebase("doctor", ENDPOINT_NAME="my-endpoint")
    assert result.returncode == 1
    told, remedy = result.stderr.splitlines()
    assert remedy.startswith("Remedy: Use the form projects/")
    assert "'endpoint' is 'my-endpoint'" in told
    assert result.stdout == ""


def test_token_prints_the_token_alone(lakebase_env: LocalLakebase) -> None:
    result = lakebase("token")
    assert result.returncode == 0
    assert result.stderr == ""
    assert result.stdout.count(".") == 2
    assert result.stdout.count("\n") == 1


def test_help_names_the_commands() -> None:
    result = lakebase("--help")
    assert result.returncode == 0
    for command in ("doctor", "token", "local", "examples", "demo"):
        assert command in result.stdout


def test_examples_lists_each_with_what_it_shows() -> None:
    result = lakebase("examples")
    assert (result.returncode, result.stderr) == (0, "")
    listed = dict(re.split(r" {2,}", line) for line in result.stdout.splitlines())
    assert set(listed) == {
        str(path.relative_to(example_dags()))
        for path in example_dags().rglob("*")
        if path.suffix in (".py", ".yaml")
    }
    for name, shown in listed.items():
        assert re.fullmatch(r"[A-Z][^\[]+\.", shown), f"{name} does not begin with a sentence: {shown!r}"


def test_examples_are_copied_once(tmp_path: Path) -> None:
    target = tmp_path / "my dags"
    result = lakebase("examples", "--copy", str(target))
    assert (result.returncode, result.stderr) == (0, "")
    for path in example_dags().rglob("*"):
        if path.suffix in (".py", ".yaml", ".sql"):
            assert (target / path.relative_to(example_dags())).read_bytes() == path.read_bytes()
    assert f"export AIRFLOW__CORE__DAGS_FOLDER='{target}'\n" in result.stdout

    mine = target / "lakebase_etl.py"
    mine.write_text("mine")
    (target / "lakebase_sql.py").unlink()
    result = lakebase("examples", "--copy", str(target))
    assert (result.returncode, result.stdout) == (1, "")
    assert "--force" in result.stderr
    assert mine.read_text() == "mine"
    assert not (target / "lakebase_sql.py").exists()

    assert lakebase("examples", "--copy", str(target), "--force").returncode == 0
    assert mine.read_text() == (example_dags() / mine.name).read_text()
    assert (target / "lakebase_sql.py").exists()


def test_examples_are_not_copied_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "lakebase_etl.py").symlink_to(victim)
    for force in ([], ["--force"]):
        result = lakebase("examples", "--copy", str(tmp_path / "dags"), *force)
        assert result.returncode == 1
        assert not victim.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--force"], "--copy FOLDER"),
        (["--copy", "s3://bucket/dags"], "--copy"),
        (["--copy", "/dev/null/dags"], "--copy: Not a directory"),
    ],
)
def test_examples_says_what_to_do(words: list[str], told: str) -> None:
    result = lakebase("examples", *words)
    assert (result.returncode, result.stdout) == (1, "")
    assert told in result.stderr
    assert "Traceback" not in result.stderr
