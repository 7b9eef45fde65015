"""The demo itself, and what it looks for."""

from __future__ import annotations

import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.demo.expected import compare_tables
from lakebase_provider.demo.leaks import search_for_secrets
from lakebase_provider.local import LocalLakebase

ROOT = Path(__file__).parent.parent


@pytest.mark.timeout(600)
def test_the_demo_passes_and_leaves_no_secret_behind(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    result = subprocess.run(
        [sys.executable, "-m", "lakebase_provider.cli", "demo", "--logs", str(logs)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert "everything is as expected" in result.stdout
    assert "secrets       none of them in" in result.stdout
    # What was searched is there, and says more than nothing.
    assert (logs / "airflow_home/airflow.db").stat().st_size > 100_000
    for name in ("airflow.log", "dagster.log"):
        text = (logs / name).read_text()
        assert "/api/2.0/postgres/credentials" in text, f"{name} is not at DEBUG"
        assert "Minted token" in text
    for task in ("health", "create_tables", "load_orders", "upsert_revenue", "check_tables", "check_columns"):
        assert f"task {task} " in result.stdout


def test_a_folder_without_examples_is_refused(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "lakebase_provider.cli", "demo", "--example-dags", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 2
    assert "--example-dags" in result.stderr


def test_a_secret_in_any_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "binary.db").write_bytes(b"\x00\xffcanary\x00")
    (tmp_path / "clean.log").write_text("nothing")
    search = search_for_secrets(tmp_path, {"a token": "canary", "another": "absent"})
    assert search.files == 2
    assert search.leaks == ("deep/binary.db: a token",)


def test_tables_that_differ_are_told(lakebase_env: LocalLakebase) -> None:
    with LakebaseClient(lakebase_env.config()) as client, client.connection() as connection:
        connection.execute("CREATE SCHEMA demo_check")
        connection.execute("CREATE TABLE demo_check.orders (order_id bigint, amount numeric(12, 2))")
        connection.execute("INSERT INTO demo_check.orders VALUES (1, 0.37), (2, 0.74)")
        found = {(d.table, d.figure): d for d in compare_tables(connection, "demo_check", 2)}
        connection.execute("DROP SCHEMA demo_check CASCADE")
        assert isinstance(connection, psycopg.Connection)
    assert found["demo_check.orders", "rows"].as_expected
    assert found["demo_check.orders", "sum of amount"].found == Decimal("1.11")
    assert found["demo_check.orders", "sum of amount"].as_expected
    assert found["demo_check.customer_revenue", "rows"].found == "no such table"
    assert not found["demo_check.customer_revenue", "rows"].as_expected
