"""What a deployment asks of every connection, and no connection lowers.

Who may edit a connection, a DAG's parameters or a run's configuration is not always who may say how safe
connections have to be. These variables of the environment say that; unset ones ask for nothing.
"""

from __future__ import annotations

import os
from typing import Protocol

from lakebase_provider.core.errors import ConfigError

#: The weakest `sslmode` that is allowed: ``require``, ``verify-ca`` or ``verify-full``.
LEAST_SSLMODE = "LAKEBASE_LEAST_SSLMODE"
#: Ways to authenticate that are allowed, comma-separated, as databricks-sdk names them (``oauth-m2m``,
#: ``pat``, ``azure-client-secret``, …); ``password`` for a native password, ``default`` for the SDK's choice.
ALLOWED_AUTH_TYPES = "LAKEBASE_ALLOWED_AUTH_TYPES"
#: Profiles of the Databricks configuration file that are allowed, comma-separated.
ALLOWED_PROFILES = "LAKEBASE_ALLOWED_PROFILES"

#: Values of `sslmode`.
FROM_WEAKEST = ("require", "verify-ca", "verify-full")


class _Config(Protocol):
    """What is looked at of a :class:`.LakebaseConfig`."""

    @property
    def auth(self) -> str: ...
    @property
    def auth_type(self) -> str | None: ...
    @property
    def azure_client_secret(self) -> object: ...
    @property
    def client_secret(self) -> object: ...
    @property
    def profile(self) -> str | None: ...
    @property
    def sslmode(self) -> str: ...
    @property
    def token(self) -> object: ...


def check_floors(config: _Config) -> None:
    """Raise a ConfigError when the configuration lies below what the deployment asks for."""
    least = os.environ.get(LEAST_SSLMODE, "").strip()
    if least:
        if least not in FROM_WEAKEST:
            raise ConfigError(
                f"The variable {LEAST_SSLMODE} holds none of {', '.join(FROM_WEAKEST)}.",
                remedy=f"Correct {LEAST_SSLMODE} in the deployment's environment.",
            )
        if FROM_WEAKEST.index(config.sslmode) < FROM_WEAKEST.index(least):
            raise _below("sslmode", config.sslmode, LEAST_SSLMODE, f"at least {least}")
    for name, value, variable in (
        ("auth_type", auth_type(config), ALLOWED_AUTH_TYPES),
        ("profile", config.profile, ALLOWED_PROFILES),
    ):
        allowed = [entry.strip() for entry in os.environ.get(variable, "").split(",") if entry.strip()]
        if allowed and value is not None and value not in allowed:
            raise _below(name, value, variable, " or ".join(allowed))


def auth_type(config: _Config) -> str:
    """How the configuration authenticates, as databricks-sdk names it; ``default`` if that is to choose."""
    if config.auth == "password":
        return "password"
    if config.auth_type is not None:
        return config.auth_type
    if config.token is not None:
        return "pat"
    if config.client_secret is not None:
        return "oauth-m2m"
    return "azure-client-secret" if config.azure_client_secret is not None else "default"


def _below(name: str, value: str, variable: str, asked: str) -> ConfigError:
    return ConfigError(
        f"Setting '{name}' is {value!r}, which this deployment does not allow.",
        remedy=f"Use {asked}; the deployment's variable {variable} says so.",
    )
