"""What may be sent to the triggerer: JSON, and no secrets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def require_json(parameters: Any) -> Any:
    """The parameters of a statement, unchanged except that a tuple becomes a list.

    Args:
        parameters: A mapping, a list or a tuple; or something that Airflow resolves later, which is passed
            on.

    Raises:
        ConfigError: A value would not arrive unchanged; the message names it and its type.
    """
    if isinstance(parameters, Mapping):
        return {name: _checked(f"'{name}'", value) for name, value in parameters.items()}
    if isinstance(parameters, list | tuple):
        return [_checked(f"number {n}", value) for n, value in enumerate(parameters, 1)]
    return parameters


def require_no_secrets(hook_params: Any) -> None:
    """Make sure that no secret is stored with a trigger.

    Raises:
        ConfigError: `hook_params` contain a secret setting.
    """
    if not isinstance(hook_params, Mapping):
        return
    from lakebase_provider.core.config import settings
    from lakebase_provider.core.errors import ConfigError

    secret = {row.name for row in settings() if row.kind == "secret"}
    for name in hook_params:
        if name in secret:
            raise ConfigError(
                f"hook_params contain the secret '{name}', which would be stored with the trigger.",
                remedy="Put it in the Airflow connection.",
            )


def _checked(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_checked(name, one) for one in value]
    if isinstance(value, Mapping):
        return {key: _checked(name, one) for key, one in value.items()}
    # Airflow resolves another task's output before the task runs; it is checked again then.
    if hasattr(value, "resolve") and hasattr(value, "iter_references"):
        return value
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    from lakebase_provider.core.errors import ConfigError

    remedy = "Pass its text and let the server convert it, such as %(name)s::timestamptz or ::numeric."
    if isinstance(value, tuple):
        remedy = "Pass a list; IN %(name)s accepts one too."
    raise ConfigError(
        f"Parameter {name} holds a {type(value).__name__}, which cannot be sent to the triggerer as JSON.",
        remedy=remedy,
    )
