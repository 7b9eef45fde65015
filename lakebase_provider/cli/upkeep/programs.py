"""Programs of others on the database that the environment names: ``lakebase exec``."""

from __future__ import annotations

import argparse
import sys

from lakebase_provider.cli.objects import connected, seconds
from lakebase_provider.core.errors import ConfigError

#: What a shell says of a program that is not there, or is there and cannot be run.
_NOT_FOUND, _CANNOT_RUN = 127, 126


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to `lakebase`."""
    parser = commands.add_parser(
        "exec",
        help="run a program that connects by itself, such as dbt, psql or pg_dump",
        usage="lakebase exec [-h] [--branch BRANCH] [--database NAME] [--timeout DURATION] [--] COMMAND ...",
        description="Runs a program that finds the database in its environment: libpq's variables, "
        "DATABASE_URL without a password, and PGPASSFILE, a file that only you can read, whose token is "
        "renewed until the program ends. Signals are handed on; the exit code is the program's, or 128 and "
        "the number of the signal that ended it.",
    )
    parser.add_argument(
        "--branch", help="name, or id in the environment's project; default: the environment's"
    )
    parser.add_argument("--database", metavar="NAME", help="default: the environment's")
    parser.add_argument(
        "--timeout", type=seconds, metavar="DURATION", help="how long the first token may take"
    )
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="COMMAND", help="the program and its arguments"
    )
    parser.set_defaults(run=_exec)


def _exec(options: argparse.Namespace) -> int:
    from lakebase_provider.core import LakebaseClient
    from lakebase_provider.core.upkeep.programs.foreground import Foreground
    from lakebase_provider.core.upkeep.programs.program_environment import check_words

    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not words:
        raise ConfigError(
            "lakebase exec has no program to run.", remedy="Give one, such as: lakebase exec -- dbt run"
        )
    with Foreground() as foreground, connected() as environments:
        config = environments.config
        if options.branch is not None:
            config = config.on_branch(options.branch)
        if options.database is not None:
            config = config.replace(database=options.database)
        with LakebaseClient(config) as client, client.program_environment(options.timeout) as variables:
            check_words(words, client.tokens.get())
            try:
                return foreground.run(words, variables)
            except ConfigError as error:
                print(f"lakebase: {error}", file=sys.stderr)
                return _NOT_FOUND if isinstance(error.__cause__, FileNotFoundError) else _CANNOT_RUN
