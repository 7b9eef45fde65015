"""The HTTP control plane that the real databricks-sdk talks to: sign-in, credentials, resources."""

from __future__ import annotations

import base64
import binascii
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
from lakebase_provider.local.postgres.postgres import Postgres
from lakebase_provider.local.workspace import resources, state
from lakebase_provider.local.workspace.faults import ScriptedFaults
from lakebase_provider.local.workspace.state import Workspace

#: Seconds; what the real API accepts as `ttl`.
_SHORTEST_TTL, _LONGEST_TTL = 300, 3600


class ApiError(Exception):
    """An answer in the control plane's error shape."""

    def __init__(self, status: int, error_code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.error_code, self.message = status, error_code, message


def create_app(workspace: Workspace, postgres: Postgres, more_routes: list[BaseRoute]) -> Starlette:
    """Assemble the control plane.

    Args:
        workspace: State that the routes read and write.
        postgres: Asked for roles and databases.
        more_routes: Routes of the admin API.
    """
    plane = _ControlPlane(workspace, postgres)
    app = Starlette(
        routes=[*plane.routes(), *more_routes],
        exception_handlers={ApiError: _api_error, HTTPException: _http_error},  # type: ignore[dict-item]
    )
    app.add_middleware(ScriptedFaults, workspace=workspace)
    return app


async def _api_error(request: Request, error: ApiError) -> Response:
    return JSONResponse({"error_code": error.error_code, "message": error.message}, error.status)


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
    def __init__(self, workspace: Workspace, postgres: Postgres) -> None:
        self._workspace = workspace
        self._views = resources.Views(workspace, postgres)

    def routes(self) -> list[BaseRoute]:
        root = "/api/2.0/postgres"
        branch = f"{root}/projects/{{project}}/branches/{{branch}}"
        views = self._views
        return [
            Route("/.well-known/databricks-config", self._databricks_config),
            Route("/oidc/.well-known/oauth-authorization-server", self._authorization_server),
            Route("/oidc/v1/token", self._issue_workspace_token, methods=["POST"]),
            self._route("/api/2.0/preview/scim/v2/Me", self._me),
            self._route(f"{root}/credentials", self._mint, method="POST"),
            self._read(f"{root}/projects", views.projects),
            self._read(f"{root}/projects/{{project}}", views.project),
            self._read(f"{root}/projects/{{project}}/branches", views.branches),
            self._read(branch, views.branch),
            self._read(f"{branch}/endpoints", views.endpoints),
            self._read(f"{branch}/endpoints/{{endpoint}}", views.endpoint),
            self._read(f"{branch}/databases", views.databases),
            self._read(f"{branch}/databases/{{database}}", views.database),
            self._read(f"{branch}/roles", views.roles),
            self._read(f"{branch}/roles/{{role}}", views.role),
            self._route(f"{branch}/roles", self._create_role, method="POST"),
            self._read(f"{branch}/roles/{{role}}/operations/{{operation}}", views.role_operation),
            self._read("/api/2.0/database/instances", views.instances),
            self._read("/api/2.0/database/instances/{instance}", views.instance),
            self._route("/api/2.0/database/credentials", self._mint_provisioned, method="POST"),
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

    def _read(self, path: str, view: Callable[..., dict[str, Any]]) -> Route:
        async def answer(request: Request, caller: Principal) -> dict[str, Any]:
            try:
                # In a thread: some views ask Postgres.
                resource = await run_in_threadpool(view, **request.path_params)
            except resources.MissingError as missing:
                raise ApiError(404, "NOT_FOUND", str(missing)) from None
            return _page(resource, request)

        return self._route(path, answer)

    def _caller(self, request: Request) -> Principal:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            text = "Credential was not sent or was of an unsupported type for this API."
            raise ApiError(401, "UNAUTHENTICATED", text)
        caller = self._workspace.directory.by_bearer(token.strip())
        if caller is None:
            raise ApiError(401, "UNAUTHENTICATED", "Invalid access token.")
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

    # Credentials and roles.

    async def _mint(self, request: Request, caller: Principal) -> dict[str, Any]:
        body = await _body(request)
        if not body.get("endpoint"):
            raise ApiError(
                400, "INVALID_PARAMETER_VALUE", "Field 'endpoint' is required, expected non-default value!"
            )
        try:
            self._views.resolve(str(body["endpoint"]))
        except resources.MissingError as missing:
            raise ApiError(404, "NOT_FOUND", str(missing)) from None
        token, expires_at = self._new_token(caller, body)
        return {"token": token, "expire_time": expires_at}

    async def _mint_provisioned(self, request: Request, caller: Principal) -> dict[str, Any]:
        body = await _body(request)
        for name in body.get("instance_names") or ():
            if name != state.INSTANCE:
                raise ApiError(404, "NOT_FOUND", f"Database instance '{name}' not found.")
        token, expires_at = self._new_token(caller, body)
        return {"token": token, "expiration_time": expires_at}

    def _new_token(self, caller: Principal, body: dict[str, Any]) -> tuple[str, str]:
        workspace = self._workspace
        lifetime = min(workspace.token_lifetime, _wanted_lifetime(body, workspace.now()))
        minted = workspace.tokens.mint(caller.name, lifetime)
        workspace.counters.mints += 1
        expiry = datetime.fromtimestamp(minted.expires_at, timezone.utc)
        return minted.token, expiry.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    async def _create_role(self, request: Request, caller: Principal) -> dict[str, Any]:
        body = await _body(request)
        try:
            return await run_in_threadpool(
                self._views.create_role,
                body.get("spec") or {},
                role_id=request.query_params.get("role_id"),
                **request.path_params,
            )
        except resources.MissingError as missing:
            raise ApiError(404, "NOT_FOUND", str(missing)) from None
        except ValueError as error:
            raise ApiError(400, "BAD_REQUEST", str(error)) from None


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        raise ApiError(400, "MALFORMED_REQUEST", "The request's body is no JSON.") from None
    return body if isinstance(body, dict) else {}


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
    except ValueError:
        raise ApiError(400, "INVALID_PARAMETER_VALUE", "ttl or expire_time is malformed.") from None
    # An expire_time that was computed from "now" is a moment older on arrival.
    if not _SHORTEST_TTL - 5 <= seconds <= _LONGEST_TTL + 5:
        text = f"The lifetime must be between {_SHORTEST_TTL}s and {_LONGEST_TTL}s."
        raise ApiError(400, "INVALID_PARAMETER_VALUE", text)
    return seconds


def _page(resource: dict[str, Any], request: Request) -> dict[str, Any]:
    """Cut a list to the page asked for; a single resource passes unchanged."""
    size_text, token = request.query_params.get("page_size"), request.query_params.get("page_token", "0")
    [(key, items)] = resource.items() if len(resource) == 1 else [("", None)]
    if not isinstance(items, list) or not size_text:
        return resource
    try:
        size, start = int(size_text), int(token or 0)
    except ValueError:
        raise ApiError(400, "INVALID_PARAMETER_VALUE", "page_size or page_token is malformed.") from None
    page: dict[str, Any] = {key: items[start : start + size] if size > 0 else items[start:]}
    if size > 0 and start + size < len(items):
        page["next_page_token"] = str(start + size)
    return page
