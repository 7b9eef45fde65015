"""The HTTP control plane that the real databricks-sdk talks to: sign-in, credentials, resources."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from lakebase_provider.local.contract.records import Principal
from lakebase_provider.local.identity.principals import WORKSPACE_TOKEN_LIFETIME
from lakebase_provider.local.workspace.changes.verbs import Changes
from lakebase_provider.local.workspace.faults import ScriptedFaults
from lakebase_provider.local.workspace.kinds import KINDS, ROLE, Kind, flag
from lakebase_provider.local.workspace.resources import Views
from lakebase_provider.local.workspace.settings import ApiError, plain_error
from lakebase_provider.local.workspace.state import INSTANCE, Workspace

_ROOT = "/api/2.0/postgres"
#: Items, also where no size is asked for.
_LARGEST_PAGE = 100

#: Seconds; what the real API accepts as `ttl`.
_SHORTEST_TTL, _LONGEST_TTL = 300, 3600


def create_app(
    workspace: Workspace, views: Views, changes: Changes, more_routes: list[BaseRoute]
) -> Starlette:
    """Assemble the control plane.

    Args:
        workspace: State that the routes read and write.
        views: Answers what is read.
        changes: Does what is written.
        more_routes: Routes of the admin API.
    """
    plane = _ControlPlane(workspace, views, changes)
    app = Starlette(
        routes=[*plane.routes(), *more_routes],
        exception_handlers={ApiError: _api_error, HTTPException: _http_error},  # type: ignore[dict-item]
    )
    app.add_middleware(ScriptedFaults, workspace=workspace)
    return app


async def _api_error(request: Request, error: ApiError) -> Response:
    return JSONResponse(error.body, error.status)


async def _http_error(request: Request, error: HTTPException) -> Response:
    codes = {404: "ENDPOINT_NOT_FOUND", 405: "BAD_REQUEST", 413: "REQUEST_TOO_LARGE"}
    code = codes.get(error.status_code, "INTERNAL_ERROR")
    message = (
        f"No API found for '{request.method} {request.url.path}'"
        if error.status_code == 404
        else error.detail
    )
    return JSONResponse({"error_code": code, "message": message}, error.status_code)


class _ControlPlane:
    def __init__(self, workspace: Workspace, views: Views, changes: Changes) -> None:
        self._workspace, self._views, self._changes = workspace, views, changes

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/.well-known/databricks-config", self._databricks_config),
            Route("/oidc/.well-known/oauth-authorization-server", self._authorization_server),
            Route("/oidc/v1/token", self._issue_workspace_token, methods=["POST"]),
            self._route("/api/2.0/preview/scim/v2/Me", self._me),
            self._route(f"{_ROOT}/credentials", self._mint, method="POST"),
            *(route for kind in KINDS.values() for route in self._routes_of(kind)),
            *(
                self._route(path, answer, method=method)
                for method, path, answer in self._changes.sync.routes(_ROOT, _body, self._page)
            ),
            # After all others: a resource may be called `operations`.
            self._route(f"{_ROOT}/{{name:path}}", self._operation),
            self._route("/api/2.0/database/instances", self._instances),
            self._route("/api/2.0/database/instances/{instance}", self._instance),
            self._route("/api/2.0/database/credentials", self._mint_provisioned, method="POST"),
        ]

    def _routes_of(self, kind: Kind) -> list[BaseRoute]:
        """The routes of one kind, as the table of kinds says."""
        changes, collection = self._changes, _path(kind)
        one = collection if kind.single else f"{collection}/{{{kind.name}}}"

        async def create(request: Request, caller: Principal) -> dict[str, Any]:
            body = await _body(request)
            return await changes.create(kind, request.path_params, request.query_params, body, caller)

        async def list_all(request: Request, caller: Principal) -> dict[str, Any]:
            deleted = flag(request.query_params, "show_deleted", self._workspace.errors)
            # In a thread: some views ask Postgres.
            found = await run_in_threadpool(self._views.list, kind, request.path_params, deleted=deleted)
            return self._page(kind.plural.replace("-", "_"), found, request)

        async def get(request: Request, caller: Principal) -> dict[str, Any]:
            return await run_in_threadpool(self._views.get, kind, request.path_params)

        async def update(request: Request, caller: Principal) -> dict[str, Any]:
            body = await _body(request)
            return await changes.update(kind, request.path_params, request.query_params, body, caller)

        async def delete(request: Request, caller: Principal) -> dict[str, Any]:
            return await changes.delete(kind, request.path_params, request.query_params, caller)

        async def undelete(request: Request, caller: Principal) -> dict[str, Any]:
            return await changes.undelete(kind, request.path_params, caller)

        async def reveal(request: Request, caller: Principal) -> dict[str, Any]:
            return await changes.reveal(request.path_params, caller)

        offered = {
            ("POST", collection): create if "create" in kind.verbs else None,
            ("GET", collection): list_all if "list" in kind.verbs else None,
            ("GET", one): get,
            ("PATCH", one): update if kind.masks else None,
            ("DELETE", one): delete if "create" in kind.verbs else None,
            ("POST", f"{one}/undelete"): undelete if "undelete" in kind.verbs else None,
            ("POST", f"{one}/password"): reveal if kind is ROLE else None,
        }
        return [
            self._route(path, answer, method=method)
            for (method, path), answer in offered.items()
            if answer is not None
        ]

    def _route(
        self,
        path: str,
        answer: Callable[[Request, Principal], Awaitable[dict[str, Any]]],
        *,
        method: str = "GET",
    ) -> Route:
        async def handle(request: Request) -> Response:
            return JSONResponse(await answer(request, self._caller(request)))

        return Route(path, handle, methods=[method])

    async def _operation(self, request: Request, caller: Principal) -> dict[str, Any]:
        name = request.path_params["name"]
        operation = self._workspace.operations.find(name)
        if operation is None and "/operations/" not in name:
            raise HTTPException(404)
        if operation is None:
            raise self._views.missing("operation id")
        return operation.view()

    async def _instances(self, request: Request, caller: Principal) -> dict[str, Any]:
        return self._views.instances()

    async def _instance(self, request: Request, caller: Principal) -> dict[str, Any]:
        return self._views.instance(request.path_params["instance"])

    def _page(self, key: str, items: list[dict[str, Any]], request: Request) -> dict[str, Any]:
        """Cut a list to the page asked for."""
        query, errors = request.query_params, self._workspace.errors
        try:
            size = int(query.get("page_size") or 0)
            start = int(query.get("page_token") or 0)
        except ValueError:
            raise errors.error("bad_value", field="page_size", why="or page_token is malformed") from None
        if size < 0 or start < 0:
            raise errors.error("bad_value", field="page_size", why="must not be negative")
        end = start + min(size or _LARGEST_PAGE, _LARGEST_PAGE)
        page: dict[str, Any] = {key: items[start:end]}
        if end < len(items):
            page["next_page_token"] = str(end)
        return page

    def _caller(self, request: Request) -> Principal:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            text = "Credential was not sent or was of an unsupported type for this API."
            raise plain_error(401, "UNAUTHENTICATED", text)
        caller = self._workspace.directory.by_bearer(token.strip())
        if caller is None:
            raise plain_error(401, "UNAUTHENTICATED", "Invalid access token.")
        return caller

    # Sign-in.

    async def _databricks_config(self, request: Request) -> Response:
        base = str(request.base_url).rstrip("/")
        answer = {
            "oidc_endpoint": f"{base}/oidc",
            "workspace_id": self._workspace.workspace_id,
            "cloud": "AWS",
        }
        return JSONResponse(answer)

    async def _authorization_server(self, request: Request) -> Response:
        base = str(request.base_url).rstrip("/")
        answer = {
            "issuer": f"{base}/oidc",
            "authorization_endpoint": f"{base}/oidc/v1/authorize",
            "token_endpoint": f"{base}/oidc/v1/token",
        }
        return JSONResponse(answer)

    async def _issue_workspace_token(self, request: Request) -> Response:
        form = {
            name: values[-1]
            for name, values in parse_qs((await request.body()).decode(errors="replace")).items()
        }
        client_id, secret = _basic(request) or (form.get("client_id", ""), form.get("client_secret", ""))
        principal = self._workspace.directory.authenticate(client_id, secret)
        if principal is None:
            text = "Client authentication failed"
            return JSONResponse({"error": "invalid_client", "error_description": text}, 401)
        if form.get("grant_type") != "client_credentials":
            text = "Use grant_type=client_credentials"
            return JSONResponse({"error": "unsupported_grant_type", "error_description": text}, 400)
        self._workspace.counters.workspace_tokens += 1
        answer = {
            "access_token": self._workspace.directory.issue_workspace_token(principal),
            "token_type": "Bearer",
            "expires_in": WORKSPACE_TOKEN_LIFETIME,
            "scope": form.get("scope", "all-apis"),
        }
        return JSONResponse(answer)

    async def _me(self, request: Request, caller: Principal) -> dict[str, Any]:
        return {"id": caller.name, "userName": caller.name, "displayName": caller.name, "active": True}

    # Credentials.

    async def _mint(self, request: Request, caller: Principal) -> dict[str, Any]:
        body = await _body(request)
        if not body.get("endpoint"):
            raise plain_error(
                400, "INVALID_PARAMETER_VALUE", "Field 'endpoint' is required, expected non-default value!"
            )
        self._views.resolve(str(body["endpoint"]))
        token, expires_at = self._new_token(caller, body)
        return {"token": token, "expire_time": expires_at}

    async def _mint_provisioned(self, request: Request, caller: Principal) -> dict[str, Any]:
        body = await _body(request)
        names = body.get("instance_names") or []
        if not isinstance(names, list):
            raise plain_error(400, "INVALID_PARAMETER_VALUE", "Field 'instance_names' must be a list")
        for name in names:
            if name != INSTANCE:
                raise plain_error(404, "NOT_FOUND", f"Database instance '{name}' not found.")
        token, expires_at = self._new_token(caller, body)
        return {"token": token, "expiration_time": expires_at}

    def _new_token(self, caller: Principal, body: dict[str, Any]) -> tuple[str, str]:
        workspace = self._workspace
        lifetime = min(workspace.token_lifetime, _wanted_lifetime(body, workspace.now()))
        minted = workspace.tokens.mint(caller.name, lifetime)
        workspace.counters.mints += 1
        expiry = datetime.fromtimestamp(minted.expires_at, timezone.utc)
        return minted.token, expiry.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
        # Neither NaN nor half of a surrogate pair, which Python reads, is JSON.
        json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise plain_error(400, "MALFORMED_REQUEST", "The request's body is no JSON.") from None
    if not isinstance(body, dict):
        raise plain_error(400, "MALFORMED_REQUEST", "The request's body is no JSON object.")
    return _given(body)


def _given(body: dict[str, Any]) -> dict[str, Any]:
    """The fields that are set: null is protobuf's word for one that is not."""
    return {
        name: _given(value) if isinstance(value, dict) else value
        for name, value in body.items()
        if value is not None
    }


def _basic(request: Request) -> tuple[str, str] | None:
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, secret = base64.b64decode(encoded).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return name, secret


def _wanted_lifetime(body: dict[str, Any], now: float) -> float:
    """Return the seconds that a credential request asks for; infinite where it does not."""
    try:
        if body.get("ttl"):
            seconds = float(str(body["ttl"]).removesuffix("s"))
        elif body.get("expire_time"):
            until = str(body["expire_time"]).replace("Z", "+00:00")
            seconds = datetime.fromisoformat(until).timestamp() - now
        else:
            return float("inf")
    except (ValueError, OverflowError):
        raise plain_error(400, "INVALID_PARAMETER_VALUE", "ttl or expire_time is malformed.") from None
    # An expire_time that was computed from "now" is a moment older on arrival.
    if not _SHORTEST_TTL - 5 <= seconds <= _LONGEST_TTL + 5:
        text = f"The lifetime must be between {_SHORTEST_TTL}s and {_LONGEST_TTL}s."
        raise plain_error(400, "INVALID_PARAMETER_VALUE", text)
    return seconds


def _path(kind: Kind) -> str:
    """Path of all of a kind, with a parameter for each that it stands in."""
    above = f"{_path(KINDS[kind.parent])}/{{{kind.parent}}}" if kind.parent else _ROOT
    return f"{above}/{kind.plural}"
