"""What a run's configuration says about secrets when it comes from the Launchpad.

Dagster opens the Launchpad with the definitions' own configuration, with each secret replaced by a mask,
including those left out or given by ``EnvVar``. Launched unchanged, the configuration would use the mask as
the secret. So a mask means the secret that the definitions have.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dagster import EnvVar, InitResourceContext

from lakebase_provider.core.config import settings
from lakebase_provider.core.errors import ConfigError

#: Where a secret is sent, and how that host proves its identity. Whoever starts a run must not redirect the
#: definitions' secrets.
_WHERE_TO = (
    "workspace_host",
    "host",
    "port",
    "sslmode",
    "sslrootcert",
    "auth_type",
    "profile",
    "azure_tenant_id",
)
#: What Dagster shows instead of a secret.
MASK = "********"


def secrets_behind_masks(context: InitResourceContext) -> dict[str, Any]:
    """The definitions' value of each secret that the run's configuration masks, if they have one.

    Args:
        context: The context of the resource's set-up.

    Returns:
        Texts and :class:`~dagster.EnvVar`, by the setting's name. Empty where the configuration masks none.

    Raises:
        ConfigError: The run's configuration masks a secret but changes where it is sent.
    """
    given = context.resource_config
    masked = [row.name for row in settings() if row.kind == "secret" and _value(given, row.name) == MASK]
    if not masked:
        return {}
    schema = None if context.resource_def is None else context.resource_def.config_schema
    defined = schema.default_value if schema is not None and schema.default_provided else None
    found = {name: _value(defined, name) for name in masked}
    found = {name: value for name, value in found.items() if value not in (None, MASK)}
    if found:
        _require_same_place(given, defined, min(found))
    return {name: _by_reference(value) for name, value in found.items()}


def _require_same_place(given: Any, defined: Any, secret: str) -> None:
    for name in _WHERE_TO:
        value, own = _value(given, name), _value(defined, name)
        if isinstance(own, Mapping):
            own = os.environ.get(own["env"])
        if value != own:
            raise ConfigError(
                f"The run's configuration changes '{name}' but masks '{secret}', which belongs to the "
                f"definitions' '{name}'.",
                remedy=f"Leave '{name}' as in the definitions, or enter '{secret}' too.",
            )


def _value(config: Any, name: str) -> Any:
    return config.get(name) if isinstance(config, Mapping) else None


def _by_reference(value: Any) -> Any:
    return EnvVar(value["env"]) if isinstance(value, Mapping) else value
