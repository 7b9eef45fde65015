"""The layer before the control plane that plays the scripted faults and writes the request log."""

from __future__ import annotations

import json
import time
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lakebase_provider.local.contract.records import Request
from lakebase_provider.local.workspace.state import Fault, Workspace

#: The admin API's own routes neither fail nor show in the log.
_ADMIN_PREFIX = "/_local/"
#: Characters and bytes that the log keeps of a request, for anybody can fill it with thousands of them.
_LONGEST, _LARGEST_BODY = 500, 8192


class ScriptedFaults:
    """ASGI middleware.

    Args:
        app: The control plane.
        workspace: Holds the faults and the log.
    """

    def __init__(self, app: ASGIApp, workspace: Workspace) -> None:
        self._app = app
        self._workspace = workspace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or let the control plane do so."""
        if scope["type"] != "http" or scope["path"].startswith(_ADMIN_PREFIX):
            await self._app(scope, receive, send)
            return
        began, status, sent = time.monotonic(), 0, b""

        async def listen() -> Message:
            nonlocal sent
            message = await receive()
            sent += message.get("body", b"")
            return message

        async def watch(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await (await self._choose(scope))(scope, listen, watch)
        finally:
            agent = dict(scope["headers"]).get(b"user-agent", b"").decode(errors="replace")
            seconds, body = time.monotonic() - began, _body(scope["path"], sent)
            entry = Request(
                scope["method"], scope["path"][:_LONGEST], status, agent[:_LONGEST], seconds, body
            )
            self._workspace.log.append(entry)

    async def _choose(self, scope: Scope) -> ASGIApp:
        fault = self._workspace.take_fault(scope["method"], scope["path"])
        if fault is None:
            return self._app
        if fault.hang is not None:
            await self._workspace.hang(fault.hang)
        if fault.status is None:
            return self._app
        if fault.lost:
            return self._lose(_answer(scope, fault))
        return _answer(scope, fault)

    def _lose(self, answer: ASGIApp) -> ASGIApp:
        """Let the control plane do what was asked for, and answer something else."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def drop(message: Message) -> None:
                pass

            await self._app(scope, receive, drop)
            await answer(scope, receive, send)

        return app


def _answer(scope: Scope, fault: Fault) -> ASGIApp:
    """What a fault with a status answers."""
    headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
    body = {"error_code": fault.error_code, "message": fault.message}
    if scope["path"].startswith("/oidc/"):
        body = {"error": fault.error_code, "error_description": fault.message}
    return JSONResponse(body, fault.status or 500, headers)


def _body(path: str, sent: bytes) -> Any:
    """What the log keeps of a body: JSON, but nothing of a sign-in, whose secrets belong in no log."""
    if path.startswith("/oidc/") or len(sent) > _LARGEST_BODY:
        return None
    try:
        return json.loads(sent)
    except (ValueError, RecursionError):
        return None
