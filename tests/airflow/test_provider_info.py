"""What Airflow is told of this provider, and what it costs to tell and to parse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import airflow as airflow_package
import jsonschema
import pytest

from lakebase_provider import __version__, get_provider_info
from lakebase_provider.core.config import settings
from lakebase_provider.local import LocalLakebase
from tests.airflow.conftest import OLD_AIRFLOW
from tests.forked import Forks

#: The settings that the form's own columns carry.
COLUMNS = {"host", "port", "database", "user", "password"}
#: Fields that only Airflow has a meaning for.
OF_AIRFLOW = {"databricks_conn_id", "cursor"}


@pytest.mark.parametrize("name", ["provider_info.schema.json", "provider.yaml.schema.json"])
def test_it_fits_airflows_schema(name: str) -> None:
    schema = json.loads((Path(airflow_package.__path__[0]) / name).read_text())
    info = get_provider_info()
    if name == "provider.yaml.schema.json":
        # It describes a folder of Airflow's own repository; its description of connections is stricter.
        types = schema["properties"]["connection-types"]
        jsonschema.Draft7Validator({**types, "definitions": schema.get("definitions", {})}).validate(
            info["connection-types"]
        )
    else:
        jsonschema.Draft7Validator(schema).validate(info)


def test_it_agrees_with_the_distribution() -> None:
    info = get_provider_info()
    assert metadata("lakebase-provider")["Name"] == info["package-name"]
    assert info["versions"] == [__version__]


def test_the_form_has_every_setting() -> None:
    fields = get_provider_info()["connection-types"][0]["conn-fields"]
    assert set(fields) == {row.name for row in settings()} - COLUMNS | OF_AIRFLOW
    for row in settings():
        if row.name in COLUMNS:
            continue
        field = fields[row.name]
        assert field["label"] == row.label
        assert field["description"] == row.help()
        assert (field["schema"].get("format") == "password") == (row.kind == "secret")
        assert field["schema"].get("enum", []) == list(row.choices)
        assert field["schema"].get("minimum") == row.minimum
        assert field["schema"].get("maximum") == row.maximum
    for name in OF_AIRFLOW:
        assert fields[name]["label"]
        assert fields[name]["description"]


def test_airflow_finds_the_modules(airflow_db: None) -> None:
    from airflow.providers_manager import ProvidersManager

    manager = runtime = ProvidersManager()
    if not OLD_AIRFLOW:
        from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

        runtime = ProvidersManagerTaskRuntime()
    assert "lakebase-provider" in manager.providers
    hook = runtime.hooks["lakebase"]
    assert hook is not None
    assert hook.connection_id_attribute_name == "lakebase_conn_id"


#: Prints the form as Airflow's web server has it, in a process that may stand in for WTForms.
SHOW_FORM = """
import json
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
[form] = [form for form in HookMetaService.hook_meta_data() if form.connection_type == "lakebase"]
print(form.model_dump_json())
"""


def test_the_web_server_shows_the_form(airflow_db: None, forks: Forks, tmp_path: Path) -> None:
    done = forks.run("-c", SHOW_FORM, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    form = json.loads(done.stdout.splitlines()[-1])
    assert form["hook_name"] == "Databricks Lakebase"
    assert form["standard_fields"]["url_schema"]["title"] == "Database"
    assert form["standard_fields"]["port"]["placeholder"] == "5432"
    described = get_provider_info()["connection-types"][0]["conn-fields"]
    assert form["extra_fields"].keys() == described.keys()
    for name, row in described.items():
        shown, wanted = form["extra_fields"][name], row["schema"]
        assert shown["schema"]["title"] == row["label"]
        assert shown["description"] == row["description"]
        assert shown["schema"].get("format") == wanted.get("format")
        assert shown["schema"].get("enum") == wanted.get("enum")
        # What stands there is stored with the connection, whether somebody chose it or not.
        assert not shown["value"]


#: What is imported, with what that must not bring; each after those above it, which bring no more of it.
CHEAP = {
    "lakebase_provider": ("airflow", "psycopg", "databricks", "dagster"),
    "lakebase_provider.operators.sql": ("psycopg", "databricks", "pandas", "pyarrow", "polars"),
    "lakebase_provider.operators.health": ("psycopg", "databricks", "pandas", "pyarrow", "polars"),
    "lakebase_provider.hooks.lakebase": ("databricks", "pandas", "pyarrow", "polars"),
}
BROUGHT = f"""
import importlib, json, sys
found = {{}}
for module, banned in {CHEAP!r}.items():
    getattr(importlib.import_module(module), "get_provider_info", dict)()
    found[module] = [name for name in banned if name in sys.modules]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def brought() -> dict[str, list[str]]:
    # One process for all: to import Airflow takes seconds.
    env = {**os.environ, "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING"}
    done = subprocess.run(
        [sys.executable, "-c", BROUGHT], capture_output=True, text=True, check=True, env=env
    )
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("module", CHEAP)
def test_importing_is_cheap(brought: dict[str, list[str]], module: str) -> None:
    assert brought[module] == []


def test_the_command_lists_the_provider(forks: Forks, tmp_path: Path) -> None:
    done = forks.run("-m", "airflow", "providers", "list", "--output", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "lakebase-provider" in {row["package_name"] for row in json.loads(done.stdout)}


def test_the_command_adds_a_connection_of_this_type(
    airflow_db: None, lake: LocalLakebase, forks: Forks, tmp_path: Path
) -> None:
    def airflow(*arguments: str) -> subprocess.CompletedProcess[str]:
        return forks.run("-m", "airflow", "connections", *arguments, cwd=tmp_path)

    extra = json.dumps({"endpoint": lake.env()["ENDPOINT_NAME"]})
    added = airflow("add", "lakebase_cli", "--conn-type", "lakebase", "--conn-extra", extra)
    assert added.returncode == 0, added.stderr
    assert "lakebase_cli" in added.stdout
    tested = airflow("test", "lakebase_default")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "Connection success!" in tested.stdout
