"""A workspace that does what it is asked and answers as somebody wishes: a proxy before the local one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import urllib3

from .hostile_workspace import reply

#: Of the method, the path without its query, and the answer: what is answered instead.
Lie = Callable[[str, str, Any], Any]


class LyingWorkspace:
    """A proxy before a workspace.

    Args:
        behind: The honest workspace's URL.

    Attributes:
        lie: What it answers in place of an honest answer; honest at first.
        seen: Method and path of each request, without queries.
    """

    def __init__(self, behind: str) -> None:
        self.lie: Lie = lambda _method, _path, answer: answer
        self.seen: list[tuple[str, str]] = []
        workspace, http = self, urllib3.PoolManager()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                kept = {n: v for n, v in self.headers.items() if n in ("Authorization", "Content-Type")}
                honest = http.request(
                    self.command, behind + self.path, body=body or None, headers=kept, retries=False
                )
                path = self.path.partition("?")[0].removeprefix("/api/2.0/postgres/")
                workspace.seen.append((self.command, path))
                answer = json.loads(honest.data.decode().replace(behind, workspace.url) or "null")
                reply(self, honest.status, workspace.lie(self.command, path, answer))

            do_GET = do_POST = do_PATCH = do_DELETE = _any  # noqa: N815 # the server's names

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> LyingWorkspace:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
