from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

import dagster_lakebase.components

HEAVY = {"airflow", "databricks.sdk", "psycopg", "psycopg_pool", "sqlalchemy.dialects.postgresql", "pandas"}


@pytest.mark.parametrize(
    "statement",
    [
        "import dagster_lakebase",
        "import dagster_lakebase.components",
        "from dagster_lakebase import LakebaseResource; LakebaseResource(endpoint='x', client_secret='y')",
        "from dagster_lakebase import build_lakebase_health_checks; build_lakebase_health_checks(['a'])",
    ],
)
def test_loading_a_code_location_costs_no_driver(statement: str) -> None:
    # Dagster itself may bring some of them, which is not this package's doing.
    code = (
        "import json, sys, dagster\nbefore = set(sys.modules)\n"
        f"{statement}\nprint(json.dumps(sorted(set(sys.modules) - before)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert not HEAVY & set(json.loads(result.stdout))


def test_dg_finds_the_components() -> None:
    (entry,) = entry_points(group="dagster_dg_cli.registry_modules", name="dagster_lakebase")
    assert entry.load() is dagster_lakebase.components
