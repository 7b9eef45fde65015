"""What the fault matrix's tests share: the local Lakebase and a proxy before it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.connection import LakebaseConnection
from lakebase_provider.local import FaultProxy, LocalLakebase

CREDENTIALS = "/api/2.0/postgres/credentials"
ENDPOINT = "/api/2.0/postgres/projects/local/branches/production/endpoints/primary"


def obtain(client: LakebaseClient, *, pooled: bool, timeout: float | None = None) -> LakebaseConnection:
    """A connection of the pool, or one outside of it."""
    return client.pool.getconn(timeout) if pooled else client.connect(timeout)


def idle_for_a_minute(client: LakebaseClient) -> None:
    """Let pooled connections look as if nobody had used them for a minute."""
    for connection in client.pool._pool:
        connection.last_used -= 60


@pytest.fixture
def lake(lakebase_env: LocalLakebase) -> LocalLakebase:
    return lakebase_env


@pytest.fixture
def proxy(lake: LocalLakebase) -> Iterator[FaultProxy]:
    with FaultProxy(lake.host, lake.port) as proxy:
        yield proxy
