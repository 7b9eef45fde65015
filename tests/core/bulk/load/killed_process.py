"""A load in a process of its own, which may be killed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

from tests.forkserver import Processes


def processes_of_loads(*modules: str) -> Processes:
    """They begin with these imported, and with what all loads need: a load is killed, and not a start."""
    return Processes(*modules, "lakebase_provider.core.client", "pgpq", "databricks.sdk")


def _in_environment(environment: Mapping[str, str], load: Callable[..., None], *arguments: object) -> None:
    # The server that forks the processes has the environment of the test that needed it first.
    os.environ.clear()
    os.environ.update(environment)
    load(*arguments)


def attempt(
    processes: Processes, load: Callable[..., None], *arguments: object, kill_after: float | None = None
) -> tuple[str, float]:
    """Load, killed that many seconds after it begins; what became of it, and after how many seconds.

    Args:
        processes: Make it.
        load: Takes a connection, to which it sends ``"begins"`` and what it did, and the arguments.
        arguments: Those.
        kill_after: Seconds; None not to kill it.
    """
    mine, its = processes.pipe()
    process = processes(_in_environment, (dict(os.environ), load, its, *arguments))
    process.start()
    its.close()
    try:
        assert mine.recv() == "begins"
        began = time.monotonic()
        if not mine.poll(kill_after):
            process.kill()
        try:
            said = str(mine.recv())
        except EOFError:
            said = "killed" if kill_after is not None else "failed"
        return said, time.monotonic() - began
    finally:
        process.join()
        process.close()
        mine.close()
