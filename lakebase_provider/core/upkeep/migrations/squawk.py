"""squawk, a linter of migrations, if it is installed: https://squawkhq.com."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lakebase_provider.core.base.plain_text import escaped
from lakebase_provider.core.errors import ConfigError, MigrationError
from lakebase_provider.core.upkeep.migrations.migration_report import Finding
from lakebase_provider.core.upkeep.migrations.sql_folder import SqlFile

#: What a run sets by itself.
_SET_BY_THE_RUN = ("require-lock-timeout", "require-statement-timeout")
_OUTSIDE = "--no-assume-in-transaction"
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
    # Beside this interpreter, too: a virtual environment need not be activated.
    program = shutil.which("squawk") or shutil.which("squawk", path=sysconfig.get_path("scripts"))
    if program is None:
        raise ConfigError(
            "The program squawk is neither on the path nor beside this Python.",
            remedy="Run `pip install squawk-cli`, or do without the lint.",
        )
    inside = [file for file in files if file.in_transaction]
    outside = [file for file in files if not file.in_transaction]
    # Older ones do not have that option, by which their own configuration counts no more.
    options = [_OUTSIDE] if outside and _OUTSIDE in _run([program, "--help"]).stdout else []
    found = [*_ask(program, inside, ["--assume-in-transaction"]), *_ask(program, outside, options)]
    return tuple(sorted(found, key=lambda finding: (finding.file, finding.line, finding.rule)))


def _ask(program: str, files: Sequence[SqlFile], options: Iterable[str]) -> list[Finding]:
    if not files:
        return []
    names = {str(file.path): file.name for file in files}
    words = [program, "--reporter", "json", *options, *names]
    done = _run(words)
    try:
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        # To leave them out by an option would take in what its configuration leaves out.
        return [_finding(row, names) for row in rows if row["rule_name"] not in _SET_BY_THE_RUN]
    except (ValueError, KeyError, TypeError):
        said = escaped((done.stderr or done.stdout).strip().partition("\n")[0])
        raise MigrationError(
            f"squawk ended with {done.returncode}, without findings: {said}",
            remedy="Run it by hand to see why; version 2 and later are known.",
        ) from None


def _run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 # a program of the path, and paths of files that were read
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
            # Within GitHub Actions it would write more than was asked for.
            env={**os.environ, "SQUAWK_DISABLE_GITHUB_ANNOTATIONS": "1"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MigrationError(f"squawk did not run: {error}.", remedy="Run it by hand to see why.") from error


def _finding(row: dict[str, Any], names: dict[str, str]) -> Finding:
    return Finding(
        file=names.get(row["file"], Path(row["file"]).name),
        line=int(row["line"]) + 1,
        rule=row["rule_name"],
        message=row["message"],
        help=row["help"] or "",
    )
