from __future__ import annotations

import os
import threading

import pytest

from dagster_lakebase.resource.sharing import Lease
from lakebase_provider.core import LakebaseConfig
from lakebase_provider.local import LocalLakebase
from tests.dagster.runs import open_connections
from tests.eventually import eventually


@pytest.fixture
def config(lake: LocalLakebase) -> LakebaseConfig:
    return LakebaseConfig.from_env()


def test_the_last_release_closes(lake: LocalLakebase, config: LakebaseConfig) -> None:
    first, second = Lease.acquire(config), Lease.acquire(config)
    assert first is second
    with first.client.connection() as conn:
        conn.execute("SELECT 1")
    first.release()
    assert open_connections(lake) == 1
    second.release()
    eventually(lambda: open_connections(lake) == 0)
    again = Lease.acquire(config)
    assert again is not first
    assert again.client is first.client
    again.release()


def test_users_that_come_and_go_never_meet_a_closed_pool(lake: LocalLakebase, config: LakebaseConfig) -> None:
    rows: list[object] = []

    def use() -> None:
        for _ in range(10):
            lease = Lease.acquire(config)
            try:
                with lease.client.connection() as conn:
                    rows.append(conn.execute("SELECT 1").fetchone())
            finally:
                lease.release()

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows == [(1,)] * 40
    eventually(lambda: open_connections(lake) == 0)


# Python 3.12 and newer warn of what this test is about.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_starts_without_users(lake: LocalLakebase, config: LakebaseConfig) -> None:
    lease = Lease.acquire(config)
    with lease.client.connection() as conn:
        parents = conn.info.backend_pid
    child = os.fork()
    if child == 0:
        code = 1
        try:
            own = Lease.acquire(config)
            with own.client.connection() as conn:
                code = 2 if conn.info.backend_pid == parents else 0
            own.release()
            # Its own was the last user here: only the parent's session is left.
            eventually(lambda: open_connections(lake) == 1)
        except BaseException:
            code = 3
            raise
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with lease.client.connection() as conn:
        assert conn.info.backend_pid == parents
    lease.release()
