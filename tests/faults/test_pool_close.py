"""A closed pool makes no further attempts to connect."""

from __future__ import annotations

import threading

import pytest

from lakebase_provider.core import LakebaseClient, LakebaseError
from lakebase_provider.local import FaultProxy, LocalLakebase
from tests.eventually import eventually

from .conftest import idle_for_a_minute, timed


def test_a_worker_that_is_connecting_ends_with_its_pool(lake: LocalLakebase, proxy: FaultProxy) -> None:
    others = set(threading.enumerate())
    client = LakebaseClient(lake.config(port=proxy.port, min_size=1))
    with client.connection(), client.connection():
        pass
    threads = {thread for thread in threading.enumerate() if "worker" in thread.name} - others
    assert threads
    idle_for_a_minute(client)
    proxy.refuse()
    proxy.reset()
    with pytest.raises(LakebaseError):
        client.pool.getconn(timeout=1)
    with timed(6):
        client.close()
    eventually(lambda: not any(thread.is_alive() for thread in threads))
