"""One run of an example, in its own process as a scheduler would start it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lakebase_provider.core.base.files.plain_files import open_new


@dataclass(frozen=True)
class Run:
    """What one run of an example reported.

    Attributes:
        title: Who ran it.
        schema: Where it wrote.
        steps: ``{"name", "kind", "state", "seconds"}`` for each task, step or check.
        mints: Tokens that its process minted.
        connections: Physical connections that its process opened.
        checkouts: Connections that its pools lent.
        succeeded: The process ended well and every step did.
        log: Where its output is.
    """

    title: str
    schema: str
    steps: list[dict[str, Any]]
    mints: int
    connections: int
    checkouts: int
    succeeded: bool
    log: Path


def run_example(
    title: str,
    schema: str,
    module: str,
    examples: Path,
    file: str,
    environment: Mapping[str, str],
    logs: Path,
    say: Callable[[str], None],
) -> Run:
    """Run one example and show its progress, which it writes as JSON lines to a pipe."""
    log = logs / f"{title.lower()}.log"
    say(f"{title}: starting (output in {log})")
    steps: list[dict[str, Any]] = []
    counters = {"mints": 0, "connections": 0, "checkouts": 0}
    read_end, write_end = os.pipe()
    log.unlink(missing_ok=True)
    with open_new(log) as output:  # not through a link, which may point to somebody else's file
        command = [
            sys.executable,
            "-m",
            f"lakebase_provider.demo.{module}",
            str(examples / file),
            str(write_end),
        ]
        process = subprocess.Popen(  # noqa: S603 # our own module, and a path that was checked
            command, env=dict(environment), stdout=output, stderr=subprocess.STDOUT, pass_fds=[write_end]
        )
        os.close(write_end)
        with os.fdopen(read_end) as progress:
            for line in progress:
                event = json.loads(line)
                if "counters" in event:
                    counters.update(event["counters"])
                elif "step" in event:
                    steps.append(event["step"])
                    say("{0}: {kind} {name}: {state} in {seconds:.2f} s".format(title, **event["step"]))
                else:
                    say(f"{title}: {event['message']}")
        code = process.wait()
    succeeded = code == 0 and bool(steps) and all(step["state"] == "success" for step in steps)
    if not succeeded:
        say(f"{title}: FAILED with exit code {code}; the last lines of {log}:")
        for line in log.read_text(errors="replace").splitlines()[-15:]:
            say(f"    {line}")
    return Run(title, schema, steps, succeeded=succeeded, log=log, **counters)
