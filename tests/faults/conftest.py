"""What the tests of `docs/faults.md` share: the local Lakebase, a proxy before it, and a stopwatch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.local import FaultProxy, LocalLakebase
from tests.eventually import BUSY

CREDENTIALS = "/api/2.0/postgres/credentials"
ENDPOINT = "/api/2.0/postgres/projects/local/branches/production/endpoints/primary"


@dataclass
class Stopwatch:
    seconds: float = 0.0


@contextmanager
def timed(at_most: float) -> Iterator[Stopwatch]:
    """Fail if the block takes longer, whether or not it raises what the test expects inside of it."""
    watch, began = Stopwatch(), time.monotonic()
    yield watch
    watch.seconds = time.monotonic() - began
    assert watch.seconds <= at_most + BUSY, f"took {watch.seconds:.2f} s, {at_most:.2f} s are allowed"


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
