"""squawk, a linter of migrations, if it is installed: https://squawkhq.com."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lakebase_provider.core.errors import ConfigError, MigrationError
from lakebase_provider.core.upkeep.migrations.migration_report import Finding
from lakebase_provider.core.upkeep.migrations.sql_folder import SqlFile

#: What a run sets by itself.
_SET_BY_THE_RUN = "require-lock-timeout,require-statement-timeout"
#: Seconds that it may take.
_TIMEOUT = 60.0


def lint(files: Sequence[SqlFile]) -> tuple[Finding, ...]:
    """What squawk finds in files, by its own configuration (``.squawk.toml`` where this process runs).

    Args:
        files: The files.

    Raises:
        ConfigError: It is not installed.
        MigrationError: It failed, or took more than a minute.
    """
    program = shutil.which("squawk")
    if program is None:
        raise ConfigError(
            "The program squawk is not on the path.",
            remedy="Run `pip install squawk-cli`, or do without the lint.",
        )
    found = [
        *_ask(program, [file for file in files if file.in_transaction], ["--assume-in-transaction"]),
        *_ask(program, [file for file in files if not file.in_transaction], []),
    ]
    return tuple(sorted(found, key=lambda finding: (finding.file, finding.line, finding.rule)))


def _ask(program: str, files: Sequence[SqlFile], options: Iterable[str]) -> list[Finding]:
    if not files:
        return []
    names = {str(file.path): file.name for file in files}
    words = [program, "--reporter", "json", "--exclude", _SET_BY_THE_RUN, *options, *names]
    try:
        done = subprocess.run(  # noqa: S603 # a program of the path, and paths of files that were read
            words, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return [_finding(row, names) for row in rows]
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MigrationError(f"squawk did not run: {error}.", remedy="Run it by hand to see why.") from error
    except (ValueError, KeyError, TypeError):
        said = (done.stderr or done.stdout).strip().partition("\n")[0]
        raise MigrationError(
            f"squawk ended with {done.returncode}, without findings: {said}",
            remedy="Run it by hand to see why; version 2 and later are known.",
        ) from None


def _finding(row: dict[str, Any], names: dict[str, str]) -> Finding:
    return Finding(
        file=names.get(row["file"], Path(row["file"]).name),
        line=int(row["line"]) + 1,
        rule=row["rule_name"],
        message=row["message"],
        help=row["help"] or "",
    )
