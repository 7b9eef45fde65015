"""What the server tells its starter: principals, requests, counters."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Principal:
    """One identity of the workspace.

    Attributes:
        name: What `Me` calls it and what its Postgres role is called: the client id of a service principal,
            the e-mail address of a user.
        type: `SERVICE_PRINCIPAL` or `USER`.
        client_id: Of a service principal, else None.
        client_secret: Of a service principal, else None.
        token: Personal access token of a user, else None.
    """

    name: str
    type: str
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Request:
    """One request that the control plane answered.

    Attributes:
        seconds: How long the answer took.
        body: What was sent as JSON, such as `ttl` and `claims`; None where nothing was.
    """

    method: str
    path: str
    status: int
    user_agent: str
    seconds: float
    body: Any = None


@dataclass
class Counters:
    """What happened since the start or the last reset; `open_connections` is the current number.

    Attributes:
        workspace_tokens: OAuth tokens issued for the control plane.
        mints: Database credentials issued.
        logins: Logins that Postgres accepted.
        refused_logins: Logins refused, by the front end or by Postgres.
        cancels: Cancel requests passed on.
        wakes: Times that the endpoint was woken by a connection.
        open_connections: Sessions through the front end that are open now.
    """

    workspace_tokens: int = 0
    mints: int = 0
    logins: int = 0
    refused_logins: int = 0
    cancels: int = 0
    wakes: int = 0
    open_connections: int = 0

    def reset(self) -> None:
        """Set everything to zero except the open connections."""
        for item in fields(self):
            if item.name != "open_connections":
                setattr(self, item.name, 0)
