"""Temporary folders in memory, where it has room: to create files, of which Postgres makes thousands for each
branch and some for each table, takes a tenth of the time there."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 # a folder of our own in it is made by mkdtemp
#: Bytes that must be free: all workers' data with their write-ahead log, and as much again.
ROOM = 8 << 30


def use_memory() -> None:
    """Let what is made from now on be made in memory, unless the developer has said where."""
    if "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK):
        return
    found = os.statvfs(MEMORY)
    available = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    free = min(found.f_bavail * found.f_frsize, int(available[1]) * 1024 if available else 0)
    # Postgres' programs may be laid out there.
    if found.f_flag & os.ST_NOEXEC or free < ROOM:
        return
    # pytest keeps the folders of its last runs.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    os.environ["TMPDIR"] = str(MEMORY)
    tempfile.tempdir = None
