"""How a run of an example reports to the demo: JSON lines on a pipe."""

from __future__ import annotations

import json
import os
from typing import Any

from lakebase_provider.core.shared import shared_clients


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
        clients = shared_clients()
        stats = [client.stats() for client in clients]
        # Clients of one principal share their token cache, which must not be counted twice.
        caches = {id(client.tokens): client.tokens for client in clients}
        self._write(
            {
                "counters": {
                    "mints": sum(tokens.stats().mints for tokens in caches.values()),
                    "connections": sum(s.connections for s in stats),
                    "checkouts": sum(s.checkouts for s in stats),
                }
            }
        )

    def _write(self, event: dict[str, Any]) -> None:
        self._pipe.write(json.dumps(event) + "\n")
