"""Ends Postgres and removes the run's folder when the server of the local Lakebase is killed.

The server starts this file as a program (`python -S -I watchdog.py <folder>`) and holds the other end of its
standard input, on which it names the process groups to end. When the server dies, however it dies, the input
ends. Standard library only, and few modules of it, for it starts with every local Lakebase.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

#: Seconds that a process gets after each signal before the next, harsher one.
_PATIENCE = 5.0


def main(folder: str) -> None:
    """Wait for the server to end, then clean up after it.

    Args:
        folder: The run's folder, removed at the end.
    """
    groups: list[int] = []
    for line in sys.stdin:
        word, _, value = line.strip().partition(" ")
        if word == "watch":
            groups.append(int(value))
        elif word == "forget":
            groups.remove(int(value))
        elif word == "release":
            return
    for group in groups:
        _end(group, Path(folder, "postgres", "data", "postmaster.pid"))
    deadline = time.monotonic() + _PATIENCE
    # More than once: a process that was just ended may leave a child that writes its last file meanwhile.
    while Path(folder).exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.02)


def _end(group: int, pid_file: Path) -> None:
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + _PATIENCE
        had_pid_file = os.path.lexists(pid_file)
        while time.monotonic() < deadline:
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                return
            # In a container whose first process reaps no orphans, a stopped Postgres stays a zombie for ever.
            if had_pid_file and not os.path.lexists(pid_file):
                return
            time.sleep(0.01)


if __name__ == "__main__":
    main(sys.argv[1])
