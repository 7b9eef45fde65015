"""Every method of databricks-sdk's `w.postgres`: what it does, what it refuses, and how it says so.

Not here: synced tables and Lakehouse sync (`synced_tables.py`).
"""

import inspect
import os
import re
import uuid
from functools import partial

from databricks.sdk import WorkspaceClient
from databricks.sdk.common.types.fieldmask import FieldMask
from databricks.sdk.errors import AlreadyExists, BadRequest, InvalidParameterValue, NotFound
from databricks.sdk.service import postgres as api
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

#: By name, so that one more of their kind is missed.
ELSEWHERE = {
    *("create_synced_table", "get_synced_table", "delete_synced_table"),
    *("create_cdf_config", "get_cdf_config", "list_cdf_configs", "delete_cdf_config"),
    *("get_cdf_status", "list_cdf_statuses"),
}
PROJECT = f"p-{uuid.uuid4().hex[:8]}"
P = f"projects/{PROJECT}"
B = f"{P}/branches/production"
READ_WRITE, READ_ONLY = api.EndpointType.ENDPOINT_TYPE_READ_WRITE, api.EndpointType.ENDPOINT_TYPE_READ_ONLY


class Recorder:
    """The API, and which of its methods were called."""

    def __init__(self, real):
        self._real = real
        self.called = set()

    def __getattr__(self, name):
        self.called.add(name)
        return getattr(self._real, name)


workspace = WorkspaceClient()
w = Recorder(workspace.postgres)


def mask(*paths):
    return FieldMask(field_mask=list(paths))


def refused(kind, code, text, call, *args, **kwargs):
    """Check that a call is refused with this class (hence status), error code and text."""
    found = None
    try:
        call(*args, **kwargs)
    except kind as error:
        found = error
    assert found is not None, f"not refused: {text}"
    assert found.error_code == code, found
    assert re.search(text, str(found)), found
    return found


invalid = partial(refused, InvalidParameterValue, "INVALID_PARAMETER_VALUE")
exists = partial(refused, AlreadyExists, "ALREADY_EXISTS")
bad = partial(refused, BadRequest, "BAD_REQUEST")


def unknown_masks(update, name, body, *paths):
    for path in paths:
        invalid(re.escape(f"Unknown field path in update_mask: '{path}'"), update, name, body, mask(path))


def missing(what, call, *args, **kwargs):
    refused(NotFound, "NOT_FOUND", rf"{what} not found \[TraceId: .+\]", call, *args, **kwargs)


def managed(text, call, *args):
    error = bad(text, call, *args)
    assert error.get_error_details().error_info.metadata == {"declarative_context": "MANAGED_BY_PARENT"}


def paged(list_all, *args, **kwargs):
    """All names, the same in one page and in pages of one."""
    whole = [found.name for found in list_all(*args, **kwargs)]
    assert [found.name for found in list_all(*args, page_size=1, **kwargs)] == whole
    assert len(whole) > 1
    return whole


def projects():
    spec = api.ProjectSpec(display_name="Shop", custom_tags=[api.ProjectCustomTag("team", "shop")])
    first = api.InitialEndpointSpec(autoscaling_limit_min_cu=0.5, autoscaling_limit_max_cu=2)
    operation = w.create_project(api.Project(spec=spec, initial_endpoint_spec=first), PROJECT)
    assert operation.name().startswith(f"{P}/operations/")
    assert operation.metadata() is not None
    project = operation.wait()
    assert w.get_operation(operation.name()).done
    missing("operation id", w.get_operation, f"{P}/operations/none")
    assert (project.project_id, project.status.display_name) == (PROJECT, "Shop")
    assert (project.status.default_branch, project.spec) == (B, None)
    assert w.get_endpoint(f"{B}/endpoints/primary").status.autoscaling_limit_max_cu == 2
    assert P in paged(w.list_projects)
    exists("^project with such id already exists in the workspace", w.create_project, api.Project(), PROJECT)
    invalid(
        r"^Field 'project_id' is required, expected non-default value \(not \"\"\)!",
        w.create_project,
        api.Project(),
        "",
    )
    invalid(
        r"^Field project_id must match pattern \^\[a-z\].*, got 'Shop'\.",
        w.create_project,
        api.Project(),
        "Shop",
    )
    missing("project id", w.get_project, "projects/none")

    sizes = "spec.default_endpoint_settings"
    defaults = api.ProjectDefaultEndpointSettings
    for path, changed, seen in [
        ("display_name", {"display_name": "Store"}, lambda s: s.display_name == "Store"),
        ("budget_policy_id", {"budget_policy_id": "b-1"}, lambda s: s.budget_policy_id == "b-1"),
        (
            "custom_tags",
            {"custom_tags": [api.ProjectCustomTag("a", "b")]},
            lambda s: s.custom_tags[0].key == "a",
        ),
        ("default_branch", {"default_branch": B}, lambda s: s.default_branch == B),
        ("enable_pg_native_login", {"enable_pg_native_login": True}, lambda s: s.enable_pg_native_login),
        (
            "history_retention_duration",
            {"history_retention_duration": Duration(seconds=172_800)},
            lambda s: s.history_retention_duration.seconds == 172_800,
        ),
    ]:
        body = api.Project(spec=api.ProjectSpec(**changed))
        assert seen(w.update_project(P, body, mask(f"spec.{path}")).wait().status), path
    for path, changed, seen in [
        (
            "autoscaling_limit_min_cu",
            {"autoscaling_limit_min_cu": 0.5},
            lambda d: d.autoscaling_limit_min_cu == 0.5,
        ),
        (
            "autoscaling_limit_max_cu",
            {"autoscaling_limit_max_cu": 4},
            lambda d: d.autoscaling_limit_max_cu == 4,
        ),
        ("pg_settings", {"pg_settings": {"work_mem": "8MB"}}, lambda d: d.pg_settings == {"work_mem": "8MB"}),
        ("suspension", {"no_suspension": True}, lambda d: d.suspend_timeout_duration is None),
        (
            "suspension",
            {"suspend_timeout_duration": Duration(seconds=60)},
            lambda d: d.suspend_timeout_duration.seconds == 60,
        ),
    ]:
        body = api.Project(spec=api.ProjectSpec(default_endpoint_settings=defaults(**changed)))
        status = w.update_project(P, body, mask(f"{sizes}.{path}")).wait().status
        assert seen(status.default_endpoint_settings), path
    whole = defaults(suspend_timeout_duration=Duration(seconds=90), autoscaling_limit_max_cu=2)
    body = api.Project(spec=api.ProjectSpec(default_endpoint_settings=whole, display_name="ignored"))
    status = w.update_project(P, body, mask(sizes)).wait().status
    assert (status.default_endpoint_settings.autoscaling_limit_max_cu, status.display_name) == (2, "Store")
    body = api.Project(spec=api.ProjectSpec(display_name="Shop"))
    assert w.update_project(P, body, mask("spec")).wait().status.display_name == "Shop"
    for path in ("initial_branch_spec", "initial_endpoint_spec"):
        w.update_project(P, body, mask(path)).wait()
    unknown_masks(w.update_project, P, body, "spec.ttl", "display_name", "spec.pg_version")
    field = "spec.history_retention_duration"
    invalid(
        f"^Field '{field}' is in update_mask but not provided in request",
        w.update_project,
        P,
        body,
        mask(field),
    )
    unknown = mask(field, "spec.nothing")
    invalid("^Unknown field path in update_mask: 'spec.nothing'", w.update_project, P, body, unknown)
    body = api.Project(spec=api.ProjectSpec(default_endpoint_settings=defaults(autoscaling_limit_max_cu=2)))
    invalid(
        f"^Field '{sizes}.suspension' is in update_mask but not provided",
        w.update_project,
        P,
        body,
        mask(sizes),
    )


def branches():
    short = api.BranchSpec(ttl=Duration(seconds=3600))
    branch = w.create_branch(P, api.Branch(spec=short), "short").wait()
    status = branch.status
    assert (status.current_state, status.source_branch) == (api.BranchStatusState.READY, B)
    assert (status.default, status.is_protected, branch.parent) == (False, False, P)
    assert status.expire_time.seconds - branch.create_time.seconds == 3600
    assert status.source_branch_lsn
    assert status.source_branch_time
    assert w.get_branch(f"{P}/branches/short").uid == branch.uid
    endpoint = w.get_endpoint(f"{P}/branches/short/endpoints/primary")
    assert endpoint.status.endpoint_type is READ_WRITE
    assert endpoint.status.suspend_timeout_duration.seconds == 90, "the project's, not the parent's"
    keep = api.Branch(spec=api.BranchSpec(no_expiry=True))
    w.create_branch(P, keep, "keep").wait()
    assert paged(w.list_branches, P) == [B, f"{P}/branches/short", f"{P}/branches/keep"]

    exists("^branch with such id already exists", w.create_branch, P, keep, "keep")
    invalid("^Field 'branch_id' is required", w.create_branch, P, keep, "")
    invalid("^Field branch_id must match pattern", w.create_branch, P, keep, "Not_An_Id")
    invalid("^Expiration must be specified when creating a branch", w.create_branch, P, api.Branch(), "other")
    far = api.Branch(spec=api.BranchSpec(ttl=Duration(seconds=31 * 86_400)))
    invalid("^expiration time exceeds the maximum expiration time", w.create_branch, P, far, "other")
    foreign = api.Branch(
        spec=api.BranchSpec(no_expiry=True, source_branch="projects/local/branches/production")
    )
    invalid(
        "^source_branch field must point to the branch from the same Project",
        w.create_branch,
        P,
        foreign,
        "other",
    )
    foreign = api.Branch(spec=api.BranchSpec(no_expiry=True, source_snapshot="projects/local/snapshots/s"))
    invalid(
        "^source_snapshot field must point to a snapshot from the same Project",
        w.create_branch,
        P,
        foreign,
        "other",
    )
    child = api.Branch(spec=api.BranchSpec(no_expiry=True, source_branch=f"{P}/branches/short"))
    bad("^Branches with an expiration date cannot have child branches", w.create_branch, P, child, "other")
    missing("project id", w.create_branch, "projects/none", keep, "other")
    missing("branch id", w.get_branch, f"{P}/branches/none")
    missing("branch id", w.get_branch, f"{P}/branches/{branch.uid}")

    name = f"{P}/branches/keep"
    until = Timestamp(seconds=branch.create_time.seconds + 7200)
    body = api.Branch(spec=api.BranchSpec(expire_time=until))
    assert w.update_branch(name, body, mask("spec.expiration")).wait().status.expire_time == until
    body = api.Branch(spec=api.BranchSpec(no_expiry=True, is_protected=True))
    assert w.update_branch(name, body, mask("spec")).wait().status.expire_time is None
    bad("^cannot delete protected branch", w.delete_branch, name)
    body = api.Branch(spec=api.BranchSpec(is_protected=False))
    assert not w.update_branch(name, body, mask("spec.is_protected")).wait().status.is_protected
    unknown_masks(
        w.update_branch, name, body, "spec.ttl", "spec.no_expiry", "spec.expire_time", "spec.source_branch"
    )
    invalid(
        "^Field 'spec.expiration' is in update_mask but not",
        w.update_branch,
        name,
        body,
        mask("spec.expiration"),
    )

    replaced = w.create_branch(P, keep, "keep", replace_existing=True).wait()
    assert replaced.uid == w.get_branch(name).uid
    w.delete_branch(name).wait()
    missing("branch id", w.get_branch, name)
    assert name not in [found.name for found in w.list_branches(P)]
    deleted = next(found for found in w.list_branches(P, show_deleted=True) if found.name == name)
    assert deleted.status.current_state is api.BranchStatusState.DELETED
    assert deleted.status.purge_time.seconds - deleted.status.delete_time.seconds == 7 * 86_400
    w.undelete_branch(name).wait()
    again = w.get_branch(name)
    assert (again.uid, again.status.current_state) == (replaced.uid, api.BranchStatusState.READY)
    w.delete_branch(name, purge=True).wait()
    assert w.create_branch(P, keep, "keep").wait().uid != replaced.uid
    managed(
        f"^Cannot delete root branch '{B}'. Root branches cannot be deleted independently", w.delete_branch, B
    )


def endpoints():
    parent = f"{P}/branches/keep"
    replica = api.Endpoint(spec=api.EndpointSpec(endpoint_type=READ_ONLY))
    endpoint = w.create_endpoint(parent, replica, "reader").wait()
    hosts = endpoint.status.hosts
    assert (endpoint.status.endpoint_type, hosts.read_only_host) == (READ_ONLY, hosts.host)
    assert endpoint.status.group.enable_readable_secondaries
    assert paged(w.list_endpoints, parent) == [f"{parent}/endpoints/primary", f"{parent}/endpoints/reader"]
    exists("^endpoint with such id already exists", w.create_endpoint, parent, replica, "reader")
    second = api.Endpoint(spec=api.EndpointSpec(endpoint_type=READ_WRITE))
    exists("^read_write endpoint already exists", w.create_endpoint, parent, second, "second")
    invalid("^Field 'endpoint_id' is required", w.create_endpoint, parent, replica, "")
    missing("endpoint id", w.get_endpoint, f"{parent}/endpoints/none")
    missing("branch id", w.create_endpoint, f"{P}/branches/none", replica, "other")

    name = f"{parent}/endpoints/primary"
    group, idle = api.EndpointGroupSpec, api.EndpointStatusState.IDLE
    settings = api.EndpointSettings(pg_settings={"work_mem": "8MB"})
    for path, changed, seen in [
        (
            "autoscaling_limit_max_cu",
            {"autoscaling_limit_max_cu": 8},
            lambda s: s.autoscaling_limit_max_cu == 8,
        ),
        (
            "autoscaling_limit_min_cu",
            {"autoscaling_limit_min_cu": 1},
            lambda s: s.autoscaling_limit_min_cu == 1,
        ),
        ("suspension", {"no_suspension": True}, lambda s: s.suspend_timeout_duration is None),
        (
            "group",
            {"group": group(min=2, max=2, enable_readable_secondaries=True)},
            lambda s: s.group.max == 2,
        ),
        (
            "group.enable_readable_secondaries",
            {"group": group(min=2, max=2, enable_readable_secondaries=False)},
            lambda s: not s.group.enable_readable_secondaries,
        ),
        ("settings.pg_settings", {"settings": settings}, lambda s: s.settings == settings),
        ("disabled", {"disabled": True}, lambda s: s.disabled and s.current_state is idle),
        ("disabled", {"disabled": False}, lambda s: not s.disabled),
        (
            "group.min,spec.group.max",
            {"group": group(min=1, max=1)},
            lambda s: s.group.min == s.group.max == 1,
        ),
        (
            "suspension",
            {"suspend_timeout_duration": Duration(seconds=300)},
            lambda s: s.suspend_timeout_duration.seconds == 300,
        ),
    ]:
        body = api.Endpoint(spec=api.EndpointSpec(endpoint_type=READ_WRITE, **changed))
        assert seen(w.update_endpoint(name, body, mask(f"spec.{path}")).wait().status), path
    body = api.Endpoint(spec=api.EndpointSpec(endpoint_type=READ_WRITE, autoscaling_limit_max_cu=4))
    status = w.update_endpoint(name, body, mask("spec")).wait().status
    assert (status.autoscaling_limit_max_cu, status.autoscaling_limit_min_cu) == (4, 1)
    unknown_masks(
        w.update_endpoint, name, body, "spec.suspend_timeout_duration", "spec.endpoint_type", "spec.settings"
    )
    invalid(
        "^Field 'spec.suspension' is in update_mask but not",
        w.update_endpoint,
        name,
        body,
        mask("spec.suspension"),
    )

    replaced = w.create_endpoint(parent, replica, "reader", replace_existing=True).wait()
    assert replaced.uid == endpoint.uid
    managed(
        f"^Cannot delete read-write endpoint '{name}'. Read-write endpoints cannot be deleted.",
        w.delete_endpoint,
        name,
    )
    w.delete_endpoint(f"{parent}/endpoints/reader").wait()
    missing("endpoint id", w.get_endpoint, f"{parent}/endpoints/reader")

    credential = w.generate_database_credential(name, ttl=Duration(seconds=600))
    assert len(credential.token) > 900
    missing("endpoint id", w.generate_database_credential, f"{parent}/endpoints/none")


def roles():
    parent = f"{P}/branches/keep"
    attributes = api.RoleAttributes(createdb=True)
    spec = api.RoleRoleSpec(postgres_role="app_role", attributes=attributes)
    role = w.create_role(parent, api.Role(spec=spec), role_id="app-role").wait()
    assert (role.status.role_id, role.status.postgres_role) == ("app-role", "app_role")
    assert role.status.auth_method is api.RoleAuthMethod.PG_PASSWORD_SCRAM_SHA_256
    assert role.status.attributes.as_dict() == {"createdb": True, "createrole": False, "bypassrls": False}
    login = api.RoleRoleSpec(
        postgres_role=f"{uuid.uuid4()}", identity_type=api.RoleIdentityType.SERVICE_PRINCIPAL
    )
    made = w.create_role(parent, api.Role(spec=login)).wait()
    assert made.status.auth_method is api.RoleAuthMethod.LAKEBASE_OAUTH_V1
    assert {role.name, made.name} < {*paged(w.list_roles, parent)}
    bad("^role with that name already exists", w.create_role, parent, api.Role(spec=spec))
    text = "^Field 'role_id' must be 4-63 characters, start with a lowercase letter"
    invalid(text, w.create_role, parent, api.Role(spec=spec), role_id="0x")

    name = role.name
    assert w.reveal_role_password(name).password
    for attribute in ("createdb", "createrole", "bypassrls"):
        for value in (True, False):
            changed = api.RoleRoleSpec(
                postgres_role="app_role", attributes=api.RoleAttributes(**{attribute: value})
            )
            path = mask(f"spec.attributes.{attribute}")
            status = w.update_role(name, api.Role(spec=changed), path).wait().status
            assert getattr(status.attributes, attribute) is value
    superuser = [api.RoleMembershipRole.DATABRICKS_SUPERUSER]
    changed = api.Role(spec=api.RoleRoleSpec(membership_roles=superuser))
    assert (
        w.update_role(name, changed, mask("spec.membership_roles")).wait().status.membership_roles
        == superuser
    )
    none = api.RoleAttributes(createdb=False, createrole=False, bypassrls=False)
    changed = api.Role(spec=api.RoleRoleSpec(attributes=none, membership_roles=superuser))
    assert w.update_role(name, changed, mask("*")).wait().status.membership_roles == superuser
    changed = api.Role(spec=api.RoleRoleSpec(attributes=none))
    assert w.update_role(name, changed, mask("spec")).wait().status.membership_roles == superuser
    assert not w.update_role(name, changed, mask("*")).wait().status.membership_roles, "left out, hence none"
    for path in ("identity_type", "auth_method", "postgres_role"):
        invalid(f"spec.{path}", w.update_role, name, changed, mask(f"spec.{path}"))
    unknown_masks(w.update_role, name, changed, "spec.attributes")
    missing("role id", w.update_role, f"{parent}/roles/none", changed, mask("spec"))

    again = api.Role(spec=api.RoleRoleSpec(postgres_role="app_role", membership_roles=superuser))
    assert (
        w.create_role(parent, again, role_id="app-role", replace_existing=True).wait().status.membership_roles
    )
    w.delete_role(made.name).wait()
    missing("role id", w.get_role, made.name)
    refused(
        NotFound, "NOT_FOUND", 'role not found; role_id:"none"', w.delete_role, name, reassign_owned_to="none"
    )
    return name


def databases(owner):
    parent = f"{P}/branches/keep"
    spec = api.DatabaseDatabaseSpec(postgres_database="app_db", role=owner)
    database = w.create_database(parent, api.Database(spec=spec), database_id="app-db").wait()
    assert (database.status.database_id, database.status.postgres_database) == ("app-db", "app_db")
    assert database.status.role == owner
    assert database.name in paged(w.list_databases, parent)
    again = api.Database(spec=spec)
    text = "^database with that name already exists"
    bad(text, w.create_database, parent, again, database_id="other")
    text = re.escape(
        "Field database_id must match pattern ^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$, got 'Invalid_DB_ID'."
    )
    invalid(text, w.create_database, parent, again, database_id="Invalid_DB_ID")
    invalid("^Field 'database_id' is required", w.create_database, parent, again)
    ownerless = api.Database(spec=api.DatabaseDatabaseSpec(postgres_database="other", role=""))
    invalid(
        "^Field 'database.spec.role' is required", w.create_database, parent, ownerless, database_id="other"
    )
    strange = api.Database(
        spec=api.DatabaseDatabaseSpec(postgres_database="other", role=f"{parent}/roles/nobody")
    )
    text = 'role not found; role_id:"nobody"'
    refused(NotFound, "NOT_FOUND", text, w.create_database, parent, strange, database_id="other")

    name = database.name
    heir = (
        w.create_role(parent, api.Role(spec=api.RoleRoleSpec(postgres_role="heir")), role_id="heir-role")
        .wait()
        .name
    )
    for paths, changed, seen in [
        (["spec.postgres_database"], {"postgres_database": "renamed", "role": owner}, ("renamed", owner)),
        (["spec.role"], {"role": heir}, ("renamed", heir)),
        (["spec"], {"postgres_database": "app_db", "role": owner}, ("app_db", owner)),
    ]:
        body = api.Database(spec=api.DatabaseDatabaseSpec(**changed))
        status = w.update_database(name, body, mask(*paths)).wait().status
        assert (status.postgres_database, status.role) == seen
    unknown_masks(w.update_database, name, body, "spec.owner")
    body = api.Database(spec=api.DatabaseDatabaseSpec(role=heir))
    invalid(
        "^Field 'spec.postgres_database' is in", w.update_database, name, body, mask("spec.postgres_database")
    )
    replaced = w.create_database(parent, again, database_id="app-db", replace_existing=True).wait()
    assert w.get_database(name).status.role == replaced.status.role == owner
    w.delete_role(owner, reassign_owned_to=heir).wait()
    assert w.get_database(name).status.role == heir

    data_api(parent, name)

    catalog = f"c_{uuid.uuid4().hex[:8]}"
    spec = api.CatalogCatalogSpec(branch=parent, postgres_database="app_db")
    made = w.create_catalog(api.Catalog(spec=spec), catalog).wait()
    assert (made.status.branch, made.status.project) == (parent, P)
    text = "^catalog with such id already exists"
    exists(text, w.create_catalog, api.Catalog(spec=spec), catalog)
    invalid("^Field 'catalog_id' is required", w.create_catalog, api.Catalog(spec=spec), "")
    assert w.get_catalog(made.name).status == made.status
    w.delete_catalog(made.name).wait()
    missing("catalog id", w.get_catalog, made.name)

    w.delete_database(name).wait()
    missing("database id", w.get_database, name)


def data_api(branch, database):
    empty = api.DataApi()
    invalid(
        "^Field 'data_api' is required and must contain at least one subfield with a non-default value",
        w.create_data_api,
        database,
        empty,
    )
    spec = api.DataApiDataApiSpec(db_schemas=["public"], db_max_rows=100)
    made = w.create_data_api(database, api.DataApi(spec=spec)).wait()
    assert (made.name, made.parent, made.spec) == (f"{database}/data-api", database, None)
    assert (made.status.db_schemas, made.status.db_max_rows) == (["public"], 100)
    assert made.status.available_schemas == ["public"]
    host = w.get_endpoint(f"{branch}/endpoints/primary").status.hosts.host
    assert re.fullmatch(rf"https://{host}/api/2.0/workspace/\d+/rest/app_db", made.status.url)
    exists("^data API is already enabled", w.create_data_api, database, api.DataApi(spec=spec))
    missing("database id", w.create_data_api, f"{branch}/databases/none", api.DataApi(spec=spec))
    for changed, seen in [
        ({"db_schemas": ["public", "shop"]}, lambda s: s.db_schemas == ["public", "shop"]),
        ({"db_extra_search_path": ["shop"]}, lambda s: s.db_extra_search_path == ["shop"]),
        ({"db_max_rows": 10}, lambda s: s.db_max_rows == 10),
        ({"db_aggregates_enabled": False}, lambda s: s.db_aggregates_enabled is False),
        ({"jwt_role_claim_key": ".role"}, lambda s: s.jwt_role_claim_key == ".role"),
        (
            {"jwt_cache_max_lifetime": Duration(seconds=60)},
            lambda s: s.jwt_cache_max_lifetime.seconds == 60,
        ),
        ({"server_timing_enabled": True}, lambda s: s.server_timing_enabled),
        ({"server_cors_allowed_origins": ["*"]}, lambda s: s.server_cors_allowed_origins == ["*"]),
        # As after DDL, to have the schemas read anew.
        ({}, lambda s: s.db_max_rows == 10),
    ]:
        body = api.DataApi(spec=api.DataApiDataApiSpec(**changed))
        assert seen(w.update_data_api(made.name, body, mask("spec")).wait().status), changed
    unknown_masks(w.update_data_api, made.name, body, "spec.db_max_rows", "spec.nothing")
    assert w.get_data_api(made.name).status.db_schemas == ["public", "shop"]
    w.delete_data_api(made.name).wait()
    missing("data api", w.get_data_api, made.name)
    w.create_data_api(database, api.DataApi(spec=spec)).wait()


def snapshots():
    forever = api.Snapshot(spec=api.SnapshotSpec(source_branch=B, no_expiry=True))
    snapshot = w.create_snapshot(P, forever, "first").wait()
    assert snapshot.status.no_expiry
    assert snapshot.status.full_size_bytes > 0
    short = api.Snapshot(spec=api.SnapshotSpec(source_branch=B, ttl=Duration(seconds=3600)))
    second = w.create_snapshot(P, short, "second").wait()
    assert second.status.expire_time.seconds - second.create_time.seconds == 3600
    assert paged(w.list_snapshots, P) == [snapshot.name, second.name]
    invalid("^Field 'snapshot_id' is required", w.create_snapshot, P, forever, "")
    restored = api.Branch(spec=api.BranchSpec(source_snapshot=snapshot.name, no_expiry=True))
    status = w.create_branch(P, restored, "restored").wait().status
    assert (status.source_snapshot, status.source_branch) == (snapshot.name, None)
    w.delete_branch(f"{P}/branches/restored", purge=True).wait()
    w.delete_snapshot(second.name).wait()
    missing("snapshot id", w.get_snapshot, second.name)

    name = f"{B}/snapshot-schedule"
    assert not w.get_snapshot_schedule(name).schedule
    week = Duration(seconds=604_800)
    daily = api.ScheduleCadence(retention=week, daily_schedule=api.DailySchedule(hour=3))
    weekly = api.ScheduleCadence(
        retention=week, weekly_schedule=api.WeeklySchedule(day_of_week=api.DayOfWeek.MONDAY, hour=3)
    )
    monthly = api.ScheduleCadence(retention=week, monthly_schedule=api.MonthlySchedule(day=1, hour=3))
    body = api.SnapshotSchedule(schedule=[daily, weekly, monthly])
    assert w.update_snapshot_schedule(name, body, mask("schedule")).wait().schedule == body.schedule
    unknown_masks(w.update_snapshot_schedule, name, body, "spec.schedule")
    # The dataclass drops an empty list.
    emptied = {"schedule": []}
    workspace.api_client.do(
        "PATCH", f"/api/2.0/postgres/{name}", query={"update_mask": "schedule"}, body=emptied
    )
    assert not w.get_snapshot_schedule(name).schedule


def the_end():
    w.delete_project(P).wait()
    missing("project id", w.get_project, P)
    missing("project id", w.list_branches(P).__next__)
    assert P in [found.name for found in w.list_projects(show_deleted=True)]
    w.undelete_project(P).wait()
    w.get_branch(B)
    w.delete_project(P, purge=True).wait()
    assert P not in [found.name for found in w.list_projects(show_deleted=True)]


projects()
branches()
endpoints()
databases(roles())
snapshots()
the_end()
offered = {
    name for name, _ in inspect.getmembers(api.PostgresAPI, inspect.isfunction) if not name.startswith("_")
}
assert offered - w.called == ELSEWHERE, "each method is called here"
print(os.environ["PGUSER"])
