from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

import pyarrow as pa
import pytest
import requests
from databricks.sdk import WorkspaceClient
from databricks.sdk.config import Config
from databricks.sdk.errors import BadRequest, InvalidParameterValue, NotFound, Unauthenticated
from databricks.sdk.service.catalog import DataSourceFormat, TableOperation
from databricks.sdk.service.postgres import EndpointStatusState, Role, RoleIdentityType, RoleRoleSpec
from deltalake import write_deltalake
from google.protobuf.duration_pb2 import Duration  # type: ignore[import-untyped]

from lakebase_provider.local.contract.options import ENDPOINT_NAME

from .conftest import Lake

BRANCH = "projects/local/branches/production"


@pytest.fixture
def pat_workspace(lake: Lake) -> WorkspaceClient:
    return WorkspaceClient(host=lake.url, token=lake.server.pat, auth_type="pat")


def test_me_is_the_name_of_the_postgres_role(lake: Lake, pat_workspace: WorkspaceClient) -> None:
    assert lake.workspace.current_user.me().user_name == lake.server.client_id
    assert pat_workspace.current_user.me().user_name == "developer@example.com"


def test_a_delta_table_of_the_unity_catalog_and_what_reads_it(lake: Lake) -> None:
    name = "main.src.of_the_sdk"
    write_deltalake(lake.server.table_path(name), pa.table({"id": [1]}))
    table = lake.workspace.tables.get(name)
    assert (table.full_name, table.data_source_format) == (name, DataSourceFormat.DELTA)
    assert table.storage_location == lake.server.table_path(name).as_uri()
    lend = lake.workspace.temporary_table_credentials.generate_temporary_table_credentials
    lent = lend(table_id=table.table_id, operation=TableOperation.READ)
    assert lent.url == table.storage_location
    assert lent.expiration_time is not None
    assert lent.expiration_time / 1000 == pytest.approx(time.time() + 3600, abs=30)
    with pytest.raises(NotFound, match="does not exist"):
        lake.workspace.tables.get("main.src.nowhere")
    with pytest.raises(NotFound, match="does not exist"):
        lend(table_id="another", operation=TableOperation.READ)
    with pytest.raises(InvalidParameterValue, match="must be READ"):
        lend(table_id=table.table_id, operation=TableOperation.READ_WRITE)


def test_service_principal_mints_a_token_that_opens_the_database(lake: Lake) -> None:
    credential = lake.workspace.postgres.generate_database_credential(ENDPOINT_NAME)
    assert credential.token is not None
    assert credential.expire_time is not None
    assert len(credential.token) > 900
    assert credential.expire_time.seconds == pytest.approx(time.time() + 3600, abs=30)
    with lake.connect(credential.token) as connection:
        row = connection.execute("SELECT current_user, current_database()").fetchone()
    assert row == (lake.server.client_id, "databricks_postgres")


def test_user_mints_with_a_personal_access_token(lake: Lake, pat_workspace: WorkspaceClient) -> None:
    with lake.connect(lake.mint(pat_workspace), user=lake.server.developer) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("developer@example.com",)


def test_ttl_and_expire_time_are_honoured(lake: Lake) -> None:
    short = lake.workspace.postgres.generate_database_credential(ENDPOINT_NAME, ttl=Duration(seconds=300))
    assert short.expire_time is not None
    assert short.expire_time.seconds == pytest.approx(time.time() + 300, abs=30)
    until = datetime.now(timezone.utc) + timedelta(minutes=20)
    answer = lake.workspace.api_client.do(
        "POST",
        "/api/2.0/postgres/credentials",
        body={"endpoint": ENDPOINT_NAME, "expire_time": until.isoformat().replace("+00:00", "Z")},
    )
    assert isinstance(answer, dict)
    found = datetime.fromisoformat(answer["expire_time"].replace("Z", "+00:00"))
    assert abs((found - until).total_seconds()) < 2


@pytest.mark.parametrize("ttl", ["60s", "7200s", "soon"])
def test_ttl_out_of_range_is_refused(lake: Lake, ttl: str) -> None:
    with pytest.raises(InvalidParameterValue):
        lake.workspace.api_client.do(
            "POST", "/api/2.0/postgres/credentials", body={"endpoint": ENDPOINT_NAME, "ttl": ttl}
        )


def test_credential_without_endpoint_or_for_a_missing_one(lake: Lake) -> None:
    with pytest.raises(InvalidParameterValue, match="Field 'endpoint' is required"):
        lake.workspace.api_client.do("POST", "/api/2.0/postgres/credentials", body={})
    for name, missing in (
        ("projects/no/branches/production/endpoints/primary", "project id not found"),
        ("projects/local/branches/no/endpoints/primary", "branch id not found"),
        (f"{BRANCH}/endpoints/no", "endpoint id not found"),
        ("no", "endpoint id not found"),
    ):
        with pytest.raises(NotFound, match=missing):
            lake.workspace.postgres.generate_database_credential(name)


def test_wrong_secret_is_an_invalid_client(lake: Lake) -> None:
    wrong = WorkspaceClient(host=lake.url, client_id=lake.server.client_id, client_secret="wrong")
    with pytest.raises(ValueError, match="invalid_client"):
        wrong.current_user.me()


def test_wrong_or_missing_bearer_is_unauthenticated(lake: Lake) -> None:
    with pytest.raises(Unauthenticated):
        WorkspaceClient(host=lake.url, token="dapiwrong", auth_type="pat").current_user.me()
    answer = requests.get(f"{lake.url}/api/2.0/preview/scim/v2/Me", timeout=10)
    assert answer.status_code == 401
    assert answer.json()["error_code"] == "UNAUTHENTICATED"


def test_workspace_token_by_form_for_clients_without_basic_auth(lake: Lake) -> None:
    metadata = requests.get(f"{lake.url}/oidc/.well-known/oauth-authorization-server", timeout=10).json()
    form = {
        "grant_type": "client_credentials",
        "client_id": lake.server.client_id,
        "client_secret": lake.server.client_secret,
    }
    answer = requests.post(metadata["token_endpoint"], data=form, timeout=10).json()
    assert answer["token_type"] == "Bearer"
    assert answer["expires_in"] == 3600
    bad = requests.post(metadata["token_endpoint"], data=form | {"grant_type": "password"}, timeout=10)
    assert (bad.status_code, bad.json()["error"]) == (400, "unsupported_grant_type")


def test_walk_from_projects_to_the_database(lake: Lake) -> None:
    postgres = lake.workspace.postgres
    [project] = postgres.list_projects()
    assert project.name is not None
    assert postgres.get_project(project.name).status is not None
    [branch] = postgres.list_branches(project.name)
    assert branch.status is not None
    assert branch.status.default
    assert postgres.get_branch(BRANCH) == branch
    [endpoint] = postgres.list_endpoints(BRANCH)
    assert endpoint == postgres.get_endpoint(ENDPOINT_NAME)
    assert endpoint.status is not None
    assert endpoint.status.hosts is not None
    assert endpoint.status.hosts.host == lake.server.host
    assert endpoint.status.current_state is EndpointStatusState.ACTIVE
    databases = [d.status.postgres_database for d in postgres.list_databases(BRANCH) if d.status]
    assert "databricks_postgres" in databases
    assert postgres.get_database(f"{BRANCH}/databases/databricks-postgres").status is not None


@pytest.mark.parametrize(
    "path", ["projects/no", "projects/local/branches/no", f"{BRANCH}/endpoints/no", f"{BRANCH}/roles/no"]
)
def test_missing_resources_are_404(lake: Lake, path: str) -> None:
    with pytest.raises(NotFound, match=r"not found \[TraceId: "):
        lake.workspace.api_client.do("GET", f"/api/2.0/postgres/{path}")


def test_unknown_routes_are_404_in_the_control_planes_shape(lake: Lake) -> None:
    with pytest.raises(NotFound, match=r"No API found for 'GET /api/2\.0/nothing'"):
        lake.workspace.api_client.do("GET", "/api/2.0/nothing")


def test_roles_are_created_listed_and_paged(lake: Lake) -> None:
    name = lake.admin.add_principal(create_role=False).name
    spec = RoleRoleSpec(postgres_role=name, identity_type=RoleIdentityType.SERVICE_PRINCIPAL)
    role = lake.workspace.postgres.create_role(BRANCH, Role(spec=spec)).wait()
    assert role.status is not None
    assert role.status.identity_type is RoleIdentityType.SERVICE_PRINCIPAL
    assert role.name is not None
    assert lake.workspace.postgres.get_role(role.name).status == role.status
    with pytest.raises(BadRequest, match="role with that name already exists"):
        lake.workspace.postgres.create_role(BRANCH, Role(spec=spec))
    everything = [r.name for r in lake.workspace.postgres.list_roles(BRANCH)]
    paged = [r.name for r in lake.workspace.postgres.list_roles(BRANCH, page_size=1)]
    assert paged == everything
    assert len(paged) >= 3


def test_provisioned_instance(lake: Lake) -> None:
    [instance] = lake.workspace.database.list_database_instances()
    assert instance.name == "local"
    assert lake.workspace.database.get_database_instance("local").read_write_dns == lake.server.host
    credential = lake.workspace.database.generate_database_credential(instance_names=["local"])
    assert isinstance(credential.expiration_time, str)
    lake.connect(credential.token).close()
    with pytest.raises(NotFound):
        lake.workspace.database.get_database_instance("no")
    with pytest.raises(NotFound):
        lake.workspace.database.generate_database_credential(instance_names=["no"])


def test_scripted_faults(lake: Lake) -> None:
    path = "/api/2.0/postgres/credentials"
    lake.admin.fault("POST", path, status=429, retry_after=0, times=2, error_code="RESOURCE_EXHAUSTED")
    assert lake.mint(), "the SDK retries 429"
    statuses = [request.status for request in lake.admin.requests() if request.path == path]
    assert statuses == [429, 429, 200]
    lake.admin.fault("*", "/api/2.0/postgres/*", status=400, error_code="BAD_REQUEST", message="no way")
    with pytest.raises(BadRequest, match="no way"):
        lake.mint()
    lake.admin.clear_faults()
    assert lake.mint()


def test_a_fault_of_the_sign_in_speaks_oauth(lake: Lake) -> None:
    lake.admin.fault("POST", "/oidc/v1/token", status=500, error_code="server_error", message="down")
    with pytest.raises(ValueError, match="server_error: down"):
        lake.mint()


def test_a_hanging_mint_times_out_and_ends_with_the_fault(lake: Lake) -> None:
    lake.mint()
    lake.admin.fault("POST", "/api/2.0/postgres/credentials", hang=600)
    hasty = WorkspaceClient(
        config=Config(
            host=lake.url,
            token=lake.server.pat,
            auth_type="pat",
            http_timeout_seconds=1,
            retry_timeout_seconds=1,
        )
    )
    with pytest.raises(TimeoutError):
        lake.mint(hasty)
    lake.admin.clear_faults()
    assert lake.mint()


def test_counters_and_request_log(lake: Lake) -> None:
    lake.connect(lake.mint()).close()
    lake.refusal("garbage")
    counters = lake.admin.counters()
    assert (counters.workspace_tokens, counters.mints) == (1, 1)
    assert (counters.logins, counters.refused_logins) == (1, 1)
    last = lake.admin.requests()[-1]
    assert (last.method, last.path, last.status) == ("POST", "/api/2.0/postgres/credentials", 200)
    assert "databricks-sdk-py/" in last.user_agent
    assert 0 <= last.seconds < 10
    lake.admin.reset_counters()
    assert lake.admin.counters().logins == 0
    assert lake.admin.requests() == []


def test_clock_skew_shows_in_the_expiry(lake: Lake) -> None:
    lake.admin.set_clock_skew(-7200)
    expiry = lake.workspace.postgres.generate_database_credential(ENDPOINT_NAME).expire_time
    assert expiry is not None
    assert expiry.seconds == pytest.approx(time.time() - 3600, abs=30)


def test_admin_api_needs_its_key(lake: Lake) -> None:
    answer = requests.post(f"{lake.url}/_local/expire_tokens", json={}, timeout=10)
    assert answer.status_code == 403
    lake.connect(lake.mint()).close()
