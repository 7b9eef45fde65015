from __future__ import annotations

from collections.abc import Iterator

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from lakebase_provider.core import close_shared_clients, shared
from lakebase_provider.local import LocalLakebase
from tests.dagster.runs import open_connections
from tests.eventually import eventually
from tests.forked import Forks


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Forks Dagster's commands."""
    found = Forks("dagster._cli", "dagster_dg_cli.cli", "dagster_lakebase", "lakebase_provider.core.client")
    yield found
    found.close()


@pytest.fixture(scope="session", autouse=True)
def migrations_are_read_once() -> Iterator[None]:
    """Dagster runs a hundred files of migrations for each instance, although a new one needs none of them."""
    from_config = ScriptDirectory.from_config
    found: dict[str | None, ScriptDirectory] = {}

    def read_once(config: Config) -> ScriptDirectory:
        place = config.get_main_option("script_location")
        if place not in found:
            found[place] = from_config(config)
        return found[place]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", read_once)
        yield


@pytest.fixture
def lake(
    lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[LocalLakebase]:
    """The local Lakebase as a new process finds it: without clients and tokens of earlier tests.

    The application name tells the test's connections from those of others. No test may leave one behind.
    """
    monkeypatch.setenv("PGAPPNAME", request.node.name[:60])
    monkeypatch.setattr(shared, "_shared", {})
    monkeypatch.setattr(shared, "_shared_tokens", {})
    yield lakebase_env
    close_shared_clients()
    eventually(lambda: open_connections(lakebase_env) == 0)
