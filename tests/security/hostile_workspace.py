"""A workspace on a loopback address that answers whatever it is told to, and remembers what it was sent."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lakebase_provider.core import LakebaseConfig

ENDPOINT = "projects/p/branches/b/endpoints/e"
SECRET = "dose-the-canary-sings"
DISCOVERY = "/.well-known/databricks-config"
OAUTH_SERVER = "/oidc/.well-known/oauth-authorization-server"
TOKEN = "/oidc/v1/token"
CREDENTIALS = "/api/2.0/postgres/credentials"
INSTANCE_CREDENTIALS = "/api/2.0/database/credentials"
RESOURCE = f"/api/2.0/postgres/{ENDPOINT}"
INSTANCE = "/api/2.0/database/instances/i"
ME = "/api/2.0/preview/scim/v2/Me"

#: Answers by writing to the connection itself.
Answering = Callable[[BaseHTTPRequestHandler], None]


def honest_answers(url: str) -> dict[str, Any]:
    """What a workspace at that URL says."""
    return {
        DISCOVERY: {"oidc_endpoint": f"{url}/oidc", "workspace_id": "1"},
        OAUTH_SERVER: {"token_endpoint": url + TOKEN, "authorization_endpoint": f"{url}/oidc/v1/authorize"},
        TOKEN: {"access_token": "workspace-token", "expires_in": 3600, "token_type": "Bearer"},
        CREDENTIALS: {"token": "database-token", "expire_time": "2999-01-01T00:00:00Z"},
        INSTANCE_CREDENTIALS: {"token": "database-token", "expiration_time": "2999-01-01T00:00:00Z"},
        RESOURCE: {
            "name": ENDPOINT,
            "status": {
                "current_state": "ACTIVE",
                "disabled": False,
                "hosts": {"host": "ep.databricks.com", "read_only_host": "ep-ro.databricks.com"},
            },
        },
        INSTANCE: {"read_write_dns": "i.databricks.com", "read_only_dns": "i-ro.databricks.com"}
        | {"state": "AVAILABLE"},
        ME: {"userName": "ada@example.com"},
    }


class HostileWorkspace:
    """A server of one's own.

    Args:
        address: Where it listens.
        tls: With what it speaks TLS; plain HTTP if None.

    Attributes:
        answers: By path, JSON or who answers instead; 404 for others. Honest at first.
        seen: Each request, as text.
    """

    def __init__(self, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[str] = []
        workspace = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                workspace._answer(self)

            def do_POST(self) -> None:
                workspace._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((address, 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign,assignment] # clients hang up
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://{address}:{self._server.server_address[1]}"
        self.answers = honest_answers(self.url)

    def __enter__(self) -> HostileWorkspace:
        # It polls for the order to stop; the default makes each test half a second longer.
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def config(self, **settings: Any) -> LakebaseConfig:
        """A configuration with a client secret for it."""
        return LakebaseConfig(
            **{
                "endpoint": ENDPOINT,
                "workspace_host": self.url,
                "client_id": "client",
                "client_secret": SECRET,
                **settings,
            }
        )

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        self.seen.append(f"{handler.requestline}\n{handler.headers}\n{body.decode()}")
        answer = self.answers.get(handler.path)
        if callable(answer):
            answer(handler)
            handler.close_connection = True
        else:
            reply(handler, 404 if answer is None else 200, answer)


def reply(handler: BaseHTTPRequestHandler, status: int, answer: Any, **headers: str) -> None:
    """Send JSON, or bytes as they are."""
    content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(content)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(content)
