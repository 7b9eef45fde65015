"""The HTTP side of :class:`lakebase_provider.local.parent.admin.Admin`: one POST route, `/_local/<command>`.

Every request must carry the key that the server handed to its parent, so that other processes of this
machine, which can all reach the port, cannot use it.
"""

from __future__ import annotations

import hmac
import inspect
import os
from collections.abc import Awaitable, Callable, Collection
from dataclasses import asdict
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lakebase_provider.local.identity.certificates import Certificates
from lakebase_provider.local.identity.login_errors import EXPIRED_STYLES, REFUSALS, WAKE_MODES, check_script
from lakebase_provider.local.postgres import databricks_auth
from lakebase_provider.local.postgres.clusters import Clusters
from lakebase_provider.local.postgres.supervisor import Supervisor
from lakebase_provider.local.workspace.changes.verbs import Changes
from lakebase_provider.local.workspace.kinds import KINDS
from lakebase_provider.local.workspace.operations import OperationFault
from lakebase_provider.local.workspace.state import (
    Endpoint,
    Fault,
    LoginFault,
    Workspace,
    require_amount,
)
from lakebase_provider.local.workspace.sync.pipelines import UPDATE, check_fault

KEY_HEADER = "X-Local-Admin-Key"

#: Settings that are one of a few words.
_CHOICES: dict[str, Collection[str]] = {"login_error_style": EXPIRED_STYLES, "wake_mode": WAKE_MODES}
_SETTINGS = ("token_lifetime", "clock_skew", "wake_delay", *_CHOICES)
_ENDPOINT_STATES = ("INIT", "ACTIVE", "IDLE", "DEGRADED")
_BRANCH_STATES = ("INIT", "READY", "ARCHIVED", "IMPORTING", "RESETTING", "DELETED")

Command = Callable[..., Awaitable[Any]]


class AdminApi:
    """Carries out the admin commands.

    Args:
        workspace: What the commands change.
        changes: Puts it back.
        clusters: For roles and for ending sessions.
        certificates: Of the front end.
        supervisor: Crashes Postgres and starts it again.
        key: Secret that each request must show.
        stop: Called by the command `stop`, to end the server.
    """

    def __init__(
        self,
        workspace: Workspace,
        changes: Changes,
        clusters: Clusters,
        certificates: Certificates,
        supervisor: Supervisor,
        key: str,
        stop: Callable[[], None],
    ) -> None:
        self._workspace = workspace
        self._changes = changes
        self._clusters = clusters
        self._certificates = certificates
        self._supervisor = supervisor
        self._key = key
        self._stop = stop
        self._commands: dict[str, Command] = {
            "ping": self._ping,
            "stop": self._end,
            "set": self._set,
            "advance": self._advance,
            "set_error": self._set_error,
            "operation_fault": self._operation_fault,
            "expire_tokens": self._expire_tokens,
            "revoke_tokens": self._revoke_tokens,
            "suspend": self._suspend,
            "hold_replica": self._hold_replica,
            "superuser_dsn": self._superuser_dsn,
            "disable_endpoint": self._disable_endpoint,
            "endpoint_state": self._endpoint_state,
            "branch_state": self._branch_state,
            "remove_endpoint": self._remove_endpoint,
            "restore_endpoint": self._restore_endpoint,
            "move_endpoint": self._move_endpoint,
            "crash_postgres": self._crash_postgres,
            "set_certificate": self._set_certificate,
            "login_fault": self._login_fault,
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
            arguments = await request.json()
            inspect.signature(command).bind(**arguments)
        except (TypeError, ValueError, RecursionError) as error:
            return JSONResponse({"error": str(error)}, 400)
        try:
            return JSONResponse({"result": await command(**arguments)})
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
        except Exception as error:
            # Said to the caller, for nobody else reads what this process prints.
            return JSONResponse({"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}, 500)

    async def _ping(self) -> int:
        return os.getpid()

    async def _end(self) -> None:
        self._stop()

    async def _set(self, name: str, value: Any) -> None:
        if name in _CHOICES:
            _check_choice(name.replace("_", " "), value, _CHOICES[name])
        if name == "auth_refusal":
            _check_choice("login refusal", value, REFUSALS)
        if name in _SETTINGS:
            setattr(self._workspace, name, value)
        else:
            self._workspace.settings.change(name, value)
        await self._workspace.agenda.settle()

    async def _advance(self, seconds: float) -> None:
        if not 0 <= seconds < float("inf"):
            raise ValueError("time goes forward")
        self._workspace.clock_skew += seconds
        await self._workspace.agenda.settle()

    async def _set_error(
        self, name: str, status: int | None, error_code: str | None, message: str | None
    ) -> None:
        self._workspace.errors.change(name, status, error_code, message)

    async def _operation_fault(self, **fields: Any) -> None:
        kind = fields.get("kind", "*")
        _check_choice("kind of resource", kind, ("*", *KINDS, UPDATE))
        require_amount("a fault's times", fields.get("times"), least=1)
        fault = OperationFault(**fields)
        check_fault(fault)
        self._workspace.operations.add_fault(fault)

    async def _expire_tokens(self) -> None:
        self._workspace.tokens.expire_all()

    async def _revoke_tokens(self) -> None:
        self._workspace.tokens.revoke_all()

    def _endpoint(self, name: str | None) -> Endpoint:
        """An endpoint by its full name; the first one for None."""
        if name is None:
            return self._workspace.endpoint
        found = next((endpoint for endpoint in self._workspace.endpoints() if endpoint.name == name), None)
        if found is None:
            raise ValueError(f"no such endpoint: {name}")
        return found

    async def _suspend(self, endpoint: str | None = None) -> None:
        found = self._endpoint(endpoint)
        # First the state: a client that reconnects at once must find the endpoint asleep.
        found.sleep(self._workspace.wake_delay)
        await run_in_threadpool(self._clusters.stop, found.cluster)

    async def _hold_replica(self, endpoint: str, held: bool) -> None:
        await run_in_threadpool(self._clusters.hold, self._endpoint(endpoint).cluster, held)

    async def _superuser_dsn(self, endpoint: str) -> str:
        return self._clusters.cluster(self._endpoint(endpoint).cluster).dsn()

    async def _end_sessions(self) -> None:
        await run_in_threadpool(self._clusters.stop, self._workspace.endpoint.cluster)

    async def _disable_endpoint(self, disabled: bool) -> None:
        self._workspace.endpoint.disabled = disabled
        if disabled:
            await self._suspend()

    async def _endpoint_state(self, state: str) -> None:
        _check_choice("endpoint state", state, _ENDPOINT_STATES)
        self._workspace.endpoint.state = state
        if state == "IDLE":
            await self._suspend()
        elif state == "INIT":
            await self._end_sessions()

    async def _branch_state(self, state: str) -> None:
        _check_choice("branch state", state, _BRANCH_STATES)
        self._workspace.branch.state = state
        if state in ("ARCHIVED", "DELETED"):
            await self._end_sessions()

    async def _remove_endpoint(self) -> None:
        self._workspace.endpoint.removed = True
        await self._end_sessions()

    async def _restore_endpoint(self) -> None:
        self._workspace.endpoint.removed = False

    async def _move_endpoint(self, host: str, former_host_says: str) -> None:
        _check_choice("login refusal", former_host_says, REFUSALS)
        self._workspace.endpoint.move(host, former_host_says)
        await self._end_sessions()

    async def _crash_postgres(self, downtime: float, endpoint: str | None = None) -> None:
        require_amount("downtime", downtime)
        found = self._endpoint(endpoint)
        if found is self._workspace.endpoint:
            await self._supervisor.crash(downtime)
        else:
            await self._supervisor.crash_branch(self._clusters, found.cluster, downtime)

    async def _set_certificate(self, kind: str) -> None:
        self._certificates.show(kind)

    async def _login_fault(self, text: str, times: int | None, before_password: bool) -> None:
        check_script(text)
        self._workspace.add_login_fault(LoginFault(text, times, before_password))

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
        await self._changes.reset()
        self._certificates.show("valid")
        await self._supervisor.settle()

    async def _add_principal(self, name: str | None, type: str, create_role: bool) -> dict[str, Any]:
        principal = self._workspace.directory.add(name, type)
        if create_role:
            await run_in_threadpool(databricks_auth.create_role, self._clusters.root, principal.name, type)
        return asdict(principal)

    async def _set_native_password(self, role: str, password: str) -> None:
        await run_in_threadpool(databricks_auth.ensure_native_role, self._clusters.root, role)
        self._workspace.native_passwords[role] = password


def _check_choice(what: str, value: Any, choices: Collection[str]) -> None:
    if value not in choices:
        raise ValueError(f"unknown {what} {value!r}: use one of {', '.join(choices)}")
