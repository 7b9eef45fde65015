"""Lakehouse sync: what is created and read, by both ways; waiting until a commit is in Delta."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from deltalake import DeltaTable

from lakebase_provider.core.errors import (
    AlreadyExistsError,
    ConfigError,
    NotFoundError,
    ObjectStateError,
    OperationTimeoutError,
)
from lakebase_provider.core.workspace.objects.sync.cdf_configs import CdfStatus
from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects
from lakebase_provider.local import LocalLakebase
from tests.core.workspace.conftest import WAYS, client_by

NEVER = "FFFFFFFF/FFFFFFFF"


@pytest.fixture
def schema(lake: LocalLakebase) -> Iterator[str]:
    """A schema with a table that is followed, and one that is not."""
    name = f"s_{uuid.uuid4().hex[:8]}"
    lake.admin.set(cdf_seconds=0.1)
    lake.admin.execute(
        f"CREATE SCHEMA {name}; CREATE TABLE {name}.orders (id int PRIMARY KEY, note text, tags jsonb);"
        f"ALTER TABLE {name}.orders REPLICA IDENTITY FULL; CREATE TABLE {name}.skipped (id int);"
        f"""INSERT INTO {name}.orders VALUES (1, 'a', '["x"]'), (2, 'b', NULL)"""
    )
    yield name
    lake.admin.execute(f"DROP SCHEMA {name} CASCADE")


def written(lake: LocalLakebase, schema: str, statement: str) -> str:
    """Run a statement, and return the position after its commit."""
    lake.admin.execute(statement.format(t=f"{schema}.orders"))
    ((lsn,),) = lake.admin.execute("SELECT pg_current_wal_lsn()::text")
    return str(lsn)


def history(lake: LocalLakebase, schema: str) -> list[tuple[str, int]]:
    found = DeltaTable(str(lake.table_path(f"main.{schema}.lb_orders_history"))).to_pyarrow_table()
    return sorted(zip(found["_pg_change_type"].to_pylist(), found["id"].to_pylist(), strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_a_commit_is_waited_for_until_it_is_in_delta(lake: LocalLakebase, schema: str, way: str) -> None:
    with client_by(way, lake) as client:
        configs = client.workspace.cdf_configs
        declared = {"catalog": "main", "schema": schema, "postgres_schema": schema}
        made = configs.create(schema, **declared)  # type: ignore[arg-type]
        assert made.name.endswith(f"/databases/databricks-postgres/cdf-configs/{schema}")
        assert (made.catalog, made.schema, made.postgres_schema) == ("main", schema, schema)
        assert configs.ensure(schema, **declared) == made  # type: ignore[arg-type]
        assert [one.name for one in configs.list()] == [made.name]
        with pytest.raises(AlreadyExistsError):
            configs.create("other", **declared)  # type: ignore[arg-type]
        with pytest.raises(AlreadyExistsError, match="differs"):
            configs.ensure(schema, **{**declared, "schema": "else"})  # type: ignore[arg-type]
        lsn = written(lake, schema, "INSERT INTO {t} VALUES (3, 'c', NULL)")
        (found,) = configs.wait_in_delta(lsn, schema, timeout=30)
        assert (found.postgres_table, found.state) == ("orders", "STREAMING")
        assert found.uc_table == f"main.{schema}.lb_orders_history"
        assert found.has_reached(lsn)
        assert history(lake, schema) == [("insert", 1), ("insert", 2), ("insert", 3)]
        lake.admin.execute(
            f'GRANT USAGE ON SCHEMA {schema} TO "{lake.client_id}";'
            f'GRANT ALL ON {schema}.orders TO "{lake.client_id}"'
        )
        loaded = client.load([(4, "d", None)], f"{schema}.orders", lsn=True)
        assert loaded.lsn is not None
        configs.wait_in_delta(loaded.lsn, schema, timeout=30)
        assert history(lake, schema)[-1] == ("insert", 4)
        lsn = written(lake, schema, "DELETE FROM {t} WHERE id = 1; UPDATE {t} SET note = 'z' WHERE id = 2")
        configs.wait_in_delta(lsn, made.name, tables=["orders"], timeout=30)
        assert history(lake, schema)[:2] == [("delete", 1), ("delete", 2)]
        assert len(history(lake, schema)) == 7
        with pytest.raises(ObjectStateError, match="REPLICA IDENTITY"):
            configs.wait_in_delta(lsn, schema, tables=["orders", "skipped"], timeout=30)
        assert configs.in_delta(lsn, schema) is not None
        assert configs.in_delta(NEVER, schema) is None
        for tables in (None, ["orders"], ["unknown"]):
            with pytest.raises(OperationTimeoutError):
                configs.wait_in_delta(NEVER, schema, tables=tables, timeout=0.3)
        configs.delete(schema)
        with pytest.raises(NotFoundError):
            configs.wait_in_delta(lsn, schema, timeout=5)
        assert history(lake, schema)


def test_its_delta_tables_go_only_by_force(
    lake: LocalLakebase, workspace: WorkspaceObjects, schema: str
) -> None:
    configs = workspace.cdf_configs
    configs.create(schema, catalog="main", schema=schema, postgres_schema=schema)
    configs.wait_in_delta(written(lake, schema, "SELECT 1"), schema, timeout=30)
    configs.delete(schema, force=True)
    assert not DeltaTable.is_deltatable(str(lake.table_path(f"main.{schema}.lb_orders_history")))
    configs.delete(schema, missing_ok=True)


async def test_for_asyncio(lake: LocalLakebase, workspace: WorkspaceObjects, schema: str) -> None:
    configs = workspace.cdf_configs
    await configs.acreate(schema, catalog="main", schema=schema, postgres_schema=schema)
    lsn = written(lake, schema, "INSERT INTO {t} VALUES (4, 'd', NULL)")
    assert await configs.await_in_delta(lsn, schema, timeout=30)
    assert len(await configs.astatuses(schema)) == 2


def test_what_is_refused(workspace: WorkspaceObjects) -> None:
    configs = workspace.cdf_configs
    for lsn in ("", "5", "x/y", 5):
        with pytest.raises(ConfigError):
            configs.wait_in_delta(lsn, "c")  # type: ignore[arg-type]
    for tables in ("orders", []):
        with pytest.raises(ConfigError, match="tables"):
            configs.wait_in_delta("0/1", "c", tables=tables)
    with pytest.raises(ConfigError):
        configs.get("No-Such id")


@pytest.mark.parametrize(
    ("state", "committed", "reached"),
    [
        ("STREAMING", "1/0", True),
        ("STREAMING", "0/FFFFFFFF", True),
        ("STREAMING", "0/FFFFFFFE", False),
        ("STREAMING", None, False),
        ("STREAMING", "later", False),
        ("SNAPSHOTTING", "1/0", False),
        (None, "1/0", False),
    ],
)
def test_the_judgement(state: str | None, committed: str | None, reached: bool) -> None:
    assert CdfStatus(state=state, committed_lsn=committed).has_reached("0/FFFFFFFF") is reached
