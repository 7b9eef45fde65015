"""A load in a process of its own, which may be killed."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping

# Processes that begin with all imports done: what is killed is a load, and not a start.
_processes = multiprocessing.get_context("forkserver")


def preload(*modules: str) -> None:
    """Have the processes begin with these imported, and with what all loads need."""
    _processes.set_forkserver_preload([*modules, "lakebase_provider.core.client", "pgpq", "databricks.sdk"])


def _in_environment(environment: Mapping[str, str], load: Callable[..., None], *arguments: object) -> None:
    # The server that forks the processes has the environment of the test that needed it first.
    os.environ.clear()
    os.environ.update(environment)
    load(*arguments)


def attempt(
    load: Callable[..., None], *arguments: object, kill_after: float | None = None
) -> tuple[str, float]:
    """Load, killed that many seconds after it begins; what became of it, and after how many seconds.

    Args:
        load: Takes a connection, to which it sends ``"begins"`` and what it did, and the arguments.
        arguments: Those.
        kill_after: Seconds; None not to kill it.
    """
    mine, its = _processes.Pipe(duplex=False)
    process = _processes.Process(target=_in_environment, args=(dict(os.environ), load, its, *arguments))
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
