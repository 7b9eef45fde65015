"""How a run of an example tells the demo what it does: JSON lines on a pipe."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

from lakebase_provider.core.client import shared_clients


class Progress:
    """Writes to the demo.

    Args:
        descriptor: File descriptor of the pipe.
    """

    def __init__(self, descriptor: int) -> None:
        self._pipe = os.fdopen(descriptor, "w", buffering=1)

    def message(self, text: str) -> None:
        """Something to show."""
        self._write({"message": text})

    def step(self, kind: str, name: str, state: str, seconds: float) -> None:
        """A task, step or check has ended."""
        self._write({"step": {"kind": kind, "name": name, "state": state, "seconds": seconds}})

    def counters(self) -> None:
        """The counters of all clients of this process, summed up."""
        total = {"mints": 0, "connections": 0, "checkouts": 0}
        for client in shared_clients():
            for name, count in asdict(client.stats()).items():
                total[name] += count
        self._write({"counters": total})

    def _write(self, event: dict[str, Any]) -> None:
        self._pipe.write(json.dumps(event) + "\n")
