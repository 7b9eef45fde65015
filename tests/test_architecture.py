"""What the house promises about itself: what imports what, which names are public, what agrees with what."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lakebase_provider
from docs import public_api
from lakebase_provider import core

ROOT = Path(__file__).parent.parent


def modules_after(statement: str) -> set[str]:
    """Names in `sys.modules` of a new interpreter after a statement."""
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    # Airflow says goodbye on standard output.
    return set(json.loads(next(line for line in result.stdout.splitlines() if line.startswith("["))))


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import lakebase_provider.core", {"airflow", "dagster", "databricks.sdk", "psycopg"}),
        (
            "from lakebase_provider.core import LakebaseClient, LakebaseConfig",
            {"airflow", "dagster", "databricks.sdk", "sqlalchemy", "pandas", "deltalake"},
        ),
        (
            "from lakebase_provider.core import Delta; Delta('/lake/orders')",
            {"deltalake", "pyarrow", "psycopg"},
        ),
        ("import lakebase_provider.core.bulk.load.commit", {"airflow", "dagster", "deltalake", "pandas"}),
        ("import dagster_lakebase", {"airflow", "databricks.sdk", "pandas"}),
        ("import dagster_lakebase.components", {"airflow", "databricks.sdk", "pandas"}),
        (
            "import lakebase_provider.operators.sql, lakebase_provider.operators.health;"
            "import lakebase_provider.operators.load, lakebase_provider.operators.transfer;"
            "import lakebase_provider.operators.unload",
            {"databricks.sdk", "psycopg", "pandas", "pyarrow", "dagster"},
        ),
        (
            "import lakebase_provider.operators.migrate, lakebase_provider.sensors.branches;"
            "import lakebase_provider.decorators.branches, lakebase_provider.operators.branches;"
            "import lakebase_provider.operators.rehearse, lakebase_provider.operators.restore_rows;"
            "import lakebase_provider.operators.sync, lakebase_provider.sensors.sync;"
            "import lakebase_provider.notifications.diagnosis;"
            "import lakebase_provider.operators.maintenance",
            {"databricks.sdk", "psycopg", "pandas", "pyarrow", "dagster"},
        ),
        ("import lakebase_provider.local.pytest_plugin", {"starlette", "uvicorn", "psycopg", "cryptography"}),
        (
            "import lakebase_provider; lakebase_provider.get_provider_info()",
            {"airflow", "dagster", "psycopg", "databricks.sdk", "wtforms"},
        ),
    ],
)
def test_imports_stay_light_and_apart(statement: str, absent: set[str]) -> None:
    assert not absent & modules_after(statement)


def test_the_public_names_of_the_core() -> None:
    assert core.__all__ == [
        "BranchLease",
        "BranchLimits",
        "Cadence",
        "CatalogDiff",
        "CatalogDump",
        "Delta",
        "HealthLimits",
        "HealthReport",
        "InspectionFinding",
        "InspectionReport",
        "LakebaseClient",
        "LakebaseConfig",
        "LakebaseError",
        "LoadResult",
        "MigrationReport",
        "PostgresQuery",
        "RehearsalReport",
        "RestorePoint",
        "RestoreReport",
        "Secret",
        "StageResult",
        "TableName",
        "Token",
        "TokenPolicy",
        "UnloadResult",
        "branch_id_for",
        "close_shared_clients",
        "delta_version",
        "fence",
        "html_report",
        "load",
        "shared_client",
    ]
    for name in core.__all__:
        assert getattr(core, name).__name__ == name
    assert dir(core) == core.__all__
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = core.no_such_name


def test_what_objects_take_is_imported_from_a_public_place() -> None:
    """A dataclass that a method of the workspace takes, users have to make."""
    import dataclasses
    import inspect

    from lakebase_provider.core.workspace.objects import branches, databases, endpoints, projects, snapshots
    from lakebase_provider.core.workspace.objects.sync import cdf_configs, pipelines, synced_tables

    taken: set[str] = set()
    for module in (
        *(branches, databases, endpoints, projects, snapshots),
        *(cdf_configs, pipelines, synced_tables),
    ):
        for kind in (one for one in vars(module).values() if inspect.isclass(one)):
            for _, method in inspect.getmembers(kind, inspect.isfunction):
                for parameter in inspect.signature(method).parameters.values():
                    names = re.findall(r"\w+", str(parameter.annotation))
                    own = [vars(module).get(name) for name in names if not method.__name__.startswith("_")]
                    taken |= {one.__name__ for one in own if dataclasses.is_dataclass(one)}  # type: ignore[union-attr]
    # What the workspace has returned, a deadline that one call hands to another.
    returned = {"Answer", "Branch", "SyncedTable", "PipelineUpdate", "StartedUpdate"}
    assert taken - returned - {"Deadline"} == {"Cadence"}
    assert "Cadence" in core.__all__


def shown_texts() -> list[Path]:
    """What users copy from."""
    examples = [file for kind in ("*.py", "*.yaml") for file in (ROOT / "example_dags").rglob(kind)]
    return [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *examples]


@pytest.mark.parametrize("file", shown_texts(), ids=lambda file: str(file.relative_to(ROOT)))
def test_what_is_shown_imports_from_public_places(file: Path) -> None:
    imported = re.findall(
        r"^\s*(?:from|import) ((?:lakebase_provider|dagster_lakebase)[\w.]*)", file.read_text(), re.MULTILINE
    )
    below = tuple(f"{name}." for name in public_api.PACKAGES)
    strange = [name for name in imported if name not in public_api.MODULES and not name.startswith(below)]
    assert strange == []


def test_the_types_are_shipped() -> None:
    for package in ("lakebase_provider", "dagster_lakebase"):
        assert (ROOT / package / "py.typed").exists()


def test_the_changelog_begins_with_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    newest = re.search(r"^## (\d+\.\d+\.\d+)", changelog, re.MULTILINE)
    assert newest is not None
    assert newest.group(1) == lakebase_provider.__version__


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert "make test" in (ROOT / ".ci/run").read_text()
    assert "make test" in (ROOT / "README.md").read_text()


def test_constraints_are_names_and_versions_only() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[^ /]+( ; .*)?", line), line


def test_what_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text())
    inside = [link for link in links if "://" not in link]
    assert "example_dags" in inside
    assert [link for link in inside if not (ROOT / link).exists()] == []


def rooms() -> list[Path]:
    """The folders of modules; a name of Airflow's is one that a DAG file imports from."""
    found = [*ROOT.glob("lakebase_provider/**/__init__.py"), *ROOT.glob("dagster_lakebase/**/__init__.py")]
    return sorted(face.parent for face in found)


@pytest.mark.parametrize("room", rooms(), ids=lambda room: str(room.relative_to(ROOT)))
def test_a_room_says_what_it_holds_and_holds_no_more_than_one_sees_at_once(room: Path) -> None:
    text = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
    assert text.partition("\n")[0].endswith(".")
    assert len([file for file in room.glob("*.py") if file.name != "__init__.py"]) <= 9


def test_no_two_modules_of_the_core_have_one_name() -> None:
    names = [path.stem for path in ROOT.glob("lakebase_provider/core/**/*.py") if path.stem != "__init__"]
    assert sorted(names) == sorted(set(names))


def test_no_module_is_longer_than_one_reading() -> None:
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for room in rooms()
        for path in room.glob("*.py")
    }
    assert {name: count for name, count in lines.items() if count > 600} == {}
