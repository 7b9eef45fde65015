"""pytest fixtures: a local Lakebase for the test session, and an environment that points to it.

pytest loads this module in every run wherever the package is installed, so it imports only pytest until a
test requests a fixture.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lakebase_provider.local import LocalLakebase

#: Variables of the developer's shell that would point a test somewhere else.
_FOREIGN = ("DATABRICKS_", "ARM_", "PG")


@pytest.fixture(scope="session")
def lakebase_server() -> Iterator[LocalLakebase]:
    """A local Lakebase that all tests of the session share; starts in about a second."""
    from lakebase_provider.local import LocalLakebase

    with LocalLakebase() as lake:
        yield lake


@pytest.fixture
def lakebase_env(lakebase_server: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalLakebase]:
    """The shared local Lakebase without faults or changed settings, and the environment pointing to it.

    Airflow's connection ``lakebase_default`` points to it too.
    """
    lakebase_server.admin.reset()
    for name in [name for name in os.environ if name.startswith(_FOREIGN)]:
        monkeypatch.delenv(name)
    for name, value in lakebase_server.env().items():
        monkeypatch.setenv(name, value)
    for name in ("NO_PROXY", "no_proxy"):
        # The developer's proxy must not be used for this machine: it would read the client's secret.
        kept = [os.environ[name]] if os.environ.get(name) else []
        monkeypatch.setenv(name, ",".join([*kept, "localhost", "127.0.0.1", "::1"]))
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lakebase_server.airflow_connection())
    yield lakebase_server
    # Not left to the next test: one that hangs in a fault must not block the session's end.
    lakebase_server.admin.reset()
