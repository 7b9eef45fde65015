"""The mask that stands for a secret: in a resource's fields, and in a configuration from the Launchpad.

Dagster stores a resource's fields with its definitions and its runs. It opens the Launchpad with the
definitions' own configuration, with each secret replaced by a mask, including those left out or given by
``EnvVar``. Launched unchanged, the configuration would use the mask as the secret. So a mask means the secret
that the definitions have.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from dagster import EnvVar, InitResourceContext
from dagster._core.execution.context.init import UnboundInitResourceContext

from lakebase_provider.core.config import settings
from lakebase_provider.core.config.environment import read_environment
from lakebase_provider.core.config.places import DATABASE_PLACE, led_elsewhere, secrets_used
from lakebase_provider.core.errors import ConfigError

#: Where a secret goes, how it is asked for, and what proves who is there.
_PLACE = (*DATABASE_PLACE, "workspace_host", "auth", "auth_type", "profile", "azure_tenant_id")
#: What Dagster shows in place of a secret.
MASK = "********"


def held_back(given: dict[str, Any], known: Iterable[str]) -> dict[str, object]:
    """Take what may be a secret out of a resource's arguments, before Dagster or pydantic sees them.

    A secret given as text, and a host with a user name in it, leave the mask behind. One of another type
    leaves its type's name, and so is refused; an argument that is not known leaves the mask, for it may be a
    secret under a misspelt name.

    Args:
        given: Values by argument; changed in place.
        known: The arguments that there are.

    Returns:
        Opaque values by the setting's name.
    """
    held = {}
    for row in settings():
        value = given.get(row.name)
        if isinstance(value, EnvVar) or value == MASK:
            continue
        hidden = row.hidden(value)
        if hidden is not value:
            given[row.name] = hidden
            if isinstance(value, str):
                held[row.name], given[row.name] = hidden, MASK
    given.update(dict.fromkeys(given.keys() - known, MASK))
    return held


def secrets_behind_masks(context: InitResourceContext) -> dict[str, Any]:
    """The definitions' value of each secret that the run's configuration masks, if they have one.

    Args:
        context: The context of the resource's set-up.

    Returns:
        Texts and :class:`~dagster.EnvVar`, by the setting's name. Empty where the configuration masks none.
    """
    given, defined = context.resource_config, _defined(context)
    masked = [row.name for row in settings() if row.kind == "secret" and _value(given, row.name) == MASK]
    found = {name: _value(defined, name) for name in masked}
    return {
        name: EnvVar(value["env"]) if isinstance(value, Mapping) else value
        for name, value in found.items()
        if value not in (None, MASK)
    }


def elsewhere(context: InitResourceContext) -> ConfigError | None:
    """What to raise where a run's configuration leads secrets elsewhere that are not its own, or None.

    They are the definitions' or the environment's, and so is a secret that the run's configuration takes from
    a variable: who starts a run may not lead them anywhere, nor a token that is minted by them.

    Args:
        context: Of the set-up of the resource.
    """
    given = context.resource_config
    if not isinstance(given, Mapping) or not _is_of_a_run(context):
        return None
    # Without what it names by a variable that is not set, of which the resource itself says so.
    resolved = {name: _resolved(value) for name, value in (_defined(context) or {}).items()}
    trusted = {**read_environment(settings(), None), **{k: v for k, v in resolved.items() if v is not None}}
    entered = {k: v for k, v in given.items() if v not in (None, "", MASK)}
    run = {**trusted, **entered}
    used = [name for name in secrets_used(run) if name in entered or resolved.get(name)]
    if used and all(run[name] not in (resolved.get(name), *os.environ.values()) for name in used):
        return None
    name = led_elsewhere(given, trusted, names=_PLACE)
    if name is None:
        return None
    return ConfigError(
        f"The run's configuration changes '{name}', and the secrets that would go there are the definitions' "
        "or the environment's.",
        remedy=f"Leave '{name}' as the definitions and the environment have it, or enter the secret too, by "
        f"its value; or set '{name}' in the definitions.",
    )


def _is_of_a_run(context: InitResourceContext) -> bool:
    """Whether a run's configuration can say what the resource is: not of one within another resource."""
    schema = _schema(context)
    return "workspace_host" in getattr(getattr(schema, "config_type", None), "fields", {})


def _defined(context: InitResourceContext) -> Mapping[str, Any] | None:
    schema = _schema(context)
    found = schema.default_value if schema is not None and schema.default_provided else None
    return found if isinstance(found, Mapping) else None


def _schema(context: InitResourceContext) -> Any:
    # One that a test or a script has built is of no resource, and of no run's configuration.
    if isinstance(context, UnboundInitResourceContext) or context.resource_def is None:
        return None
    return context.resource_def.config_schema


def _resolved(value: Any) -> Any:
    return os.environ.get(value["env"]) if isinstance(value, Mapping) else value


def _value(config: Any, name: str) -> Any:
    return config.get(name) if isinstance(config, Mapping) else None
