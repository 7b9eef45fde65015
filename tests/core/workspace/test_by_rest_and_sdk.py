"""The objects by plain REST and by databricks-sdk: the same requests, the same outcomes, one by one."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
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
        (
            "created",
            lambda w: w.projects.create("shop", display_name="Shop", default_min_cu=0.5, initial_max_cu=4.0),
        ),
        ("its endpoint", lambda w: w.endpoints.get("projects/shop/branches/production/endpoints/primary")),
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
        ("known otherwise", lambda w: w.databases.ensure("app-db", postgres_database="renamed")),
        ("renamed", lambda w: w.databases.update("app-db", postgres_database="renamed")),
        ("same name", lambda w: w.databases.ensure("app-db", postgres_database="renamed", role="app-role")),
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
    refused = REFUSED[kind.__name__]
    errors = [name for name, said in found["rest"].items() if re.match(r"\w+Error ", said)]
    assert errors == [name for name, _ in kind() if name in refused]
    for name in errors:
        kind_of_error, _, words = refused[name].partition(": ")
        assert found["rest"][name].startswith(f"{kind_of_error} "), name
        assert words in found["rest"][name], name


_EXISTS, _INVALID = "AlreadyExistsError", "ControlPlaneError: INVALID_PARAMETER_VALUE"
#: The steps that are refused: the class, the workspace's code where it says one, and in what words.
REFUSED = {
    "projects": {
        "exists": f"{_EXISTS}: ALREADY_EXISTS: project with such id already exists in the workspace",
        "bad id": f"{_INVALID}: Field project_id must match pattern ^[a-z]([a-z0-9-]{{0,61}}[a-z0-9])?$, "
        "got 'Shop_'.",
        "of another version": f"{_EXISTS}: pg_version is ",
        "gone": "EndpointNotFoundError: NOT_FOUND: project id not found [TraceId: *]",
    },
    "branches": {
        "exists": f"{_EXISTS}: ALREADY_EXISTS: branch with such id already exists",
        "too long": f"{_INVALID}: expiration time exceeds the maximum expiration time [TraceId: *]",
        "of an expiring one": "ObjectStateError: BAD_REQUEST: Branches with an expiration date cannot have "
        "child branches",
        "of another project": f"{_INVALID}: source_branch field must point to the branch from the same "
        "Project",
        "undeletable": "ObjectStateError: BAD_REQUEST: cannot delete protected branch",
        "not disposable": "ObjectStateError: is protected",
        "gone": "EndpointNotFoundError: NOT_FOUND: branch id not found [TraceId: *]",
        "not ready": "EndpointNotFoundError: NOT_FOUND: branch id not found [TraceId: *]",
        "root": f"ManagedByParentError: BAD_REQUEST: Cannot delete root branch '{P}/branches/production'. "
        "Root branches cannot be deleted independently. (MANAGED_BY_PARENT)",
        "no such project": "EndpointNotFoundError: NOT_FOUND: project id not found [TraceId: *]",
    },
    "endpoints": {
        "exists": f"{_EXISTS}: ALREADY_EXISTS: endpoint with such id already exists",
        "second writer": f"{_EXISTS}: ALREADY_EXISTS: read_write endpoint already exists",
        "too wide": f"{_INVALID}: Field 'spec.autoscaling_limit_max_cu' must be min_cu to min_cu + 16",
        "not ready": "EndpointDisabledError: is disabled",
        "managed": f"ManagedByParentError: BAD_REQUEST: Cannot delete read-write endpoint '{PRIMARY}'. "
        "Read-write endpoints cannot be deleted. (MANAGED_BY_PARENT)",
        "of another type": f"{_EXISTS}: endpoint_type is 'READ_WRITE', not 'READ_ONLY'",
    },
    "snapshots": {
        "exists": f"{_EXISTS}: ALREADY_EXISTS: snapshot with such id already exists",
        "of another branch": f"{_EXISTS}: source_branch is '{P}/branches/production', not '{P}/branches/o",
        "gone": "NotFoundError: NOT_FOUND: snapshot id not found [TraceId: *]",
    },
    "roles_and_databases": {
        "exists": f"{_EXISTS}: BAD_REQUEST: role with that name already exists",
        "bad id": f"{_INVALID}: Field 'role_id' must be 4-63 characters, start with a lowercase letter, and "
        "contain only lowercase letters, numbers and hyphens (RFC 1123).",
        "other": f"{_EXISTS}: postgres_role is 'app_role', not 'other'",
        "exists too": f"{_EXISTS}: BAD_REQUEST: database with that name already exists",
        "nobody's": 'NotFoundError: NOT_FOUND: role not found; role_id:"nobody" [TraceId: *]',
        "known otherwise": f"{_EXISTS}: postgres_database is 'app_db', not 'renamed'",
        "another": f"{_EXISTS}: postgres_database is 'renamed', not 'x'",
        "gone": "NotFoundError: NOT_FOUND: role id not found [TraceId: *]",
    },
}


#: What changes an object of each kind, in an order in which one fits the other: each option that has a mask.
CHANGES: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "projects": (
        "shop",
        [
            {"display_name": "Store"},
            {"history_retention": 172_800.0},
            {"enable_pg_native_login": True},
            {"default_min_cu": 0.5},
            {"default_max_cu": 4.0, "default_suspend_timeout": 600.0},
            {"default_no_suspension": True},
            {"default_suspend_timeout": 60.0},
            {"default_pg_settings": {"work_mem": "8MB", "jit": "off"}},
            {"budget_policy_id": "b-1"},
            {"custom_tags": [{"key": "team", "value": "shop"}, {"key": "a", "value": "b"}]},
            {"custom_tags": []},
            {"default_branch": "projects/shop/branches/production"},
        ],
    ),
    "branches": (
        "ci-1",
        [
            {"no_expiry": True},
            {"is_protected": True, "no_expiry": True},
            {"is_protected": False, "expire_time": datetime.now(timezone.utc) + timedelta(days=2)},
            {"no_expiry": True},
            {"ttl": 7200},
        ],
    ),
    "endpoints": (
        PRIMARY,
        [
            {"max_cu": 4.0},
            {"min_cu": 2.0, "suspend_timeout": 600.0},
            {"no_suspension": True},
            {"group_min": 2, "group_max": 2},
            {"group_min": 1, "group_max": 1},
            {"readable_secondaries": True},
            {"readable_secondaries": False},
            {"pg_settings": {"work_mem": "8MB"}},
            {"disabled": True},
            {"disabled": False},
        ],
    ),
    "roles": (
        "app-role",
        [
            *({name: value} for name in ("createdb", "createrole", "bypassrls") for value in (True, False)),
            {"membership_roles": ["DATABRICKS_SUPERUSER"]},
            {"membership_roles": []},
        ],
    ),
    "databases": ("app-db", [{"role": "heir-role"}, {"postgres_database": "renamed", "role": "app-role"}]),
}
#: What `ensure` needs of an object that is there, or does not change.
REQUIRED: dict[str, dict[str, Any]] = {
    "endpoints": {"endpoint_type": "READ_WRITE"},
    "roles": {"postgres_role": "app_role"},
}


@pytest.mark.parametrize("verb", ["update", "ensure"])
@pytest.mark.parametrize("way", WAYS)
def test_each_option_that_can_be_changed_is(lake: LocalLakebase, way: str, verb: str) -> None:
    with client_by(way, lake) as client:
        workspace = client.workspace
        workspace.projects.create("shop")
        workspace.branches.create("ci-1", ttl=3600)
        workspace.roles.create("app-role", postgres_role="app_role")
        workspace.roles.create("heir-role", postgres_role="heir_role")
        workspace.databases.create("app-db", postgres_database="app_db", role="app-role")
        for kind, (name, all_changes) in CHANGES.items():
            objects: Any = getattr(workspace, kind)
            changeable = {option for option, one in objects.options.items() if one.mask}
            assert {option for changes in all_changes for option in changes} == changeable
            for changes in all_changes:
                # Only `update` renames a database, and only it takes another default branch.
                renames = not {"postgres_database", "default_branch"}.isdisjoint(changes)
                if verb == "update" or renames:
                    objects.update(name, **changes)
                else:
                    lake.admin.reset_counters()
                    objects.ensure(name, **REQUIRED.get(kind, {}), **changes)
                    # The second time nothing differs.
                    objects.ensure(name, **REQUIRED.get(kind, {}), **changes)
                    sent = [one.method for one in lake.admin.requests() if one.method == "PATCH"]
                    assert sent == ["PATCH"], changes
                assert objects._differences(objects.get(name), changes) == {}, changes
        workspace.databases.delete("app-db")
        for role in ("app-role", "heir-role"):
            workspace.roles.delete(role)


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
