"""A forked child never uses its parent's sockets."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import ForkedPoolError
from lakebase_provider.local import LocalLakebase

from .conftest import CREDENTIALS


def in_child(work: Callable[[], object]) -> str:
    """What `work` returned, or raised, in a forked child."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = str(work())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write_end, said.encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        said = answer.read()
    assert os.waitpid(child, 0)[1] == 0
    return said


def backend(client: LakebaseClient) -> int:
    with client.connection(timeout=10) as connection:
        return connection.info.backend_pid


def test_children_open_their_own_connections(lake: LocalLakebase) -> None:
    with LakebaseClient(lake.config()) as client, client.connection() as held:
        parents = {held.info.backend_pid, backend(client)}
        said = {int(in_child(lambda: backend(client))) for _ in range(3)}
        assert len(said) == 3
        assert not said & parents
        # A child that ends closes its copies of the sockets, and must not say goodbye on them.
        assert held.execute("SELECT 1").fetchone() == (1,)
        assert backend(client) in parents
    assert lake.admin.counters().mints == 1


def test_an_inherited_pool_is_refused_by_name(lake: LocalLakebase) -> None:
    with LakebaseClient(lake.config()) as client:
        pool = client.pool
        parents = backend(client)
        assert ForkedPoolError.__name__ in in_child(lambda: pool.getconn(timeout=5))
        assert backend(client) == parents


def test_a_child_forked_during_a_mint_mints_on_its_own(lake: LocalLakebase) -> None:
    with LakebaseClient(lake.config()) as client:
        lake.admin.fault("POST", CREDENTIALS, hang=30, times=1)
        with pytest.raises(Exception, match="within"):
            client.connect(timeout=0.3)
        assert int(in_child(lambda: backend(client))) > 0
        lake.admin.clear_faults()
        assert backend(client) > 0
