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
    groups: dict[int, Path] = {}
    for line in sys.stdin:
        word, _, value = line.rstrip("\n").partition(" ")
        group, _, pid_file = value.partition(" ")
        if word == "watch":
            groups[int(group)] = Path(pid_file)
        elif word == "forget":
            groups.pop(int(group), None)
        elif word == "release":
            return
    _end(groups)
    deadline = time.monotonic() + _PATIENCE
    # More than once: a process that was just ended may leave a child that writes its last file meanwhile.
    while Path(folder).exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.02)


def _end(groups: dict[int, Path]) -> None:
    """End process groups, all at a time."""
    # In a container whose first process reaps no orphans, a stopped Postgres stays a zombie for ever.
    reporting = {group for group, pid_file in groups.items() if os.path.lexists(pid_file)}
    left = set(groups)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        left = {group for group in left if _signal(group, number)}
        deadline = time.monotonic() + _PATIENCE
        while left and time.monotonic() < deadline:
            left = {
                group
                for group in left
                if _signal(group, 0) and (group not in reporting or os.path.lexists(groups[group]))
            }
            time.sleep(0.01)


def _signal(group: int, number: int) -> bool:
    """Send a signal, and return whether there is anybody who got it."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main(sys.argv[1])
