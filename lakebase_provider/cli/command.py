"""The command itself: its parser, and what becomes of errors."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO, cast

from lakebase_provider.cli import (
    database,
    examples,
    local,
    migrations,
    objects,
    rehearsal,
    restoring,
)
from lakebase_provider.cli.lakehouse import synced_tables
from lakebase_provider.cli.upkeep import grants, inspection, maintenance, programs
from lakebase_provider.core.base.plain_text import escaped
from lakebase_provider.core.errors import LakebaseError
from lakebase_provider.core.errors.plain_errors import to_plain
from lakebase_provider.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Words after ``lakebase``; those of the process by default.

    Returns:
        The exit code: 0 for success, 1 for a failure, 2 for wrong arguments.
    """
    options = parser().parse_args(arguments)
    # Names, hosts and messages come from a workspace or a database, which the terminal must not obey.
    with (
        contextlib.redirect_stdout(cast(TextIO, _Printable(sys.stdout))),
        contextlib.redirect_stderr(cast(TextIO, _Printable(sys.stderr))),
    ):
        return _run(options)


class _Printable:
    """A stream to which only lines of printable text go, whoever writes them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(escaped(text, keep="\n\t"))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _run(options: argparse.Namespace) -> int:
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        return int(options.run(options))
    except LakebaseError as error:
        if getattr(options, "json", False):
            print(json.dumps({"error": to_plain(error)}, default=str), file=sys.stderr)
        else:
            print(f"lakebase: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output has seen enough; the interpreter must not try to flush the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser; each command sets ``run``, which takes the options and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="lakebase", description="Databricks Lakebase for Airflow and Dagster."
    )
    parser.add_argument("--version", action="version", version=f"lakebase-provider {__version__}")
    parser.add_argument("--verbose", action="store_true", help="log at DEBUG, to standard error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (
        *(database, programs, inspection, maintenance, grants, objects, synced_tables),
        *(migrations, rehearsal, restoring, local, examples),
    ):
        group.add_parsers(commands)
    return parser
