"""Settings given by the name of an environment variable."""

from __future__ import annotations

import os
import re
from typing import Any

from dagster import EnvVar

from lakebase_provider.core.config import setting
from lakebase_provider.core.errors import ConfigError

#: The class has no public name.
_INT_ENV_VAR = type(EnvVar.int("_"))


#: Capitals, or words and numbers: no secret that somebody has put where the name belongs looks so.
_NAME = re.compile(r"[A-Z_][A-Z0-9_]*|_*[A-Za-z]+(?:_+(?:[A-Za-z]+|[0-9]+))*_*")
#: Characters; more has no name of a variable that anybody has thought of.
_LONGEST = 64


def is_variable_name(text: str) -> bool:
    """Whether it looks like the name of an environment variable, which may be shown."""
    return len(text) <= _LONGEST and _NAME.fullmatch(text) is not None


def resolved(name: str, value: Any) -> Any:
    """A field's value: Dagster resolves EnvVar when it sets up a resource, but in a script nobody does.

    Args:
        name: The setting's name.
        value: What the field holds.

    Raises:
        ConfigError: The variable is not set. Silently left out, the setting could become another principal's.
    """
    if not isinstance(value, (EnvVar, _INT_ENV_VAR)):
        return value
    found = os.environ.get(value.env_var_name)
    if found is None:
        raise variable_not_set(name, value.env_var_name)
    return found


def variable_not_set(name: str, variable: str) -> ConfigError:
    """The error for a setting whose variable is not set."""
    if not is_variable_name(variable):
        # Most likely the secret itself.
        return setting(name).error(
            f"is read from an environment variable, whose name is given as a text of {len(variable)} "
            "characters, and there is none of that name",
            remedy="Give the name of the variable, and not its value.",
        )
    return setting(name).error(
        f"is read from the environment variable '{variable}', which is not set",
        remedy=f"Set {variable} where Dagster's processes start.",
    )
