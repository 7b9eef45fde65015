"""What `lakebase examples --copy` says to do next, done in a shell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)


def test_the_commands_that_are_printed_run_as_they_are(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("XDG_RUNTIME_DIR", "XDG_DATA_HOME", "AIRFLOW_HOME", "HOME")}
    for folder in folders.values():
        folder.mkdir(mode=0o700)
    env = {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIRFLOW", "DAGSTER", "DATABRICKS", "LAKEBASE", "PG", "ENDPOINT_NAME"))
        },
        **{name: str(folder) for name, folder in folders.items()},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LAKEBASE_EXAMPLE_ORDERS": "100",
    }

    def shell(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", "-ec", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )

    printed = shell("lakebase examples --copy 'my dags'")
    assert printed.returncode == 0, printed.stderr
    commands = [line for line in printed.stdout.splitlines() if line.startswith("  ")]
    assert len(commands) == 8
    try:
        done = shell("\n".join(commands))
    finally:
        shell("lakebase local down")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    # Of an empty folder of DAGs, or with a step that failed, the commands would also say something.
    assert "Dag run in success state" in done.stdout + done.stderr
    assert "RUN_SUCCESS" in done.stdout + done.stderr
