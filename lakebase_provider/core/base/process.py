"""The number of this process, without asking the system: that takes a tenth of the time of a loan."""

from __future__ import annotations

import os

#: As ``os.getpid()`` would say; of a forked child its own.
number = os.getpid()


def _in_child() -> None:
    global number
    number = os.getpid()


if hasattr(os, "register_at_fork"):  # where processes fork
    os.register_at_fork(after_in_child=_in_child)
