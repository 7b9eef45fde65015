"""Secrets that belong to one workspace or server, and an attempt to have them sent to another one."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import logging
import resource
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

# It says where Airflow's home is, before the first import of Airflow.
from tests.airflow.conftest import define  # noqa: F401 # isort: skip
from airflow.sdk import Connection

from dagster_lakebase import LakebaseResource
from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.core.errors import ConfigError, LakebaseError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase

from .hostile_workspace import DISCOVERY, ENDPOINT, OAUTH_SERVER, SECRET, TOKEN, HostileWorkspace, reply

SECRETS = ("dose-of-the-victim", "dapi-of-the-victim", "azure-of-the-victim", "oidc-of-the-victim")


@pytest.fixture
def workspace() -> Iterator[HostileWorkspace]:
    with HostileWorkspace() as found:
        yield found


@pytest.fixture(autouse=True)
def victim(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment that is somebody else's: of another workspace, by every way to authenticate."""
    monkeypatch.setenv("LAKEBASE_ALLOW_LOOPBACK", "1")
    monkeypatch.setenv("DATABRICKS_HOST", "https://victim.cloud.databricks.com")
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", "victim")
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", SECRETS[0])
    monkeypatch.setenv("DATABRICKS_TOKEN", SECRETS[1])
    monkeypatch.setenv("ARM_CLIENT_SECRET", SECRETS[2])
    monkeypatch.setenv("DATABRICKS_OIDC_TOKEN", SECRETS[3])
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "databrickscfg"))


def sent_secrets(workspace: HostileWorkspace) -> list[str]:
    """Which of the victim's secrets came, as they are or within Basic credentials."""
    texts = list(workspace.seen)
    for text in workspace.seen:
        for line in text.splitlines():
            if "Basic " in line:
                with contextlib.suppress(ValueError):
                    texts.append(base64.b64decode(line.rpartition("Basic ")[2].strip()).decode())
    return [secret for secret in SECRETS if any(secret in text for text in texts)]


#: What somebody brings, of a kind or two, to be given the environment's secrets beside it.
BROUGHT: list[dict[str, Any]] = [
    {},
    {"token": "x", "auth_type": "oauth-m2m"},
    {"token": "x", "auth_type": "basic"},
    {"token": "x", "auth_type": "env-oidc"},
    {"profile": "missing"},
    {"profile": "empty"},
    {"profile": "token", "auth_type": "oauth-m2m"},
    {"profile": "token"},
    {"client_id": "a", "client_secret": "b", "auth_type": "pat"},
    {"client_id": "a", "client_secret": "b", "auth_type": "env-oidc"},
    {"azure_client_id": "a", "azure_client_secret": "b", "azure_tenant_id": "c", "auth_type": "oauth-m2m"},
    {"azure_client_id": "a", "azure_client_secret": "b", "azure_tenant_id": "c", "auth_type": "pat"},
    {"auth_type": "pat"},
    {"auth_type": "oauth-m2m"},
    {"auth_type": "env-oidc"},
    {"auth_type": "metadata-service"},
]


@pytest.mark.parametrize(
    "brought", BROUGHT, ids=lambda brought: "-".join(map(str, brought.items())) or "none"
)
@pytest.mark.parametrize("front", ["core", "environment", "hook", "resource"])
def test_the_environments_secrets_stay_whatever_else_is_brought(
    workspace: HostileWorkspace, tmp_path: Path, front: str, brought: dict[str, Any]
) -> None:
    (tmp_path / "databrickscfg").write_text(
        f"[empty]\nhost = {workspace.url}\n[token]\nhost = {workspace.url}\ntoken = mine\n"
    )
    settings = {
        **{"endpoint": ENDPOINT, "workspace_host": workspace.url, "user": "u", "host": "127.0.0.1"},
        **brought,
    }
    with contextlib.suppress(LakebaseError):
        if front == "core":
            LakebaseClient(LakebaseConfig(**settings)).tokens.get(5)
        elif front == "environment":
            LakebaseClient(LakebaseConfig.from_env(**settings)).tokens.get(5)
        elif front == "hook":
            stored = Connection(conn_id="stored", conn_type="lakebase", extra=json.dumps(settings))
            LakebaseHook("stored", connection=stored).client.tokens.get(5)
        else:
            LakebaseResource(**settings).client.tokens.get(5)
    assert sent_secrets(workspace) == []


def test_what_is_brought_for_the_workspace_itself_is_sent(workspace: HostileWorkspace) -> None:
    config = LakebaseConfig(endpoint=ENDPOINT, workspace_host=workspace.url, token="dapi-mine")
    assert LakebaseClient(config).tokens.get(5).reveal() == "database-token"
    assert any("dapi-mine" in text for text in workspace.seen)


def test_a_profile_of_the_workspace_is_used_beside_the_environments_secrets(
    workspace: HostileWorkspace, tmp_path: Path
) -> None:
    (tmp_path / "databrickscfg").write_text(f"[mine]\nhost = {workspace.url}\ntoken = dapi-of-the-profile\n")
    config = LakebaseConfig(endpoint=ENDPOINT, workspace_host=workspace.url, profile="mine")
    assert LakebaseClient(config).tokens.get(5).reveal() == "database-token"
    assert any("dapi-of-the-profile" in text for text in workspace.seen)
    assert sent_secrets(workspace) == []


HOLDERS: list[dict[str, Any]] = [
    {"client_id": "i", "client_secret": "dose-mine"},
    {"token": "dapi-mine"},
    {"azure_client_id": "i", "azure_client_secret": "mine", "azure_tenant_id": "t"},
]


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda holder: max(holder))
def test_a_connections_secret_does_not_follow_an_override_of_its_host(
    workspace: HostileWorkspace, holder: dict[str, Any]
) -> None:
    settings = {"endpoint": ENDPOINT, "workspace_host": "https://w.databricks.com", **holder}
    with pytest.raises(ConfigError, match="'workspace_host' is overridden"):
        LakebaseConfig(**settings).replace(workspace_host=workspace.url)
    stored = Connection(conn_id="stored", conn_type="lakebase", extra=json.dumps(settings))
    with pytest.raises(ConfigError, match="'stored': Setting 'workspace_host' is overridden"):
        LakebaseHook("stored", connection=stored, workspace_host=workspace.url).get_first("select 1")
    assert workspace.seen == []
    # The same one in other words, and another one with a secret of its own.
    LakebaseConfig(**settings).replace(workspace_host="https://W.databricks.com/")
    other = LakebaseConfig(**settings).replace(workspace_host=workspace.url, **holder)
    assert other.workspace_host == workspace.url


def test_nor_does_a_connections_password(lakebase_env: LocalLakebase) -> None:
    stored = Connection(
        conn_id="stored",
        conn_type="lakebase",
        host="a.databricks.com",
        login="u",
        password="native",
        extra=json.dumps({"auth": "password"}),
    )
    with pytest.raises(ConfigError, match="'host' is overridden, but 'password' belongs"):
        LakebaseHook("stored", connection=stored, host=lakebase_env.host).get_first("select 1")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("path", [DISCOVERY, OAUTH_SERVER])
def test_discovery_is_followed_nowhere(workspace: HostileWorkspace, path: str, status: int) -> None:
    with HostileWorkspace() as foreign:

        def elsewhere(handler: Any) -> None:
            handler.send_response(status)
            handler.send_header("Location", f"{foreign.url}{path}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        workspace.answers[path] = elsewhere
        config = LakebaseConfig(
            endpoint=ENDPOINT, workspace_host=workspace.url, client_id="i", client_secret="dose-mine"
        )
        with pytest.raises(LakebaseError, match=f"(?s)redirects elsewhere for its OAuth .* {status}"):
            LakebaseClient(config).tokens.get(5)
        assert foreign.seen == []


Answering = Callable[[Any], None]


def at_the_second_look(first: tuple[int, Any], then: Answering) -> Answering:
    """What makes the package go on by databricks-sdk, and what that finds."""
    looks: list[object] = []

    def answer(handler: Any) -> None:
        looks.append(handler)
        if len(looks) == 1:
            reply(handler, *first)
        else:
            then(handler)

    return answer


@pytest.fixture(params=[(400, {"error_code": "X", "message": "no"}), (404, {}), (200, [])])
def first(request: pytest.FixtureRequest) -> tuple[int, Any]:
    found: tuple[int, Any] = request.param
    return found


@pytest.mark.parametrize("how", ["redirect", "oidc_endpoint"])
def test_the_discovery_of_the_sdk_is_followed_nowhere(
    workspace: HostileWorkspace, first: tuple[int, Any], how: str
) -> None:
    with HostileWorkspace() as foreign:

        def elsewhere(handler: Any) -> None:
            if how == "redirect":
                reply(handler, 307, {}, Location=f"{foreign.url}{DISCOVERY}")
            else:
                reply(handler, 200, {"oidc_endpoint": f"{foreign.url}/oidc", "workspace_id": "1"})

        workspace.answers[DISCOVERY] = at_the_second_look(first, elsewhere)
        client = LakebaseClient(workspace.config())
        with suppress(LakebaseError):
            client.tokens.get(5)
        assert foreign.seen == []
        if how == "oidc_endpoint":
            with pytest.raises(LakebaseError, match="'oidc_endpoint'"):
                client.tokens.get(5)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_of_the_sdks_sign_in_is_shown_the_secret(
    workspace: HostileWorkspace, status: int
) -> None:
    with HostileWorkspace() as foreign:
        honest = workspace.answers[DISCOVERY]
        workspace.answers[DISCOVERY] = at_the_second_look(
            (404, {}), lambda handler: reply(handler, 200, honest)
        )
        workspace.answers[TOKEN] = lambda handler: reply(
            handler, status, {}, Location=f"{foreign.url}{TOKEN}"
        )
        with pytest.raises(LakebaseError, match="leads elsewhere"):
            LakebaseClient(workspace.config()).tokens.get(5)
        assert foreign.seen == []


@pytest.mark.parametrize("path", [DISCOVERY, OAUTH_SERVER, TOKEN])
def test_a_bomb_for_the_sdk_is_not_unpacked(workspace: HostileWorkspace, path: str) -> None:
    bomb = gzip.compress(b'{"a":"' + b"x" * (64 << 20) + b'"}', 1)
    sent = partial(reply, status=200, answer=bomb, Content_Encoding="gzip")
    honest = workspace.answers[DISCOVERY]
    workspace.answers[DISCOVERY] = at_the_second_look((404, {}), lambda handler: reply(handler, 200, honest))
    if path == DISCOVERY:
        workspace.answers[path] = at_the_second_look((404, {}), sent)
    else:
        workspace.answers[path] = sent
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with suppress(LakebaseError):
        LakebaseClient(workspace.config()).tokens.get(5)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 32 << 20


def test_what_the_sdk_logs_is_redacted(workspace: HostileWorkspace, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    repeated = {"error_code": SECRET, "message": f"is {SECRET} right?"}
    workspace.answers[DISCOVERY] = lambda handler: reply(handler, 400, repeated)
    with suppress(LakebaseError):
        LakebaseClient(workspace.config()).tokens.get(5)
    assert "databricks.sdk" in {record.name for record in caplog.records}
    assert SECRET not in caplog.text
    logging.getLogger("databricks.sdk.oauth").warning("child: %s", SECRET)
    assert "child" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "parameter",
    [
        "sslkeylogfile",
        "service",
        "servicefile",
        "gssencmode",
        "replication",
        "passfile",
        "sslcert",
        "conninfo",
        "hostaddr",
        # Of libpq 18; and one that libpq lists nowhere, and takes for sslmode=prefer.
        "scram_client_key",
        "scram_server_key",
        "requiressl",
        "of_a_libpq_to_come",
    ],
)
def test_what_is_kept_from_libpq_is_given_by_no_caller(lakebase_env: LocalLakebase, parameter: str) -> None:
    with LakebaseClient(lakebase_env.config()) as client:
        with pytest.raises(ConfigError, match=f"{parameter} cannot be given to connect"):
            client.connect(**{parameter: "x"})
        with pytest.raises(ConfigError, match=f"{parameter} cannot be given to connect"):
            asyncio.run(client.aconnect(**{parameter: "x"}))
        with pytest.raises(ConfigError, match=parameter):
            client.engine(connect_args={parameter: "x"}).connect()
