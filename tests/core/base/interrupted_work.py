"""Work that is to go to its end, interrupted after each call in turn; prints how many there were.

Python looks for signals after it has called something, and never between the taking of a lock by ``with`` and
the block. Functions written in Python, such as a condition's, have calls within.

A process of its own: of threads that were interrupted as they started, some wait for ever.
"""

from __future__ import annotations

import dis
import sys
import time
from types import FrameType
from typing import Any

from lakebase_provider.core.base import threads


class _Signalled(Exception):  # noqa: N818 # no error
    """What a signal raises."""


def steps_until(last: int, halves: list[str]) -> int:
    """Do the work, with an exception after that of the caller's calls; how many of them it came to."""
    steps = 0
    former: dict[FrameType, str] = {}

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal steps
        frame.f_trace_opcodes = True
        if event == "opcode":
            called = former.get(frame, "").startswith("CALL")
            former[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            steps += called
            if called and steps == last:
                sys.settrace(None)
                raise _Signalled
        return trace

    def work() -> None:
        halves.append("first")
        # Nothing tells when a thread waits for a lock: longer than it takes the caller to come to that.
        time.sleep(0.01)
        halves.append("second")

    sys.settrace(trace)
    try:
        threads.to_its_end(work, "work")
    except _Signalled:
        pass
    finally:
        sys.settrace(None)
    return steps


if __name__ == "__main__":
    last = steps = 0
    while steps == last:
        last += 1
        halves: list[str] = []
        steps = steps_until(last, halves)
        if halves not in ([], ["first", "second"]):
            sys.exit(f"{halves} at {last}")
    print(steps)
