"""Long operations: they take time, run one at a time, fail, never end, and lose their answers."""

from __future__ import annotations

import concurrent.futures
import re

import pytest
from databricks.sdk.errors import AlreadyExists, BadRequest, DatabricksError, NotFound
from databricks.sdk.service.postgres import BranchStatusState, Database, DatabaseDatabaseSpec, Project

from tests.eventually import eventually

from .conftest import PRODUCTION, PROJECT, SOON, Plane


def state(plane: Plane, branch_id: str) -> tuple[object, object]:
    status = plane.api.get_branch(f"{PROJECT}/branches/{branch_id}").status
    assert status is not None
    return status.current_state, status.pending_state


def test_an_operation_takes_the_time_that_is_set_by_the_workspaces_clock(plane: Plane) -> None:
    plane.admin.set(operation_seconds=30)
    operation = plane.begin_branch("slow")
    with pytest.raises(TimeoutError):
        operation.wait(SOON)
    assert state(plane, "slow") == (BranchStatusState.INIT, BranchStatusState.READY)
    endpoint = plane.api.get_endpoint(f"{PROJECT}/branches/slow/endpoints/primary").status
    assert endpoint is not None
    assert endpoint.hosts is None, "it is nowhere yet"
    plane.admin.advance(30)
    assert operation.done()
    assert operation.wait().status.current_state is BranchStatusState.READY
    assert state(plane, "slow") == (BranchStatusState.READY, None)


def test_an_operation_is_first_answered_as_not_done(plane: Plane) -> None:
    body = {"spec": {"no_expiry": True}}
    answer = plane.send("POST", f"{PROJECT}/branches", body, branch_id="shape")
    name = answer["name"]
    kind = "type.googleapis.com/databricks.postgres.v1.BranchOperationMetadata"
    assert answer == {"name": name, "done": False, "metadata": {"@type": kind}}
    assert re.fullmatch(rf"{PROJECT}/branches/shape/operations/[A-Za-z0-9+/=]+", name)
    done = plane.send("GET", name)
    assert (done["done"], done["response"]["name"]) == (True, f"{PROJECT}/branches/shape")
    assert "spec" not in done["response"]
    name = plane.send("DELETE", f"{PROJECT}/branches/shape", purge="true")["name"]
    empty = {"@type": "type.googleapis.com/google.protobuf.Empty"}
    assert plane.send("GET", name) == {
        "name": name,
        "done": True,
        "metadata": {"@type": kind},
        "response": empty,
    }


def test_while_one_operation_runs_others_on_the_project_are_refused(plane: Plane) -> None:
    plane.admin.set(operation_seconds=10)
    operation = plane.begin_branch("first")
    for call in (
        lambda: plane.begin_branch("second"),
        lambda: plane.change(PRODUCTION, "spec.is_protected", is_protected=True),
        lambda: plane.replica(),
    ):
        with pytest.raises(
            DatabricksError, match="Another operation on the project is still running"
        ) as refused:
            call()
        assert not isinstance(refused.value, AlreadyExists)
        assert refused.value.error_code == "RESOURCE_CONFLICT"
    plane.admin.advance(10)
    assert operation.done()
    plane.admin.set(operation_seconds=0)
    plane.branch("second")
    assert plane.names() == ["production", "first", "second"]


def test_other_projects_are_not_busy(plane: Plane) -> None:
    plane.api.create_project(Project(), "elsewhere").wait()
    plane.admin.operation_fault("branch", never_ends=True)
    plane.begin_branch("stuck")
    plane.api.delete_project("projects/elsewhere", purge=True).wait()


@pytest.mark.parametrize("lands", [False, True])
def test_an_operation_fails_with_or_without_having_done_its_work(plane: Plane, lands: bool) -> None:
    plane.admin.operation_fault("branch", error_code="ABORTED", message="no luck", lands=lands)
    with pytest.raises(Exception, match=r"operation failed: \[.*ABORTED\] no luck"):
        plane.branch("unlucky")
    assert ("unlucky" in plane.names()) is lands
    if not lands:
        plane.branch("unlucky")


def test_a_failed_deletion_leaves_everything_as_it_was(plane: Plane) -> None:
    branch = plane.branch("survivor")
    assert branch.name is not None
    plane.admin.operation_fault("branch")
    with pytest.raises(Exception, match="INTERNAL_ERROR"):
        plane.api.delete_branch(branch.name).wait()
    assert state(plane, "survivor") == (BranchStatusState.READY, None)
    plane.api.delete_branch(branch.name, purge=True).wait()


def test_an_operation_that_never_ends_blocks_its_project_until_the_faults_are_cleared(plane: Plane) -> None:
    plane.admin.operation_fault(never_ends=True)
    operation = plane.begin_branch("stuck")
    plane.admin.advance(86_400)
    assert not operation.done()
    with pytest.raises(DatabricksError, match="Another operation"):
        plane.begin_branch("second")
    plane.admin.clear_faults()
    operation.wait()
    plane.branch("second")


def test_what_postgres_refuses_fails_the_operation(plane: Plane) -> None:
    roles = [role.name for role in plane.api.list_roles(PRODUCTION)]
    spec = DatabaseDatabaseSpec(postgres_database="owned", role=str(roles[-1]))
    database = plane.api.create_database(PRODUCTION, Database(spec=spec), database_id="owned").wait()
    assert database.status is not None
    assert database.name is not None
    try:
        with pytest.raises(Exception, match=r"\[.*BAD_REQUEST\].* cannot be dropped because some objects"):
            plane.api.delete_role(str(database.status.role)).wait()
    finally:
        plane.api.delete_database(database.name).wait()


def test_the_answer_of_a_create_can_be_lost(plane: Plane) -> None:
    path = f"/api/2.0/postgres/{PROJECT}/branches"
    plane.admin.fault("POST", path, status=500, error_code="INTERNAL_ERROR", lost=True, times=1)
    with pytest.raises(DatabricksError, match="scripted fault"):
        plane.branch("landed")
    assert state(plane, "landed") == (BranchStatusState.READY, None)
    with pytest.raises(AlreadyExists):
        plane.branch("landed")


def test_an_unknown_operation_is_not_found(plane: Plane) -> None:
    with pytest.raises(NotFound, match="operation id not found"):
        plane.api.get_operation(f"{PROJECT}/operations/a/b==")


def test_an_endpoint_may_still_be_changing_when_its_operation_is_done(plane: Plane) -> None:
    plane.admin.set(pending_seconds=60)
    endpoint = plane.replica()
    assert endpoint.name is not None
    assert endpoint.status is not None
    assert endpoint.status.pending_state is not None
    with pytest.raises(DatabricksError, match="reconciliation"):
        plane.api.delete_endpoint(endpoint.name)
    plane.admin.advance(60)
    assert plane.send("GET", endpoint.name)["status"].get("pending_state") is None
    plane.api.delete_endpoint(endpoint.name).wait()


def test_of_many_creations_of_one_id_one_succeeds(plane: Plane) -> None:
    def create(_: int) -> bool:
        try:
            plane.begin_branch("wanted").wait()
        except DatabricksError:
            return False
        return True

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(create, range(6))) == 1


def test_a_resource_may_be_called_operations(plane: Plane) -> None:
    branch = plane.branch("operations")
    assert branch.name is not None
    [endpoint] = plane.api.list_endpoints(branch.name)
    assert plane.api.get_endpoint(str(endpoint.name)).uid == endpoint.uid


def test_an_operation_whose_end_cannot_be_shown_fails_and_leaves_the_project_free(plane: Plane) -> None:
    plane.admin.set(operation_seconds=10)
    body = {"spec": {"postgres_role": "vanished"}}
    name = plane.send("POST", f"{PRODUCTION}/roles", body, role_id="vanished")["name"]
    exists = "SELECT 1 FROM pg_roles WHERE rolname = 'vanished'"
    eventually(lambda: bool(plane.admin.execute(exists)))
    plane.admin.execute("DROP ROLE vanished")
    plane.admin.advance(10)
    done = plane.send("GET", name)
    assert (done["done"], done["error"]["error_code"]) == (True, "NOT_FOUND")
    plane.admin.set(operation_seconds=0)
    assert plane.send("POST", f"{PRODUCTION}/roles", body, role_id="vanished")["name"] != name
    plane.api.delete_role(f"{PRODUCTION}/roles/vanished").wait()


@pytest.mark.parametrize("name", ["x" * 64, "é" * 32])
def test_a_name_that_postgres_would_cut_is_refused_and_leaves_the_project_free(
    plane: Plane, name: str
) -> None:
    for kind, field in (("role", "postgres_role"), ("database", "postgres_database")):
        for _ in range(2):
            with pytest.raises(BadRequest, match=f"'spec.{field}' must have at most 63 bytes"):
                plane.send("POST", f"{PRODUCTION}/{kind}s", {"spec": {field: name}}, **{f"{kind}_id": "long"})
    made = plane.send("POST", f"{PRODUCTION}/roles", {"spec": {"postgres_role": name[:-1]}}, role_id="long")
    assert plane.send("GET", made["name"])["response"]["status"]["postgres_role"] == name[:-1]
    plane.api.delete_role(f"{PRODUCTION}/roles/long").wait()
