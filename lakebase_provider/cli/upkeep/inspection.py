"""What is not well in the database that the environment names: ``lakebase inspect``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lakebase_provider.cli.database import write_page
from lakebase_provider.cli.objects import action, connected
from lakebase_provider.core.errors import ConfigError

#: What remedies call by its name in Python, and commands by another.
_NOT_IN_A_SHELL = ("checks", "limits", "statistics_days", "earlier")


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to `lakebase`."""
    about = "look for what is not well in the database; 1 if something is bad"
    parser = action(commands, "inspect", about, _inspect, timeout="10s")
    parser.description = (
        "Reads the catalog and the counters of the database that the environment names, and locks nothing. "
        "The exit code is 1 if a check is bad, or, with --fail-on warn, needs a look."
    )
    parser.add_argument(
        "--check", action="append", metavar="CHECK", help="run this one; may be repeated; default: all"
    )
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        type=_limit,
        metavar="CHECK=WARN[,BAD]",
        help="from which value on something is not well, such as bloat=0.5,0.8; may be repeated",
    )
    parser.add_argument(
        "--statistics-days",
        type=float,
        default=7.0,
        metavar="DAYS",
        help="that the counters must cover before an index is called unused; 7",
    )
    parser.add_argument(
        "--earlier", metavar="FILE", help="what --json has printed before, to tell how the database grows"
    )
    parser.add_argument(
        "--fail-on", choices=("bad", "warn"), default="bad", help="what makes the exit code 1; default: bad"
    )
    parser.add_argument(
        "--html", metavar="FILE", help="also write a page for a browser, with the health check"
    )


def _limit(text: str) -> tuple[str, list[float | None]]:
    name, found, numbers = text.partition("=")
    try:
        pair = [None if not one else float(one) for one in numbers.split(",")]
    except ValueError:
        pair = []
    if not found or not 1 <= len(pair) <= 2:
        raise argparse.ArgumentTypeError(f"{text!r} is no limit such as bloat=0.5 or bloat=0.5,0.8")
    return name, pair


def _inspect(options: argparse.Namespace) -> int:
    with connected(*_NOT_IN_A_SHELL) as client:
        report = client.inspect(
            options.check,
            limits=dict(options.limit),
            statistics_days=options.statistics_days,
            earlier=None if options.earlier is None else _earlier(options.earlier),
            timeout=options.timeout,
        )
        health = None if options.html is None else client.health()
    if options.html is not None:
        from lakebase_provider.core import html_report

        write_page(options.html, html_report(inspection=report, health=health))
    print(json.dumps(report.to_dict(), indent=2) if options.json else report.to_text())
    return 1 if report.fails(options.fail_on) else 0


def _earlier(name: str) -> dict[str, object]:
    from lakebase_provider.core.base.files.plain_files import open_to_read

    try:
        with open_to_read(Path(name), "--earlier") as file:
            found = json.loads(file.read())
    except (OSError, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise ConfigError(f"--earlier: {told}: {name}.", remedy="Give what --json has printed.") from None
    return found if isinstance(found, dict) else {}
