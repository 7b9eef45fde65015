from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from dagster.components.core.package_entry import get_package_objects_in_module

import dagster_lakebase

HEAVY = {"airflow", "databricks.sdk", "psycopg", "psycopg_pool", "sqlalchemy.dialects.postgresql", "pandas"}


STATEMENTS = (
    "import dagster_lakebase",
    "import dagster_lakebase.components",
    "from dagster_lakebase import LakebaseResource; LakebaseResource(endpoint='x', client_secret='y')",
    "from dagster_lakebase import build_lakebase_health_checks; build_lakebase_health_checks(['a'])",
    "from dagster_lakebase import build_lakebase_health_sensor; build_lakebase_health_sensor(['a'])",
    "from dagster_lakebase import build_lakebase_table_observation as o; o(['a'])",
    "from dagster_lakebase import build_lakebase_sync_asset as s; s(['a', 'b', 'c'])",
)
#: Prints what each statement brings to a process of its own that has imported Dagster, which may bring some
#: of it by itself.
BROUGHT = """
import json, os, sys, dagster
before = set(sys.modules)
for statement in sys.argv[1:]:
    if os.fork() == 0:
        exec(statement)
        print(json.dumps([statement, sorted(set(sys.modules) - before)]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def brought() -> dict[str, list[str]]:
    # To import Dagster takes seconds.
    command = [sys.executable, "-c", BROUGHT, *STATEMENTS]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return dict(map(json.loads, result.stdout.splitlines()))


@pytest.mark.parametrize("statement", STATEMENTS)
def test_loading_a_code_location_costs_no_driver(brought: dict[str, list[str]], statement: str) -> None:
    assert not HEAVY & set(brought[statement])


def test_dg_finds_the_components_and_nothing_else() -> None:
    (entry,) = entry_points(group="dagster_dg_cli.registry_modules", name="dagster_lakebase")
    found = dict(get_package_objects_in_module(entry.load()))
    assert set(found) == {
        "LakebaseBranchComponent",
        "LakebaseConnectionComponent",
        "LakebaseHealthComponent",
        "LakebaseIOManagerComponent",
        "LakebaseLoadComponent",
        "LakebaseMaintenanceComponent",
        "LakebaseMigrationComponent",
        "LakebaseObservationComponent",
        "LakebaseRehearsalComponent",
        "LakebaseRestoreComponent",
        "LakebaseSqlComponent",
        "LakebaseSyncedTableComponent",
        "LakebaseUnloadComponent",
    }
    for name, component in found.items():
        # The name that YAML and `dg scaffold defs` use.
        assert getattr(dagster_lakebase, name) is component


def test_storage_without_dagster_postgres_says_what_to_install() -> None:
    code = "import sys\nsys.modules['dagster_postgres'] = None\nimport dagster_lakebase.storage"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert "pip install 'lakebase-provider[dagster-storage]'" in result.stderr
