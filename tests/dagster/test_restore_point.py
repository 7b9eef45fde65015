"""The moment before risky work, in the metadata of what did it."""

# No "from __future__ import annotations": Dagster reads the annotations of assets as objects.

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from dagster.components.testing.utils import create_defs_folder_sandbox

from dagster_lakebase import (
    LakebaseConnectionComponent,
    LakebaseIOManager,
    LakebaseResource,
    LakebaseSqlComponent,
    build_lakebase_migration_asset,
)
from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase
from tests.dagster.runs import materialize
from tests.dagster.test_components import metadata_of as metadata_of_component
from tests.dagster.test_components import run, write
from tests.dagster.test_migrations import metadata_of

pytestmark = [
    # Dagster calls its own deprecated method when it sets up a nested resource.
    pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.parse_obj_as. is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.* is currently in beta:dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore:.* is currently in preview:dagster.PreviewWarning"),
]


@pytest.fixture(autouse=True)
def rows(lake: LocalLakebase) -> Iterator[None]:
    with LakebaseClient(lake.config()) as client:
        with client.connection() as connection:
            connection.execute("DROP SCHEMA IF EXISTS risky CASCADE; CREATE SCHEMA risky")
            connection.execute("CREATE TABLE risky.orders (id bigint PRIMARY KEY)")
            connection.execute("INSERT INTO risky.orders VALUES (1), (2), (3)")
        yield
        with client.connection() as connection:
            connection.execute("DROP SCHEMA risky CASCADE")


def put_back(lake: LocalLakebase, metadata: dict[str, Any]) -> int:
    with LakebaseClient(lake.config()) as client:
        counts = {
            client.restore_rows("risky.orders", at=metadata[f"lakebase/restore_{part}"]).put_back
            for part in ("lsn", "time")
        }
    [count] = counts
    return count


@pytest.mark.parametrize(
    ("of_manager", "of_asset", "noted"),
    [
        (True, {}, True),
        (False, {"lakebase/restore_point": True}, True),
        (True, {"lakebase/restore_point": False}, False),
        (False, {}, False),
    ],
)
def test_what_the_io_manager_replaced_comes_back(
    lake: LocalLakebase, of_manager: bool, of_asset: dict[str, Any], noted: bool
) -> None:
    @dg.asset(key_prefix="risky", metadata=of_asset)
    def orders() -> pa.Table:
        return pa.table({"id": pa.array([1], pa.int64())})

    manager = LakebaseIOManager(lakebase=LakebaseResource(), restore_point=of_manager)
    metadata = metadata_of(materialize([orders], resources={"io_manager": manager}))
    assert lake.admin.execute("SELECT id FROM risky.orders") == [(1,)]
    assert ("lakebase/restore_lsn" in metadata) == noted
    if noted:
        assert put_back(lake, metadata) == 2


def test_what_sql_and_migrations_removed_comes_back(lake: LocalLakebase, tmp_path: Path) -> None:
    (tmp_path / "0001_less.sql").write_text("DELETE FROM risky.orders WHERE id = 3;")
    less = build_lakebase_migration_asset(tmp_path, ledger="risky.done", restore_point=True)
    assert put_back(lake, metadata_of(materialize([less], resources={"lakebase": LakebaseResource()}))) == 1
    with create_defs_folder_sandbox() as sandbox:
        write(sandbox, "lakebase", LakebaseConnectionComponent, {})
        given = {
            "sql": "DELETE FROM risky.orders",
            "assets": [{"key": "emptied"}],
            "restore_point": True,
        }
        write(sandbox, "emptied", LakebaseSqlComponent, given)
        assert put_back(lake, metadata_of_component(run(sandbox))) == 2


def test_of_a_step_that_fails_the_log_has_it(lake: LocalLakebase, capsys: pytest.CaptureFixture[str]) -> None:
    @dg.asset(key_prefix="risky", metadata={"lakebase/restore_point": True})
    def orders() -> pa.Table:
        return pa.table({"other": [1]})

    manager = LakebaseIOManager(lakebase=LakebaseResource())
    result = materialize([orders], resources={"io_manager": manager}, raise_on_error=False)
    assert not result.success
    assert "The restore point: {'lakebase/restore_lsn'" in capsys.readouterr().err
