"""What the HTTP side accepts from a stranger: requests to its own names, of limited size and duration."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from typing import Any

import h11
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from lakebase_provider.local.network.waiting_room import WaitingRoom

#: Bytes. The longest true requests hold a token, or a role's name.
LARGEST_BODY = 1 << 20
LARGEST_HEAD = 1 << 15
#: Connections that are not being answered.
_SEATS = 256
#: Seconds that a request may take to arrive, from its first byte to its last.
_PATIENCE = 15.0

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:@/\s]+)(?::([0-9]{1,5}))?")
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class Guard:
    """ASGI middleware before everything else.

    A web page can make its own name resolve to this machine (DNS rebinding), and a browser then treats the
    answers as that page's; but it sends the page's name as `Host`.

    Args:
        app: What is guarded.
        names: Its host names besides `localhost` and the loopback addresses.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = {*_LOOPBACK, *(f"[{name}]" if ":" in name else name for name in map(str.lower, names))}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # The parser refuses a long head only if it arrives in pieces.
        if _head_size(scope) > LARGEST_HEAD:
            await _error(431, "REQUEST_TOO_LARGE", "The request's head is too large.")(scope, receive, send)
            return
        if not self._is_known(scope):
            answer = _error(
                421, "MISDIRECTED_REQUEST", "This is a local Lakebase, not the host of that name."
            )
            await answer(scope, receive, send)
            return
        size = 0

        async def count() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > LARGEST_BODY:
                raise HTTPException(413, "The request's body is too large.")
            return message

        await self._app(scope, count, send)

    def _is_known(self, scope: Scope) -> bool:
        shown = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"]
        parts = _HOST.fullmatch(shown[0]) if len(shown) == 1 else None
        return parts is not None and parts[1] in self._names and int(parts[2] or 80) == scope["server"][1]


def _head_size(scope: Scope) -> int:
    texts = (scope["raw_path"], scope["query_string"], *(part for pair in scope["headers"] for part in pair))
    return sum(map(len, texts))


def _error(status: int, code: str, message: str) -> JSONResponse:
    # Closed: nobody reads the rest of the body.
    return JSONResponse({"error_code": code, "message": message}, status, {"Connection": "close"})


class LimitedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, which would otherwise wait forever for a request to arrive."""

    #: Of the one server that a process runs.
    _room = WaitingRoom(_SEATS)
    _begun = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by asyncio."""
        super().connection_made(transport)
        self._wait(_PATIENCE)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        if not self._begun:
            self._begun = True
            self._wait(_PATIENCE)
        super().data_received(data)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._room.leave(self)

    def on_response_complete(self) -> None:
        """Called by uvicorn."""
        super().on_response_complete()
        self._begun = False
        if not self.transport.is_closing():
            self._wait(float(self.timeout_keep_alive))

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._room.leave(self)
        super().connection_lost(exc)

    def _wait(self, seconds: float) -> None:
        self._room.enter(self, self.transport.abort, patience=seconds)


#: For uvicorn.Config.
LIMITS: dict[str, Any] = {
    "http": LimitedProtocol,
    "h11_max_incomplete_event_size": LARGEST_HEAD,
    # There is no proxy in front that could say for whom it asks.
    "proxy_headers": False,
}
