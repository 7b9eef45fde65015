"""Who may ask the local workspace for anything: service principals, users, and their workspace tokens."""

from __future__ import annotations

import hmac
import secrets
import uuid

from lakebase_provider.local.contract.records import Principal

#: Seconds that a workspace token lives, as in a real workspace.
WORKSPACE_TOKEN_LIFETIME = 3600


class Directory:
    """All principals of the workspace, found by their credentials."""

    def __init__(self) -> None:
        self._by_name: dict[str, Principal] = {}
        self._by_bearer: dict[str, Principal] = {}

    def add(self, name: str | None, type: str) -> Principal:
        """Create a principal with new credentials.

        Args:
            name: Client id or e-mail address; None for a random one.
            type: `SERVICE_PRINCIPAL` or `USER`.

        Raises:
            ValueError: The name is taken or the type unknown.
        """
        if name in self._by_name:
            raise ValueError(f"principal {name!r} already exists")
        if type == "SERVICE_PRINCIPAL":
            name = name or str(uuid.uuid4())
            principal = Principal(name, type, client_id=name, client_secret="dose" + secrets.token_hex(16))
        elif type == "USER":
            name = name or f"user-{secrets.token_hex(4)}@example.com"
            principal = Principal(name, type, token="dapi" + secrets.token_hex(16))
        else:
            raise ValueError(f"unknown principal type {type!r}: use SERVICE_PRINCIPAL or USER")
        return self.restore(principal)

    def restore(self, principal: Principal) -> Principal:
        """Add a principal with the credentials that it has."""
        self._by_name[principal.name] = principal
        if principal.token is not None:
            self._by_bearer[principal.token] = principal
        return principal

    def all(self) -> list[Principal]:
        """All principals, in the order of their creation."""
        return list(self._by_name.values())

    def authenticate(self, client_id: str, client_secret: str) -> Principal | None:
        """Return the service principal, or None if id and secret do not match."""
        principal = self._by_name.get(client_id)
        if principal is None or principal.client_secret is None:
            return None
        same = hmac.compare_digest(principal.client_secret.encode(), client_secret.encode())
        return principal if same else None

    def issue_workspace_token(self, principal: Principal) -> str:
        """Issue a bearer token for the control plane; not a JWT, so Postgres refuses it as a password."""
        token = "local-" + secrets.token_urlsafe(48)
        self._by_bearer[token] = principal
        return token

    def by_bearer(self, token: str) -> Principal | None:
        """Return who holds this workspace token or personal access token."""
        return self._by_bearer.get(token)
