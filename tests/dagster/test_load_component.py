"""The I/O manager and loads, as components."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from dagster.components.testing.utils import DefsFolderSandbox, create_defs_folder_sandbox
from pyarrow import parquet

from dagster_lakebase import (
    LakebaseConnectionComponent,
    LakebaseIOManager,
    LakebaseIOManagerComponent,
    LakebaseLoadComponent,
)
from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase
from tests.dagster.runs import open_connections
from tests.dagster.test_components import failure_of, loaded, metadata_of, problem_of, run, write
from tests.eventually import eventually

# Dagster's own loader of YAML uses what Dagster calls unfinished, and what pydantic has renamed; it calls its
# own deprecated method when it sets up a nested resource.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.parse_obj_as. is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.* is currently in beta:dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore:.* is currently in preview:dagster.PreviewWarning"),
    pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning"),
]

DAILY = {"type": "daily", "start_date": "2026-03-01", "timezone": "Europe/Berlin"}


@pytest.fixture
def sandbox() -> Iterator[DefsFolderSandbox]:
    with create_defs_folder_sandbox() as sandbox:
        write(sandbox, "lakebase", LakebaseConnectionComponent, {})
        yield sandbox


@pytest.fixture
def landing(lake: LocalLakebase, sandbox: DefsFolderSandbox) -> Iterator[Path]:
    """Where files land, beside the component."""
    lake.admin.execute("DROP SCHEMA IF EXISTS landed CASCADE")
    lake.admin.execute(f'CREATE SCHEMA landed AUTHORIZATION "{lake.client_id}"')
    yield sandbox.defs_folder_path / "orders" / "landing"
    lake.admin.execute("DROP SCHEMA landed CASCADE")


def write_load(sandbox: DefsFolderSandbox, *, asset: dict[str, Any] | None = None, **attributes: Any) -> None:
    given = {"source": "landing/*.parquet", "asset": {"key": "landed/orders", **(asset or {})}, **attributes}
    write(sandbox, "orders", LakebaseLoadComponent, given)


def land(file: Path, *ids: Any, text: str = "x") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table({"id": pa.array(ids, pa.int64()), "v": [text] * len(ids)}), file)


def orders(lake: LocalLakebase) -> list[tuple[Any, ...]]:
    return lake.admin.execute("SELECT id, v FROM landed.orders ORDER BY 1, 2")


def test_what_a_load_removes_comes_back_by_its_restore_point(
    lake: LocalLakebase, sandbox: DefsFolderSandbox, landing: Path
) -> None:
    write_load(sandbox, restore_point=True, mode="replace", create=False)
    lake.admin.execute("CREATE TABLE landed.orders (id bigint PRIMARY KEY, v text)")
    lake.admin.execute(f'ALTER TABLE landed.orders OWNER TO "{lake.client_id}"')
    lake.admin.execute("INSERT INTO landed.orders VALUES (1, 'x'), (2, 'y')")
    land(landing / "a.parquet", 1)
    values = metadata_of(run(sandbox))
    assert orders(lake) == [(1, "x")]
    with LakebaseClient(lake.config()) as client:
        for part in ("lsn", "time"):
            assert client.restore_rows("landed.orders", at=values[f"lakebase/restore_{part}"]).put_back == 1
        client.restore_rows("landed.orders", at=values["lakebase/restore_lsn"], dry_run=False)
    assert orders(lake) == [(1, "x"), (2, "y")]


def test_each_file_that_lands_is_loaded_once(
    lake: LocalLakebase, sandbox: DefsFolderSandbox, landing: Path
) -> None:
    write_load(sandbox)
    land(landing / "a.parquet", 1, 2)
    land(landing / "_part.parquet", 99)
    values = metadata_of(run(sandbox))
    assert (values["lakebase/files"], values["lakebase/files_skipped"], values["lakebase/inserted"]) == (
        1,
        0,
        2,
    )
    assert values["dagster/row_count"] == 2
    assert [column.name for column in values["dagster/column_schema"].columns] == ["id", "v"]
    land(landing / "b.parquet", 3)
    values = metadata_of(run(sandbox))
    assert (values["lakebase/files"], values["lakebase/files_skipped"], values["lakebase/inserted"]) == (
        1,
        1,
        1,
    )
    assert [row[0] for row in orders(lake)] == [1, 2, 3]
    ids = lake.admin.execute("SELECT load_id FROM landed.lakebase_load ORDER BY 1")
    assert ids == [("landing/a.parquet",), ("landing/b.parquet",)]
    eventually(lambda: open_connections(lake) == 0)


def test_what_was_loaded_before_a_bad_file_stays_and_is_not_loaded_again(
    lake: LocalLakebase, sandbox: DefsFolderSandbox, landing: Path
) -> None:
    write_load(sandbox)
    land(landing / "a.parquet", 1)
    (landing / "b.parquet").write_bytes(b"PAR1 but no more")
    assert "b.parquet" in failure_of(run(sandbox))
    land(landing / "b.parquet", 2)
    assert metadata_of(run(sandbox))["lakebase/files_skipped"] == 1
    assert [row[0] for row in orders(lake)] == [1, 2]


def test_another_load_id_and_none(lake: LocalLakebase, sandbox: DefsFolderSandbox, landing: Path) -> None:
    land(landing / "a.parquet", 1)
    for load_id, count in (("{run_id}/{file}", 2), (None, 4), ("orders of {file}", 5)):
        write_load(sandbox, load_id=load_id)
        run(sandbox)
        metadata_of(run(sandbox))
        assert len(orders(lake)) == count


def test_a_table_follows_the_files_where_that_is_allowed(
    lake: LocalLakebase, sandbox: DefsFolderSandbox, landing: Path
) -> None:
    write_load(sandbox, schema_evolution="add")
    land(landing / "a.parquet", 1)
    metadata_of(run(sandbox))
    parquet.write_table(pa.table({"id": [2], "v": ["x"], "note": ["new"]}), landing / "b.parquet")
    values = metadata_of(run(sandbox))
    assert [column.name for column in values["dagster/column_schema"].columns] == ["id", "v", "note"]
    assert lake.admin.execute("SELECT * FROM landed.orders ORDER BY 1") == [(1, "x", None), (2, "x", "new")]


def test_merge_and_rejects(lake: LocalLakebase, sandbox: DefsFolderSandbox, landing: Path) -> None:
    lake.admin.execute("CREATE TABLE landed.things (id smallint PRIMARY KEY, v text)")
    lake.admin.execute(f'ALTER TABLE landed.things OWNER TO "{lake.client_id}"')
    write_load(
        sandbox,
        mode="merge",
        keys=["id"],
        reject_to="landed.refused",
        lsn=True,
        asset={"metadata": {"dagster/table_name": "landed.things"}},
    )
    land(landing / "a.parquet", 1, 2)
    run(sandbox)
    land(landing / "b.parquet", 2, 3, 70000, text="y")
    values = metadata_of(run(sandbox))
    ((is_past,),) = lake.admin.execute(f"SELECT pg_current_wal_lsn() >= '{values['lakebase/lsn']}'::pg_lsn")
    assert is_past
    names = ("inserted", "updated", "unchanged", "deleted", "rejected")
    assert [values[f"lakebase/{name}"] for name in names] == [1, 1, 0, 0, 1]
    assert lake.admin.execute("SELECT * FROM landed.things ORDER BY 1") == [(1, "x"), (2, "y"), (3, "y")]
    assert lake.admin.execute("SELECT count(*) FROM landed.refused") == [(1,)]


def test_a_partition_is_its_files(lake: LocalLakebase, sandbox: DefsFolderSandbox, landing: Path) -> None:
    lake.admin.execute("CREATE TABLE landed.orders (id bigint, v text, day timestamptz DEFAULT '2026-03-02')")
    lake.admin.execute(f'ALTER TABLE landed.orders OWNER TO "{lake.client_id}"')
    lake.admin.execute("INSERT INTO landed.orders VALUES (1, 'old', '2026-03-01 12:00+01')")
    write_load(
        sandbox,
        source="landing/{partition_key}.parquet",
        mode="replace",
        where="day >= %(partition_start)s AND day < %(partition_end)s -- not %(absent)s",
        asset={"partitions_def": DAILY},
    )
    land(landing / "2026-03-02.parquet", 7)
    for _ in range(2):
        values = metadata_of(run(sandbox, "2026-03-02"))
        assert (values["lakebase/files"], values["lakebase/files_skipped"]) == (1, 0)
    assert orders(lake) == [(1, "old"), (7, "x")]
    land(landing / "2026-03-03.parquet", 8)
    tags = {
        "dagster/asset_partition_range_start": "2026-03-02",
        "dagster/asset_partition_range_end": "2026-03-03",
    }
    events = run(sandbox, tags=tags).get_asset_materialization_events()
    assert [event.materialization.metadata["lakebase/files"].value for event in events] == [2, 2]


def test_a_uri(lake: LocalLakebase, sandbox: DefsFolderSandbox, landing: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    land(landing / "a.parquet", 5)
    with memory.open("/bucket/day=1/a.parquet", "wb") as file:
        file.write((landing / "a.parquet").read_bytes())
    write_load(sandbox, source="memory://bucket/*/*.parquet")
    for skipped in (0, 1):
        assert metadata_of(run(sandbox))["lakebase/files_skipped"] == skipped
    assert orders(lake) == [(5, "x")]
    memory.rm("/bucket", recursive=True)


@pytest.mark.parametrize("key", ["../other", "/etc", "a/../../b", ".."])
def test_a_partition_leads_to_no_other_folder(
    lake: LocalLakebase, sandbox: DefsFolderSandbox, landing: Path, key: str
) -> None:
    write_load(
        sandbox,
        source="landing/{partition_key}/*.parquet",
        asset={"partitions_def": {"type": "static", "partition_keys": [key]}},
    )
    assert "it would point to another folder" in failure_of(run(sandbox, key))


def test_no_file(lake: LocalLakebase, sandbox: DefsFolderSandbox, landing: Path) -> None:
    write_load(sandbox)
    assert "No file matches 'landing/*.parquet'" in failure_of(run(sandbox))
    write_load(sandbox, allow_no_files=True)
    assert metadata_of(run(sandbox))["lakebase/files"] == 0


def test_several_files_do_not_replace_each_other(
    lake: LocalLakebase, sandbox: DefsFolderSandbox, landing: Path
) -> None:
    write_load(sandbox, mode="replace")
    land(landing / "a.parquet", 1)
    assert metadata_of(run(sandbox))["lakebase/inserted"] == 1
    land(landing / "b.parquet", 2)
    assert "2 files match" in failure_of(run(sandbox))
    assert orders(lake) == [(1, "x")]


PARTITIONED = {"asset": {"key": "landed/orders", "partitions_def": DAILY}}


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"source": "landing/{partition_key}.parquet"}, "source names {partition_key}; there are: none"),
        ({"load_id": "{fiel}"}, "load_id names {fiel}; there are: {file}, {run_id}"),
        (PARTITIONED, "source names none"),
        (
            {**PARTITIONED, "source": "{partition_key}.csv", "mode": "replace"},
            "Select the partition's rows in where",
        ),
        (
            {**PARTITIONED, "source": "{partition_key}.csv", "mode": "replace", "where": "day = %(day)s"},
            "where: Parameter missing: %(day)s",
        ),
        ({"where": "true"}, "where has no meaning"),
        ({"keys": ["id"]}, "keys has no meaning with mode append"),
        ({"mode": "upsert"}, "mode"),
        ({"schema_evolution": "any"}, "schema_evolution"),
    ],
)
def test_a_load_that_cannot_be_meant_is_refused_when_it_is_loaded(
    sandbox: DefsFolderSandbox, attributes: dict[str, Any], message: str
) -> None:
    write_load(sandbox, **attributes)
    assert message in problem_of(sandbox)


def write_asset(sandbox: DefsFolderSandbox) -> None:
    (sandbox.defs_folder_path / "made.py").write_text(
        "import dagster as dg\nimport pyarrow as pa\n\n\n"
        "@dg.asset\ndef orders() -> pa.Table:\n    return pa.table({'id': [1], 'v': ['x']})\n"
    )


@pytest.mark.parametrize("connection", ["lakebase", "{{ context.load_component('lakebase') }}"])
def test_the_io_manager_stores_assets(
    lake: LocalLakebase, sandbox: DefsFolderSandbox, landing: Path, connection: str
) -> None:
    write(
        sandbox,
        "storing",
        LakebaseIOManagerComponent,
        {"connection": connection, "schema": "landed", "mode": "append"},
    )
    write_asset(sandbox)
    for _ in range(2):
        values = metadata_of(run(sandbox))
    assert orders(lake) == [(1, "x"), (1, "x")]
    assert (values["dagster/table_name"], values["dagster/row_count"]) == ("landed.orders", 2)
    eventually(lambda: open_connections(lake) == 0)


def test_the_io_manager_component_has_every_field() -> None:
    schema = LakebaseIOManagerComponent.get_model_cls().model_json_schema()["properties"]
    fields = LakebaseIOManager.model_fields
    names = {field.alias or name for name, field in fields.items()} - {"lakebase"}
    assert set(schema) == {*names, "connection", "resource_key"}


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"connection": "absent"},
            "connection is 'absent', which 0 LakebaseConnectionComponents bind",
        ),
        ({"connection": "{{ 3 }}"}, "connection is a int"),
        ({"mode": "merge"}, "mode"),
        ({"shema": "x"}, "shema"),
    ],
)
def test_an_io_manager_that_cannot_be_meant_is_refused_when_it_is_loaded(
    sandbox: DefsFolderSandbox, attributes: dict[str, Any], message: str
) -> None:
    write(sandbox, "storing", LakebaseIOManagerComponent, attributes)
    assert message in problem_of(sandbox)


def test_a_scaffolded_load_runs(lake: LocalLakebase, sandbox: DefsFolderSandbox, landing: Path) -> None:
    folder = sandbox.scaffold_component(
        component_cls=LakebaseLoadComponent, defs_path="made", scaffold_params={"table": "landed.orders"}
    )
    assert metadata_of(run(sandbox))["lakebase/files"] == 0
    land(folder / "landing" / "a.parquet", 4)
    assert metadata_of(run(sandbox))["lakebase/files"] == 1
    assert orders(lake) == [(4, "x")]


def test_a_scaffolded_io_manager_runs(lake: LocalLakebase, sandbox: DefsFolderSandbox, landing: Path) -> None:
    sandbox.scaffold_component(
        component_cls=LakebaseIOManagerComponent, defs_path="made", scaffold_params={"schema_name": "landed"}
    )
    write_asset(sandbox)
    metadata_of(run(sandbox))
    assert orders(lake) == [(1, "x")]
    with loaded(sandbox) as defs:
        assert isinstance((defs.resources or {})["io_manager"], LakebaseIOManager)
