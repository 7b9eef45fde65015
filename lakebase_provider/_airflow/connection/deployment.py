"""What a deployment says for all its connections: below the connection, above the defaults.

It is the section ``[lakebase]`` of Airflow's configuration (``AIRFLOW__LAKEBASE__MAX_SIZE`` and so on), and
below that the variables of :mod:`lakebase_provider.core` that begin with ``LAKEBASE_``. The variables that
libpq and the Databricks SDK read stay without effect here: they say to what to connect and as whom, and
may have been set for something else.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass

from airflow.providers.common.compat.sdk import conf

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
    """A setting's value, and where the deployment says it."""

    value: object
    where: str


def deployment_settings() -> dict[str, Said]:
    """The settings that the deployment says, by name; each has been looked at.

    Raises:
        ConfigError: One is malformed, unknown, or none that may be said for all connections.
    """
    found = {
        name: Said(value, " or ".join(setting(name).env))
        for name, value in read_environment(_BY_VARIABLE, None).items()
    }
    for name in sorted(_options()):
        where = f"{_PREFIX}{name.upper()} (or {name} in [{_SECTION}] of airflow.cfg)"
        _require_known(name, where)
        # By Airflow, which knows what goes before what.
        value = conf.get(_SECTION, name, fallback=None)
        if value is not None and value.strip():
            found[name] = Said(value.strip(), where)
    return {name: _parsed(name, said) for name, said in found.items()}


def _options() -> set[str]:
    # Not each setting in turn: a task that comes here has said nothing, mostly, and need not pay for that.
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
    """The error, with the place to correct where it is about a setting of the deployment's."""
    for name, one in said.items():
        if f"'{name}'" in error.message:
            return ConfigError(
                f"{error.message} The deployment sets it for all connections.",
                remedy=f"Correct {one.where}, or set '{name}' in the connection.",
            )
    return error
