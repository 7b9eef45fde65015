"""Async functions as tasks, in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_tasks_that_are_async_functions() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(HERE / "native_async.py")],
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
