"""What a test can do to the endpoint, its branch, its certificate and its logins."""

from __future__ import annotations

import time

import psycopg
import pytest
from databricks.sdk.errors import NotFound
from databricks.sdk.service.postgres import EndpointStatus

from lakebase_provider.local import LocalLakebaseError
from lakebase_provider.local.contract.options import ENDPOINT_NAME

from .conftest import Lake

BRANCH = "projects/local/branches/production"
NOT_FOUND = "Control plane request failed: endpoint cannot be found"


def status(lake: Lake) -> EndpointStatus:
    found = lake.workspace.postgres.get_endpoint(ENDPOINT_NAME).status
    assert found is not None
    return found


def test_the_pooled_host_takes_passwords_and_no_tokens(lake: Lake) -> None:
    hosts = status(lake).hosts
    assert hosts is not None
    assert hosts.read_write_pooled_host == "localhost-pooler"
    where = {"host": hosts.read_write_pooled_host, "hostaddr": "127.0.0.1"}
    assert "password authentication failed" in lake.refusal(**where)
    lake.admin.set_native_password("reporter", "s3cret")
    lake.connect("s3cret", user="reporter", **where).close()


def test_a_new_endpoint_has_no_host_and_lets_nobody_in(lake: Lake) -> None:
    lake.admin.set_endpoint_state("INIT")
    assert status(lake).current_state is not None
    assert status(lake).current_state.value == "INIT"  # type: ignore[union-attr]
    assert status(lake).hosts is None
    message = lake.refusal()
    assert "External authorization failed" in message
    assert "This could be due to paused instances" in message
    lake.admin.set_endpoint_state("ACTIVE")
    lake.connect().close()


def test_a_disabled_endpoint_shows_in_the_api(lake: Lake) -> None:
    lake.admin.disable_endpoint()
    assert status(lake).disabled
    lake.admin.disable_endpoint(False)
    assert not status(lake).disabled


def test_unknown_words_are_refused_with_those_that_are_known(lake: Lake) -> None:
    for provoke, known in (
        (lambda: lake.admin.set_endpoint_state("SLEEPY"), "DEGRADED"),
        (lambda: lake.admin.set_branch_state("SLEEPY"), "ARCHIVED"),
        (lambda: lake.admin.set_wake_mode("slowly"), "starting"),
        (lambda: lake.admin.set_certificate("pretty"), "expired"),
        (lambda: lake.admin.login_fault("endpont_missing"), "endpoint_missing"),
        (lambda: lake.admin.move_endpoint("127.0.0.1", former_host_says="nothing"), "endpoint_missing"),
    ):
        with pytest.raises(ValueError, match=known):
            provoke()
    lake.connect().close()


def test_a_removed_endpoint_is_gone_everywhere_until_it_is_restored(lake: Lake) -> None:
    token = lake.mint()
    with lake.connect(token) as connection:
        lake.admin.remove_endpoint()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with pytest.raises(NotFound, match="endpoint id not found"):
        status(lake)
    with pytest.raises(NotFound, match="endpoint id not found"):
        lake.mint()
    with pytest.raises(NotFound):
        lake.workspace.database.get_database_instance("local")
    assert list(lake.workspace.postgres.list_endpoints(BRANCH)) == []
    assert NOT_FOUND in lake.refusal(token)
    lake.admin.restore_endpoint()
    lake.connect(token).close()


@pytest.mark.parametrize(("state", "missing"), [("ARCHIVED", "endpoint id"), ("DELETED", "branch id")])
def test_an_endpoint_of_a_branch_that_is_gone(lake: Lake, state: str, missing: str) -> None:
    token = lake.mint()
    lake.admin.set_branch_state(state)
    with pytest.raises(NotFound, match=f"{missing} not found"):
        status(lake)
    assert NOT_FOUND in lake.refusal(token)
    shown = [branch.name for branch in lake.workspace.postgres.list_branches("projects/local")]
    assert shown == ([BRANCH] if state == "ARCHIVED" else [])
    lake.admin.set_branch_state("READY")
    lake.connect(token).close()


def test_a_moved_endpoint_is_at_its_new_host_alone(lake: Lake) -> None:
    token = lake.mint()
    lake.admin.move_endpoint("127.0.0.1")
    hosts = status(lake).hosts
    assert hosts is not None
    assert hosts.host == "127.0.0.1"
    lake.connect(token, host="127.0.0.1").close()
    assert NOT_FOUND in lake.refusal(token, host="localhost")
    lake.admin.move_endpoint("localhost", former_host_says="starting")
    lake.connect(token, host="localhost").close()
    assert "starting up" in lake.refusal(token, host="127.0.0.1")


@pytest.mark.parametrize(
    ("mode", "text"), [("starting", "the database system is starting up"), ("paused", "paused instances")]
)
def test_a_wake_that_refuses_instead_of_holding(lake: Lake, mode: str, text: str) -> None:
    lake.admin.set_wake_mode(mode)
    lake.admin.set_wake_delay(60)
    lake.admin.suspend()
    token = lake.mint()
    for _ in range(2):
        assert text in lake.refusal(token)
    assert lake.admin.counters().wakes == 1
    pending = status(lake).pending_state
    assert pending is not None
    assert pending.value == "ACTIVE"


def test_a_reset_ends_a_wake_and_a_suspend_after_it_begins_a_new_one(lake: Lake) -> None:
    for _ in range(3):
        lake.admin.set_wake_delay(600)
        lake.admin.suspend()
        assert "timeout" in lake.refusal(connect_timeout=2)
        lake.admin.reset()
        lake.admin.suspend()
        lake.connect().close()
        assert lake.admin.counters().wakes == 1


def test_a_suspend_during_a_wake_takes_the_new_delay(lake: Lake) -> None:
    lake.admin.set_wake_mode("starting")
    lake.admin.set_wake_delay(600)
    lake.admin.suspend()
    assert "starting up" in lake.refusal()
    lake.admin.set_wake_mode("hold")
    lake.admin.set_wake_delay(0)
    lake.admin.suspend()
    lake.connect().close()


def test_login_faults_by_name_and_by_text_and_how_often(lake: Lake) -> None:
    token = lake.mint()
    lake.admin.login_fault("ip_acl", times=1)
    lake.admin.login_fault("Something else is wrong. DETAIL: Nobody knows what.", times=1)
    assert "is blocked by Databricks IP ACL for workspace" in lake.refusal(token)
    message = lake.refusal(token)
    assert "FATAL:  Something else is wrong." in message
    assert "DETAIL:  Nobody knows what." in message
    lake.connect(token).close()
    lake.admin.login_fault("endpoint_full")
    for _ in range(3):
        assert "Too many connections to this endpoint. Please try again later." in lake.refusal(token)
    lake.admin.clear_faults()
    lake.connect(token).close()
    assert lake.admin.counters().refused_logins == 5


def test_a_login_fault_before_the_password(lake: Lake) -> None:
    token = lake.mint()
    lake.admin.login_fault("endpoint_missing", before_password=True)
    connection = psycopg.pq.PGconn.connect(psycopg.conninfo.make_conninfo(**lake.parameters(token)).encode())
    assert connection.status == psycopg.pq.ConnStatus.BAD
    assert not connection.used_password
    connection.finish()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("expired", "certificate verify failed"),
        ("other_host", "does not match host name"),
        ("other_authority", "certificate verify failed"),
    ],
)
def test_certificates_that_prove_nothing(lake: Lake, kind: str, text: str) -> None:
    lake.admin.set_certificate(kind)
    assert text in lake.refusal()
    lake.admin.set_certificate("valid")
    lake.connect().close()


def test_a_crash_keeps_what_was_committed_and_nothing_else(lake: Lake) -> None:
    token = lake.mint()
    with lake.connect(token, autocommit=True) as connection:
        connection.execute("CREATE TABLE crashed (n int)")
        connection.execute("INSERT INTO crashed VALUES (1)")
        connection.execute("BEGIN; INSERT INTO crashed VALUES (2)")
        lake.admin.crash_postgres()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("COMMIT")
    assert lake.admin.execute("SELECT n FROM crashed") == [(1,)]
    with lake.connect(token, autocommit=True) as connection:
        connection.execute("DROP TABLE crashed")
    assert lake.admin.ping() == lake.server.pid


def test_logins_while_the_server_is_down_and_a_reset_that_ends_it(lake: Lake) -> None:
    token = lake.mint()
    lake.admin.crash_postgres(downtime=600)
    assert "the database system is shutting down" in lake.refusal(token)
    began = time.monotonic()
    lake.admin.reset()
    lake.connect(token).close()
    assert time.monotonic() - began < 30


def test_the_log_keeps_ttl_and_claims_but_no_secret(lake: Lake) -> None:
    body = {
        "endpoint": ENDPOINT_NAME,
        "ttl": "300s",
        "claims": [{"permission_set": "READ_ONLY", "resources": [{"table_name": "t"}]}],
    }
    lake.workspace.api_client.do("POST", "/api/2.0/postgres/credentials", body=body)
    requests = lake.admin.requests()
    assert requests[-1].body == body
    assert [request.body for request in requests if request.path.startswith("/oidc/")] != []
    assert lake.server.client_secret not in repr(requests)


def test_what_goes_wrong_in_the_server_is_said(lake: Lake) -> None:
    lake.admin.crash_postgres(downtime=600)
    # It wants to end sessions, and there is no Postgres to ask.
    with pytest.raises(LocalLakebaseError, match=r"failed to suspend \(HTTP 500\): LocalLakebaseError: "):
        lake.admin.suspend()
