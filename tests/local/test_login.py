from __future__ import annotations

import psycopg
import pytest

from tests.eventually import eventually

from .conftest import Lake

WRONG_PASSWORD = "password authentication failed for user '{}'"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_verify_full_by_every_name(lake: Lake, host: str) -> None:
    with lake.connect(host=host) as connection:
        assert connection.pgconn.ssl_in_use


def test_direct_tls(lake: Lake) -> None:
    lake.connect(sslnegotiation="direct").close()


def test_newer_protocol_is_negotiated_down(lake: Lake) -> None:
    lake.connect(max_protocol_version="latest").close()


def test_certificate_of_somebody_else_is_refused_by_the_client(lake: Lake) -> None:
    import certifi

    assert "certificate verify failed" in lake.refusal(sslrootcert=certifi.where())


def test_plaintext_is_refused(lake: Lake) -> None:
    assert "connection is insecure (try using sslmode=require)" in lake.refusal(sslmode="disable")


@pytest.mark.parametrize("kind", ["garbage", "personal access token", "workspace token", "empty"])
def test_what_is_no_jwt_is_refused(lake: Lake, kind: str) -> None:
    passwords = {
        "garbage": "garbage",
        "personal access token": lake.server.pat,
        "workspace token": lake.workspace.config.authenticate()["Authorization"].removeprefix("Bearer "),
        "empty": " ",
    }
    assert "Provided authentication token is not a valid JWT encoding" in lake.refusal(passwords[kind])


def test_tampered_token_is_refused(lake: Lake) -> None:
    head, body, signature = lake.mint().split(".")
    forged = f"{head}.{body}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"
    assert WRONG_PASSWORD.format(lake.server.client_id) in lake.refusal(forged)


def test_token_of_another_principal_is_refused(lake: Lake) -> None:
    other = lake.admin.add_principal()
    assert WRONG_PASSWORD.format(other.name) in lake.refusal(user=other.name)


def test_principal_without_role_is_refused_like_a_wrong_password(lake: Lake) -> None:
    from databricks.sdk import WorkspaceClient

    other = lake.admin.add_principal(create_role=False)
    workspace = WorkspaceClient(host=lake.url, client_id=other.client_id, client_secret=other.client_secret)
    message = lake.refusal(lake.mint(workspace), user=other.name)
    assert WRONG_PASSWORD.format(other.name) in message


def test_missing_database_in_postgres_own_words(lake: Lake) -> None:
    assert 'database "nowhere" does not exist' in lake.refusal(dbname="nowhere")


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("documented", WRONG_PASSWORD),
        ("identity", "Invalid authorization for databricks identity login"),
        ("neon", "JWT token has expired (exp="),
        ("provisioned", "Failed to decode token for role"),
    ],
)
def test_expired_token_in_each_dialect(lake: Lake, style: str, text: str) -> None:
    token = lake.mint()
    lake.admin.set_login_error_style(style)
    lake.connect(token).close()
    lake.admin.expire_tokens()
    assert text.format(lake.server.client_id) in lake.refusal(token)
    lake.connect(lake.mint()).close()


def test_unknown_dialect_is_refused(lake: Lake) -> None:
    with pytest.raises(ValueError, match="identity, neon"):
        lake.admin.set_login_error_style("klingon")


def test_expiry_is_checked_at_login_only(lake: Lake) -> None:
    token = lake.mint()
    with lake.connect(token) as connection:
        lake.admin.expire_tokens()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_lifetime_counts_by_the_workspaces_clock(lake: Lake) -> None:
    lake.admin.set_token_lifetime(600)
    token = lake.mint()
    lake.admin.set_clock_skew(590)
    lake.connect(token).close()
    lake.admin.set_clock_skew(601)
    assert WRONG_PASSWORD.format(lake.server.client_id) in lake.refusal(token)


def test_revoked_tokens_are_refused(lake: Lake) -> None:
    token = lake.mint()
    lake.admin.revoke_tokens()
    assert WRONG_PASSWORD.format(lake.server.client_id) in lake.refusal(token)


def test_native_password(lake: Lake) -> None:
    lake.admin.set_native_password("reporter", "s3cret")
    with lake.connect("s3cret", user="reporter") as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("reporter",)
    assert WRONG_PASSWORD.format("reporter") in lake.refusal("wrong", user="reporter")


def test_native_password_of_an_existing_role_beside_its_tokens(lake: Lake) -> None:
    lake.admin.set_native_password(lake.server.client_id, "s3cret")
    lake.connect("s3cret").close()
    lake.connect(lake.mint()).close()


def test_disabled_endpoint(lake: Lake) -> None:
    with lake.connect() as connection:
        lake.admin.disable_endpoint()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert "Control plane request failed: endpoint is disabled" in lake.refusal()
    lake.admin.disable_endpoint(False)
    lake.connect().close()


def test_suspend_closes_sessions_and_a_connect_wakes_the_endpoint(lake: Lake) -> None:
    from lakebase_provider.local.contract.options import ENDPOINT_NAME

    def state() -> str:
        status = lake.workspace.postgres.get_endpoint(ENDPOINT_NAME).status
        assert status is not None
        assert status.current_state is not None
        return status.current_state.value

    with lake.connect() as connection:
        connection.execute("CREATE TEMPORARY TABLE t (n int)")
        lake.admin.suspend()
        assert state() == "IDLE"
        with pytest.raises(psycopg.OperationalError, match="terminating connection"):
            connection.execute("SELECT 1")
    eventually(lambda: lake.admin.counters().open_connections == 0)
    lake.admin.set_wake_delay(0.2)
    lake.connect().close()
    assert state() == "ACTIVE"
    assert lake.admin.counters().wakes == 1


def test_a_connect_is_held_while_waking(lake: Lake) -> None:
    lake.admin.suspend()
    lake.admin.set_wake_delay(600)
    message = lake.refusal(connect_timeout=2)
    assert "timeout" in message
    assert "FATAL" not in message


def test_a_hopeless_wake_does_not_outlive_its_test(lake: Lake) -> None:
    # The test before left a wake of ten minutes behind.
    lake.connect().close()


def test_too_many_connections_in_postgres_own_words(lake: Lake) -> None:
    token = lake.mint()
    [(limit,)] = lake.admin.execute("SELECT current_setting('max_connections')::int")
    assert limit == 104
    connections = []

    def fill() -> None:
        for _ in range(limit + 1):
            connections.append(lake.connect(token))

    try:
        with pytest.raises(psycopg.OperationalError, match=r"remaining connection slots|too many clients"):
            fill()
        assert lake.admin.execute("SELECT 1") == [(1,)], "the superuser's slots are left"
    finally:
        for connection in connections:
            connection.close()
    eventually(lambda: lake.admin.counters().open_connections == 0)
