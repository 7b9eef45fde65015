"""What the control plane does, as sessions at the endpoints see it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from databricks.sdk.common.types.fieldmask import FieldMask
from databricks.sdk.service.postgres import (
    Branch,
    Endpoint,
    EndpointSpec,
    EndpointType,
    Project,
    ProjectSpec,
    Role,
    RoleRoleSpec,
)
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]

from tests.eventually import eventually

from .conftest import PRODUCTION, PROJECT, Plane, seconds

GONE = "endpoint cannot be found"


def host_of(plane: Plane, branch: Branch | str, endpoint_id: str = "primary") -> str:
    name = branch if isinstance(branch, str) else branch.name
    status = plane.api.get_endpoint(f"{name}/endpoints/{endpoint_id}").status
    assert status is not None
    assert status.hosts is not None
    return str(status.hosts.host)


def switch(plane: Plane, branch: Branch, *, disabled: bool) -> Any:
    body = Endpoint(spec=EndpointSpec(endpoint_type=EndpointType.ENDPOINT_TYPE_READ_WRITE, disabled=disabled))
    mask = FieldMask(field_mask=["spec.disabled"])
    return plane.api.update_endpoint(f"{branch.name}/endpoints/primary", body, mask).wait().status


def test_each_branch_has_an_address_of_its_own(plane: Plane) -> None:
    branch = plane.branch("side")
    host = host_of(plane, branch)
    assert host != host_of(plane, PRODUCTION)
    with plane.connect(host=host) as here, plane.connect() as there:
        here.execute("CREATE TABLE only_here (id int)")
        here.commit()
        [(found,)] = there.execute("SELECT to_regclass('only_here')")
    assert found is None


def test_logins_at_a_new_branch_are_refused_for_a_while(plane: Plane) -> None:
    plane.admin.set(auth_delay=60)
    host = host_of(plane, plane.branch("fresh"))
    assert "External authorization failed" in plane.refusal(host=host)
    plane.connect().close()
    plane.admin.advance(60)
    plane.connect(host=host).close()
    plane.admin.set(auth_refusal="role_missing")
    host = host_of(plane, plane.branch("fresher"))
    assert "password authentication failed" in plane.refusal(host=host)


def test_an_expired_branch_closes_its_sessions(plane: Plane) -> None:
    host = host_of(plane, plane.branch("brief", ttl=seconds(3000)))
    token = plane.mint()
    with plane.connect(token, host=host) as session:
        session.execute("SELECT 1")
        plane.admin.advance(3000)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    assert GONE in plane.refusal(token, host=host)


def test_a_deleted_branch_comes_back_with_its_data_and_its_host(plane: Plane) -> None:
    branch = plane.branch("kept")
    host = host_of(plane, branch)
    with plane.connect(host=host) as session:
        session.execute("CREATE TABLE kept AS SELECT 7 AS id")
    plane.api.delete_branch(str(branch.name)).wait()
    assert GONE in plane.refusal(host=host)
    plane.api.undelete_branch(str(branch.name)).wait()
    assert host_of(plane, branch) == host
    assert plane.api.get_endpoint(f"{branch.name}/endpoints/primary").status.current_state.value == "IDLE"  # type: ignore[union-attr]
    with plane.connect(host=host) as session:
        assert session.execute("SELECT id FROM kept").fetchall() == [(7,)]


def test_replacing_a_branch_keeps_its_data(plane: Plane) -> None:
    branch = plane.branch("dirty")
    with plane.connect(host=host_of(plane, branch)) as session:
        session.execute("CREATE TABLE dirt ()")
    again = plane.api.create_branch(PROJECT, Branch(), "dirty", replace_existing=True).wait()
    assert again.uid == branch.uid
    with plane.connect(host=host_of(plane, branch)) as session:
        assert session.execute("SELECT to_regclass('dirt') IS NOT NULL").fetchone() == (True,)


def test_a_disabled_endpoint_is_not_woken_by_a_login(plane: Plane) -> None:
    branch = plane.branch("off")
    host = host_of(plane, branch)
    with plane.connect(host=host) as session:
        assert switch(plane, branch, disabled=True).current_state.value == "IDLE"
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    assert "endpoint is disabled" in plane.refusal(host=host)
    assert not switch(plane, branch, disabled=False).disabled
    plane.connect(host=host).close()
    assert plane.api.get_endpoint(f"{branch.name}/endpoints/primary").status.current_state.value == "ACTIVE"  # type: ignore[union-attr]


def test_a_role_logs_in_with_its_password_on_its_branch_alone(plane: Plane) -> None:
    branch = plane.branch("app")
    role = Role(spec=RoleRoleSpec(postgres_role="app_login"))
    made = plane.api.create_role(str(branch.name), role, role_id="app-login").wait()
    password = plane.api.reveal_role_password(str(made.name)).password
    login = {"user": "app_login", "host": host_of(plane, branch)}
    plane.connect(password, **login).close()
    assert "password authentication failed" in plane.refusal("wrong", **login)
    assert "app_login" not in [r.status.postgres_role for r in plane.api.list_roles(PRODUCTION) if r.status]
    off = Project(spec=ProjectSpec(enable_pg_native_login=False))
    mask = FieldMask(field_mask=["spec.enable_pg_native_login"])
    plane.api.update_project(PROJECT, off, mask).wait()
    assert "native postgres login is disabled for this endpoint" in plane.refusal(password, **login)


def test_each_endpoint_has_a_pooler_of_its_own_which_takes_passwords_and_no_tokens(plane: Plane) -> None:
    role = Role(spec=RoleRoleSpec(postgres_role="app_login"))
    made = plane.api.create_role(PRODUCTION, role, role_id="app-login").wait()
    password = plane.api.reveal_role_password(str(made.name)).password
    one, other = plane.branch("one"), plane.branch("other")
    reader = plane.replica(str(one.name))
    hosts = [
        plane.send("GET", f"{branch.name}/endpoints/primary")["status"]["hosts"] for branch in (one, other)
    ]
    hosts.append(plane.send("GET", str(reader.name))["status"]["hosts"])
    assert "read_write_pooled_host" not in hosts[2]
    poolers = [
        hosts[0]["read_write_pooled_host"],
        hosts[1]["read_write_pooled_host"],
        hosts[2]["read_only_pooled_host"],
    ]
    assert len({*poolers, *(host["host"] for host in hosts)}) == 6
    with plane.connect(host=hosts[0]["host"], autocommit=True) as session:
        session.execute("CREATE TABLE only_here ()")
    found = []
    for pooler in poolers:
        assert "password authentication failed" in plane.refusal(host=pooler)
        with plane.connect(password, user="app_login", host=pooler) as session:
            row = session.execute(
                "SELECT pg_is_in_recovery(), to_regclass('only_here') IS NOT NULL"
            ).fetchone()
            assert row is not None
            found.append(row)
    assert found[:2] == [(False, True), (False, False)]
    assert found[2][0] is True
    plane.api.delete_endpoint(str(reader.name)).wait()
    plane.api.delete_branch(str(other.name), purge=True).wait()
    for pooler in poolers[1:]:
        assert GONE in plane.refusal(password, user="app_login", host=pooler)
    plane.api.delete_role(str(made.name)).wait()


def test_a_time_is_one_of_the_workspaces_clock(plane: Plane) -> None:
    plane.admin.advance(3600)
    parent = plane.branch("parent")
    with plane.connect(host=host_of(plane, parent)) as session:
        session.execute("CREATE TABLE moments AS SELECT 1 AS id")
        session.commit()
        # The workspace's clock is an hour ahead of the database's.
        row = session.execute("SELECT extract(epoch FROM clock_timestamp()) + 3600").fetchone()
        assert row is not None
        session.commit()
        session.execute("INSERT INTO moments VALUES (2)")
    plane.admin.advance(7200)
    moment = Timestamp()
    moment.FromMicroseconds(int(row[0] * 1_000_000))
    past = plane.branch("past", source_branch=parent.name, source_branch_time=moment)
    with plane.connect(host=host_of(plane, past)) as session:
        assert session.execute("SELECT id FROM moments").fetchall() == [(1,)]
    assert past.status is not None
    assert past.status.source_branch_time is not None
    assert abs(past.status.source_branch_time.seconds - moment.seconds) <= 1


def test_a_place_in_the_log_that_was_never_reached_fails_the_operation(plane: Plane) -> None:
    with pytest.raises(Exception, match=r"operation failed: \[.*INVALID_PARAMETER_VALUE\]"):
        plane.branch("future", source_branch_lsn="FF/0")
    assert plane.names() == ["production"]


def test_a_replica_reads_and_refuses_to_write(plane: Plane) -> None:
    branch = plane.branch("read")
    plane.replica(str(branch.name))
    with (
        plane.connect(host=host_of(plane, branch, "reader")) as session,
        pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
    ):
        session.execute("CREATE TABLE refused ()")
    plane.api.delete_endpoint(f"{branch.name}/endpoints/reader").wait()


def test_a_new_project_has_data_of_its_own(plane: Plane) -> None:
    plane.api.create_project(Project(), "shop").wait()
    with plane.connect(host=host_of(plane, "projects/shop/branches/production")) as session:
        row = session.execute("SELECT current_database(), current_user").fetchone()
    assert row == ("databricks_postgres", plane.server.client_id)


def test_an_endpoint_falls_asleep_when_nobody_uses_it(plane: Plane) -> None:
    branch = plane.branch("idle")
    host, name = host_of(plane, branch), f"{branch.name}/endpoints/primary"

    def state() -> str:
        return str(plane.api.get_endpoint(name).status.current_state.value)  # type: ignore[union-attr]

    with plane.connect(host=host) as session:
        plane.admin.advance(3600)
        assert state() == "ACTIVE"
        session.execute("SELECT 1")
    eventually(lambda: plane.admin.counters().open_connections == 0)
    plane.admin.advance(300)
    assert state() == "IDLE"
    wakes = plane.admin.counters().wakes
    plane.connect(host=host).close()
    assert (state(), plane.admin.counters().wakes) == ("ACTIVE", wakes + 1)
    first = plane.api.get_endpoint(f"{PRODUCTION}/endpoints/primary").status
    assert first is not None
    assert first.current_state is not None
    assert first.current_state.value == "ACTIVE", "that of a default branch is not"
