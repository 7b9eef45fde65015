"""What all tests share: they are a deployment whose Lakebase is on this machine."""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import dns.resolver
import pytest

from lakebase_provider.core.config.allowed_hosts import ALLOW_LOOPBACK

# It makes the profile that --hypothesis-profile names.
from tests import depth as depth
from tests.browser import browser as browser
from tests.browser import page as page

os.environ[ALLOW_LOOPBACK] = "1"

#: Files that take a minute or so, for what they wait for: with more than one worker they come first, so that
#: none of them is alone at the end. The slowest is the first.
SLOWEST = (
    "airflow/test_load_kills.py",
    "docs/test_snippets.py",
    "airflow/test_kills.py",
    "core/bulk/types/test_same_as_insert.py",
    "airflow/test_insert_rows_by_copy.py",
    "dagster/test_command_line.py",
    "security/test_file_headers.py",
    "airflow/test_canary_supervised.py",
    "test_demo.py",
    "core/test_hardest.py",
    "dagster/test_io_manager.py",
    "security/test_canary.py",
    "airflow/test_postgres_hook_idioms.py",
    "security/test_files.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    places = {here / name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Millions of objects are made that live as long as the process does: no collection looks at them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


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
