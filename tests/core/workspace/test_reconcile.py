"""A synced table as it is declared: created, left alone, and replaced by one under a second name."""

from __future__ import annotations

from typing import Any

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import (
    AlreadyExistsError,
    ConfigError,
    ObjectStateError,
    OperationFailedError,
)
from lakebase_provider.local import LocalLakebase
from tests.core.workspace.lakehouse import Shop, shop


@pytest.fixture
def trips(lake: LocalLakebase) -> Shop:
    return shop(lake)


def plain(trips: Shop) -> str:
    return trips.name.split(".")[2]


def reconcile(client: LakebaseClient, trips: Shop, policy: str = "TRIGGERED", **more: Any) -> Any:
    options = {**trips.declared(policy), **more}
    return client.synced_tables.reconcile(trips.name, **options)


def test_it_is_created_once(on_production: LakebaseClient, trips: Shop) -> None:
    made = reconcile(on_production, trips)
    assert (made.action, made.table.id, made.table.version) == ("created", trips.name, 0)
    assert trips.rows() == [(1, "a"), (2, "b")]
    again = reconcile(on_production, trips)
    assert (again.action, again.table.uid) == ("unchanged", made.table.uid)


def test_what_cannot_be_read_is_kept_beside_it(on_production: LakebaseClient, trips: Shop) -> None:
    tables = on_production.workspace.synced_tables
    trips.create(tables)
    tables.wait(trips.name, version=0)
    assert reconcile(on_production, trips).action == "noted"
    assert reconcile(on_production, trips).action == "unchanged"


def test_another_mode_is_made_beside_it_with_indexes_and_grants(
    on_production: LakebaseClient, trips: Shop
) -> None:
    view = f"public.v_{plain(trips)}"
    first = reconcile(on_production, trips, view=view).table
    execute = trips.lake.admin.execute
    execute(
        f"CREATE INDEX ON pub.{plain(trips)} (name) WHERE id > 0;"
        f"CREATE UNIQUE INDEX ON pub.{plain(trips)} (name);"
        f"GRANT SELECT ON pub.{plain(trips)} TO PUBLIC; CREATE ROLE r_{plain(trips)};"
        f"GRANT SELECT, REFERENCES ON pub.{plain(trips)} TO r_{plain(trips)} WITH GRANT OPTION"
    )
    done = reconcile(on_production, trips, "SNAPSHOT", view=view, drop_orphans=True)
    assert (done.action, done.changed, done.former) == ("replaced", ("scheduling_policy",), None)
    assert (done.indexes, done.lost_grants) == (2, ())
    assert done.table.id == f"{trips.name}_b"
    assert on_production.workspace.synced_tables.find(first.name) is None
    ((there,),) = execute(f"SELECT to_regclass('pub.{plain(trips)}')")
    assert there is None
    trips.write({"id": [3], "name": ["c"]})
    on_production.workspace.synced_tables.refresh(done.table.name)
    assert execute(f"SELECT count(*) FROM {view}") == [(3,)]
    grants = execute(
        "SELECT grantee, privilege_type, is_grantable FROM information_schema.table_privileges "
        "WHERE table_name = %s AND grantee LIKE 'r\\_%%' ORDER BY 2",
        (f"{plain(trips)}_b",),
    )
    role = f"r_{plain(trips)}"
    assert grants == [(role, "REFERENCES", "YES"), (role, "SELECT", "YES")]
    # The next change leads back to the first name.
    back = reconcile(on_production, trips, view=view, drop_orphans=True)
    assert (back.action, back.table.id) == ("replaced", trips.name)
    assert reconcile(on_production, trips, view=view).action == "unchanged"
    execute(f"DROP VIEW {view}")


def test_without_a_word_nothing_is_dropped(on_production: LakebaseClient, trips: Shop) -> None:
    first = reconcile(on_production, trips).table
    done = reconcile(on_production, trips, primary_key=["id", "name"])
    assert (done.action, done.changed, done.former) == ("replaced", ("primary_key",), first.name)
    assert len(trips.rows()) == 2
    with pytest.raises(ObjectStateError, match="is there"):
        reconcile(on_production, trips)
    tables = on_production.workspace.synced_tables
    # What the change has left goes when that is said.
    again = reconcile(on_production, trips, primary_key=["id", "name"], drop_orphans=True)
    assert (again.action, tables.find(first.name)) == ("unchanged", None)
    tables.delete(done.table.name)
    with pytest.raises(AlreadyExistsError, match="in Postgres already"):
        reconcile(on_production, trips, primary_key=["id", "name"])
    again = reconcile(on_production, trips, primary_key=["id", "name"], drop_orphans=True)
    assert (again.action, again.table.id) == ("created", f"{trips.name}_b")
    # Not even then one that was not made here.
    other = trips.create(tables)
    with pytest.raises(AlreadyExistsError, match="none that was made here"):
        reconcile(on_production, trips, drop_orphans=True)
    assert tables.get(other.name).uid == other.uid
    on_production.synced_tables.delete(trips.name)
    assert tables.find(f"{trips.name}_b") is None


def test_one_whose_first_sync_fails_changes_nothing(
    lake: LocalLakebase, on_production: LakebaseClient, trips: Shop
) -> None:
    first = reconcile(on_production, trips).table
    lake.admin.operation_fault("pipeline_update", message="no compute")
    with pytest.raises(OperationFailedError, match="no compute"):
        reconcile(on_production, trips, "SNAPSHOT")
    assert reconcile(on_production, trips).table.uid == first.uid
    assert reconcile(on_production, trips, "SNAPSHOT", drop_orphans=True).action == "replaced"


def test_a_table_of_somebody_else_is_not_dropped(
    lake: LocalLakebase, on_production: LakebaseClient, trips: Shop
) -> None:
    lake.admin.execute(f"CREATE SCHEMA IF NOT EXISTS pub; CREATE TABLE pub.{plain(trips)} (id int)")
    with pytest.raises(ObjectStateError, match="none that a synced table has left"):
        reconcile(on_production, trips, drop_orphans=True)
    with pytest.raises(ConfigError, match="client is of"):
        reconcile(on_production, trips, postgres_database="other")


async def test_delete_drops_the_table_too(on_production: LakebaseClient, trips: Shop) -> None:
    await on_production.synced_tables.areconcile(trips.name, **trips.declared())
    on_production.synced_tables.delete(trips.name, drop_table=False)
    assert len(trips.rows()) == 2
    await on_production.synced_tables.adelete(trips.name, missing_ok=True)
    ((there,),) = trips.lake.admin.execute(f"SELECT to_regclass('pub.{plain(trips)}')")
    assert there is None
    assert reconcile(on_production, trips).action == "created"
