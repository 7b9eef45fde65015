"""Which exceptions the package can raise, and where it does: computed from its modules and their source."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import dagster_lakebase
import lakebase_provider

PACKAGES: tuple[ModuleType, ...] = (lakebase_provider, dagster_lakebase)
ROOT = Path(lakebase_provider.__file__).parent.parent
FOLDERS = tuple(Path(str(package.__file__)).parent for package in PACKAGES)


def modules() -> Iterator[ModuleType]:
    """Each module of the package, imported."""
    for package in PACKAGES:
        yield package
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            yield importlib.import_module(found.name)


@cache
def error_classes() -> tuple[type[BaseException], ...]:
    """Each class of exceptions that the package defines, wherever."""
    found = {
        value
        for module in modules()
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, BaseException) and value.__module__ == module.__name__
    }
    return tuple(sorted(found, key=lambda kind: (kind.__module__, kind.__name__)))


@cache
def raised_in() -> dict[str, frozenset[str]]:
    """By the name of a class, the files that make such an error, relative to the root.

    Making is to call it, and to hand it on as a value: the tables of patterns do.
    """
    names = {kind.__name__ for kind in error_classes()}
    found: dict[str, set[str]] = {name: set() for name in names}
    for folder in FOLDERS:
        for file in folder.rglob("*.py"):
            for name in _made(ast.parse(file.read_text()), names):
                found[name].add(file.relative_to(ROOT).as_posix())
    return {name: frozenset(files) for name, files in found.items()}


def raised_classes() -> list[type[BaseException]]:
    """The classes that are made somewhere; the others are bases."""
    return [kind for kind in error_classes() if raised_in()[kind.__name__]]


def _made(tree: ast.AST, names: set[str]) -> Iterator[str]:
    asked = set(_only_asked_about(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in names and id(node) not in asked:
            yield node.id


def _only_asked_about(tree: ast.AST) -> Iterator[int]:
    """Names in annotations, in what is caught, derived from, or asked by isinstance()."""
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        if isinstance(node, ast.ExceptHandler):
            parts = [node.type]
        elif isinstance(node, ast.ClassDef):
            parts = [*node.bases]
        elif isinstance(node, (ast.AnnAssign, ast.arg)):
            parts = [node.annotation]
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            parts = [node.returns]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            parts = [*node.args[1:]] if node.func.id in ("isinstance", "issubclass") else []
        for part in parts:
            if part is not None:
                yield from (id(name) for name in ast.walk(part))
