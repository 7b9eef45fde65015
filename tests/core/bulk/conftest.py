"""How one connects is tested elsewhere: tests of what is moved share a client, its token and its sessions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase
from tests.core.conftest import empty_database


@pytest.fixture(scope="module")
def kept_client(lakebase_server: LocalLakebase) -> Iterator[LakebaseClient]:
    """Of one module: tests of connecting count the server's sessions, and those are not theirs."""
    with LakebaseClient(lakebase_server.config()) as client:
        yield client


@pytest.fixture
def client(lakebase_env: LocalLakebase, kept_client: LakebaseClient) -> Iterator[LakebaseClient]:
    """A client of a database without tables of its own."""
    empty_database(kept_client)
    yield kept_client
    if kept_client.pool._loans:
        # A test that failed, or whose error is still held, would leave the next one fewer connections.
        kept_client.close()
