"""The process that runs a local Lakebase: `python -m lakebase_provider.local.server.server`.

It reads its options as one JSON line on standard input and answers with one JSON line on standard output:
either what a client needs, or why it could not start. From then on the end of its input means that its
parent is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lakebase_provider.core.errors import LakebaseError
from lakebase_provider.local.contract import private_files
from lakebase_provider.local.contract.errors import LocalLakebaseError
from lakebase_provider.local.contract.options import DEVELOPER, Options
from lakebase_provider.local.network.ports import bind_loopback
from lakebase_provider.local.postgres import databricks_auth
from lakebase_provider.local.postgres.accounts import choose_account
from lakebase_provider.local.postgres.binaries import find_binaries, stage_for_other_account
from lakebase_provider.local.postgres.clusters import Clusters
from lakebase_provider.local.postgres.postgres import Postgres
from lakebase_provider.local.server.kept import keep

#: Bytes that a unix socket's path may have (macOS: 104), less the part that Postgres adds to its folder.
_LONGEST_FOLDER = 104 - len("/lakebase-12345678/c/12345/socket/.s.PGSQL.5432.lock")


class Watchdog:
    """Handle on the process that cleans up when this one is killed.

    Args:
        folder: The run's.
        held: Descriptors that stay open until it has cleaned up.
    """

    def __init__(self, folder: Path, held: list[int]) -> None:
        program = Path(__file__).with_name("watchdog.py")
        self._process = subprocess.Popen(  # noqa: S603 - our own argument list
            [sys.executable, "-S", "-I", str(program), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            pass_fds=held,
        )
        self._lock = threading.Lock()

    def say(self, line: str) -> None:
        """Send one line; a watchdog that is gone is no reason to stop."""
        assert self._process.stdin is not None
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def release(self) -> None:
        """Everything is cleaned up: let it end."""
        self.say("release")
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextlib.contextmanager
def _run_folder(held: list[int]) -> Iterator[tuple[Path, Watchdog]]:
    parent = Path(tempfile.gettempdir()).resolve()
    # Root's TMPDIR may be another user's, who could put a folder of theirs in this one's place.
    replaceable = os.geteuid() == 0 and not private_files.only_ours_to_change(parent)
    # Both libpq and Postgres take several folders where one is meant, divided by commas.
    unspeakable = any(mark in str(parent) for mark in ',"')
    if len(str(parent)) > _LONGEST_FOLDER or replaceable or unspeakable:
        parent = Path("/tmp").resolve()  # noqa: S108 - mkdtemp makes a folder that nobody else can enter
    folder = Path(tempfile.mkdtemp(prefix="lakebase-", dir=parent))
    watchdog = Watchdog(folder, held)
    try:
        yield folder, watchdog
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        watchdog.release()


@contextlib.contextmanager
def _ports(options: Options) -> Iterator[tuple[list[socket.socket], list[socket.socket]]]:
    with contextlib.ExitStack() as stack:
        database = bind_loopback(options.port, what="port")
        for listener in database:
            stack.enter_context(listener)
        http = bind_loopback(options.http_port, what="http_port")
        for listener in http:
            stack.enter_context(listener)
        yield database, http


@contextlib.contextmanager
def _initdb(postgres: Postgres, watchdog: Watchdog) -> Iterator[None]:
    """Run initdb beside the body of the `with`, and end it where the body fails."""
    process = postgres.begin_initdb()
    watchdog.say(f"watch {process.pid}")
    try:
        yield
        postgres.finish_initdb(process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        watchdog.say(f"forget {process.pid}")


def run(options: Options) -> None:
    """Run a local Lakebase until it is told to stop, cleaning up whatever happens."""
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(keep(Path(options.keep))) if options.keep else None
        binaries = find_binaries(version=options.postgres or (kept.version if kept else None))
        if kept and kept.version not in (None, binaries.major):
            raise LocalLakebaseError(
                f"The data in {kept.folder} is of Postgres {kept.version}, not {binaries.major}.",
                remedy=f"Choose Postgres {kept.version}, or another folder.",
            )
        account = stack.enter_context(choose_account())
        database, http = stack.enter_context(_ports(options))
        folder, watchdog = stack.enter_context(_run_folder([kept.lock] if kept else []))
        if account.gid is not None:
            # Postgres must pass through to its own folders inside.
            os.chown(folder, 0, account.gid)
            folder.chmod(0o710)
            binaries = stage_for_other_account(binaries, folder)
        home = kept.folder / "postgres" if kept else None
        postgres = Postgres(folder, binaries, account, max_connections=options.max_connections, home=home)
        if kept:
            kept.admit(postgres, account, binaries.major)
        begun = kept is not None and kept.begun
        with contextlib.nullcontext() if begun else _initdb(postgres, watchdog):
            parts = _load_service().prepare(options, folder, binaries, postgres, kept)
        install = partial(databricks_auth.install, owner=parts.owner.name, developer=DEVELOPER)
        clusters = Clusters(
            folder,
            binaries,
            account,
            postgres,
            max_connections=options.max_connections,
            install=install,
            tell_watchdog=watchdog.say,
            home=kept.home if kept else None,
        )
        try:
            if os.path.lexists(postgres.pid_file):
                # The run before was killed: recovered and stopped in order, the data is a beginning.
                _start(postgres, watchdog)
                postgres.stop()
            clusters.keep_beginning(fresh=not begun)
            _start(postgres, watchdog)
            if not begun:
                install(postgres)
            clusters.adopt(parts.workspace.branch.uid)
            if kept:
                clusters.restore(kept.clusters, kept.owners)
                kept.owners = []
                kept.note(parts.workspace.directory.all())
            asyncio.run(parts.serve(database, http, _announce, clusters, watchdog.say))
        finally:
            clusters.close()
            postgres.stop()
            if kept and kept.begun:
                kept.note(parts.workspace.directory.all())


def _start(postgres: Postgres, watchdog: Watchdog) -> None:
    watchdog.say(f"watch {postgres.begin_start()} {postgres.pid_file}")
    postgres.finish_start()


def _load_service() -> Any:
    try:
        from lakebase_provider.local.server import service
    except ModuleNotFoundError as error:
        raise LocalLakebaseError(
            f"The local Lakebase needs the package {error.name}.",
            remedy="Run `pip install 'lakebase-provider[local]'`.",
        ) from None
    return service


def _announce(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    # Nobody reads on; and a launcher that waits for the end of the output must not wait for ever.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def main() -> int:
    """Run the program."""
    options = Options(**json.loads(sys.stdin.readline()))
    try:
        run(options)
    except LakebaseError as error:
        _announce({"error": error.message, "remedy": error.remedy})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
