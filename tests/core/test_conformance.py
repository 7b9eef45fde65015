"""Plain REST and databricks-sdk side by side: the same requests, the same outcomes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest

from lakebase_provider.core import LakebaseConfig, LakebaseError
from lakebase_provider.core.workspace.rest import NotForRest, RestTransport
from lakebase_provider.core.workspace.sdk import SdkTransport
from lakebase_provider.core.workspace.workspace import ControlPlane, Transport
from lakebase_provider.local import LocalLakebase
from tests.security.listener import Listener

CREDENTIALS = "/api/2.0/postgres/credentials"
TOKEN = "/oidc/v1/token"
#: databricks-config is asked for by the SDK from 0.102 on.
OLD_DISCOVERY = tuple(map(int, version("databricks-sdk").split(".")[:2])) < (0, 102)
WAYS: dict[str, Callable[[LakebaseConfig], Transport]] = {"rest": RestTransport, "sdk": SdkTransport}


#: A workspace that is not on this machine.
_AFAR = {"workspace_host": "https://w.cloud.databricks.com", "client_id": "c", "client_secret": "s"}


def by(way: str, config: LakebaseConfig) -> ControlPlane:
    control_plane = ControlPlane(config)
    control_plane._transport = WAYS[way](config)
    return control_plane


def principal(lake: LocalLakebase, kind: str, **changes: Any) -> LakebaseConfig:
    if kind == "m2m":
        return lake.config(**changes)
    return lake.config(
        **{"client_id": None, "client_secret": None, "user": None, "token": lake.pat, **changes}
    )


def requests(lake: LocalLakebase) -> list[tuple[str, str, int]]:
    """What the workspace was asked, discovery aside: SDK versions differ there."""
    asked = [(r.method, r.path, r.status) for r in lake.admin.requests()]
    lake.admin.reset_counters()
    return [request for request in asked if "/.well-known/" not in request[1]]


@pytest.mark.parametrize("kind", ["m2m", "pat"])
def test_the_same_requests_and_answers(lakebase_env: LocalLakebase, kind: str) -> None:
    config = principal(lakebase_env, kind)
    endpoint = str(config.endpoint)
    found = {}
    for way in WAYS:
        control_plane = by(way, config)
        credential = control_plane.endpoint_credential(endpoint)
        host = control_plane.endpoint(endpoint)["status"]["hosts"]["host"]
        instance = control_plane.instance("local")["read_write_dns"]
        user = control_plane.current_user_name()
        found[way] = (set(credential), host, instance, user, requests(lakebase_env))
    assert found["rest"] == found["sdk"]


@pytest.mark.parametrize("kind", ["m2m", "pat"])
@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, "INVALID_PARAMETER_VALUE", "Field 'endpoint' is required"),
        (400, "BAD_REQUEST", "something else"),
        (401, "UNAUTHENTICATED", "who are you"),
        (403, "PERMISSION_DENIED", "not yours"),
        (403, "PERMISSION_DENIED", "API is disabled for users without workspace-access entitlement"),
        (403, "PERMISSION_DENIED", "Unauthorized network access to workspace: 1"),
        (404, "NOT_FOUND", "endpoint id not found [TraceId: 1]"),
        (429, "RESOURCE_EXHAUSTED", "slow down"),
        (500, "INTERNAL_ERROR", "oops"),
        (503, "TEMPORARILY_UNAVAILABLE", "later"),
        (504, "DEADLINE_EXCEEDED", "too late"),
    ],
)
def test_the_same_error(lakebase_env: LocalLakebase, kind: str, status: int, code: str, message: str) -> None:
    lakebase_env.admin.fault("POST", CREDENTIALS, status=status, error_code=code, message=message)
    config = principal(lakebase_env, kind)
    found = {}
    for way in WAYS:
        with pytest.raises(LakebaseError) as caught:
            by(way, config).endpoint_credential(str(config.endpoint))
        error = caught.value
        assert message in error.message
        assert code in error.message
        found[way] = (type(error), error.code, error.retryable, error.remedy)
    assert found["rest"] == found["sdk"]


def test_the_same_error_for_a_wrong_secret(lakebase_env: LocalLakebase) -> None:
    config = lakebase_env.config(client_secret="wrong")
    found = {}
    for way in WAYS:
        with pytest.raises(LakebaseError, match="invalid_client") as caught:
            by(way, config).endpoint_credential(str(config.endpoint))
        found[way] = (type(caught.value), caught.value.remedy)
    assert found["rest"] == found["sdk"]


@pytest.mark.skipif(
    OLD_DISCOVERY, reason="older SDKs try for 300 s, whatever they are told; callers keep their deadline"
)
def test_the_same_error_for_a_workspace_that_is_not_there(lakebase_env: LocalLakebase) -> None:
    config = lakebase_env.config(workspace_host="http://127.0.0.1:1")
    found = {}
    for way in WAYS:
        with pytest.raises(LakebaseError) as caught:
            by(way, config).endpoint_credential(str(config.endpoint))
        found[way] = (type(caught.value), caught.value.retryable)
    assert found["rest"] == found["sdk"]


def test_retry_after_is_read(lakebase_env: LocalLakebase) -> None:
    lakebase_env.admin.fault("POST", CREDENTIALS, status=429, error_code="RESOURCE_EXHAUSTED", retry_after=7)
    config = lakebase_env.config()
    with pytest.raises(LakebaseError) as caught:
        by("rest", config).endpoint_credential(str(config.endpoint))
    assert caught.value.retry_after == 7


@pytest.mark.parametrize(
    "path", ["/.well-known/databricks-config", "/oidc/.well-known/oauth-authorization-server"]
)
def test_a_surprise_in_discovery_goes_to_the_sdk(lakebase_env: LocalLakebase, path: str) -> None:
    lakebase_env.admin.fault("GET", path, status=404, error_code="NOT_FOUND", message="no such route")
    config = lakebase_env.config()
    with pytest.raises(NotForRest):
        RestTransport(config).send("a credential", "POST", CREDENTIALS, {"endpoint": config.endpoint})
    lakebase_env.admin.reset_counters()
    # Whether the SDK knows what to do with that workspace depends on its version; it was asked.
    with contextlib.suppress(LakebaseError):
        ControlPlane(config).endpoint_credential(str(config.endpoint))
    assert any("databricks-sdk" in r.user_agent for r in lakebase_env.admin.requests())


def test_a_workspace_token_is_asked_for_once(lakebase_env: LocalLakebase) -> None:
    config = lakebase_env.config()
    control_plane = by("rest", config)
    for _ in range(5):
        control_plane.endpoint_credential(str(config.endpoint))
    assert [path for _, path, _ in requests(lakebase_env)].count(TOKEN) == 1


def test_a_revoked_workspace_token_is_asked_for_anew(lakebase_env: LocalLakebase) -> None:
    config = lakebase_env.config()
    control_plane = by("rest", config)
    control_plane.endpoint_credential(str(config.endpoint))
    requests(lakebase_env)
    lakebase_env.admin.fault("POST", CREDENTIALS, status=401, error_code="UNAUTHENTICATED", times=1)
    control_plane.endpoint_credential(str(config.endpoint))
    assert [path for _, path, _ in requests(lakebase_env)] == [CREDENTIALS, TOKEN, CREDENTIALS]


@pytest.mark.parametrize(
    ("changes", "environment", "served"),
    [
        ({}, {}, True),
        ({"auth_type": "oauth-m2m"}, {}, True),
        ({"auth_type": "azure-client-secret"}, {}, False),
        ({"profile": "prod"}, {}, False),
        ({"client_secret": None}, {}, False),
        ({}, {"http_proxy": "http://proxy.invalid:3128", "no_proxy": ""}, True),
        (_AFAR, {"https_proxy": "http://proxy.invalid:3128", "no_proxy": ""}, False),
        (_AFAR, {"https_proxy": "http://proxy.invalid:3128", "no_proxy": ".databricks.com"}, True),
    ],
)
def test_what_plain_rest_serves(
    lakebase_env: LocalLakebase,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    environment: dict[str, str],
    served: bool,
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert RestTransport.can_serve(lakebase_env.config(**changes)) is served


@pytest.mark.parametrize(("way", "kind"), [("rest", "m2m"), ("rest", "pat"), ("sdk", "pat")])
def test_no_proxy_is_asked_for_a_workspace_on_this_machine(
    lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch, way: str, kind: str
) -> None:
    with Listener() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        config = principal(lakebase_env, kind)
        assert RestTransport.can_serve(config)
        assert by(way, config).current_user_name()
        if way == "rest":
            # The SDK looks the workspace up by requests of its own before it has a session.
            assert proxy.received == []


def test_a_service_principal_needs_no_sdk(lakebase_env: LocalLakebase) -> None:
    code = (
        "import sys\n"
        "from lakebase_provider.core import LakebaseClient, LakebaseConfig\n"
        "with LakebaseClient(LakebaseConfig.from_env(host=None)) as client:\n"
        "    with client.connection() as connection:\n"
        "        connection.execute('SELECT 1')\n"
        "print('databricks.sdk' in sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "False"
