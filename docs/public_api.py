"""Writes the names and signatures that users build on, so that a review sees when one changes.

``python docs/public_api.py`` writes ``docs/public-api.txt``; with ``--check`` it tells whether it is current.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

PAGE = Path(__file__).parent / "public-api.txt"
#: Where users import from.
MODULES = (
    "lakebase_provider",
    "lakebase_provider.core",
    "lakebase_provider.core.config",
    "lakebase_provider.core.errors",
    "lakebase_provider.local",
    "lakebase_provider.assets",
    "lakebase_provider.links",
    "lakebase_provider.retries",
    "dagster_lakebase",
    "dagster_lakebase.components",
    "dagster_lakebase.storage",
)
#: And any module in these, the packages of Airflow's names.
PACKAGES = tuple(
    f"lakebase_provider.{name}"
    for name in ("decorators", "hooks", "notifications", "operators", "sensors", "triggers")
)
_OURS = ("lakebase_provider", "dagster_lakebase")


def page() -> str:
    """All names, with their signatures, one a line."""
    named = {f"{module.__name__}.{name}": thing for module in _modules() for name, thing in _named(module)}
    classes = {thing for thing in named.values() if inspect.isclass(thing)}
    lines: list[str] = []
    first: dict[int, str] = {}
    # The shorter name first, which is the face's.
    for name, thing in sorted(named.items(), key=lambda row: (row[0].count("."), row[0])):
        known = first.setdefault(id(thing), name) if callable(thing) else name
        lines += [f"{name} = {known}"] if known != name else _told(name, thing, classes)
    return "\n".join(lines) + "\n"


def _modules() -> Iterator[ModuleType]:
    yield from map(importlib.import_module, MODULES)
    for name in PACKAGES:
        package = importlib.import_module(name)
        for found in pkgutil.walk_packages(package.__path__, f"{name}."):
            if "._" not in found.name:
                yield importlib.import_module(found.name)


def _named(module: ModuleType) -> Iterator[tuple[str, Any]]:
    names = getattr(module, "__all__", None)
    for name in names or vars(module):
        thing = getattr(module, name)
        if names or (not name.startswith("_") and getattr(thing, "__module__", "") == module.__name__):
            yield name, thing


def _told(name: str, thing: Any, classes: set[type]) -> list[str]:
    """The lines of a name; what a class has from another one of these classes stands there."""
    if not inspect.isclass(thing):
        return [f"{name}{_signature(thing)}" if callable(thing) else f"{name}: {type(thing).__name__}"]
    lines = [f"class {name}{_signature(thing)}"]
    for member in sorted(dir(thing)):
        owner = next((one for one in thing.__mro__ if member in vars(one)), None)
        inherited = owner is not thing and owner in classes
        if member.startswith("_") or owner is None or inherited or not owner.__module__.startswith(_OURS):
            continue
        found = inspect.getattr_static(thing, member)
        call = found.__func__ if isinstance(found, classmethod | staticmethod) else found
        if not inspect.isfunction(call):
            if not any(member in vars(one) for one in thing.__mro__ if not one.__module__.startswith(_OURS)):
                lines.append(f"    {member}")
        elif call.__module__.startswith(_OURS):
            kind = "async def" if inspect.iscoroutinefunction(call) else "def"
            lines.append(f"    {kind} {member}{_signature(call)}")
    # A field of a dataclass that has no default is no member of its class.
    fields = [
        f"    {field}" for field in vars(thing).get("__dataclass_fields__", ()) if not field.startswith("_")
    ]
    return [lines[0], *sorted({*lines[1:], *fields}, key=str.strip)]


def _signature(thing: Any) -> str:
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""
    # The types are for mypy to keep; other defaults than plain ones have no text that stays the same.
    plain = [
        one.replace(
            annotation=inspect.Parameter.empty,
            default=one.default if _is_plain(one.default) else "…",
        )
        for one in signature.parameters.values()
    ]
    return str(inspect.Signature(plain)).replace("'…'", "…")


def _is_plain(default: object) -> bool:
    plain = (type(None), bool, int, float, str)
    return type(default) in plain or default == () or default is inspect.Parameter.empty


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(None if PAGE.exists() and PAGE.read_text() == page() else f"{PAGE.name} is out of date")
    PAGE.write_text(page())
