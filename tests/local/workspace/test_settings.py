"""What is unknown or contradicted: settings, and errors that can be made to say something else."""

from __future__ import annotations

import re
from typing import Any

import pytest
from databricks.sdk.errors import AlreadyExists, BadRequest, DatabricksError, InvalidParameterValue
from databricks.sdk.service.postgres import (
    Database,
    DatabaseDatabaseSpec,
    Project,
    Role,
    RoleAuthMethod,
    RoleIdentityType,
    RoleRoleSpec,
)
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local.workspace import kinds
from lakebase_provider.local.workspace.settings import ApiError, Errors, Settings

from .conftest import PRODUCTION, PROJECT, Plane


def test_settings_have_names_and_types(plane: Plane) -> None:
    for name, value in [
        ("speed", 1),
        ("branch_limit", "ten"),
        ("branch_limit", True),
        ("auth_refusal", "shy"),
    ]:
        with pytest.raises(ValueError, match=name if name != "auth_refusal" else "shy"):
            plane.admin.set(**{name: value})
    plane.admin.set(operation_seconds=1, auth_delay=2.5)
    with pytest.raises(ValueError, match="time goes forward"):
        plane.admin.advance(-1)
    with pytest.raises(ValueError, match="no such error"):
        plane.admin.set_error("nothing", message="x")
    with pytest.raises(ValueError, match="kind of resource"):
        plane.admin.operation_fault("table")


def test_an_error_can_say_something_else(plane: Plane) -> None:
    plane.branch("there")
    plane.admin.set_error("branch_exists", message='branch already exists; branch_name:"there"')
    with pytest.raises(DatabricksError, match='branch already exists; branch_name:"there"') as refused:
        plane.branch("there")
    assert refused.value.error_code == "ALREADY_EXISTS"
    plane.admin.set_error("branch_exists", status=400, error_code="BAD_REQUEST")
    with pytest.raises(BadRequest, match="branch_name"):
        plane.branch("there")
    plane.admin.reset()
    plane.branch("there")
    with pytest.raises(DatabricksError, match="branch with such id already exists"):
        plane.branch("there")


def test_members_of_the_expiration_can_be_masks(plane: Plane) -> None:
    branch = plane.branch("masked")
    with pytest.raises(InvalidParameterValue, match=r"Unknown field path in update_mask: 'spec\.no_expiry'"):
        plane.change(str(branch.name), "spec.no_expiry", no_expiry=True)
    plane.admin.set(expiration_members_in_mask=True)
    plane.change(str(branch.name), "spec.no_expiry", no_expiry=True)


def test_a_database_may_get_its_id_from_its_name(plane: Plane) -> None:
    owner = next(plane.api.list_roles(PRODUCTION)).name
    body = Database(spec=DatabaseDatabaseSpec(postgres_database="No_Id", role=str(owner)))
    plane.admin.set(database_id_required=False)
    made = plane.api.create_database(PRODUCTION, body).wait()
    try:
        assert made.database_id == "no-id"
    finally:
        plane.api.delete_database(str(made.name)).wait()


def test_how_a_group_logs_in_is_a_setting(plane: Plane) -> None:
    branch = str(plane.branch("groups").name)
    spec = RoleRoleSpec(postgres_role="analysts", identity_type=RoleIdentityType.GROUP)
    plane.admin.set(group_auth_method="NO_LOGIN")
    made = plane.api.create_role(branch, Role(spec=spec)).wait()
    assert made.status is not None
    assert made.status.auth_method is RoleAuthMethod.NO_LOGIN
    assert made.status.identity_type is RoleIdentityType.GROUP
    plane.api.delete_role(str(made.name)).wait()


def test_what_new_projects_start_with_is_a_setting(plane: Plane) -> None:
    plane.admin.set(default_max_cu=2, default_suspend_timeout=300)
    plane.api.create_project(Project(), "small").wait()
    endpoint = plane.api.get_endpoint("projects/small/branches/production/endpoints/primary").status
    assert endpoint is not None
    assert (endpoint.autoscaling_limit_max_cu, endpoint.suspend_timeout_duration.seconds) == (2, 300)  # type: ignore[union-attr]


def test_sizes_that_do_not_fit_each_other_are_refused(plane: Plane) -> None:
    name = f"{PRODUCTION}/endpoints/primary"
    for path, spec in [
        ("spec.autoscaling_limit_max_cu", {"autoscaling_limit_max_cu": 0.25}),
        ("spec.autoscaling_limit_max_cu", {"autoscaling_limit_max_cu": 32}),
        ("spec.autoscaling_limit_min_cu", {"autoscaling_limit_min_cu": 8}),
        ("spec.suspension", {"suspend_timeout_duration": "5s"}),
        ("spec.suspension", {"no_suspension": False}),
        ("spec.group", {"group": {"min": 1, "max": 2}}),
        ("spec.group", {"group": {"min": 2, "max": 2}}),
        ("spec.disabled", {"disabled": "yes"}),
    ]:
        with pytest.raises(InvalidParameterValue, match="Field 'spec"):
            plane.send("PATCH", name, {"spec": spec}, update_mask=path)


def test_a_mask_is_needed(plane: Plane) -> None:
    with pytest.raises(InvalidParameterValue, match="update_mask"):
        plane.send("PATCH", PRODUCTION, {"spec": {"is_protected": True}})


def test_the_parent_in_the_body_decides_whether_a_masked_value_is_missing() -> None:
    settings, errors = Settings(), Errors()

    def changes(mask: str, body: dict[str, Any]) -> dict[str, Any]:
        return kinds.PROJECT.changes(mask, body, settings, errors)

    field = "spec.display_name"
    assert changes(field, {}) == {}
    assert changes("spec", {}) == {}
    with pytest.raises(ApiError, match="is in update_mask but not provided"):
        changes(field, {"spec": {}})
    body = {"spec": {"display_name": "a", "enable_pg_native_login": True}}
    assert changes(field, body) == {"spec": {"display_name": "a"}}
    assert changes("spec", body) == body


def test_every_mask_of_the_table_is_accepted_and_others_are_not() -> None:
    for kind in kinds.KINDS.values():
        for path in kind.masks:
            assert kind.changes(path, {}, Settings(), Errors()) == {}
        if kind.masks:
            with pytest.raises(ApiError, match=r"Unknown field path in update_mask: 'spec\.nothing'"):
                kind.changes("spec.nothing", {}, Settings(), Errors())


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01T00:01:00.5Z", 60.5),
        ("1970-01-01T00:01:00.123456789Z", 60.123456),
        ("1970-01-01T01:01:00+01:00", 60.0),
    ],
)
def test_timestamps(text: str, time: float) -> None:
    assert kinds.unix_time(text) == time
    assert kinds.unix_time(kinds.timestamp(time)) == time


@pytest.mark.parametrize("text", ["1970-01-01T00:01:00", "soon", "", None, 60])
def test_no_timestamps(text: Any) -> None:
    with pytest.raises(ValueError, match="timestamp"):
        kinds.unix_time(text)


@pytest.mark.parametrize("size", ["-1", "many"])
def test_pages_have_a_size(plane: Plane, size: str) -> None:
    with pytest.raises(InvalidParameterValue, match="page_size"):
        plane.send("GET", f"{PROJECT}/branches", page_size=size)


def test_a_project_can_have_another_default_branch(plane: Plane) -> None:
    branch = plane.branch("next")
    body = {"spec": {"default_branch": branch.name}}
    plane.send("PATCH", PROJECT, body, update_mask="spec.default_branch")
    assert plane.api.get_branch(str(branch.name)).status.default  # type: ignore[union-attr]
    assert not plane.api.get_branch(PRODUCTION).status.default  # type: ignore[union-attr]
    with pytest.raises(BadRequest, match="default branch"):
        plane.api.delete_branch(str(branch.name))
    assert plane.branch("child").status.source_branch == branch.name  # type: ignore[union-attr]


def test_whether_a_running_operation_is_said_first_is_a_setting(plane: Plane) -> None:
    plane.branch("there")
    plane.admin.operation_fault("branch", never_ends=True)
    plane.begin_branch("slow")
    with pytest.raises(AlreadyExists, match="branch with such id already exists"):
        plane.begin_branch("there")
    plane.admin.set(busy_is_said_first=True)
    for refused in (
        lambda: plane.begin_branch("there"),
        lambda: plane.begin_branch("There"),
        lambda: plane.api.delete_branch(PRODUCTION),
        lambda: plane.api.undelete_branch(PRODUCTION),
        lambda: plane.change(PRODUCTION, "spec.unknown"),
    ):
        with pytest.raises(DatabricksError, match="Another operation on the project is still running"):
            refused()


def test_a_branch_of_the_future_is_refused_or_one_of_now(plane: Plane) -> None:
    future = Timestamp(seconds=4_000_000_000)
    with pytest.raises(InvalidParameterValue, match="source_branch_time is outside"):
        plane.branch("future", source_branch_time=future)
    plane.admin.set(future_is_refused=False)
    found = plane.branch("future", source_branch_time=future)
    assert found.status is not None
    assert found.status.source_branch_time is not None
    assert found.status.source_branch_time.seconds < 4_000_000_000


@pytest.mark.parametrize("keeps", [True, False])
def test_whether_an_undeleted_branch_keeps_its_hosts_is_a_setting(plane: Plane, keeps: bool) -> None:
    plane.admin.set(undelete_keeps_hosts=keeps)
    name = str(plane.branch("back").name)

    def host() -> str:
        return str(plane.send("GET", f"{name}/endpoints/primary")["status"]["hosts"]["host"])

    before = host()
    plane.api.delete_branch(name).wait()
    plane.api.undelete_branch(name).wait()
    assert (host() == before) is keeps
    with LakebaseClient(plane.server.config().on_branch(name)) as client, client.connection() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_what_scheduled_snapshots_are_called_and_differ_by_is_a_setting(plane: Plane) -> None:
    plane.admin.set(scheduled_snapshot_id="{branch}-at-{time}", diff_size_part=0.5)
    cadence = {"retention": "864000s", "daily_schedule": {"hour": 3}}
    plane.send("PATCH", f"{PRODUCTION}/snapshot-schedule", {"schedule": [cadence]}, update_mask="schedule")
    plane.admin.advance(86_400)
    [taken] = plane.send("GET", f"{PROJECT}/snapshots")["snapshots"]
    assert re.fullmatch(r"production-at-\d{10}", taken["snapshot_id"])
    status = taken["status"]
    assert abs(status["diff_size_bytes"] - status["full_size_bytes"] / 2) < 1


@pytest.mark.parametrize("value", ["yes", "1", "True", ""])
def test_a_flag_that_is_no_bool_is_refused(plane: Plane, value: str) -> None:
    name = plane.branch("there").name
    for method, path, body, flag in (
        ("DELETE", name, None, "purge"),
        ("GET", f"{PROJECT}/branches", None, "show_deleted"),
        ("POST", f"{PROJECT}/branches", {"spec": {"no_expiry": True}}, "replace_existing"),
    ):
        with pytest.raises(InvalidParameterValue, match=f"Field '{flag}' must be true or false"):
            plane.send(method, str(path), body, branch_id="new", **{flag: value})
    assert plane.names() == ["production", "there"]
