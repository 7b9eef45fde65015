"""How long branches live: expiration, deletion, protection, children, limits."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from databricks.sdk.errors import (
    AlreadyExists,
    BadRequest,
    DatabricksError,
    InvalidParameterValue,
    NotFound,
    PermissionDenied,
)
from databricks.sdk.service.postgres import (
    Branch,
    BranchSpec,
    Catalog,
    CatalogCatalogSpec,
    Project,
    Role,
    RoleRoleSpec,
    Snapshot,
    SnapshotSpec,
)
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]

from .conftest import PRODUCTION, PROJECT, Plane, seconds

DAY = 86_400


def test_a_branch_expires_by_the_workspaces_clock(plane: Plane) -> None:
    branch = plane.branch("brief", ttl=seconds(DAY))
    plane.admin.advance(DAY - 60)
    assert plane.names() == ["production", "brief"]
    plane.admin.advance(60)
    assert plane.names(show_deleted=True) == ["production"]
    with pytest.raises(NotFound, match="branch id not found"):
        plane.api.get_branch(str(branch.name))


def test_an_expired_branch_can_be_kept_for_a_while(plane: Plane) -> None:
    plane.admin.set(expired_is_purged=False)
    plane.branch("brief", ttl=seconds(DAY))
    plane.admin.advance(DAY)
    assert plane.names() == ["production"]
    assert plane.names(show_deleted=True) == ["production", "brief"]


def test_a_time_to_live_counts_from_the_creation_also_when_it_is_changed(plane: Plane) -> None:
    branch = plane.branch("lease", ttl=seconds(DAY))
    assert branch.create_time is not None
    plane.admin.advance(DAY / 2)
    status = plane.change(str(branch.name), "spec.expiration", ttl=seconds(DAY)).status
    assert status is not None
    assert status.expire_time is not None
    assert status.expire_time.seconds == branch.create_time.seconds + DAY
    later = Timestamp(seconds=branch.create_time.seconds + 2 * DAY)
    plane.change(str(branch.name), "spec.expiration", expire_time=later)
    plane.admin.advance(DAY)
    assert "lease" in plane.names()
    plane.admin.advance(DAY)
    assert "lease" not in plane.names()


def test_how_far_ahead_a_branch_may_expire_is_a_setting(plane: Plane) -> None:
    plane.branch("month", ttl=seconds(30 * DAY))
    plane.admin.set(longest_expiration=7 * DAY)
    with pytest.raises(InvalidParameterValue, match="exceeds the maximum expiration time"):
        plane.branch("eight-days", ttl=seconds(8 * DAY))


def test_a_branch_may_have_to_say_that_it_does_not_expire(plane: Plane) -> None:
    silent = Branch(spec=BranchSpec())
    with pytest.raises(InvalidParameterValue, match="Expiration must be specified"):
        plane.api.create_branch(PROJECT, silent, "silent")
    plane.api.create_branch(PROJECT, silent, "production", replace_existing=True).wait()
    plane.admin.set(expiration_required=False)
    plane.api.create_branch(PROJECT, silent, "silent").wait()
    with pytest.raises(InvalidParameterValue, match=r"Field 'spec\.no_expiry' must be true"):
        plane.send("POST", f"{PROJECT}/branches", {"spec": {"no_expiry": False}}, branch_id="untrue")


def test_parents_do_not_expire_and_what_expires_has_no_children(plane: Plane) -> None:
    parent = plane.branch("parent")
    plane.branch("child", source_branch=parent.name)
    with pytest.raises(BadRequest, match="child branches"):
        plane.change(str(parent.name), "spec.expiration", ttl=seconds(DAY))
    with pytest.raises(BadRequest, match="has children: projects/local/branches/child"):
        plane.api.delete_branch(str(parent.name))
    with pytest.raises(BadRequest, match="default branch cannot have an expiration"):
        plane.change(PRODUCTION, "spec.expiration", ttl=seconds(DAY))
    plane.api.delete_branch(f"{PROJECT}/branches/child", purge=True).wait()
    plane.api.delete_branch(str(parent.name), purge=True).wait()


@pytest.mark.parametrize("reserved", [True, False])
def test_whether_a_deleted_branch_keeps_its_id_is_a_setting(plane: Plane, reserved: bool) -> None:
    plane.admin.set(deleted_id_reserved=reserved)
    first = plane.branch("again")
    plane.api.delete_branch(str(first.name)).wait()
    if reserved:
        with pytest.raises(AlreadyExists):
            plane.branch("again")
        plane.api.delete_branch(str(first.name), purge=True).wait()
    assert plane.branch("again").uid != first.uid


def test_what_is_deleted_is_purged_after_its_time(plane: Plane) -> None:
    branch = plane.branch("forgotten")
    plane.api.delete_branch(str(branch.name)).wait()
    plane.admin.advance(7 * DAY - 60)
    plane.api.undelete_branch(str(branch.name)).wait()
    plane.admin.advance(120)
    assert "forgotten" in plane.names()
    plane.api.delete_branch(str(branch.name)).wait()
    plane.admin.advance(7 * DAY)
    assert "forgotten" not in plane.names(show_deleted=True)
    with pytest.raises(NotFound):
        plane.api.undelete_branch(str(branch.name))


def test_only_what_is_deleted_can_be_undeleted(plane: Plane) -> None:
    branch = plane.branch("there")
    with pytest.raises(BadRequest, match="branch is not deleted"):
        plane.api.undelete_branch(str(branch.name))


@pytest.mark.parametrize("keeps", [True, False])
def test_whether_an_undeleted_branch_still_expires_is_a_setting(plane: Plane, keeps: bool) -> None:
    plane.admin.set(undelete_keeps_expiration=keeps)
    branch = plane.branch("back", ttl=seconds(DAY))
    plane.api.delete_branch(str(branch.name)).wait()
    plane.api.undelete_branch(str(branch.name)).wait()
    plane.admin.advance(DAY)
    assert ("back" in plane.names()) is not keeps


def test_protection_holds_the_branch_its_endpoints_and_the_project(plane: Plane) -> None:
    branch = plane.branch("safe")
    reader = plane.replica(str(branch.name))
    plane.change(str(branch.name), "spec.is_protected", is_protected=True)
    for refused in (
        lambda: plane.api.delete_branch(str(branch.name), purge=True),
        lambda: plane.api.delete_endpoint(str(reader.name)),
        lambda: plane.api.delete_project(PROJECT),
        lambda: plane.change(str(branch.name), "spec.expiration", ttl=seconds(DAY)),
    ):
        with pytest.raises(BadRequest, match="protected"):
            refused()
    with pytest.raises(BadRequest, match="protected branches limit exceeded"):
        plane.change(PRODUCTION, "spec.is_protected", is_protected=True)


def test_children_of_a_protected_branch_get_new_passwords(plane: Plane) -> None:
    branch = plane.branch("vault")
    role = Role(spec=RoleRoleSpec(postgres_role="keeper"))
    plane.api.create_role(str(branch.name), role, role_id="keeper").wait()
    password = plane.api.reveal_role_password(f"{branch.name}/roles/keeper").password
    open_child = plane.branch("open", source_branch=branch.name)
    plane.change(str(branch.name), "spec.is_protected", is_protected=True)
    child = plane.branch("sealed", source_branch=branch.name)
    assert plane.api.reveal_role_password(f"{open_child.name}/roles/keeper").password == password
    assert plane.api.reveal_role_password(f"{child.name}/roles/keeper").password != password


@pytest.mark.parametrize(
    ("limit", "what"),
    [
        ("branch_limit", "branches"),
        ("unarchived_branch_limit", "unarchived branches"),
        ("compute_limit", "computes"),
    ],
)
def test_limits(plane: Plane, limit: str, what: str) -> None:
    plane.branch("one")
    plane.admin.set(**{limit: 1 if limit == "compute_limit" else 2})
    with pytest.raises(DatabricksError, match=f"{what} limit exceeded") as refused:
        plane.branch("two")
    assert refused.value.error_code == "QUOTA_EXCEEDED"
    plane.api.delete_branch(f"{PROJECT}/branches/one", purge=True).wait()
    plane.branch("two")


def test_ten_unarchived_branches_are_the_limit(plane: Plane) -> None:
    for number in range(9):
        plane.branch(f"number-{number}")
    with pytest.raises(DatabricksError, match="unarchived branches limit exceeded"):
        plane.branch("one-more")


@pytest.mark.parametrize("counts", [True, False])
def test_whether_a_deleted_branch_counts_is_a_setting(plane: Plane, counts: bool) -> None:
    plane.admin.set(deleted_counts=counts, branch_limit=2)
    plane.branch("one")
    plane.api.delete_branch(f"{PROJECT}/branches/one").wait()
    if counts:
        with pytest.raises(DatabricksError, match="limit exceeded"):
            plane.branch("two")
    else:
        plane.branch("two")


def test_snapshots_expire_are_limited_and_outlive_nothing_but_their_branch(plane: Plane) -> None:
    def snapshot(snapshot_id: str, **spec: object) -> Snapshot:
        body = Snapshot(spec=SnapshotSpec(source_branch=PRODUCTION, **spec))  # type: ignore[arg-type]
        return plane.api.create_snapshot(PROJECT, body, snapshot_id).wait()

    plane.admin.set(snapshot_limit=2, root_branch_limit=2)
    snapshot("brief", ttl=seconds(DAY))
    kept = snapshot("kept", no_expiry=True)
    with pytest.raises(DatabricksError, match="snapshots limit exceeded"):
        snapshot("third")
    plane.admin.advance(DAY)
    assert [found.snapshot_id for found in plane.api.list_snapshots(PROJECT)] == ["kept"]
    plane.branch("restored", source_snapshot=kept.name)
    with pytest.raises(DatabricksError, match="root branches limit exceeded"):
        plane.branch("second", source_snapshot=kept.name)
    child = plane.branch("child")
    body = Snapshot(spec=SnapshotSpec(source_branch=str(child.name)))
    with pytest.raises(BadRequest, match="root branches only"):
        plane.api.create_snapshot(PROJECT, body, "of-child")
    plane.admin.set(snapshots_of_roots_only=False)
    plane.api.create_snapshot(PROJECT, body, "of-child").wait()


def test_a_time_outside_of_the_history_is_refused(plane: Plane) -> None:
    project = plane.api.get_project(PROJECT)
    assert project.create_time is not None
    for moment in (project.create_time.seconds - 60, project.create_time.seconds + 365 * DAY):
        with pytest.raises(InvalidParameterValue, match="source_branch_time is outside"):
            plane.branch("past", source_branch_time=Timestamp(seconds=moment))


def test_a_database_has_one_catalog_also_where_it_was_copied(plane: Plane) -> None:
    def register(catalog_id: str, branch: str) -> None:
        spec = CatalogCatalogSpec(branch=branch, postgres_database="databricks_postgres")
        plane.api.create_catalog(Catalog(spec=spec), catalog_id).wait()

    before = plane.branch("before")
    register("main", PRODUCTION)
    after = plane.branch("after")
    with pytest.raises(AlreadyExists):
        register("second", PRODUCTION)
    with pytest.raises(AlreadyExists):
        register("copied", str(after.name))
    register("earlier", str(before.name))


def test_who_may_change_anything_is_a_setting(plane: Plane) -> None:
    plane.admin.set(managers=[])
    plane.api.get_project(PROJECT)
    with pytest.raises(PermissionDenied, match="The user is not authorized to make the request"):
        plane.branch("forbidden")
    plane.admin.set(managers=[plane.server.client_id])
    plane.branch("allowed")


def test_a_deleted_project_takes_its_branches_along_and_brings_them_back(plane: Plane) -> None:
    plane.api.create_project(Project(), "shop").wait()
    body = Branch(spec=BranchSpec(no_expiry=True))
    plane.api.create_branch("projects/shop", body, "side").wait()
    plane.api.delete_project("projects/shop").wait()
    with pytest.raises(NotFound, match="project id not found"):
        plane.api.get_branch("projects/shop/branches/side")
    with pytest.raises(AlreadyExists):
        plane.api.create_project(Project(), "shop")
    plane.api.undelete_project("projects/shop").wait()
    plane.api.get_branch("projects/shop/branches/side")
    plane.api.delete_project("projects/shop").wait()
    plane.admin.advance(7 * DAY)
    assert [found.project_id for found in plane.api.list_projects(show_deleted=True)] == ["local"]


def test_a_reset_leaves_what_was_there_from_the_start(plane: Plane) -> None:
    uid = plane.api.get_branch(PRODUCTION).uid
    plane.branch("side")
    plane.replica()
    plane.api.create_project(Project(), "shop").wait()
    plane.admin.operation_fault(never_ends=True)
    plane.begin_branch("stuck")
    plane.admin.reset()
    assert plane.names(show_deleted=True) == ["production"]
    assert plane.api.get_branch(PRODUCTION).uid == uid
    assert [found.endpoint_id for found in plane.api.list_endpoints(PRODUCTION)] == ["primary"]
    plane.api.delete_project(PROJECT, purge=True).wait()
    plane.admin.reset()
    assert plane.api.get_branch(PRODUCTION).uid == uid
    plane.connect().close()


def test_a_schedule_has_snapshots_taken_which_expire_and_do_not_count(plane: Plane) -> None:
    plane.admin.set(snapshot_limit=1)
    cadences = [
        {"retention": f"{2 * DAY}s", "daily_schedule": {"hour": 3}},
        {"retention": f"{30 * DAY}s", "weekly_schedule": {"day_of_week": "MONDAY", "hour": 3}},
    ]
    name = f"{PRODUCTION}/snapshot-schedule"
    plane.send("PATCH", name, {"schedule": cadences}, update_mask="schedule")
    plane.admin.advance(7 * DAY)
    taken = [found.create_time for found in plane.api.list_snapshots(PROJECT)]
    # Of seven, those of the last two days are left, and Monday's, which is one of two cadences.
    moments = [datetime.fromtimestamp(time.seconds, timezone.utc) for time in taken if time]
    assert len(moments) == len({*moments})
    assert len(moments) in (2, 3)
    assert {moment.hour for moment in moments} == {3}
    assert sum(moment.weekday() == 0 for moment in moments) == 1
    plane.send("PATCH", name, {"schedule": []}, update_mask="schedule")
    plane.admin.advance(40 * DAY)
    assert list(plane.api.list_snapshots(PROJECT)) == []


@pytest.mark.parametrize(
    "cadence",
    [
        {},
        {"retention": "60s", "daily_schedule": {"hour": 3}},
        {"retention": "86400s", "daily_schedule": {"hour": 24}},
        {"retention": "86400s", "monthly_schedule": {"hour": 3}},
        {"retention": "86400s", "daily_schedule": {}, "monthly_schedule": {"day": 1}},
    ],
)
def test_a_schedule_that_is_none_is_refused(plane: Plane, cadence: dict[str, object]) -> None:
    name = f"{PRODUCTION}/snapshot-schedule"
    with pytest.raises(InvalidParameterValue, match="Field 'schedule' "):
        plane.send("PATCH", name, {"schedule": [cadence]}, update_mask="schedule")
