"""What all tests share: they are a deployment whose Lakebase is on this machine."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

import dns.resolver
import pytest

from lakebase_provider.core.config.allowed_hosts import ALLOW_LOOPBACK
from tests.browser import browser as browser
from tests.browser import page as page

os.environ[ALLOW_LOOPBACK] = "1"


@pytest.fixture
def no_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows any name of databricks.com, and nobody is asked."""
    system = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        if str(host).endswith(".databricks.com"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return system(host, *arguments, **options)

    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = []
    monkeypatch.setattr(dns.resolver, "default_resolver", resolver)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture(autouse=True)
def empty_memory_store() -> Iterator[None]:
    """No test finds what another one left in fsspec's store of this process (`memory://`)."""
    yield
    if module := sys.modules.get("fsspec.implementations.memory"):
        module.MemoryFileSystem.store.clear()
        module.MemoryFileSystem.pseudo_dirs[:] = [""]
