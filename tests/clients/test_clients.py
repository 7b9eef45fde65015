"""Clients that others wrote connect to the local Lakebase: `make test-clients`.

They live in an environment of their own, which knows nothing of this package.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase

HERE = Path(__file__).parent
VENV = Path(os.environ.get("CLIENTS_VENV", ".venv-clients")).resolve()
PYTHON_CLIENTS = [
    "sdk_psycopg",
    "control_plane",
    "synced_tables",
    "with_asyncpg",
    "with_pg8000",
    "with_sqlalchemy",
    "with_ai_bridge",
]
NODE_CLIENTS = ["pg", "postgres", "databricks_lakebase"]


@pytest.fixture(scope="module")
def lake() -> Iterator[LocalLakebase]:
    # One of the clients knows no other port.
    with LocalLakebase(port=5432) as lake:
        rows = pa.table({"id": [1, 2], "name": ["a", "b"]})
        feed = {"delta.enableChangeDataFeed": "true"}
        write_deltalake(str(lake.table_path("main.src.trips")), rows, configuration=feed)
        yield lake


def last_line_of(command: list[str], lake: LocalLakebase, **more: str) -> str:
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    result = subprocess.run(
        command,
        env={**environment, **lake.env(), **more},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("client", PYTHON_CLIENTS)
def test_python_client(lake: LocalLakebase, client: str) -> None:
    script = HERE / "python" / f"{client}.py"
    assert last_line_of([str(VENV / "bin/python"), str(script)], lake) == lake.env()["PGUSER"]


@pytest.mark.parametrize("client", NODE_CLIENTS)
def test_node_client(lake: LocalLakebase, client: str) -> None:
    # Node looks for packages beside the script.
    script = VENV / "node" / f"{client}.mjs"
    script.write_text((HERE / "node" / f"{client}.mjs").read_text())
    with LakebaseClient(lake.config()) as minting:
        token = minting.tokens.get().reveal()
    found = last_line_of(
        ["node", str(script)], lake, DATABASE_TOKEN=token, NODE_EXTRA_CA_CERTS=lake.env()["PGSSLROOTCERT"]
    )
    assert found == lake.env()["PGUSER"]
