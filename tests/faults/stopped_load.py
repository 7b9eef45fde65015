"""A load that stops in the middle of a COPY, its connection open: ``-m tests.faults.stopped_load MODE``.

So are a machine that swaps and a container that is paused.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.core.errors import LoadInterruptedError


def rows() -> Iterator[tuple[int]]:
    for i in range(40_000):
        if i == 30_000:
            print("stopping", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
        yield (i,)


if __name__ == "__main__":
    with LakebaseClient(LakebaseConfig.from_env()) as client:
        try:
            loaded = client.load(rows(), "t", mode=sys.argv[1], load_id="day/1")  # type: ignore[arg-type]
            print("loaded", loaded.skipped)
        except LoadInterruptedError as error:
            print("interrupted", error.retryable)
