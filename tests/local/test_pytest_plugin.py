from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lakebase_provider.local import LocalLakebase

USERS_TEST = """
import os
import psycopg
from lakebase_provider.core import LakebaseClient, LakebaseConfig


def test_select(lakebase_env):
    assert os.environ["PGPORT"] == str(lakebase_env.port)
    assert "PGPASSWORD" not in os.environ
    with LakebaseClient(LakebaseConfig.from_env()) as client, client.connection() as connection:
        assert connection.execute("SELECT current_user").fetchone() == (lakebase_env.client_id,)


def test_faults_of_one_test(lakebase_env):
    lakebase_env.admin.fault("*", "*", status=500)


def test_are_gone_in_the_next(lakebase_env):
    assert lakebase_env.admin.counters().mints == 0
    LakebaseClient(LakebaseConfig.from_env()).connect().close()
"""


def test_the_plugin_loads_nothing_heavy() -> None:
    program = (
        "import pytest, sys; before = set(sys.modules); "
        "import lakebase_provider.local.pytest_plugin; "
        "print(sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "['lakebase_provider']"


def test_a_users_tests_run_on_it(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(USERS_TEST)
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "3 passed" in answer.stdout, answer.stdout


def test_env_names_all_that_clients_read(lakebase_env: LocalLakebase) -> None:
    assert set(lakebase_env.env()) == {
        "DATABRICKS_HOST",
        "DATABRICKS_CLIENT_ID",
        "DATABRICKS_CLIENT_SECRET",
        "ENDPOINT_NAME",
        "LAKEBASE_ALLOW_LOOPBACK",
        "LAKEBASE_ENDPOINT",
        "PGHOST",
        "PGPORT",
        "PGDATABASE",
        "PGUSER",
        "PGSSLROOTCERT",
    }
