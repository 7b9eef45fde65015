"""`ensure` beside others: under another id, while somebody else creates or recreates, after a deletion."""

from __future__ import annotations

import asyncio
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import AlreadyExistsError, LakebaseError, ObjectStateError
from lakebase_provider.core.workspace.objects.branches import Branches
from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects
from lakebase_provider.local import LocalLakebase
from tests.core.workspace.conftest import WAYS, client_by

BRANCH = "projects/local/branches/production"


@pytest.mark.parametrize("way", WAYS)
def test_what_postgres_knows_under_another_id_is_found(lake: LocalLakebase, way: str) -> None:
    with client_by(way, lake) as client:
        roles, databases = client.workspace.roles, client.workspace.databases
        made = roles.create("made-up", postgres_role="app_role")
        found = roles.ensure("app-role", postgres_role="app_role", createdb=True)
        assert (found.name, found.createdb) == (made.name, True)
        assert [one.postgres_role for one in roles.list()].count("app_role") == 1
        assert asyncio.run(roles.aensure("app-role", postgres_role="app_role")).name == made.name
        with pytest.raises(AlreadyExistsError, match=r"made-up exists.*auth_method"):
            roles.ensure("app-role", postgres_role="app_role", auth_method="NO_LOGIN")
        other = roles.create("other-role", postgres_role="other_role")
        database = databases.create("made-up", postgres_database="shop_data", role=made.name)
        taken = databases.ensure("shop-data", postgres_database="shop_data", role=other.name)
        assert (taken.name, taken.role) == (database.name, other.name)
        databases.delete("made-up")
        roles.delete("made-up")
        roles.delete("other-role")


@pytest.mark.parametrize("way", WAYS)
def test_a_database_of_another_name_is_not_renamed(lake: LocalLakebase, way: str) -> None:
    with client_by(way, lake) as client:
        roles, databases = client.workspace.roles, client.workspace.databases
        owner, other = (roles.create(f"{name}-role", postgres_role=name) for name in ("owner", "other"))
        made = databases.create("shop-data", postgres_database="shop_data", role=owner.name)
        with pytest.raises(
            AlreadyExistsError, match="postgres_database is 'shop_data', not 'sales'"
        ) as caught:
            databases.ensure("shop-data", postgres_database="sales", role=other.name)
        # Nor is its owner changed, who is another database's.
        assert databases.get("shop-data") == made
        call = re.findall(
            r"client\.workspace\.databases\.update\('([^']+)', postgres_database=", caught.value.remedy
        )
        assert call == [made.name]
        renamed = databases.update(call[0], postgres_database="sales")
        assert databases.ensure("shop-data", postgres_database="sales", role=owner.name) == renamed
        databases.delete("shop-data")
        for role in (owner, other):
            roles.delete(role.name)


def test_a_second_read_write_endpoint_is_refused_by_the_name_of_the_first(
    workspace: WorkspaceObjects,
) -> None:
    with pytest.raises(AlreadyExistsError, match=f"{BRANCH}/endpoints/primary") as caught:
        workspace.endpoints.ensure("writer", endpoint_type="READ_WRITE")
    assert f"Use {BRANCH}/endpoints/primary" in caught.value.remedy


@pytest.mark.parametrize("way", WAYS)
def test_a_branch_that_somebody_else_creates_is_waited_for(lake: LocalLakebase, way: str) -> None:
    with LakebaseClient(lake.config()) as other, client_by(way, lake) as client:
        lake.admin.set(operation_seconds=1.0)
        begun = other.workspace.branches.begin_create("ci-1", ttl=3600)
        assert other.workspace.branches.get("ci-1").state == "INIT"
        assert client.workspace.branches.ensure("ci-1", ttl=3600).state == "READY"
        assert begun.result() is not None
        begun = other.workspace.endpoints.begin_create("reader")
        assert other.workspace.endpoints.get("reader").is_being_made
        assert client.workspace.endpoints.ensure("reader").is_settled
        lake.admin.set(operation_seconds=0.0)
        client.workspace.endpoints.delete("reader")


def test_a_creation_that_does_not_end_is_left_within_the_budget(
    lake: LocalLakebase, workspace: WorkspaceObjects
) -> None:
    lake.admin.operation_fault("branch", never_ends=True)
    workspace.branches.begin_create("ci-1", ttl=3600)
    with pytest.raises(LakebaseError, match=r"The creation of .*ci-1 did not end within 1\.0 s"):
        workspace.branches.ensure("ci-1", ttl=3600, timeout=1.0)
    lake.admin.clear_faults()


def test_two_threads_that_recreate_have_one_branch(lake: LocalLakebase, workspace: WorkspaceObjects) -> None:
    former = workspace.branches.create("ci-1", ttl=3600)
    lake.admin.set(operation_seconds=0.3)
    lake.admin.reset_counters()

    def recreate(client: LakebaseClient) -> str | None:
        return client.workspace.branches.ensure("ci-1", ttl=3600, on_exists="recreate").uid

    with (
        LakebaseClient(lake.config()) as one,
        LakebaseClient(lake.config()) as other,
        ThreadPoolExecutor() as threads,
    ):
        uids = {*threads.map(recreate, (one, other))}
    assert len(uids) == 1
    assert uids != {former.uid}
    assert uids == {workspace.branches.get("ci-1").uid}
    deletions = [one for one in lake.admin.requests() if one.method == "DELETE"]
    assert len(deletions) == 1
    # One that begins later wants the data of then.
    assert recreate(LakebaseClient(lake.config())) not in uids


@pytest.mark.parametrize("was_there", [True, False], ids=["former", "none"])
def test_a_branch_that_another_process_has_just_made_is_not_purged(
    lake: LocalLakebase, workspace: WorkspaceObjects, monkeypatch: pytest.MonkeyPatch, was_there: bool
) -> None:
    if was_there:
        workspace.branches.create("ci-1", ttl=3600)
    made: list[str | None] = []

    def then_another(branches: Branches, name: str) -> None:
        """What happens between the look and the request, once, as from another process."""
        if not made and threading.current_thread() is threading.main_thread():
            made.append("")
            with ThreadPoolExecutor(1) as process, LakebaseClient(lake.config()) as client:
                # The lock of this process holds another thread back, and no other process.
                monkeypatch.setattr("lakebase_provider.core.workspace.objects.object_kind.alone", _free)
                arguments = {"ttl": 3600, "on_exists": "recreate"}
                made[0] = (
                    process.submit(
                        lambda: client.workspace.branches.ensure("ci-1", **arguments)  # type: ignore[arg-type]
                    )
                    .result()
                    .uid
                )

    place = "require_disposable" if was_there else "_create"
    plain = getattr(Branches, place)

    def hooked(branches: Branches, *arguments: object, **options: object) -> object:
        then_another(branches, "ci-1")
        return plain(branches, *arguments, **options)

    monkeypatch.setattr(Branches, place, hooked)
    found = workspace.branches.ensure("ci-1", ttl=3600, on_exists="recreate")
    assert [found.uid] == made
    assert workspace.branches.get("ci-1").uid == found.uid


def _free(*arguments: object) -> threading.RLock:  # type: ignore[valid-type]
    return threading.RLock()


@pytest.mark.parametrize("frees", [False, True], ids=["undelete", "purge"])
@pytest.mark.parametrize("kind", ["branches", "projects"])
def test_the_remedies_of_a_deleted_id_work(lake: LocalLakebase, kind: str, frees: bool) -> None:
    with LakebaseClient(lake.config()) as client:
        objects: Any = getattr(client.workspace, kind)
        options = {"ttl": 3600} if kind == "branches" else {}
        objects.create("run-1", **options)
        objects.delete("run-1")
        other_way = objects.ensure if kind == "projects" else objects.begin_create
        for way in (objects.create, other_way):
            with pytest.raises(AlreadyExistsError) as caught:
                way("run-1", **options)
        call = rf"client\.workspace\.{kind}\.(\w+)\('([^']+)'(, purge=True)?\)"
        name = objects.full_name("run-1")
        assert re.findall(call, caught.value.remedy) == [
            ("undelete", name, ""),
            ("delete", name, ", purge=True"),
        ]
        if frees:
            objects.delete(name, purge=True)
        else:
            objects.undelete(name)
        assert (objects.create("run-1", **options) if frees else objects.get("run-1")).delete_time is None
        objects.delete("run-1", purge=True)


def test_a_deleted_branch_is_no_branch_to_reuse(workspace: WorkspaceObjects) -> None:
    workspace.branches.create("ci-1", ttl=3600)
    workspace.branches.delete("ci-1")
    with pytest.raises(ObjectStateError, match="DELETED") as caught:
        workspace.branches.ensure("ci-1", ttl=3600)
    assert "client.workspace.branches.undelete('projects/local/branches/ci-1')" in caught.value.remedy
    assert workspace.branches.ensure("ci-1", ttl=3600, on_exists="recreate").state == "READY"
