from __future__ import annotations

import argparse
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakebase_provider.cli.command import parser
from lakebase_provider.core.config import settings
from lakebase_provider.core.errors import kinds as errors

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("script", ["generate.py", "public_api.py"])
def test_generated_pages_are_current(script: str, tmp_path: Path) -> None:
    """Also the public API: where it has changed on purpose, the changelog says so."""
    # In a process of its own: the pages import Airflow, which makes itself a home.
    done = subprocess.run(
        [sys.executable, DOCS / script, "--check"],
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"run: python docs/{script}\n{done.stderr}"


def test_the_page_of_commands_has_the_values_that_an_option_takes() -> None:
    """All that the parser refuses others than, wherever it is."""
    page, seen = (DOCS / "reference/cli.md").read_text(), 0
    for command in commands(parser()):
        section = page.partition(f"## {command.prog}\n")[2].partition("\n## ")[0]
        for action in command._actions:
            if action.choices and not isinstance(action, argparse._SubParsersAction):
                seen += 1
                assert ", ".join(f"`{choice}`" for choice in action.choices) in section, command.prog
    assert seen >= 3


def commands(command: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield command
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from commands(inner)


def test_each_error_has_a_code_of_its_own_and_a_remedy() -> None:
    found = [kind for kind in vars(errors).values() if inspect.isclass(kind)]
    kinds = [kind for kind in found if issubclass(kind, errors.LakebaseError)]
    kinds.remove(errors.LakebaseError)
    assert len({kind.code for kind in kinds}) == len(kinds)
    for kind in kinds:
        assert kind.default_remedy != errors.LakebaseError.default_remedy, kind
        assert "\n" not in kind.default_remedy
        assert kind.__name__ in (inspect.getdoc(errors) or ""), (
            f"{kind.__name__} is missing from the drawn tree"
        )


def test_each_page_is_on_the_map() -> None:
    index = (DOCS / "index.md").read_text()
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).with_suffix("").as_posix()
        assert name == "index" or re.search(rf"^{name}$", index, re.MULTILINE), name


def test_each_fault_has_its_test() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (DOCS / "faults.md").read_text())
    for file, test in named:
        text = (DOCS.parent / file).read_text()
        assert not test or re.search(rf"^(?:async )?def {test}\(", text, re.MULTILINE), f"{file}::{test}"
    faults = {f"tests/faults/{path.name}" for path in (DOCS.parent / "tests/faults").glob("test_*.py")}
    assert faults <= {file for file, _ in named}


def test_links_lead_to_pages_and_headings() -> None:
    for page in DOCS.rglob("*.md"):
        for path, heading in re.findall(r"\]\((?!\w+:)([^)#]*)#?([^)]*)\)", page.read_text()):
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page.name}: {path}"
            if heading:
                titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
                slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
                assert heading in slugs, f"{page.name}: {path}#{heading}"


@pytest.mark.parametrize(
    "phrase",
    [
        "The server is full",
        "which is not under",
        "affects every session",
        "Not retried: a retry would not help.",
    ],
)
def test_what_the_page_on_trouble_quotes_is_said(phrase: str) -> None:
    core = (DOCS.parent / "lakebase_provider" / "core").rglob("*.py")
    assert any(phrase in path.read_text() for path in core)
    assert phrase in " ".join((DOCS / "how-to" / "troubleshoot.md").read_text().split())


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
