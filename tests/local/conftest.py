"""What the tests of the local Lakebase share."""

from __future__ import annotations

import gc
from typing import Any

import psycopg
import pytest
from databricks.sdk import WorkspaceClient

from lakebase_provider.local import LocalLakebase
from lakebase_provider.local.contract.options import ENDPOINT_NAME


class Lake:
    """The shared local Lakebase, with the two steps that nearly every test takes."""

    def __init__(self, server: LocalLakebase) -> None:
        self.server = server
        self.admin = server.admin
        self.url = server.env()["DATABRICKS_HOST"]
        self.workspace = WorkspaceClient(
            host=self.url, client_id=server.client_id, client_secret=server.client_secret
        )

    def mint(self, workspace: WorkspaceClient | None = None) -> str:
        token = (workspace or self.workspace).postgres.generate_database_credential(ENDPOINT_NAME).token
        assert token is not None
        return token

    def connect(self, password: str | None = None, **overrides: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(**self.parameters(password, **overrides))

    def parameters(self, password: str | None = None, **overrides: Any) -> dict[str, Any]:
        found = {
            "host": self.server.host,
            "port": self.server.port,
            "dbname": "databricks_postgres",
            "user": self.server.client_id,
            "password": self.mint() if password is None else password,
            "sslmode": "verify-full",
            "sslrootcert": self.server.ca_path,
            "connect_timeout": 20,
        }
        return found | overrides

    def refusal(self, password: str | None = None, **overrides: Any) -> str:
        with pytest.raises(psycopg.OperationalError) as caught:
            self.connect(password, **overrides)
        message = str(caught.value)
        # The error holds on to the failed attempts' sockets, and a held login would still succeed on them.
        del caught
        gc.collect()
        return message


@pytest.fixture
def lake(lakebase_env: LocalLakebase) -> Lake:
    return Lake(lakebase_env)
