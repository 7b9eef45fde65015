"""Commands as processes, forked from one that has imported what they import: to import it takes seconds.

Run as ``python -m tests.forked SOCKET MODULE...`` this is the process that forks them.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any


class Command:
    """A command that was started: as much of a ``subprocess.Popen`` as tests use."""

    def __init__(self, address: str, request: dict[str, Any], merged: bool) -> None:
        self._out = tempfile.TemporaryFile()  # noqa: SIM115 # closed on exit
        self._err = self._out if merged else tempfile.TemporaryFile()  # noqa: SIM115
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(address)
        fds = [self._out.fileno(), self._err.fileno()]
        socket.send_fds(self._connection, [json.dumps(request).encode() + b"\n"], fds)
        self._answers = self._connection.makefile()
        self.pid = int(self._answers.readline())
        #: The status that it has ended with; negative for a signal's number; None while it runs.
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The return code; None while it runs."""
        if self.returncode is None:
            self._read(0.001)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """The return code, in so many seconds at most."""
        end = time.monotonic() + timeout
        while self.returncode is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("a forked command", timeout)
            self._read(max(0.001, end - time.monotonic()))
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """What it has printed, to either of its outputs, when it has ended."""
        self.wait(timeout)
        texts = []
        for file in (self._out, self._err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return texts[0], "" if self._err is self._out else texts[1]

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def _read(self, timeout: float) -> None:
        self._connection.settimeout(timeout)
        with suppress(TimeoutError):
            self.returncode = int(self._connection.recv(64))

    def __enter__(self) -> Command:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self.poll() is None:
            self.send_signal(signal.SIGKILL)
        self.wait(60)
        for opened in (self._answers, self._connection, self._out, self._err):
            opened.close()


class Forks:
    """Forks commands for as long as it is open.

    Args:
        modules: What they import.
        env: Variables with which it is imported, besides this process' own.
    """

    def __init__(self, *modules: str, **env: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="forks-")
        self._address = f"{self._folder.name}/socket"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked", self._address, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
            env={**os.environ, **env},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def start(
        self, *argv: str, cwd: Path, env: dict[str, str] | None = None, merged: bool = False
    ) -> Command:
        """Start a command.

        Args:
            argv: A script's path, ``-m`` and a module, or ``-c`` and code; and arguments.
            cwd: Where.
            env: Its environment; this process' own by default.
            merged: Whether its errors go where its output goes.
        """
        request = {"argv": argv, "cwd": str(cwd), "env": dict(os.environ) if env is None else env}
        return Command(self._address, request, merged)

    def run(
        self, *argv: str, cwd: Path, env: dict[str, str] | None = None, timeout: float = 240.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        with self.start(*argv, cwd=cwd, env=env) as command:
            out, err = command.communicate(timeout)
        assert command.returncode is not None
        return subprocess.CompletedProcess(argv, command.returncode, out, err)

    def close(self) -> None:
        """Fork no more."""
        self._process.communicate()
        self._folder.cleanup()


def _main(address: str, *modules: str) -> None:
    for module in modules:
        import_module(module)
    # What is there lives as long as the process does: no collection of a fork looks at it, and so copies it.
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    # Nobody waits for those who wait for the commands.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    while True:
        # At the end of its input whoever started it is gone.
        if sys.stdin in select.select([listener, sys.stdin], [], [])[0]:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            break
        connection.close()
    listener.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    line, fds, _, _ = socket.recv_fds(connection, 1 << 20, 2)
    while not line.endswith(b"\n"):
        line += connection.recv(1 << 20)
    if pid := os.fork():
        connection.sendall(b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        connection.sendall(b"%d" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    connection.close()
    _become(json.loads(line), *fds)


def _become(request: dict[str, Any], out: int, err: int) -> None:
    """What is left of starting a program when Python has started already."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    program, *arguments = request["argv"]
    path = [entry for entry in request["env"].get("PYTHONPATH", "").split(os.pathsep) if entry]
    if program == "-m":
        module, *arguments = arguments
        sys.path[:1] = [request["cwd"], *path]
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    elif program == "-c":
        code, *arguments = arguments
        sys.path[:1] = [request["cwd"], *path]
        sys.argv = ["-c", *arguments]
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102 # as Python does
    else:
        sys.path[:1] = [str(Path(program).parent), *path]
        sys.argv = [program, *arguments]
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    _main(*sys.argv[1:])
