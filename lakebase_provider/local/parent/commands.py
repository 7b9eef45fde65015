"""The command `lakebase local`; of its own: `up`, `env` and `down`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from lakebase_provider.local.contract.errors import LocalLakebaseError
from lakebase_provider.local.contract.options import Options, Running
from lakebase_provider.local.parent import run_file, running_commands, sample
from lakebase_provider.local.parent.launch import Server
from lakebase_provider.local.parent.run_file import RunFile

#: Seconds that a server may take to stop.
_DOWN_TIMEOUT = 20.0


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `local` to `lakebase`; each sub-command sets `run`, which returns the exit code."""
    local = commands.add_parser("local", help="a Lakebase on this machine, for tests and demos")
    actions = local.add_subparsers(required=True, metavar="ACTION")

    start = actions.add_parser(
        "up",
        help="start it, print its environment, and keep it running until Ctrl-C",
        description="Starts a local Lakebase and prints shell lines that point clients to it.",
    )
    start.add_argument("--port", type=int, default=0, help="of the database; default: a free one")
    start.add_argument("--http-port", type=int, default=0, help="of the control plane; default: a free one")
    start.add_argument(
        "--token-lifetime", type=float, default=3600.0, metavar="SECONDS", help="of database tokens"
    )
    start.add_argument(
        "--postgres", type=int, choices=(16, 17, 18), help="major version; default: 16, where it is installed"
    )
    start.add_argument(
        "--keep",
        type=Path,
        metavar="DIR",
        help="keep the data of all branches and the credentials there, and go on from what is there; "
        "read replicas end with the run",
    )
    start.add_argument("--detach", action="store_true", help="return as soon as it is ready")
    start.set_defaults(run=up)

    show = actions.add_parser("env", help='print its environment again: eval "$(lakebase local env)"')
    show.add_argument(
        "--airflow", action="store_true", help="print Airflow's connection lakebase_default instead"
    )
    show.set_defaults(run=env)

    end = actions.add_parser("down", help="stop it and remove its data")
    end.set_defaults(run=down)

    for action in (start, show, end):
        action.add_argument("--name", default="default", help="distinguishes several instances of one user")
    running_commands.add_parsers(actions, lambda arguments: _running(RunFile(arguments.name)))
    sample.add_parser(actions, lambda arguments: _running(RunFile(arguments.name)))


def up(arguments: argparse.Namespace) -> int:
    """Start a local Lakebase and print its environment as shell lines."""
    note = RunFile(arguments.name)
    if note.alive():
        raise LocalLakebaseError(
            f"The local Lakebase {note.name!r} is already running.",
            remedy="See `lakebase local env`, stop it with `lakebase local down`, or use another --name.",
        )
    options = Options(
        host="localhost",
        port=arguments.port,
        http_port=arguments.http_port,
        token_lifetime=arguments.token_lifetime,
        max_connections=104,
        authority_folder=str(run_file.authority_folder()),
        detach=arguments.detach,
        postgres=arguments.postgres,
        keep=str(arguments.keep.absolute()) if arguments.keep else None,
    )
    signal.signal(signal.SIGTERM, _interrupt)
    server = Server.launch(options)
    try:
        note.write(server.running)
        _print_exports(server.running.env())
        if arguments.detach:
            server.leave()
            return 0
        _say("The local Lakebase is running; Ctrl-C stops it.")
        server.wait()
    except KeyboardInterrupt:
        pass
    finally:
        if not arguments.detach:
            server.stop()
            note.remove()
    return 0


def env(arguments: argparse.Namespace) -> int:
    """Print the environment of a running local Lakebase as shell lines."""
    running = _running(RunFile(arguments.name))
    _print_exports(running.airflow_env() if arguments.airflow else running.env())
    return 0


def down(arguments: argparse.Namespace) -> int:
    """Stop a running local Lakebase, and return when its data is gone."""
    note = RunFile(arguments.name)
    running = _running(note)
    run_file.admin(running).stop_server()
    deadline = time.monotonic() + _DOWN_TIMEOUT
    # A server removes its folder last of all.
    while Path(running.folder).exists():
        if time.monotonic() > deadline:
            raise LocalLakebaseError(
                f"Process {running.pid} did not end within {_DOWN_TIMEOUT:.0f} seconds.", remedy="Kill it."
            )
        time.sleep(0.02)
    note.remove()
    _say(f"The local Lakebase {note.name!r} has stopped.")
    return 0


def _running(note: RunFile) -> Running:
    running = note.alive()
    if running is None:
        others = run_file.names()
        raise LocalLakebaseError(
            f"No local Lakebase {note.name!r} is running.",
            remedy="Start one with `lakebase local up`"
            + (f", or give the --name of one that runs: {', '.join(others)}." if others else "."),
        )
    return running


def _print_exports(variables: dict[str, str]) -> None:
    for name, value in variables.items():
        quoted = value.replace("'", "'\"'\"'")
        sys.stdout.write(f"export {name}='{quoted}'\n")
    sys.stdout.flush()


def _say(line: str) -> None:
    # To standard error: standard output is for the shell to read.
    sys.stderr.write(line + "\n")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
