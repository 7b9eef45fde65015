"""A server that cannot prove who it is never sees the token."""

from __future__ import annotations

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import TlsError
from lakebase_provider.local import FaultProxy, LocalLakebase

from .conftest import obtain, timed


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("kind", ["expired", "other_host", "other_authority"])
def test_a_wrong_certificate_gets_no_token(
    lake: LocalLakebase, proxy: FaultProxy, kind: str, pooled: bool
) -> None:
    with LakebaseClient(lake.config(port=proxy.port)) as client:
        client.connect().close()
    whole_login = proxy.counters.bytes_to_server
    lake.admin.reset_counters()
    lake.admin.set_certificate(kind)
    with LakebaseClient(lake.config(port=proxy.port)) as client, timed(5), pytest.raises(TlsError) as caught:
        obtain(client, pooled=pooled)
    assert not caught.value.retryable
    assert "sslrootcert" in caught.value.remedy
    counters = lake.admin.counters()
    assert (counters.logins, counters.refused_logins) == (0, 0)
    assert proxy.counters.connections == 2, "it is not tried again"
    # A token has more than a thousand bytes: they are missing.
    assert proxy.counters.bytes_to_server - whole_login < whole_login - 1000


@pytest.mark.parametrize("kind", ["expired", "other_authority"])
def test_verify_ca_refuses_all_but_another_name(lake: LocalLakebase, kind: str) -> None:
    client = LakebaseClient(lake.config(sslmode="verify-ca"))
    lake.admin.set_certificate("other_host")
    client.connect().close()
    lake.admin.set_certificate(kind)
    with pytest.raises(TlsError):
        client.connect()
