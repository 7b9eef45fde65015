"""Branches of the local Lakebase with connections to them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import psycopg
import pytest
from databricks.sdk.service.postgres import Branch, Snapshot, SnapshotSpec
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]

from lakebase_provider.local import LocalLakebase
from tests.local.workspace.conftest import PRODUCTION, PROJECT, Plane

PRIMARY = f"{PRODUCTION}/endpoints/primary"


class Branches(Plane):
    """Branches with tables called `kept`, of one column."""

    def endpoint(self, branch: str | Branch, endpoint_id: str = "primary") -> str:
        """Full name of an endpoint."""
        return f"{branch.name if isinstance(branch, Branch) else branch}/endpoints/{endpoint_id}"

    def open(self, endpoint: str, **overrides: Any) -> psycopg.Connection[Any]:
        """Connect to an endpoint where the control plane says that it is, as any client does."""
        status = self.api.get_endpoint(endpoint).status
        assert status is not None
        assert status.hosts is not None
        return self.connect(host=status.hosts.host, autocommit=True, **overrides)

    def run(self, endpoint: str, statement: str) -> list[Any]:
        """Run a statement in a session of its own, and return the first column."""
        with self.open(endpoint) as connection:
            cursor = connection.execute(statement.encode())
            return [row[0] for row in cursor] if cursor.description else []

    def kept(self, endpoint: str = PRIMARY) -> list[int]:
        """The rows of an endpoint."""
        return self.run(endpoint, "SELECT i FROM kept ORDER BY i")

    def now(self, endpoint: str = PRIMARY) -> Timestamp:
        """The present moment."""
        (moment,) = self.run(endpoint, "SELECT clock_timestamp()")
        assert isinstance(moment, datetime)
        found = Timestamp()
        found.FromDatetime(moment)
        return found

    def snapshot(self, source: str, snapshot_id: str, **spec: Any) -> str:
        """Take a snapshot, and return its name."""
        body = Snapshot(spec=SnapshotSpec(source_branch=source, no_expiry=True, **spec))
        found = self.api.create_snapshot(PROJECT, body, snapshot_id).wait()
        assert found.name is not None
        return found.name


@pytest.fixture
def branches(lakebase_env: LocalLakebase) -> Any:
    found = Branches(lakebase_env)
    found.run(PRIMARY, "CREATE TABLE kept (i int)")
    found.run(PRIMARY, "INSERT INTO kept VALUES (1), (2)")
    yield found
    lakebase_env.admin.execute("DROP TABLE IF EXISTS kept CASCADE")
