"""Names that the system does not resolve, with a name server of the test's own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import ConfigError, DnsError
from lakebase_provider.local import LocalLakebase

from .conftest import timed

HOST = "ep-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.database.lakebase.test"


class NameServer:
    """Answers A queries over UDP on loopback, or stays silent."""

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}
        self.silent = False
        self.queries: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while data := self._socket.recvfrom(4096):
            packet, client = data
            if not packet:
                return
            if not self.silent:
                self._socket.sendto(self._answer(dns.message.from_wire(packet)).to_wire(), client)

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        [question] = query.question
        name = question.name.to_text(omit_final_dot=True)
        self.queries.append(f"{dns.rdatatype.to_text(question.rdtype)} {name}")
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        if name not in self.addresses:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == dns.rdatatype.A:
            answer.answer.append(dns.rrset.from_text(question.name, 1, "IN", "A", self.addresses[name]))
        return answer

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(10)
        self._socket.close()


@pytest.fixture(scope="module")
def named_lake() -> Iterator[LocalLakebase]:
    """One whose certificate is for a name that only the test's name server knows."""
    with LocalLakebase(host=HOST) as lake:
        yield lake


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    server = NameServer()
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], server.port
    monkeypatch.setattr(dns.resolver, "default_resolver", resolver)
    system = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == HOST:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return system(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setenv("LAKEBASE_ALLOWED_HOST_SUFFIXES", ".lakebase.test")
    yield server
    server.close()


def test_name_servers_are_asked_where_the_system_fails(
    named_lake: LocalLakebase, name_server: NameServer
) -> None:
    name_server.addresses[HOST] = "127.0.0.1"
    client = LakebaseClient(named_lake.config())
    assert client.target().host == HOST
    # verify-full holds: the certificate must be for the name, not for the address.
    with client.connect(timeout=10) as connection:
        assert connection.pgconn.ssl_in_use
        assert connection.info.host == HOST
    asked = len(name_server.queries)
    assert asked > 0
    # Nothing is pinned: the address may have moved.
    client.connect(timeout=10).close()
    assert len(name_server.queries) > asked


def test_a_name_that_nobody_knows_is_a_clear_message(
    named_lake: LocalLakebase, name_server: NameServer
) -> None:
    client = LakebaseClient(named_lake.config())
    with timed(5), pytest.raises(DnsError, match=HOST) as caught:
        client.connect(timeout=10)
    assert "DNS zone" in caught.value.remedy
    assert name_server.queries


def test_name_servers_that_are_silent_keep_nobody(named_lake: LocalLakebase, name_server: NameServer) -> None:
    name_server.silent = True
    client = LakebaseClient(named_lake.config())
    client.tokens.get()
    with timed(1), pytest.raises(DnsError):
        client.connect(timeout=1)


def test_a_label_that_is_too_long_is_a_clear_message(lake: LocalLakebase) -> None:
    with pytest.raises(ConfigError, match="63") as caught:
        lake.config(host=f"ep-{'x' * 64}.database.databricks.com")
    assert "resolved from the endpoint" in caught.value.remedy
