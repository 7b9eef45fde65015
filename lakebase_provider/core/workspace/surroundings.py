"""Whose the credentials are that databricks-sdk finds by itself: of the workspace that is named beside them.

The environment and the Databricks configuration file belong to the deployment. What they hold goes to the
workspace that they name, and to none that somebody else names in a connection or in a run's configuration.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from pathlib import Path

from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.config.allowed_hosts import HostRefusedError, allowed_origin
from lakebase_provider.core.config.places import WORKSPACE_SECRETS
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.workspace.answers import is_at

#: Variables that hold a secret of databricks-sdk's, or say where one is.
SECRET_VARIABLES = (
    "DATABRICKS_TOKEN",
    "DATABRICKS_CLIENT_SECRET",
    "DATABRICKS_PASSWORD",
    "DATABRICKS_CONFIG_PROFILE",
    "DATABRICKS_OIDC_TOKEN",
    "DATABRICKS_OIDC_TOKEN_ENV",
    "DATABRICKS_OIDC_TOKEN_FILEPATH",
    "DATABRICKS_METADATA_SERVICE_URL",
    "DATABRICKS_GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_CREDENTIALS",
    "ARM_CLIENT_SECRET",
    # Of GitHub's and Azure DevOps' runners, whose tokens of identity the SDK exchanges.
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "SYSTEM_ACCESSTOKEN",
)
#: Authentications that keep a secret for each workspace, or take it from where it is for none.
BY_WORKSPACE = ("databricks-cli", "external-browser", "azure-cli", "azure-msi")
#: Keys of a profile that hold a secret, or say where one is.
_PROFILE_SECRETS = (
    "token",
    "client_secret",
    "azure_client_secret",
    "password",
    "google_credentials",
    "google_service_account",
    "oidc_token_env",
    "oidc_token_filepath",
    "metadata_service_url",
)


def environment_is_for(config: LakebaseConfig) -> bool:
    """Whether the environment's credentials are for the workspace that the configuration names, if any.

    A profile names one, too, unless it is the environment's own.
    """
    host = config.workspace_host
    if host is None and names_a_profile(config):
        section = _profile(str(config.profile))
        resource = section.get("azure_workspace_resource_id")
        if resource and resource != os.environ.get("DATABRICKS_AZURE_RESOURCE_ID"):
            return False
        host = section.get("host")
    try:
        return not host or _is_at(_named_by_the_environment(), host)
    except HostRefusedError:
        # Of a profile; the SDK's configuration refuses it by name.
        return False


def names_a_profile(config: LakebaseConfig) -> bool:
    """Whether the configuration names a profile, and not the environment."""
    return config.profile not in (None, os.environ.get("DATABRICKS_CONFIG_PROFILE"))


def require_own_workspace(config: LakebaseConfig) -> None:
    """Raise a ConfigError where a secret of the surroundings would go to another workspace than its own."""
    if config.profile is not None and not _profile_is_for(config.profile, config.workspace_host):
        raise ConfigError(
            f"The profile {config.profile!r} is for another workspace than 'workspace_host', or names none.",
            remedy="Drop workspace_host: the profile names its own, as 'host' in the configuration file.",
        )
    if environment_is_for(config) or _brings_its_own(config):
        return
    held = next((name for name in SECRET_VARIABLES if os.environ.get(name)), None)
    named = _named_by_the_environment()
    by_profile = config.workspace_host is None
    wanted = f"the host of profile {config.profile!r}" if by_profile else "'workspace_host'"
    if named is not None:
        where = "DATABRICKS_HOST" if os.environ.get("DATABRICKS_HOST") else "DATABRICKS_CONFIG_PROFILE"
        problem = f"The environment's credentials are for {where}, which is not {wanted}."
    elif held is not None:
        problem = f"The environment's {held} is for no workspace that it names, such as {wanted}."
    else:
        return
    ways = (
        "Put the profile's own credentials into the configuration file, beside its host."
        if by_profile
        else "Set client_id and client_secret, token or profile beside workspace_host; no auth_type."
    )
    raise ConfigError(
        problem,
        remedy=f"{ways} Or set DATABRICKS_HOST to it in the environment, if the credentials there are for "
        "that workspace.",
    )


def config_file() -> Path:
    """Where the profiles are."""
    return Path(os.environ.get("DATABRICKS_CONFIG_FILE", "~/.databrickscfg")).expanduser()


def _named_by_the_environment() -> str | None:
    """The workspace's URL, as it is written there."""
    profile = os.environ.get("DATABRICKS_CONFIG_PROFILE")
    return os.environ.get("DATABRICKS_HOST") or (_profile(profile).get("host") if profile else None) or None


def _is_at(url: str | None, workspace_host: str) -> bool:
    return url is not None and is_at(allowed_origin(workspace_host), url)


def _brings_its_own(config: LakebaseConfig) -> bool:
    """Whether the configuration authenticates by what it holds itself."""
    if config.auth_type in BY_WORKSPACE:
        return True
    if config.auth_type not in (None, *WORKSPACE_SECRETS):
        return False
    own = any(
        getattr(config, name) is not None
        for kind, name in WORKSPACE_SECRETS.items()
        if config.auth_type in (None, kind)
    )
    if own or config.profile is None:
        return own
    section = _profile(config.profile)
    return any(section.get(key) for key in (*_PROFILE_SECRETS, "auth_type"))


def _profile_is_for(profile: str, workspace_host: str | None) -> bool:
    """Whether the secrets of a profile may go to that host: it is the profile's own."""
    section = _profile(profile)
    if workspace_host is None or not section:
        # Of a profile that is not there the SDK says so.
        return True
    host = section.get("host") or os.environ.get("DATABRICKS_HOST")
    if host:
        return _is_at(host, workspace_host)
    if section.get("auth_type"):
        return section["auth_type"] in BY_WORKSPACE
    return not any(section.get(key) for key in _PROFILE_SECRETS)


def _profile(name: str) -> Mapping[str, str]:
    """What the configuration file says of a profile, read as databricks-sdk reads it: without defaults."""
    parser = configparser.ConfigParser(interpolation=None, default_section="", strict=False)
    try:
        parser.read(config_file())
        return dict(parser[name]) if parser.has_section(name) else {}
    except (configparser.Error, OSError, UnicodeError):
        # The SDK cannot read it either, and says so.
        return {}
