"""The HTTP side of :class:`lakebase_provider.local.admin.Admin`: one POST route, `/_local/<command>`.

Every request must carry the key that the server handed to its parent, so that other processes of this
machine, which can all reach the port, cannot use it.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lakebase_provider.local import databricks_auth
from lakebase_provider.local.login_errors import EXPIRED_STYLES
from lakebase_provider.local.postgres import SUPERUSER, Postgres
from lakebase_provider.local.state import Fault, Workspace

KEY_HEADER = "X-Local-Admin-Key"

#: Superusers are the tests' own sessions, behind the endpoint rather than on it.
_END_SESSIONS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND usename <> %s
"""

Command = Callable[..., Awaitable[Any]]


class AdminApi:
    """Carries out the admin commands.

    Args:
        workspace: What the commands change.
        postgres: For roles and for ending sessions.
        key: Secret that each request must show.
        stop: Called by the command `stop`, to end the server.
    """

    def __init__(self, workspace: Workspace, postgres: Postgres, key: str, stop: Callable[[], None]) -> None:
        self._workspace = workspace
        self._postgres = postgres
        self._key = key
        self._stop = stop
        self._commands: dict[str, Command] = {
            "ping": self._ping,
            "stop": self._end,
            "set": self._set,
            "expire_tokens": self._expire_tokens,
            "revoke_tokens": self._revoke_tokens,
            "suspend": self._suspend,
            "disable_endpoint": self._disable_endpoint,
            "fault": self._fault,
            "clear_faults": self._clear_faults,
            "requests": self._requests,
            "counters": self._counters,
            "reset_counters": self._reset_counters,
            "reset": self._reset,
            "add_principal": self._add_principal,
            "set_native_password": self._set_native_password,
        }

    def route(self) -> Route:
        """The route of all commands."""
        return Route("/_local/{command}", self._handle, methods=["POST"])

    async def _handle(self, request: Request) -> Response:
        shown = request.headers.get(KEY_HEADER, "")
        if not hmac.compare_digest(shown.encode(), self._key.encode()):
            return JSONResponse({"error": "wrong or missing admin key"}, 403)
        command = self._commands.get(request.path_params["command"])
        if command is None:
            return JSONResponse({"error": "no such command"}, 404)
        try:
            return JSONResponse({"result": await command(**await request.json())})
        except (TypeError, ValueError) as error:
            return JSONResponse({"error": str(error)}, 400)

    async def _ping(self) -> int:
        return os.getpid()

    async def _end(self) -> None:
        self._stop()

    async def _set(self, name: str, value: Any) -> None:
        if name == "login_error_style" and value not in EXPIRED_STYLES:
            raise ValueError(f"unknown login error style {value!r}: use one of {', '.join(EXPIRED_STYLES)}")
        if name not in ("token_lifetime", "clock_skew", "wake_delay", "login_error_style"):
            raise ValueError(f"no such setting: {name}")
        setattr(self._workspace, name, value)

    async def _expire_tokens(self) -> None:
        self._workspace.tokens.expire_all()

    async def _revoke_tokens(self) -> None:
        self._workspace.tokens.revoke_all()

    async def _suspend(self) -> None:
        # First the state: a client that reconnects at once must find the endpoint asleep.
        self._workspace.endpoint.state = "IDLE"
        await run_in_threadpool(self._postgres.execute, _END_SESSIONS, (SUPERUSER,))

    async def _disable_endpoint(self, disabled: bool) -> None:
        self._workspace.endpoint.disabled = disabled
        if disabled:
            await self._suspend()

    async def _fault(self, **fields: Any) -> None:
        self._workspace.add_fault(Fault(**fields))

    async def _clear_faults(self) -> None:
        self._workspace.clear_faults()

    async def _requests(self) -> list[dict[str, Any]]:
        return [asdict(request) for request in self._workspace.log]

    async def _counters(self) -> dict[str, int]:
        return asdict(self._workspace.counters)

    async def _reset_counters(self) -> None:
        self._workspace.counters.reset()
        self._workspace.log.clear()

    async def _reset(self) -> None:
        self._workspace.reset()

    async def _add_principal(self, name: str | None, type: str, create_role: bool) -> dict[str, Any]:
        principal = self._workspace.directory.add(name, type)
        if create_role:
            await run_in_threadpool(databricks_auth.create_role, self._postgres, principal.name, type)
        return asdict(principal)

    async def _set_native_password(self, role: str, password: str) -> None:
        await run_in_threadpool(databricks_auth.ensure_native_role, self._postgres, role)
        self._workspace.native_passwords[role] = password
