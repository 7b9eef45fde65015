"""The command ``lakebase``."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from lakebase_provider.core.errors import ConfigError, LakebaseError
from lakebase_provider.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Words after ``lakebase``; those of the process by default.

    Returns:
        The exit code: 0 for success, 1 for a failure, 2 for wrong arguments.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        return int(options.run(options))
    except LakebaseError as error:
        print(f"lakebase: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output has seen enough; the interpreter must not try to flush the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lakebase", description="Databricks Lakebase for Airflow and Dagster."
    )
    parser.add_argument("--version", action="version", version=f"lakebase-provider {__version__}")
    parser.add_argument("--verbose", action="store_true", help="log at DEBUG, to standard error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

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

    _add_local(commands)

    demo = commands.add_parser(
        "demo",
        help="run the example DAG and the example Dagster job on a local Lakebase",
        description="Starts a local Lakebase and runs example_dags on it; exit code 0 only if all is right.",
    )
    demo.add_argument("--example-dags", default="example_dags", metavar="FOLDER")
    demo.add_argument("--logs", default="build/demo", metavar="FOLDER", help="where logs go")
    demo.set_defaults(run=_demo)
    return parser


def _add_local(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    try:
        from lakebase_provider.local.parent.commands import add_parsers
    except ImportError:
        missing = commands.add_parser(
            "local", help="a Lakebase on this machine (needs lakebase-provider[local])"
        )
        missing.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
        missing.set_defaults(run=_local_is_missing)
    else:
        add_parsers(commands)


def _local_is_missing(_options: argparse.Namespace) -> int:
    raise ConfigError(
        "The local Lakebase is not installed.", remedy="pip install 'lakebase-provider[local]'."
    )


def _without_other_settings() -> AbstractContextManager[None]:
    """Have errors advise no setting that the environment cannot hold."""
    from lakebase_provider.core.config import settings
    from lakebase_provider.core.errors.remedy import without_options

    return without_options(*(row.name for row in settings() if not row.env))


def _doctor(options: argparse.Namespace) -> int:
    from lakebase_provider.core import LakebaseClient, LakebaseConfig
    from lakebase_provider.core.errors.remedy import without_options

    with (
        _without_other_settings(),
        without_options("doctor"),
        LakebaseClient(LakebaseConfig.from_env()) as client,
    ):
        report = client.health(options.check, timeout=options.timeout)
    print(json.dumps(report.to_dict(), indent=2) if options.json else report.to_text())
    return 0 if report.ok else 1


def _token(_options: argparse.Namespace) -> int:
    from lakebase_provider.core import LakebaseClient, LakebaseConfig

    with _without_other_settings(), LakebaseClient(LakebaseConfig.from_env()) as client:
        print(client.tokens.get().reveal())
    return 0


def _demo(options: argparse.Namespace) -> int:
    from lakebase_provider.demo import run_demo

    return run_demo(_folder(options.example_dags, "--example-dags"), _folder(options.logs, "--logs"))


def _folder(text: str, argument: str) -> Path:
    from lakebase_provider.core.bulk.files.locations import locate

    local = locate(text, argument).local
    if local is None:
        raise ConfigError(f"{argument} is no folder of this machine.", remedy="Give a local path.")
    return local


if __name__ == "__main__":
    sys.exit(main())
