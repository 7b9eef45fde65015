"""Secrets of the environment and of profiles, in an environment that names no workspace, or names another."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

# It says where Airflow's home is, before the first import of Airflow.
from tests.airflow.conftest import define  # noqa: F401 # isort: skip
from airflow.sdk import Connection

from dagster_lakebase import LakebaseResource
from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.core.errors import ConfigError, LakebaseError
from lakebase_provider.core.workspace.surroundings import SECRET_VARIABLES
from lakebase_provider.hooks.lakebase import LakebaseHook

from .hostile_workspace import ENDPOINT, HostileWorkspace

VICTIM = "of-the-victim"
#: A token of identity, as far as anybody looks at it before it is sent.
ID_TOKEN = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b"{}", b"{}"))
ID_TOKEN += f".{VICTIM}"

ENVIRONMENTS: dict[str, dict[str, str]] = {
    "pat": {"DATABRICKS_TOKEN": f"dapi-{VICTIM}"},
    "m2m": {"DATABRICKS_CLIENT_ID": "i", "DATABRICKS_CLIENT_SECRET": f"dose-{VICTIM}"},
    "secret": {"DATABRICKS_CLIENT_SECRET": f"dose-{VICTIM}"},
    "basic": {"DATABRICKS_USERNAME": "u", "DATABRICKS_PASSWORD": f"password-{VICTIM}"},
    "oidc": {"DATABRICKS_CLIENT_ID": "i", "DATABRICKS_OIDC_TOKEN": ID_TOKEN},
    "oidc-env": {"DATABRICKS_CLIENT_ID": "i", "DATABRICKS_OIDC_TOKEN_ENV": "MINE", "MINE": ID_TOKEN},
    "oidc-file": {"DATABRICKS_CLIENT_ID": "i", "DATABRICKS_OIDC_TOKEN_FILEPATH": "{folder}/id_token"},
    "profile": {"DATABRICKS_CONFIG_PROFILE": "victim"},
    "profile-m2m": {"DATABRICKS_CONFIG_PROFILE": "m2m"},
    "profile-default": {"DATABRICKS_CONFIG_PROFILE": "DEFAULT"},
    "profile-without-a-host": {"DATABRICKS_CONFIG_PROFILE": "hostless"},
    "profile-alone": {},
}
PROFILES = f"""
[DEFAULT]
host = https://victim.cloud.databricks.com
token = dapi-{VICTIM}
[victim]
host = https://victim.cloud.databricks.com
token = dapi-{VICTIM}
[m2m]
host = https://victim.cloud.databricks.com
client_id = i
client_secret = dose-{VICTIM}
[hostless]
token = dapi-{VICTIM}
"""
#: What somebody brings to be given the environment's secrets beside it.
BROUGHT: list[dict[str, Any]] = [
    {},
    {"client_id": "mine"},
    {"auth_type": "pat"},
    {"auth_type": "oauth-m2m"},
    {"auth_type": "oauth-m2m", "client_id": "mine"},
    {"auth_type": "basic"},
    {"auth_type": "env-oidc", "client_id": "mine"},
    {"auth_type": "file-oidc", "client_id": "mine"},
    {"token": "mine", "auth_type": "oauth-m2m"},
    {"profile": "hostless"},
    {"profile": "hostless", "auth_type": "pat"},
    {"profile": "m2m", "auth_type": "oauth-m2m"},
]
FRONTS = ["core", "environment", "hook", "resource"]


@pytest.fixture
def workspace() -> Iterator[HostileWorkspace]:
    with HostileWorkspace("127.0.0.2") as found:
        yield found


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in [*os.environ]:
        if name.startswith(("PG", "DATABRICKS_", "ARM_", "LAKEBASE_")) or name in SECRET_VARIABLES:
            monkeypatch.delenv(name)
    monkeypatch.setenv("LAKEBASE_ALLOW_LOOPBACK", "1")
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "databrickscfg"))
    (tmp_path / "databrickscfg").write_text(PROFILES)
    (tmp_path / "id_token").write_text(ID_TOKEN)
    return tmp_path


def set_environment(
    monkeypatch: pytest.MonkeyPatch, folder: Path, environment: str, named: str | None
) -> None:
    for name, value in ENVIRONMENTS[environment].items():
        monkeypatch.setenv(name, value.format(folder=folder))
    if named is not None:
        monkeypatch.setenv("DATABRICKS_HOST", named)


def mint(front: str, *, seconds: float = 5, **settings: Any) -> str:
    """Mint by that front, with settings that somebody else than the environment has given."""
    settings = {"endpoint": ENDPOINT, "user": "u", **settings}
    if front == "core":
        client = LakebaseClient(LakebaseConfig(**settings))
    elif front == "environment":
        client = LakebaseClient(LakebaseConfig.from_env(**settings))
    elif front == "hook":
        stored = Connection(conn_id="stored", conn_type="lakebase", extra=json.dumps(settings))
        client = LakebaseHook("stored", connection=stored).client
    else:
        client = LakebaseResource(**settings).client
    return client.tokens.get(seconds).reveal()


def sent(workspace: HostileWorkspace) -> list[str]:
    """What the workspace was shown of the victim's, as it is or within Basic credentials."""
    texts = list(workspace.seen)
    for text in workspace.seen:
        for line in text.splitlines():
            if "Basic " in line:
                with contextlib.suppress(ValueError):
                    texts.append(base64.b64decode(line.rpartition("Basic ")[2].strip()).decode())
    return [text for text in texts if VICTIM in text]


@pytest.mark.parametrize("named", [None, "https://victim.cloud.databricks.com"], ids=["unnamed", "named"])
@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("front", FRONTS)
def test_the_environments_secrets_go_to_the_workspace_that_it_names_alone(
    workspace: HostileWorkspace,
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    front: str,
    environment: str,
    named: str | None,
) -> None:
    set_environment(monkeypatch, folder, environment, named)
    for brought in BROUGHT:
        with contextlib.suppress(LakebaseError):
            mint(front, workspace_host=workspace.url, **brought)
        assert sent(workspace) == [], brought


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize(
    ("front", "named"),
    [*((front, None) for front in FRONTS), ("environment", "https://victim.cloud.databricks.com")],
)
def test_nor_to_the_host_of_a_profile_that_somebody_else_names(
    workspace: HostileWorkspace,
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    front: str,
    environment: str,
    named: str | None,
) -> None:
    set_environment(monkeypatch, folder, environment, named)
    # Hooks and resources of one configuration share a client, and what it has found.
    other, own = f"other-{uuid4().hex}", f"own-{uuid4().hex}"
    others = f"[{other}]\nhost = {workspace.url}\n[{own}]\nhost = {workspace.url}\ntoken = dapi-own\n"
    (folder / "databrickscfg").write_text(f"{PROFILES}{others}")
    for brought in BROUGHT:
        if "profile" not in brought:
            with contextlib.suppress(LakebaseError):
                mint(front, profile=other, **brought)
            assert sent(workspace) == [], brought
    if named is None:
        assert mint(front, profile=own, seconds=60) == "database-token"
    assert sent(workspace) == []


@pytest.mark.parametrize("front", FRONTS)
def test_the_error_says_which_variable_is_missing(
    workspace: HostileWorkspace, monkeypatch: pytest.MonkeyPatch, folder: Path, front: str
) -> None:
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-mine")
    with pytest.raises(ConfigError, match=r"(?s)environment's DATABRICKS_TOKEN.*DATABRICKS_HOST to it"):
        mint(front, workspace_host=workspace.url)
    (folder / "databrickscfg").write_text(f"[{front}-other]\nhost = {workspace.url}\n")
    with pytest.raises(ConfigError, match=r"(?s)the host of profile '\S+'.*into the configuration file"):
        mint(front, profile=f"{front}-other")
    monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
    assert mint(front, workspace_host=workspace.url, seconds=60) == "database-token"
    assert workspace.seen


@pytest.mark.parametrize("front", FRONTS)
def test_the_environments_profile_goes_to_its_own_host(
    workspace: HostileWorkspace, monkeypatch: pytest.MonkeyPatch, folder: Path, front: str
) -> None:
    (folder / "databrickscfg").write_text(f"[mine]\nhost = {workspace.url}\ntoken = dapi-mine\n")
    monkeypatch.setenv("DATABRICKS_CONFIG_PROFILE", "mine")
    assert mint(front, workspace_host=workspace.url, seconds=60) == "database-token"
    assert mint(front, seconds=60) == "database-token"


def test_a_profiles_host_is_no_other_profiles(workspace: HostileWorkspace, folder: Path) -> None:
    """databricks-sdk takes nothing from DEFAULT into another profile, and neither does the check."""
    (folder / "databrickscfg").write_text(
        f"[DEFAULT]\nhost = {workspace.url}\ntoken = x\n[hostless]\ntoken = dapi-{VICTIM}\n"
    )
    with pytest.raises(ConfigError, match="'hostless' is for another workspace"):
        mint("core", workspace_host=workspace.url, profile="hostless")
    assert workspace.seen == []


def test_every_secret_of_the_sdk_is_looked_for() -> None:
    from databricks.sdk.core import Config

    identities = {"azure_use_msi", "azure_client_id", "azure_tenant_id", "client_id", "username"}
    # It names a workspace, and nothing that would be sent there.
    identities |= {"azure_workspace_resource_id"}
    secrets = {a.env for a in Config.attributes() if getattr(a, "auth", None) and a.name not in identities}
    assert secrets - {None} <= set(SECRET_VARIABLES)
