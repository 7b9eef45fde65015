"""Logins at a new branch: tried with fresh tokens until one succeeds.

An operation that is done, and a branch that is ready, do not mean that logins succeed: who may log in takes
up to a minute to reach a new branch, and a token that was minted before may be refused for good.
"""

from __future__ import annotations

from lakebase_provider.core.base.clock import Clock, Deadline
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.connect.connector import Connector
from lakebase_provider.core.connect.target import TargetResolver
from lakebase_provider.core.errors import (
    EndpointNotFoundError,
    LakebaseError,
    LoginRejectedError,
)
from lakebase_provider.core.tokens.cache import TokenProvider
from lakebase_provider.core.tokens.minters import minter_for
from lakebase_provider.core.workspace.operations import until
from lakebase_provider.core.workspace.workspace import ControlPlane

#: Seconds that one attempt may take, waking included.
_ATTEMPT = 20.0


def login(
    config: LakebaseConfig, control_plane: ControlPlane, seconds: float, clock: Clock
) -> LakebaseConnection:
    """A connection by a token and a host that are asked for anew; the caller closes it.

    Args:
        config: Names the branch.
        control_plane: Asked for both.
        seconds: How long it may take.
        clock: Where the time comes from.

    Raises:
        LakebaseError: It could not be opened, or not in time.
    """
    # What another process has stored is not fresh.
    config = config.replace(credential_store="off")
    tokens = TokenProvider(minter_for(config, control_plane), clock=clock)
    targets = TargetResolver(config, control_plane, clock=clock)
    return Connector(config, tokens, targets, clock=clock).connect(max(1.0, seconds))


def wait_for_login(
    config: LakebaseConfig, control_plane: ControlPlane, deadline: Deadline, clock: Clock
) -> None:
    """Wait until a login at the branch succeeds.

    Args:
        config: Names the branch.
        control_plane: Asked for tokens and the host.
        deadline: Until when.
        clock: Where the time comes from.

    Raises:
        OperationTimeoutError: None succeeded; its cause is the last refusal.
        LakebaseError: One failed for a reason that does not pass.
    """

    def ask() -> bool:
        login(config, control_plane, min(_ATTEMPT, deadline.remaining()), clock).close()
        return True

    name = config.endpoint or ""
    until(ask, f"Waiting for logins at {name}", name, deadline, clock, passes=_passes)


def _passes(error: LakebaseError) -> bool:
    # At another endpoint a refused role or password is final, and a missing endpoint too.
    of_a_new_one = isinstance(error, (LoginRejectedError, EndpointNotFoundError))
    return of_a_new_one or error.retryable
