"""The endpoint moved, or is gone."""

from __future__ import annotations

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import EndpointDisabledError, EndpointNotFoundError, EndpointWakingError
from lakebase_provider.local import LocalLakebase

from .conftest import ENDPOINT, idle_for_a_minute, obtain, timed


def lookups(lake: LocalLakebase) -> int:
    return sum(request.path == ENDPOINT for request in lake.admin.requests())


@pytest.mark.parametrize("says", ["starting", "stopping", "paused"])
def test_a_moved_endpoint_is_found_again(lake: LocalLakebase, says: str) -> None:
    with LakebaseClient(lake.config(host=None)) as client:
        with client.connection():
            pass
        idle_for_a_minute(client)
        lake.admin.move_endpoint("127.0.0.1", former_host_says=says)
        with timed(3), client.connection(timeout=10) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert client.target().host == "127.0.0.1"
    assert lookups(lake) == 2


@pytest.mark.parametrize("state", ["ARCHIVED", "DELETED"])
def test_an_endpoint_whose_branch_is_gone_is_a_typed_404(lake: LocalLakebase, state: str) -> None:
    lake.admin.set_branch_state(state)
    with timed(5), pytest.raises(EndpointNotFoundError, match="not found") as caught:
        LakebaseClient(lake.config(host=None)).connect(timeout=10)
    assert not caught.value.retryable
    assert ("Check the branch" if state == "DELETED" else "projects/<project>") in caught.value.remedy


@pytest.mark.parametrize("pooled", [True, False])
def test_an_endpoint_that_goes_away_is_a_typed_404(lake: LocalLakebase, pooled: bool) -> None:
    with LakebaseClient(lake.config(host=None)) as client:
        with client.connection():
            pass
        idle_for_a_minute(client)
        lake.admin.remove_endpoint()
        with timed(5), pytest.raises(EndpointNotFoundError) as caught:
            obtain(client, pooled=pooled, timeout=10)
        assert not caught.value.retryable
        lake.admin.restore_endpoint()
        with client.connection(timeout=10) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_disabled_endpoint_is_not_waited_for(lake: LocalLakebase) -> None:
    lake.admin.disable_endpoint()
    for host in (None, lake.host):
        with timed(3), pytest.raises(EndpointDisabledError):
            LakebaseClient(lake.config(host=host)).connect(timeout=10)


def test_an_endpoint_that_was_just_created_is_waited_for(lake: LocalLakebase) -> None:
    lake.admin.set_endpoint_state("INIT")
    for host in (None, lake.host):
        client = LakebaseClient(lake.config(host=host))
        client.tokens.get()
        with timed(1), pytest.raises(EndpointWakingError) as caught:
            client.connect(timeout=1)
        assert caught.value.retryable


def test_an_endpoint_not_found_at_login_is_resolved_once_more(lake: LocalLakebase) -> None:
    with LakebaseClient(lake.config(host=None)) as client:
        with client.connection():
            pass
        lake.admin.move_endpoint("127.0.0.1")
        with timed(3):
            client.connect(timeout=10).close()
        assert client.target().host == "127.0.0.1"
