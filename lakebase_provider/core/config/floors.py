"""What a deployment demands of every connection, and no connection can lower.

Somebody who may edit a connection, a DAG's parameters or a run's configuration may not be entitled to decide
how safe connections must be. These environment variables decide that; unset ones demand nothing. One that is
set and says nothing is an error: whoever set it does not want everything allowed.
"""

from __future__ import annotations

import os
from typing import Protocol

from lakebase_provider.core.errors import ConfigError

#: The weakest allowed `sslmode`: ``require``, ``verify-ca`` or ``verify-full``.
LEAST_SSLMODE = "LAKEBASE_LEAST_SSLMODE"
#: Ways to authenticate that are allowed, comma-separated, as databricks-sdk names them (``oauth-m2m``,
#: ``pat``, ``azure-client-secret``, …); ``password`` for a native password, ``default`` for the SDK's choice.
ALLOWED_AUTH_TYPES = "LAKEBASE_ALLOWED_AUTH_TYPES"
#: Profiles of the Databricks configuration file that are allowed, comma-separated.
ALLOWED_PROFILES = "LAKEBASE_ALLOWED_PROFILES"

#: Values of `sslmode`.
FROM_WEAKEST = ("require", "verify-ca", "verify-full")


class _Config(Protocol):
    """The parts of a :class:`.LakebaseConfig` that are checked."""

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
    """Raise a ConfigError if the configuration falls below what the deployment demands."""
    least = os.environ.get(LEAST_SSLMODE)
    if least is not None:
        least = least.strip()
        if least not in FROM_WEAKEST:
            raise ConfigError(
                f"The environment variable {LEAST_SSLMODE} is not one of {', '.join(FROM_WEAKEST)}.",
                remedy=f"Correct {LEAST_SSLMODE} in the deployment's environment, or unset it there.",
            )
        if FROM_WEAKEST.index(config.sslmode) < FROM_WEAKEST.index(least):
            raise _below("sslmode", config.sslmode, LEAST_SSLMODE, f"at least {least}")
    for name, value, variable in (
        ("auth_type", auth_type(config), ALLOWED_AUTH_TYPES),
        ("profile", config.profile, ALLOWED_PROFILES),
    ):
        allowed = _listed(variable)
        if allowed is not None and value is not None and value not in allowed:
            raise _below(name, value, variable, " or ".join(allowed))


def _listed(variable: str) -> list[str] | None:
    """The entries of a list; None if it is not set."""
    text = os.environ.get(variable)
    if text is None:
        return None
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    if not entries:
        # Rather a slip than the wish to allow nothing, and certainly not the wish to allow everything.
        raise ConfigError(
            f"The environment variable {variable} is set but names nothing.",
            remedy=f"Name in {variable} what is allowed, or unset it to allow everything.",
        )
    return entries


def auth_type(config: _Config) -> str:
    """How the configuration authenticates, by databricks-sdk's name; ``default`` if the SDK chooses."""
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
        remedy=f"Use {asked}, as the deployment's environment variable {variable} demands.",
    )
