"""The database that the environment names: ``lakebase doctor`` and ``lakebase token``."""

from __future__ import annotations

import argparse
import json
from contextlib import AbstractContextManager
from pathlib import Path

from lakebase_provider.core.errors import ConfigError


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to `lakebase`."""
    doctor = commands.add_parser(
        "doctor",
        help="check step by step whether the database of the environment is reachable",
        description="Runs the health check on the configuration that the environment holds.",
    )
    doctor.add_argument(
        "--check", action="append", metavar="STAGE", help="run this stage and those it builds on"
    )
    doctor.add_argument("--timeout", type=float, metavar="SECONDS", help="time for each stage")
    doctor.add_argument("--json", action="store_true", help="print JSON instead of a table")
    doctor.add_argument(
        "--inspect", action="store_true", help="also look for what is not well in the database, if all is ok"
    )
    doctor.add_argument("--html", metavar="FILE", help="also write what was found as a page for a browser")
    doctor.set_defaults(run=_doctor)

    token = commands.add_parser(
        "token", help="print a database token, to be used as password by psql and others"
    )
    token.set_defaults(run=_token)


def without_other_settings() -> AbstractContextManager[None]:
    """Have errors advise no setting that the environment cannot hold."""
    from lakebase_provider.core.config import settings
    from lakebase_provider.core.errors.remedy import without_options

    return without_options(*(row.name for row in settings() if not row.env))


def _doctor(options: argparse.Namespace) -> int:
    from lakebase_provider.core import LakebaseClient, LakebaseConfig
    from lakebase_provider.core.errors.remedy import without_options

    with (
        without_other_settings(),
        without_options("doctor"),
        LakebaseClient(LakebaseConfig.from_env()) as client,
    ):
        report = client.health(options.check, timeout=options.timeout)
        inspection = client.inspect() if options.inspect and report.ok else None
    if options.html is not None:
        from lakebase_provider.core import html_report

        write_page(options.html, html_report(inspection=inspection, health=report))
    if options.json:
        found = {} if inspection is None else {"inspection": inspection.to_dict()}
        print(json.dumps({**report.to_dict(), **found}, indent=2))
    else:
        print(report.to_text() + ("" if inspection is None else f"\n\n{inspection.to_text()}"))
    return 0 if report.ok and (inspection is None or not inspection.fails()) else 1


def _token(_options: argparse.Namespace) -> int:
    from lakebase_provider.core import LakebaseClient, LakebaseConfig

    with without_other_settings(), LakebaseClient(LakebaseConfig.from_env()) as client:
        print(client.tokens.get().reveal())
    return 0


def write_page(name: str, page: str) -> None:
    """Write an HTML page, whole or not at all.

    Args:
        name: The file's path.
        page: The page.

    Raises:
        ConfigError: It cannot be written there.
    """
    from lakebase_provider.core.base.files.plain_files import NewFile

    try:
        new = NewFile(Path(name), "--html")
        try:
            new.file.write(page.encode())
            new.finish()
        except BaseException:
            new.discard()
            raise
    except OSError as error:
        raise ConfigError(
            f"--html: {error.strerror}: {name}.", remedy="Give a file in a folder that you may write to."
        ) from None
