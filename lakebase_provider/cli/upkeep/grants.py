"""Roles and grants as a file declares them: ``lakebase grants``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lakebase_provider.cli.objects import action, add_lock_limits, connected
from lakebase_provider.core.base.files.plain_files import open_to_read
from lakebase_provider.core.errors import ConfigError


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to `lakebase`."""
    group = commands.add_parser("grants", help="have roles and privileges as a file declares them")
    actions = group.add_subparsers(required=True, metavar="ACTION")
    plan = action(actions, "plan", "say what is missing, as SQL; change nothing", _plan)
    apply = action(actions, "apply", "have what is missing, in one transaction", _apply)
    for parser in (plan, apply):
        parser.add_argument("file", metavar="FILE", help="YAML or JSON with grants, and roles")
        parser.add_argument(
            "--revoke",
            action="store_true",
            help="take away what its roles have there and it does not declare",
        )
    plan.add_argument("--exit-code", action="store_true", help="1 if anything is missing")
    add_lock_limits(apply)


def _plan(options: argparse.Namespace) -> int:
    given = _read(options.file)
    with connected() as client:
        report = client.grants.plan(**given, revoke=options.revoke, timeout=options.timeout)
    print(json.dumps(report.to_dict(), indent=2) if options.json else report.to_text())
    return 1 if options.exit_code and report.statements else 0


def _apply(options: argparse.Namespace) -> int:
    given = _read(options.file)
    with connected() as client:
        report = client.grants.ensure(
            **given,
            revoke=options.revoke,
            lock_timeout=options.lock_timeout,
            attempts=options.attempts,
            timeout=options.timeout,
        )
    print(json.dumps(report.to_dict(), indent=2) if options.json else report.to_text())
    return 0


def _read(name: str) -> dict[str, Any]:
    """The arguments of the methods."""
    try:
        with open_to_read(Path(name), "FILE") as file:
            found = _parsed(name, file.read().decode())
    except OSError as error:
        raise ConfigError(f"FILE: {error.strerror}: {name}.", remedy="Give YAML or JSON.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"FILE is no UTF-8: {name}.", remedy="Give YAML or JSON in UTF-8.") from None
    if not isinstance(found, dict) or "grants" not in found or not found.keys() <= {"grants", "roles"}:
        raise ConfigError(
            f"FILE has not 'grants', and possibly 'roles': {name}.",
            remedy="Begin it with `grants:`, and a list below.",
        )
    return found


def _parsed(name: str, text: str) -> Any:
    try:
        if name.endswith(".json"):
            return json.loads(text)
        import yaml
    except ValueError as error:
        raise ConfigError(f"FILE is no JSON: {error}: {name}.", remedy="Correct it.") from None
    except ImportError:
        raise ConfigError(
            "There is no PyYAML to read FILE with.", remedy="pip install pyyaml, or give it as .json."
        ) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        told = " ".join(str(error).split())
        raise ConfigError(f"FILE is no YAML: {told}.", remedy="Correct it, or give .json.") from None
