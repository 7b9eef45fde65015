"""Each text that a login or the workspace is known to refuse with has its class, retryability and remedy."""

from __future__ import annotations

import pytest

from lakebase_provider.core import LakebaseClient, LakebaseError
from lakebase_provider.core.errors import (
    ControlPlaneError,
    EndpointDisabledError,
    EndpointNotFoundError,
    EndpointWakingError,
    LoginRejectedError,
    NotAuthenticatedError,
    PermissionDeniedError,
    TlsError,
    TooManyConnectionsError,
)
from lakebase_provider.local import FaultProxy, LocalLakebase
from lakebase_provider.local.identity.login_errors import NAMES

from .conftest import CREDENTIALS, timed

CREATE_ROLE = "databricks_create_role"
BUDGET = "connect_budget"

#: Name of the scripted refusal → what becomes of it.
DIALECTS: dict[str, tuple[type[LakebaseError], bool, str]] = {
    "plaintext": (TlsError, False, "sslmode"),
    "not_a_jwt": (LoginRejectedError, False, "not a workspace token or PAT"),
    "bad_signature": (LoginRejectedError, False, CREATE_ROLE),
    "other_role": (LoginRejectedError, False, CREATE_ROLE),
    "revoked": (LoginRejectedError, False, CREATE_ROLE),
    "role_missing": (LoginRejectedError, False, CREATE_ROLE),
    "bad_password": (LoginRejectedError, False, CREATE_ROLE),
    "pooled": (LoginRejectedError, False, CREATE_ROLE),
    "expired_documented": (LoginRejectedError, False, CREATE_ROLE),
    "expired_identity": (LoginRejectedError, False, CREATE_ROLE),
    "expired_neon": (LoginRejectedError, False, CREATE_ROLE),
    "expired_provisioned": (LoginRejectedError, False, CREATE_ROLE),
    "native_disabled": (LoginRejectedError, False, "enable_pg_native_login"),
    "disabled": (EndpointDisabledError, False, "Enable the endpoint"),
    "endpoint_missing": (EndpointNotFoundError, False, "projects/<project>"),
    "paused": (EndpointWakingError, True, BUDGET),
    "ip_acl": (PermissionDeniedError, False, "IP access list"),
    "External authorization failed. DETAIL: Source IP address: 203.0.113.7 is blocked by Databricks IP ACL "
    "for workspace: 1": (PermissionDeniedError, False, "IP access list"),
    "endpoint_full": (TooManyConnectionsError, True, "max_size"),
    "too_many_clients": (TooManyConnectionsError, True, "max_size"),
    "reserved_slots": (TooManyConnectionsError, True, "max_size"),
    "starting": (EndpointWakingError, True, BUDGET),
    "recovering": (EndpointWakingError, True, BUDGET),
    "stopping": (EndpointWakingError, True, BUDGET),
}
#: No client of ours leaves the user out.
ELSEWHERE = {"no_user"}


def test_every_scripted_refusal_is_tested() -> None:
    assert set(NAMES) - ELSEWHERE == {name for name in DIALECTS if " " not in name}


@pytest.mark.parametrize("name", DIALECTS)
def test_a_refused_login_has_its_class_and_remedy(lake: LocalLakebase, name: str) -> None:
    kind, retryable, remedy = DIALECTS[name]
    lake.admin.login_fault(name)
    client = LakebaseClient(lake.config())
    client.tokens.get()
    # What a retry cannot help ends at once; a token that was refused is minted anew first.
    with timed(1), pytest.raises(LakebaseError) as caught:
        client.connect(timeout=1 if retryable else 60)
    assert type(caught.value) is kind
    assert caught.value.retryable is retryable
    assert remedy in caught.value.remedy
    shown = str(caught.value)
    assert lake.client_id in shown
    assert "\n" not in caught.value.message + caught.value.remedy
    assert client.tokens.get().reveal() not in shown
    assert lake.admin.counters().mints == (2 if kind is LoginRejectedError else 1)


@pytest.mark.parametrize(
    ("status", "code", "message", "kind", "remedy"),
    [
        (
            403,
            "PERMISSION_DENIED",
            "API is disabled for users without workspace-access entitlement",
            PermissionDeniedError,
            "Workspace access",
        ),
        (
            403,
            "PERMISSION_DENIED",
            "Unauthorized network access to workspace: 1000000000000001",
            PermissionDeniedError,
            "PrivateLink",
        ),
        (404, "NOT_FOUND", "endpoint id not found [TraceId: 7]", EndpointNotFoundError, "projects/<project>"),
        (404, "NOT_FOUND", "branch id not found [TraceId: 7]", EndpointNotFoundError, "Check the branch"),
        (404, "NOT_FOUND", "project id not found [TraceId: 7]", EndpointNotFoundError, "Check the project"),
        (404, "NOT_FOUND", "Endpoint not found", EndpointNotFoundError, "projects/<project>"),
        (401, "UNAUTHENTICATED", "Invalid access token.", NotAuthenticatedError, "client id and secret"),
        (403, "PERMISSION_DENIED", "User lacks CAN_USE", PermissionDeniedError, "CAN USE"),
    ],
)
def test_a_refused_credential_has_its_class_and_remedy(
    lake: LocalLakebase, status: int, code: str, message: str, kind: type[LakebaseError], remedy: str
) -> None:
    lake.admin.fault("POST", CREDENTIALS, status=status, error_code=code, message=message)
    with timed(5), pytest.raises(LakebaseError) as caught:
        LakebaseClient(lake.config()).connect(timeout=10)
    assert type(caught.value) is kind
    assert not caught.value.retryable
    assert remedy in caught.value.remedy
    assert message in str(caught.value)
    assert lake.admin.counters().logins == 0


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("invalid_client", "Client authentication failed"),
        ("invalid_request", "Missing client authentication"),
    ],
)
def test_a_refused_sign_in_names_client_id_and_secret(lake: LocalLakebase, code: str, message: str) -> None:
    lake.admin.fault("POST", "/oidc/v1/token", status=401, error_code=code, message=message)
    with timed(10), pytest.raises(NotAuthenticatedError, match=code) as caught:
        LakebaseClient(lake.config()).connect(timeout=15)
    assert "client id and secret" in caught.value.remedy
    assert not caught.value.retryable


def test_a_missing_endpoint_field_is_the_configurations(lake: LocalLakebase) -> None:
    text = "Field 'endpoint' is required, expected non-default value!"
    lake.admin.fault("POST", CREDENTIALS, status=400, error_code="INVALID_PARAMETER_VALUE", message=text)
    with timed(5), pytest.raises(LakebaseError, match="Field 'endpoint' is required") as caught:
        LakebaseClient(lake.config()).connect(timeout=10)
    assert not isinstance(caught.value, ControlPlaneError)
    assert "endpoint" in caught.value.remedy
    assert not caught.value.retryable


@pytest.mark.parametrize("user", ["My Service Principal", "00000000-0000-0000-0000-000000000000"])
def test_a_display_name_or_a_stranger_as_user_is_told_which_name_to_use(
    lake: LocalLakebase, user: str
) -> None:
    with timed(5), pytest.raises(LoginRejectedError, match=user) as caught:
        LakebaseClient(lake.config(user=user)).connect(timeout=10)
    assert "client id as user" in caught.value.remedy


def test_a_refused_first_connection_is_tried_again(lake: LocalLakebase, proxy: FaultProxy) -> None:
    proxy.refuse()
    client = LakebaseClient(lake.config(port=proxy.port))
    client.tokens.get()
    with timed(1), pytest.raises(EndpointWakingError, match="refused") as caught:
        client.connect(timeout=1)
    assert caught.value.retryable
    assert BUDGET in caught.value.remedy
    proxy.heal()
    client.connect(timeout=5).close()


def test_a_first_connection_that_is_reset_is_tried_again(lake: LocalLakebase, proxy: FaultProxy) -> None:
    proxy.cut_after(0)
    with timed(5):
        LakebaseClient(lake.config(port=proxy.port)).connect(timeout=5).close()
    assert proxy.counters.cuts == 1
    assert proxy.counters.connections == 2
