"""The network's edge of the token side: a workspace with a clock of its own, in this process."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, cast

from lakebase_provider.core.workspace.workspace import ControlPlane


def jwt(**claims: Any) -> str:
    """A token of that shape, signed by nobody."""
    header, payload = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in ({"alg": "ES256"}, claims)
    )
    return f"{header}.{payload}.signature"


class Workspace:
    """Gives credentials as the REST API does.

    Args:
        now: Its clock, in seconds since the epoch.
        lifetime: Seconds that its tokens live.
        tells_issue: Whether its tokens say when they were issued.
        takes: Called during each request, such as to let time pass.
    """

    def __init__(
        self,
        now: Callable[[], float],
        *,
        lifetime: float = 3600.0,
        tells_issue: bool = True,
        takes: Callable[[], None] = lambda: None,
    ) -> None:
        self.now = now
        self.lifetime = lifetime
        self.tells_issue = tells_issue
        self.takes = takes
        self.wishes: list[Mapping[str, Any]] = []
        self.expiries: dict[str, float] = {}

    def as_control_plane(self) -> ControlPlane:
        return cast(ControlPlane, self)

    def endpoint_credential(self, endpoint: str, **wishes: Any) -> Mapping[str, Any]:
        self.wishes.append({"endpoint": endpoint, **wishes})
        return self._credential("expire_time")

    def instance_credential(self, instance: str, request_id: str, **wishes: Any) -> Mapping[str, Any]:
        self.wishes.append({"instance": instance, **wishes})
        return self._credential("expiration_time")

    def _credential(self, field: str) -> Mapping[str, Any]:
        self.takes()
        issued = self.now()
        self.takes()
        expires = issued + self.lifetime
        claims: dict[str, Any] = {"exp": int(expires), "serial": len(self.wishes)}
        if self.tells_issue:
            claims["iat"] = int(issued)
        token = jwt(**claims)
        self.expiries[token] = expires
        text = datetime.fromtimestamp(expires, timezone.utc).isoformat().replace("+00:00", "Z")
        return {"token": token, field: text}
