"""What a browser looks at: web servers on loopback, and pictures of their pages."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.eventually import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parent.parent.parent
#: Where the pictures in the documentation live; they are replaced when this variable is set.
PICTURES = ROOT / "docs" / "images" if "UPDATE_SCREENSHOTS" in os.environ else ROOT / "build" / "ui"
_START_SECONDS = 120
_STOP_SECONDS = 20


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = f"{Path(__file__).parent}{os.sep}"  # texts, for there are ten thousand items
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.ui)


@pytest.fixture
def picture(page: Page) -> Callable[[str], None]:
    """Keeps what the page shows."""

    def take(name: str) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=PICTURES / f"{name}.png")

    return take


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Service:
    """A process of a web application, with its log beside it.

    Args:
        command: Arguments of the Python interpreter that runs the tests.
        log: The file for what it prints.
        env: Its environment.
    """

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        self._log = log
        with log.open("wb") as file:
            # A session of its own: a web server's workers end with it.
            self._process = subprocess.Popen(
                [sys.executable, *command],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=dict(env),
                start_new_session=True,
            )

    def wait_for(self, url: str) -> None:
        """Wait until `url` answers."""

        def answers() -> bool:
            assert self._process.poll() is None, f"It ended:\n{self.tail()}"
            try:
                with urllib.request.urlopen(url, timeout=5):  # noqa: S310 # loopback, http
                    return True
            except OSError:
                return False

        eventually(answers, within=_START_SECONDS)

    def tail(self) -> str:
        """The last lines of the log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-30:])

    def stop(self) -> None:
        """End the process and its children."""
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def kill(self) -> None:
        """End the process and its children as the kernel does: at once."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
