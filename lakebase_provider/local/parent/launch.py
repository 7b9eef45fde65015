"""Start the server process and hold on to it, as its parent."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import IO

from lakebase_provider.local.contract.errors import LocalLakebaseError
from lakebase_provider.local.contract.options import Options, Running

logger = logging.getLogger(__name__)

#: Seconds for a clean end before the server is killed; the watchdog then cleans up.
_STOP_TIMEOUT = 15.0


class Server:
    """The server process as its parent sees it."""

    def __init__(self, process: subprocess.Popen[bytes], running: Running) -> None:
        self._process = process
        self.running = running

    @classmethod
    def launch(cls, options: Options) -> Server:
        """Start the server and wait for its answer.

        Args:
            options: What it is to be.

        Raises:
            LocalLakebaseError: It could not start.
        """
        with tempfile.TemporaryFile() as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "lakebase_provider.local.server.server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=_environment(),
                # Not the caller's folder: Python puts it first on the path, and a module there may be
                # called `jwt`.
                cwd="/",
                # Ctrl-C is for the parent, which then stops the server in order.
                start_new_session=True,
            )
            try:
                return cls(process, _handshake(process, options, stderr))
            except BaseException:
                process.terminate()
                _close_pipes(process)
                process.wait()
                raise

    def stop(self) -> None:
        """End the server by ending its input, and wait until it is gone."""
        _close_pipes(self._process)
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait(self) -> int:
        """Block until the server ends by itself, and return its exit code."""
        return self._process.wait()

    def leave(self) -> None:
        """Let go of a server that was started with `detach`."""
        _close_pipes(self._process)


def _handshake(process: subprocess.Popen[bytes], options: Options, stderr: IO[bytes]) -> Running:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(asdict(options)).encode() + b"\n")
        process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        stderr.seek(0)
        said = stderr.read().decode(errors="replace").strip().splitlines()
        raise LocalLakebaseError(
            f"The local Lakebase exited while starting: {said[-1] if said else 'it printed nothing'}"
        )
    answer = json.loads(line)
    if "error" in answer:
        raise LocalLakebaseError(answer["error"], remedy=answer["remedy"])
    running = Running(**answer)
    if running.lost:
        logger.warning(
            "What the run before had and this one has not, such as read replicas, which are not kept: %s. "
            "Create it again.",
            ", ".join(running.lost),
        )
    return running


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _environment() -> dict[str, str]:
    # Nothing of libpq's: the server's own sessions are with its own Postgres. A missing PGSERVICE ends them.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    if paths := environment.get("PYTHONPATH"):
        # Relative entries would mean another folder from the server's.
        environment["PYTHONPATH"] = os.pathsep.join(
            str(Path(p).absolute()) for p in paths.split(os.pathsep) if p
        )
    return environment
