"""Many short processes that each want one token, as tasks of a scheduler do."""

from __future__ import annotations

import os
from typing import Any

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase

_AT_ONCE = 20


def requests_of_short_processes(lake: LocalLakebase, count: int, **settings: Any) -> tuple[int, int]:
    """Let forked processes that hold nothing ask for a token each, some at a time.

    Args:
        lake: Whom they ask.
        count: How many processes.
        settings: Settings that differ from those of `lake`.

    Returns:
        Tokens minted, and requests that the workspace got in all.
    """
    config = lake.config(**settings)
    lake.admin.reset_counters()
    running: set[int] = set()
    for _ in range(count):
        if len(running) == _AT_ONCE:
            running.remove(_wait_for_one())
        child = os.fork()
        if child == 0:
            status = 1
            try:
                LakebaseClient(config).tokens.get()
                status = 0
            finally:
                os._exit(status)
        running.add(child)
    while running:
        running.remove(_wait_for_one())
    return lake.admin.counters().mints, len(lake.admin.requests())


def _wait_for_one() -> int:
    child, status = os.wait()
    if status != 0:
        raise RuntimeError("A process got no token.")
    return child
