from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.workspace.objects.endpoints import Endpoints
from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects
from lakebase_provider.core.workspace.rest import RestTransport
from lakebase_provider.core.workspace.sdk import SdkTransport
from lakebase_provider.local import LocalLakebase

WAYS = {"rest": RestTransport, "sdk": SdkTransport}


def client_by(way: str, lake: LocalLakebase) -> LakebaseClient:
    client = LakebaseClient(lake.config())
    client._needed_control_plane()._transport = WAYS[way](client.config)
    return client


@pytest.fixture
def lake(lakebase_env: LocalLakebase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalLakebase:
    """The local Lakebase; earlier sizes are kept in a folder of the test."""
    monkeypatch.setattr(Endpoints, "sizes_folder", tmp_path / "sizes")
    return lakebase_env


@pytest.fixture
def on_production(lake: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lake.config()) as client:
        yield client


@pytest.fixture
def workspace(on_production: LakebaseClient) -> WorkspaceObjects:
    return on_production.workspace
