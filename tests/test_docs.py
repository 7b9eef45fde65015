from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from types import ModuleType

import pytest

from lakebase_provider.core import errors

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
