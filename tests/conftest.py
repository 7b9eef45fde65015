"""What all tests share: they are a deployment whose Lakebase is on this machine."""

from __future__ import annotations

import gc
import logging
import os
import signal
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
from tests.in_memory import use_memory

use_memory()
os.environ[ALLOW_LOOPBACK] = "1"

#: Files that take half a minute or more: with more than one worker they come first, so that none of them is
#: alone at the end. The slowest is the first.
SLOWEST = (
    "airflow/test_load_kills.py",
    "docs/test_snippets.py",
    "airflow/test_examples.py",
    "dagster/test_command_line.py",
    "security/test_canary.py",
    "test_demo.py",
    "security/test_files.py",
    "core/test_hardest.py",
    "airflow/test_insert_rows_by_copy.py",
    "dagster/test_io_manager.py",
    "core/bulk/types/test_same_as_insert.py",
    "airflow/test_page.py",
    "security/test_local.py",
    "dagster/test_io_manager_partitions.py",
    "airflow/test_postgres_hook_idioms.py",
    "dagster/test_stopped_steps.py",
    "dagster/test_synced_tables.py",
    "dagster/test_delta_components.py",
    "core/bulk/load/test_transfer.py",
    "core/bulk/load/test_changes_killed.py",
    "core/bulk/unload/test_round_trip.py",
    "security/test_file_headers.py",
    "airflow/test_sync_kills.py",
    "airflow/test_branch_kills.py",
    "airflow/test_branch_operators.py",
    "airflow/test_rehearse_operators.py",
    "airflow/test_approval.py",
    "airflow/test_restoring_operators.py",
    "security/test_environment_secrets.py",
)
#: Files that one worker takes: all of them need what it takes seconds to make. That is a process that has
#: imported Airflow and forks its tasks, Airflow's API server for its runs, a process that forks Airflow's
#: commands, or one that forks Dagster's.
TOGETHER = (
    (
        "airflow/test_load_kills.py",
        "airflow/test_sync_kills.py",
        "airflow/test_branch_kills.py",
        "airflow/test_kills.py",
        "airflow/test_canary_supervised.py",
        "airflow/test_clears.py",
        "airflow/test_conflicts.py",
    ),
    (
        "airflow/test_examples.py",
        "airflow/test_dags.py",
        "airflow/test_common_sql.py",
        "airflow/test_decorators.py",
        "airflow/test_links.py",
        "airflow/test_listener.py",
        "airflow/test_secrets.py",
    ),
    (
        "airflow/test_insert_rows_by_copy.py",
        "airflow/test_provider_info.py",
        "airflow/test_deployment.py",
        "airflow/test_arguments.py",
        "airflow/test_retries.py",
    ),
    ("dagster/test_command_line.py", "dagster/test_stopped_steps.py", "dagster/test_storage.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    places = {here / name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What gives workers whole files, and some files together."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    first = {f"tests/{name}": f"tests/{files[0]}" for files in TOGETHER for name in files}

    class Scheduling(LoadFileScheduling):  # type: ignore[misc] # mypy does not follow it
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return first.get(file, file)

    return Scheduling(config, log)


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


@pytest.fixture(scope="module", autouse=True)
def level_of_logs(request: pytest.FixtureRequest) -> Iterator[None]:
    """DEBUG where logs are searched for what they must not show, and Python's default everywhere else.

    All workers import Airflow's tests, by which everything would be logged at DEBUG, and written three times.
    """
    searched = {"airflow", "security"} & {*request.path.relative_to(Path(__file__).parent).parts}
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG if searched else logging.WARNING)
    yield
    root.setLevel(level)


@pytest.fixture
def signals_are_default() -> Iterator[None]:
    """SIGTERM and Ctrl-C as in a fresh process of a terminal.

    Tests of Airflow's tasks leave a handler, and a shell's background jobs ignore SIGINT.
    """
    former = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.SIG_DFL),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
    }
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


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
