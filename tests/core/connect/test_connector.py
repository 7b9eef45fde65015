"""Connecting, against the local Lakebase: real SDK, real TLS, real Postgres."""

from __future__ import annotations

import sys
import traceback
from typing import Any

import psycopg
import pytest

from lakebase_provider.core import LakebaseClient, LakebaseConfig, LakebaseError
from lakebase_provider.core.connect import connector
from lakebase_provider.core.errors import (
    ConfigError,
    ControlPlaneThrottledError,
    ControlPlaneTimeoutError,
    ControlPlaneUnavailableError,
    DatabaseMissingError,
    DnsError,
    EndpointNotFoundError,
    EndpointWakingError,
    LoginRejectedError,
    NotAuthenticatedError,
    PermissionDeniedError,
    SessionSettingError,
    TlsError,
)
from lakebase_provider.core.errors.texts import classify_login
from lakebase_provider.local import LocalLakebase

CREDENTIALS = "/api/2.0/postgres/credentials"


def current_user(client: LakebaseClient) -> str:
    with client.connect() as connection:
        row = connection.execute("SELECT current_user").fetchone()
    assert row is not None
    return str(row[0])


def test_connects_as_the_service_principal(lakebase_env: LocalLakebase) -> None:
    client = LakebaseClient(lakebase_env.config())
    assert current_user(client) == lakebase_env.env()["PGUSER"]


def test_host_and_user_are_resolved_where_they_are_left_out(lakebase_env: LocalLakebase) -> None:
    client = LakebaseClient(lakebase_env.config(host=None, user=None))
    assert client.target().host == lakebase_env.env()["PGHOST"]
    assert current_user(client) == lakebase_env.env()["PGUSER"]


def test_a_workspace_token_works_and_its_user_is_asked_for(lakebase_env: LocalLakebase) -> None:
    config = lakebase_env.config(client_id=None, client_secret=None, user=None, token=lakebase_env.pat)
    assert current_user(LakebaseClient(config)) == "developer@example.com"


def test_a_notebook_names_the_endpoint_alone(lakebase_env: LocalLakebase) -> None:
    """databricks-sdk finds the workspace and the principal in the environment, as it does everywhere."""
    env = lakebase_env.env()
    config = LakebaseConfig(
        endpoint=env["ENDPOINT_NAME"], port=int(env["PGPORT"]), sslrootcert=env["PGSSLROOTCERT"]
    )
    client = LakebaseClient(config)
    assert str(client.target()) == f"{env['PGUSER']}@{env['PGHOST']}:{env['PGPORT']}/databricks_postgres"
    assert current_user(client) == env["PGUSER"]


@pytest.mark.parametrize("target", [{}, {"endpoint": None, "instance": "local"}])
def test_the_host_for_reading_alone(lakebase_env: LocalLakebase, target: dict[str, Any]) -> None:
    client = LakebaseClient(lakebase_env.config(access="read_only", **target))
    assert client.config.host is None
    assert current_user(client) == lakebase_env.env()["PGUSER"]


def test_a_provisioned_instance(lakebase_env: LocalLakebase) -> None:
    client = LakebaseClient(lakebase_env.config(endpoint=None, instance="local", host=None))
    assert current_user(client) == lakebase_env.env()["PGUSER"]
    assert any(r.path == "/api/2.0/database/credentials" for r in lakebase_env.admin.requests())


def test_a_native_password_needs_no_workspace(lakebase_env: LocalLakebase) -> None:
    user = lakebase_env.env()["PGUSER"]
    lakebase_env.admin.set_native_password(user, "native-pass")
    lakebase_env.admin.reset_counters()
    config = lakebase_env.config(
        auth="password",
        password="native-pass",
        endpoint=None,
        workspace_host=None,
        client_id=None,
        client_secret=None,
    )
    assert current_user(LakebaseClient(config)) == user
    assert lakebase_env.admin.counters().mints == 0


def test_no_credentials_anywhere_fail_before_any_call(
    lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    config = lakebase_env.config(client_id=None, client_secret=None)
    for name in lakebase_env.env():
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", f"{tmp_path}/none")
    before = len(lakebase_env.admin.requests())
    with pytest.raises(ConfigError, match="'client_id' and 'client_secret' are missing"):
        LakebaseClient(config)
    assert len(lakebase_env.admin.requests()) == before


def test_an_expired_token_is_minted_anew_once(lakebase_env: LocalLakebase) -> None:
    client = LakebaseClient(lakebase_env.config())
    current_user(client)
    lakebase_env.admin.expire_tokens()
    current_user(client)
    assert lakebase_env.admin.counters().mints == 2
    assert lakebase_env.admin.counters().refused_logins == 1


def test_a_login_that_is_refused_for_good_costs_one_more_mint(lakebase_env: LocalLakebase) -> None:
    client = LakebaseClient(lakebase_env.config(user="nobody-knows"))
    with pytest.raises(LoginRejectedError, match="nobody-knows") as caught:
        client.connect()
    assert "databricks_create_role" in caught.value.remedy
    assert lakebase_env.admin.counters().mints == 2
    assert lakebase_env.admin.counters().refused_logins == 2
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)


def test_an_open_connection_outlives_its_token(lakebase_env: LocalLakebase) -> None:
    client = LakebaseClient(lakebase_env.config())
    with client.connect() as connection:
        lakebase_env.admin.expire_tokens()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_sleeping_compute_is_waited_for(lakebase_env: LocalLakebase) -> None:
    lakebase_env.admin.set_wake_delay(0.3)
    lakebase_env.admin.suspend()
    assert current_user(LakebaseClient(lakebase_env.config()))
    assert lakebase_env.admin.counters().wakes == 1


def test_a_compute_that_does_not_wake_ends_at_the_callers_deadline(lakebase_env: LocalLakebase) -> None:
    lakebase_env.admin.set_wake_delay(60)
    lakebase_env.admin.suspend()
    client = LakebaseClient(lakebase_env.config())
    client.tokens.get()
    with pytest.raises(EndpointWakingError, match="timeout"):
        client.connect(timeout=1)


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (429, "RESOURCE_EXHAUSTED", "slow down", ControlPlaneThrottledError),
        (500, "INTERNAL_ERROR", "oops", ControlPlaneUnavailableError),
        (503, "TEMPORARILY_UNAVAILABLE", "later", ControlPlaneUnavailableError),
        (403, "PERMISSION_DENIED", "not yours", PermissionDeniedError),
        (404, "NOT_FOUND", "endpoint id not found", EndpointNotFoundError),
        (
            403,
            "PERMISSION_DENIED",
            "API is disabled for users without workspace-access entitlement",
            PermissionDeniedError,
        ),
    ],
)
def test_refusals_of_the_control_plane_are_typed(
    lakebase_env: LocalLakebase, status: int, code: str, message: str, kind: type[LakebaseError]
) -> None:
    lakebase_env.admin.fault(
        "POST", CREDENTIALS, status=status, error_code=code, message=message, retry_after=0
    )
    client = LakebaseClient(lakebase_env.config())
    with pytest.raises(kind, match=message) as caught:
        client.connect(timeout=4)
    assert "\n" not in caught.value.message + caught.value.remedy


def test_entitlement_has_a_remedy_of_its_own(lakebase_env: LocalLakebase) -> None:
    text = "API is disabled for users without workspace-access entitlement"
    lakebase_env.admin.fault("POST", CREDENTIALS, status=403, error_code="PERMISSION_DENIED", message=text)
    with pytest.raises(PermissionDeniedError) as caught:
        LakebaseClient(lakebase_env.config()).connect()
    assert "Workspace access" in caught.value.remedy


def test_a_hanging_control_plane_does_not_hold_the_caller(lakebase_env: LocalLakebase) -> None:
    lakebase_env.admin.fault("POST", CREDENTIALS, hang=30)
    with pytest.raises(ControlPlaneTimeoutError, match=r"within 0\.5 s"):
        LakebaseClient(lakebase_env.config()).connect(timeout=0.5)


def test_wrong_client_secret(lakebase_env: LocalLakebase) -> None:
    client = LakebaseClient(lakebase_env.config(client_secret="wrong-canary"))
    with pytest.raises(NotAuthenticatedError, match="invalid_client") as caught:
        client.connect()
    assert "client id and secret" in caught.value.remedy
    assert "wrong-canary" not in "".join(traceback.format_exception(caught.value))


def test_unknown_endpoint(lakebase_env: LocalLakebase) -> None:
    client = LakebaseClient(lakebase_env.config(endpoint="projects/local/branches/none/endpoints/primary"))
    with pytest.raises(EndpointNotFoundError, match="not found"):
        client.connect()


def test_unknown_database(lakebase_env: LocalLakebase) -> None:
    with pytest.raises(DatabaseMissingError, match="no_such_db"):
        LakebaseClient(lakebase_env.config(database="no_such_db")).connect()


def test_an_untrusted_certificate_gets_no_token(lakebase_env: LocalLakebase) -> None:
    # Public CAs do not vouch for the local Lakebase.
    with pytest.raises(TlsError, match="certificate"):
        LakebaseClient(lakebase_env.config(sslrootcert=None)).connect()
    counters = lakebase_env.admin.counters()
    assert (counters.logins, counters.refused_logins) == (0, 0)


def test_a_host_that_does_not_resolve(lakebase_env: LocalLakebase) -> None:
    client = LakebaseClient(lakebase_env.config(host=f"{'x' * 60}.database.nowhere.databricks.com"))
    with pytest.raises(DnsError):
        client.connect()


def test_timeouts_and_application_name_reach_the_session(lakebase_env: LocalLakebase) -> None:
    client = LakebaseClient(
        lakebase_env.config(statement_timeout=1.5, lock_timeout=0.25, application_name="my-app")
    )
    with client.connect(autocommit=True) as connection:
        shown = [
            connection.execute(f"SHOW {name}").fetchone()
            for name in ("statement_timeout", "lock_timeout", "application_name")
        ]
    assert shown == [("1500ms",), ("250ms",), ("my-app",)]


def test_the_server_looks_whether_its_client_is_still_there(lakebase_env: LocalLakebase) -> None:
    with LakebaseClient(lakebase_env.config()).connect() as connection:
        row = connection.execute("SHOW client_connection_check_interval").fetchone()
    assert row == (("0",) if sys.platform == "darwin" else ("1s",))


def test_a_session_setting_that_the_server_refuses_is_left_out_from_then_on(
    lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "_OPTIONAL_SETTINGS", {"no_such_setting": "1"})
    client = LakebaseClient(lakebase_env.config(statement_timeout=1.5))
    for _ in range(2):
        with client.connect() as connection:
            assert connection.execute("SHOW statement_timeout").fetchone() == ("1500ms",)
    assert client._connector.stats() == connector.ConnectStats(connections=2, failures=1)


def test_a_setting_that_was_asked_for_and_is_refused_fails_the_connect(lakebase_env: LocalLakebase) -> None:
    client = LakebaseClient(lakebase_env.config(lock_timeout=1e9))
    with pytest.raises(SessionSettingError, match="lock_timeout") as caught:
        client.connect()
    assert not caught.value.retryable


@pytest.mark.parametrize(
    "text",
    [
        'invalid value for parameter "client_connection_check_interval": 1000',
        'unrecognized configuration parameter "client_connection_check_interval"',
        "unsupported startup parameter in options: client_connection_check_interval",
        "unsupported startup parameter: options",
    ],
)
def test_texts_by_which_servers_and_poolers_refuse_a_setting(text: str) -> None:
    assert isinstance(classify_login(f"connection failed: FATAL:  {text}", where=""), SessionSettingError)


def test_libpq_variables_do_not_take_effect(
    lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.1")
    monkeypatch.setenv("PGOPTIONS", "-c search_path=elsewhere")
    client = LakebaseClient(lakebase_env.config())
    with client.connect(timeout=5) as connection:
        assert connection.execute("SHOW search_path").fetchone() == ('"$user", public',)
