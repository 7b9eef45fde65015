"""The objects by plain REST and by databricks-sdk: the same requests, the same outcomes, one by one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from lakebase_provider.core import LakebaseError
from lakebase_provider.core.workspace.objects.snapshots import Cadence
from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects
from lakebase_provider.local import LocalLakebase
from tests.core.workspace.conftest import WAYS, client_by

P = "projects/local"
REPLICA = f"{P}/branches/ci-1/endpoints/reader"
PRIMARY = f"{P}/branches/ci-1/endpoints/primary"


Step = tuple[str, Callable[[WorkspaceObjects], Any]]


def projects() -> list[Step]:
    return [
        ("created", lambda w: w.projects.create("shop", display_name="Shop", default_min_cu=0.5)),
        ("exists", lambda w: w.projects.create("shop")),
        ("bad id", lambda w: w.projects.create("Shop_")),
        ("listed", lambda w: [one.name for one in w.projects.list()]),
        ("never suspended", lambda w: w.projects.update("shop", default_no_suspension=True)),
        ("tagged", lambda w: w.projects.update("shop", custom_tags=[{"key": "a", "value": "b"}])),
        ("untagged", lambda w: w.projects.update("shop", custom_tags=[])),
        ("ensured", lambda w: w.projects.ensure("shop", display_name="Store", history_retention=172_800)),
        ("of another version", lambda w: w.projects.ensure("shop", pg_version=9)),
        ("deleted", lambda w: w.projects.delete("shop")),
        ("back", lambda w: w.projects.undelete("shop")),
        ("purged", lambda w: w.projects.delete("shop", purge=True)),
        ("gone", lambda w: w.projects.get("shop")),
        ("still gone", lambda w: w.projects.delete("shop", missing_ok=True)),
    ]


def branches() -> list[Step]:
    return [
        ("created", lambda w: w.branches.create("ci-1", ttl=3600)),
        ("exists", lambda w: w.branches.create("ci-1", ttl=3600)),
        ("too long", lambda w: w.branches.create("ci-2", ttl=31 * 86_400)),
        ("of an expiring one", lambda w: w.branches.create("ci-2", ttl=60, source_branch="ci-1")),
        (
            "of another project",
            lambda w: w.branches.create("ci-2", ttl=60, source_branch="projects/x/branches/y"),
        ),
        ("listed", lambda w: [one.name for one in w.branches.list()]),
        ("ready", lambda w: w.branches.wait_ready("ci-1")),
        ("never expires", lambda w: w.branches.update("ci-1", no_expiry=True)),
        ("protected", lambda w: w.branches.update("ci-1", is_protected=True)),
        ("undeletable", lambda w: w.branches.delete("ci-1")),
        ("not disposable", lambda w: w.branches.ensure("ci-1", no_expiry=True, on_exists="recreate")),
        ("changed back", lambda w: w.branches.ensure("ci-1", no_expiry=True, is_protected=False)),
        ("deleted", lambda w: w.branches.delete("ci-1")),
        ("listed when deleted", lambda w: [one.state for one in w.branches.list(show_deleted=True)]),
        ("back", lambda w: w.branches.undelete("ci-1")),
        ("purged", lambda w: w.branches.delete("ci-1", purge=True)),
        ("gone", lambda w: w.branches.get("ci-1")),
        ("not ready", lambda w: w.branches.wait_ready("ci-1")),
        ("root", lambda w: w.branches.delete("production")),
        ("no such project", lambda w: w.branches.list("projects/none")),
    ]


def endpoints() -> list[Step]:
    return [
        ("branch", lambda w: w.branches.create("ci-1", ttl=3600)),
        ("replica", lambda w: w.endpoints.create(REPLICA, min_cu=0.5, max_cu=1)),
        ("listed", lambda w: [one.name for one in w.endpoints.list("ci-1")]),
        ("exists", lambda w: w.endpoints.create(REPLICA)),
        ("second writer", lambda w: w.endpoints.create(f"{PRIMARY}-2", endpoint_type="READ_WRITE")),
        ("resized", lambda w: w.endpoints.update(PRIMARY, min_cu=2, max_cu=4, suspend_timeout=60)),
        ("too wide", lambda w: w.endpoints.update(PRIMARY, max_cu=64)),
        ("with settings", lambda w: w.endpoints.update(PRIMARY, pg_settings={"work_mem": "8MB"})),
        ("suspended", lambda w: w.endpoints.suspend(PRIMARY)),
        ("not ready", lambda w: w.endpoints.wait_ready(PRIMARY)),
        ("enabled", lambda w: w.endpoints.enable(PRIMARY)),
        ("ready", lambda w: w.endpoints.wait_ready(PRIMARY)),
        ("managed", lambda w: w.endpoints.delete(PRIMARY)),
        ("deleted", lambda w: w.endpoints.delete(REPLICA)),
        ("ensured", lambda w: w.endpoints.ensure(PRIMARY, endpoint_type="READ_WRITE", max_cu=8)),
        ("of another type", lambda w: w.endpoints.ensure(PRIMARY)),
        ("purged", lambda w: w.branches.delete("ci-1", purge=True)),
    ]


def snapshots() -> list[Step]:
    daily, weekly = Cadence(604_800, 3), Cadence(2_592_000, 4, day_of_week="MONDAY")
    return [
        ("taken", lambda w: w.snapshots.create("s-1", source_branch="production", ttl=3600)),
        ("exists", lambda w: w.snapshots.create("s-1", source_branch="production", ttl=3600)),
        ("ensured", lambda w: w.snapshots.ensure("s-1", source_branch="production")),
        ("of another branch", lambda w: w.snapshots.ensure("s-1", source_branch="other")),
        ("listed", lambda w: [one.name for one in w.snapshots.list()]),
        ("restored", lambda w: w.branches.create("restored", source_snapshot="s-1", no_expiry=True)),
        ("deleted", lambda w: w.snapshots.delete("s-1")),
        ("purged", lambda w: w.branches.delete("restored", purge=True)),
        ("gone", lambda w: w.snapshots.get("s-1")),
        ("no schedule", lambda w: w.snapshots.schedule("production")),
        ("scheduled", lambda w: w.snapshots.set_schedule("production", [daily, weekly])),
        ("unscheduled", lambda w: w.snapshots.set_schedule("production", [])),
    ]


def roles_and_databases() -> list[Step]:
    return [
        ("role", lambda w: w.roles.create("app-role", postgres_role="app_role", createdb=True)),
        ("exists", lambda w: w.roles.create("app-role", postgres_role="app_role")),
        ("bad id", lambda w: w.roles.create("9app", postgres_role="nine")),
        ("superuser", lambda w: w.roles.update("app-role", membership_roles=["DATABRICKS_SUPERUSER"])),
        ("no superuser", lambda w: w.roles.update("app-role", membership_roles=[])),
        ("ensured", lambda w: w.roles.ensure("app-role", postgres_role="app_role", createdb=False)),
        ("other", lambda w: w.roles.ensure("app-role", postgres_role="other")),
        ("database", lambda w: w.databases.create("app-db", postgres_database="app_db", role="app-role")),
        ("exists too", lambda w: w.databases.create("app-db", postgres_database="app_db", role="app-role")),
        ("nobody's", lambda w: w.databases.create("db-2", postgres_database="db_2", role="nobody")),
        ("listed", lambda w: [one.postgres_database for one in w.databases.list()]),
        ("renamed", lambda w: w.databases.ensure("app-db", postgres_database="renamed")),
        ("catalog", lambda w: w.catalogs.create("shop", branch="production", postgres_database="renamed")),
        ("same", lambda w: w.catalogs.ensure("shop", branch="production", postgres_database="renamed")),
        ("another", lambda w: w.catalogs.ensure("shop", branch="production", postgres_database="x")),
        ("unregistered", lambda w: w.catalogs.delete("shop")),
        ("dropped", lambda w: w.databases.delete("app-db")),
        ("deleted", lambda w: w.roles.delete("app-role")),
        ("gone", lambda w: w.roles.get("app-role")),
    ]


def outcome(step: Callable[[WorkspaceObjects], Any], workspace: WorkspaceObjects) -> str:
    try:
        found = repr(step(workspace))
    except LakebaseError as error:
        found = f"{type(error).__name__} {error.code} {error.retryable} {error}"
    # Uids, times and the ids of operations differ each time.
    for pattern in (r"(?<=TraceId: )\w+", r"(\w+-)?\w{8}-\w{4}-\w{4}-\w{4}-\w{12}", r"datetime\([^)]*\)"):
        found = re.sub(pattern, "*", found)
    # Nor are the sizes and positions of a log that goes on, and the addresses of hosts.
    return re.sub(r"(size|lsn)=[^,)]+|127\.\d+\.\d+\.\d+", "*", found)


@pytest.mark.parametrize("kind", [projects, branches, endpoints, snapshots, roles_and_databases])
def test_the_same_outcomes(lake: LocalLakebase, kind: Callable[[], list[Step]]) -> None:
    found: dict[str, dict[str, str]] = {}
    asked: dict[str, list[tuple[str, str, int]]] = {}
    for way in WAYS:
        lake.admin.reset()
        with client_by(way, lake) as client:
            found[way] = {name: outcome(step, client.workspace) for name, step in kind()}
        asked[way] = [
            (one.method, re.sub(r"(?<=operations/).*", "*", one.path), one.status)
            for one in lake.admin.requests()
            if "/postgres/" in one.path
        ]
    for name in found["rest"]:
        assert found["rest"][name] == found["sdk"][name], name
    assert asked["rest"] == asked["sdk"]
    # Each step did what it is called for.
    errors = [name for name, said in found["rest"].items() if re.match(r"\w+Error ", said)]
    assert errors == [name for name, _ in kind() if name in REFUSED[kind.__name__]]


#: The steps that are refused.
REFUSED = {
    "projects": {"exists", "bad id", "of another version", "gone"},
    "branches": {
        *("exists", "too long", "of an expiring one", "of another project", "undeletable", "not disposable"),
        *("gone", "not ready", "root", "no such project"),
    },
    "endpoints": {"exists", "second writer", "too wide", "not ready", "managed", "of another type"},
    "snapshots": {"exists", "of another branch", "gone"},
    "roles_and_databases": {"exists", "bad id", "other", "exists too", "nobody's", "another", "gone"},
}


_STATE = "ObjectStateError"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (409, "RESOURCE_CONFLICT", "endpoint 'e' is under reconciliation", "ProjectBusyError"),
        (409, "ALREADY_EXISTS", 'branch already exists; branch_name:"production"', "AlreadyExistsError"),
        (400, "BAD_REQUEST", "role with that name already exists", "AlreadyExistsError"),
        (400, "QUOTA_EXCEEDED", "branches limit exceeded", "LimitError"),
        (422, "BRANCHES_LIMIT_EXCEEDED", "root branches limit exceeded", "LimitError"),
        (429, "RESOURCE_EXHAUSTED", "branches limit exceeded", "LimitError"),
        (400, "RESOURCE_EXHAUSTED", "root branches limit exceeded", "LimitError"),
        (429, "REQUEST_LIMIT_EXCEEDED", "too many requests for this endpoint", "ControlPlaneThrottledError"),
        (403, "PERMISSION_DENIED", "The user is not authorized to make the request", "PermissionDeniedError"),
        (404, "NOT_FOUND", 'role not found; role_id:"x" [TraceId: 1]', "NotFoundError"),
        (404, "NOT_FOUND", "snapshot id not found [TraceId: 1]", "NotFoundError"),
        (404, "NOT_FOUND", "branch id not found [TraceId: 1]", "EndpointNotFoundError"),
        (400, "BAD_REQUEST", "cannot delete protected branch", _STATE),
        (
            400,
            "BAD_REQUEST",
            "Branches with an expiration date cannot have child branches",
            "ObjectStateError",
        ),
        (
            400,
            "INVALID_PARAMETER_VALUE",
            "Unknown field path in update_mask: 'spec.ttl'",
            "ControlPlaneError",
        ),
    ],
)
def test_an_error_is_told_by_what_it_says(
    lake: LocalLakebase, way: str, status: int, code: str, message: str, kind: str
) -> None:
    lake.admin.fault("PATCH", "/api/*", status=status, error_code=code, message=message)
    with client_by(way, lake) as client:
        client.workspace.branches.get("production")  # signed in
        with pytest.raises(LakebaseError) as caught:
            client.workspace.branches.update("production", is_protected=True, timeout=1.0)
    assert type(caught.value).__name__ == kind
    assert message.rstrip(".") in caught.value.message
    if kind == "PermissionDeniedError":
        assert "CAN MANAGE" in caught.value.remedy
