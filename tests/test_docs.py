from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

from lakebase_provider.core.config import settings
from lakebase_provider.core.errors import kinds as errors

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["configuration.md", "errors.md"])
def test_generated_pages_are_current(generate: ModuleType, page: str) -> None:
    assert (DOCS / page).read_text() == generate.PAGES[page](), "run: python docs/generate.py"


def test_each_error_has_a_code_of_its_own_and_a_remedy(generate: ModuleType) -> None:
    kinds = generate.error_kinds()
    assert len({kind.code for kind in kinds}) == len(kinds)
    for kind in kinds:
        assert kind.default_remedy != errors.LakebaseError.default_remedy, kind
        assert "\n" not in kind.default_remedy
        assert kind.__name__ in (inspect.getdoc(errors) or ""), (
            f"{kind.__name__} is missing from the drawn tree"
        )


def held_by() -> list[tuple[str, str]]:
    """Module and function of every test that the page on security names."""
    return re.findall(r"`(test_\w+)::(test_\w+)`", (DOCS / "security.md").read_text())


def test_the_page_on_security_names_tests_that_exist() -> None:
    for module, name in held_by():
        source = (DOCS.parent / "tests" / "security" / f"{module}.py").read_text()
        assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE), f"{module}::{name}"


def test_each_module_of_attacks_is_on_the_page_on_security() -> None:
    modules = {path.stem for path in (DOCS.parent / "tests" / "security").glob("test_*.py")}
    assert modules == {module for module, _ in held_by()}


def test_what_a_deployment_sets_is_on_the_page_on_security() -> None:
    of_connections = {variable for setting in settings() for variable in setting.env}
    page = (DOCS / "security.md").read_text()
    found = set()
    for path in (DOCS.parent / "lakebase_provider" / "core").rglob("*.py"):
        found.update(re.findall(r'"(LAKEBASE_[A-Z_]+)"', path.read_text()))
    for variable in found - of_connections:
        assert f"| `{variable}` |" in page, variable
    assert "LAKEBASE_LEAST_SSLMODE" in found - of_connections
