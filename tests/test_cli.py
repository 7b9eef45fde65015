"""The command `lakebase doctor` and `lakebase token`, in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

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
    for command in ("doctor", "token", "local", "demo"):
        assert command in result.stdout
