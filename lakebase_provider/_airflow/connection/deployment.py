"""A deployment's settings for all its connections; a connection takes precedence, defaults come last.

They are the section ``[lakebase]`` of Airflow's configuration (``AIRFLOW__LAKEBASE__MAX_SIZE`` and so on),
then the variables of :mod:`lakebase_provider.core` that begin with ``LAKEBASE_``. Variables that libpq and
the Databricks SDK read have no effect here: they say what to connect to and as whom, and may have been set
for something else.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass

from airflow.providers.common.compat.sdk import conf

from lakebase_provider._airflow.connection.page_options import PAGE_OPTIONS
from lakebase_provider.core.config import setting, settings
from lakebase_provider.core.config.environment import read_environment
from lakebase_provider.core.errors import ConfigError

_SECTION = "lakebase"
_PREFIX = f"AIRFLOW__{_SECTION.upper()}__"
_ROWS = {row.name: row for row in settings() if row.of_deployment}
_BY_VARIABLE = [
    row for row in _ROWS.values() if row.env and all(name.startswith("LAKEBASE_") for name in row.env)
]


@dataclass(frozen=True)
class Said:
    """A setting's value, and where the deployment sets it."""

    value: object
    where: str


def deployment_settings() -> dict[str, Said]:
    """The deployment's settings, by name, each validated.

    Raises:
        ConfigError: One is malformed, unknown, or cannot be set for all connections.
    """
    found = {
        name: Said(value, " or ".join(setting(name).env))
        for name, value in read_environment(_BY_VARIABLE, None).items()
    }
    for name in sorted(_options() - PAGE_OPTIONS.keys()):
        where = f"{_PREFIX}{name.upper()} (or {name} in [{_SECTION}] of airflow.cfg)"
        _require_known(name, where)
        # Read through Airflow, which knows the precedence.
        value = conf.get(_SECTION, name, fallback=None)
        if value is not None and value.strip():
            found[name] = Said(value.strip(), where)
    return {name: _parsed(name, said) for name, said in found.items()}


def _options() -> set[str]:
    # Not setting by setting: mostly nothing is set, and a task should not pay for that.
    options = {name[len(_PREFIX) :].lower() for name in os.environ if name.startswith(_PREFIX)}
    return options | set(conf.options(_SECTION)) if conf.has_section(_SECTION) else options


def _require_known(name: str, where: str) -> None:
    if name in _ROWS:
        return
    if any(row.name == name for row in settings()):
        raise ConfigError(
            f"Setting '{name}' cannot be set for all connections, as in {where}.",
            remedy="Put it in the connection.",
        )
    close = difflib.get_close_matches(name, _ROWS, n=1)
    raise ConfigError(
        f"Unknown setting '{name}', set for all connections in {where}.",
        remedy=f"Did you mean '{close[0]}'?"
        if close
        else f"The settings for all connections are: {', '.join(_ROWS)}.",
    )


def _parsed(name: str, said: Said) -> Said:
    try:
        return Said(_ROWS[name].parse(said.value), said.where)
    except ConfigError as error:
        raise told_where(error, {name: said}) from None


def told_where(error: ConfigError, said: dict[str, Said]) -> ConfigError:
    """The error, with the place to correct if it is about one of the deployment's settings."""
    for name, one in said.items():
        if f"'{name}'" in error.message:
            return ConfigError(
                f"{error.message} The deployment sets it for all connections.",
                remedy=f"Correct {one.where}, or set '{name}' in the connection.",
            )
    return error
