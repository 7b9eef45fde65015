"""Where a secret is sent: to where those say who are trusted with it, and nowhere else.

A secret and the host that it goes to may come from different places: a connection's password and a hook's
argument, the environment's token and a connection's host, the definitions' secret and a run's configuration.
Who may write the latter is not always trusted with the former. That holds for a token that is minted by a
secret, too.
"""

from __future__ import annotations

from collections.abc import Mapping

from lakebase_provider.core.config.allowed_hosts import check_host, workspace_url
from lakebase_provider.core.config.config import setting
from lakebase_provider.core.config.floors import FROM_WEAKEST
from lakebase_provider.core.errors import ConfigError

#: Where a password or a minted token goes, and what proves who is there.
DATABASE_PLACE = ("host", "port", "sslmode", "sslrootcert")
#: What databricks-sdk authenticates by at the workspace, by its names for the ways to do so.
WORKSPACE_SECRETS = {
    "oauth-m2m": "client_secret",
    "pat": "token",
    "azure-client-secret": "azure_client_secret",
}


def secrets_used(found: Mapping[str, object]) -> tuple[str, ...]:
    """Names of the secrets, one of which logs in; none where databricks-sdk is to find it elsewhere."""
    if found.get("auth") == "password":
        return ("password",)
    auth_type = found.get("auth_type") or None
    return tuple(name for kind, name in WORKSPACE_SECRETS.items() if auth_type in (None, kind))


def led_elsewhere(
    given: Mapping[str, object], *trusted: Mapping[str, object], names: tuple[str, ...] = DATABASE_PLACE
) -> str | None:
    """The first setting by which a secret would go elsewhere than it may, or with less proof of who is there.

    Args:
        given: Settings by name, as they would be used. What is not set leads nowhere.
        trusted: Settings by name, of each who is trusted with the secret: it is enough that one says so.
        names: Settings to look at.
    """
    for name in names:
        if given.get(name) not in (None, "") and not any(_allows(name, own, given) for own in trusted):
            return name
    return None


def _allows(name: str, own: Mapping[str, object], given: Mapping[str, object]) -> bool:
    if own.get(name) == given[name]:
        return True
    mine, other = _canonical(name, own.get(name)), _canonical(name, given[name])
    if name == "sslmode" and mine in FROM_WEAKEST and other in FROM_WEAKEST:
        return FROM_WEAKEST.index(str(mine)) <= FROM_WEAKEST.index(str(other))
    return mine == other


def _canonical(name: str, value: object) -> object:
    """The value as a configuration has it, whose parser is told of what is malformed."""
    row = setting(name)
    if value in (None, ""):
        return row.default
    try:
        parsed = row.parse(value)
        if row.is_host:
            return (workspace_url if name == "workspace_host" else check_host)(row, parsed)
    except ConfigError:
        # Equal to nothing else.
        return object()
    return parsed
