"""The database that the environment names: ``lakebase doctor`` and ``lakebase token``."""

from __future__ import annotations

import argparse
import json
from contextlib import AbstractContextManager


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
    print(json.dumps(report.to_dict(), indent=2) if options.json else report.to_text())
    return 0 if report.ok else 1


def _token(_options: argparse.Namespace) -> int:
    from lakebase_provider.core import LakebaseClient, LakebaseConfig

    with without_other_settings(), LakebaseClient(LakebaseConfig.from_env()) as client:
        print(client.tokens.get().reveal())
    return 0
