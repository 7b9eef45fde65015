"""Settings from the environment, if they belong to the target and principal that the caller asks for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from lakebase_provider.core.config.addresses import ADDRESS, kept_address
from lakebase_provider.core.config.allowed_hosts import HostRefusedError, allowed_origin
from lakebase_provider.core.config.field import Setting, Unreadable
from lakebase_provider.core.errors import ConfigError

#: Ways to authenticate at the workspace; the settings of one do not apply to another.
PRINCIPALS = (
    ("client_id", "client_secret"),
    ("token",),
    ("profile",),
    ("azure_client_id", "azure_client_secret", "azure_tenant_id"),
)
#: What is sent to each host.
_SECRETS_OF_HOST = {
    "workspace_host": {"client_secret", "token", "profile", "azure_client_secret"},
    "host": {"password"},
}


def left_out(found: Mapping[str, object], overrides: Mapping[str, object]) -> set[str]:
    """Settings of the environment that belong to another target or principal than the overrides name."""
    given = {name for name, value in overrides.items() if value is not None and value != ""}
    left_out: set[str] = set()
    if "instance" in given and found.get("instance") != overrides["instance"]:
        left_out |= {*ADDRESS, "instance", "host"}
    if given & set(ADDRESS):
        left_out |= {*ADDRESS, "host", "instance"} - kept_address(found, overrides).keys()
        left_out |= {"host"} if found.get("instance") else set()
    if "access" in given:
        left_out |= {"host"}
    if "workspace_host" in given and _leads_elsewhere(found, overrides, "workspace_host"):
        # A secret for one workspace is not sent to another.
        left_out |= {"user"}.union(*PRINCIPALS)
    for host in given & _SECRETS_OF_HOST.keys():
        if not found.get(host):
            # Nor is one whose host the environment does not name. A profile names its own.
            left_out |= _SECRETS_OF_HOST[host] - {"profile"}
        elif _leads_elsewhere(found, overrides, host):
            left_out |= _SECRETS_OF_HOST[host]
    for mine in PRINCIPALS:
        if given.isdisjoint(mine):
            continue
        left_out |= set().union(*(other for other in PRINCIPALS if other != mine))
        # Each begins with the identity: another identity has another secret and another role.
        identity = mine[0]
        if identity in given and found.get(identity) != overrides[identity]:
            left_out |= {"user"}
            left_out |= set(mine) if identity in found else set()
    return left_out - given


def require_same_host(found: Mapping[str, object], overrides: Mapping[str, object]) -> None:
    """Refuse an override of only a host, which would get the other host's secrets.

    Args:
        found: The settings that are overridden.
        overrides: Settings by name.

    Raises:
        ConfigError: They name another host but no secret for it.
    """
    given = {name for name, value in overrides.items() if value is not None and value != ""}
    for host, secrets in _SECRETS_OF_HOST.items():
        kept = [name for name in secrets - given if found.get(name)]
        if host in given and kept and _leads_elsewhere(found, overrides, host):
            raise ConfigError(
                f"Setting '{host}' is overridden, but '{min(kept)}' belongs to the previous host.",
                remedy=f"Override '{min(kept)}' too, or configure the other host separately.",
            )


def _leads_elsewhere(found: Mapping[str, object], overrides: Mapping[str, object], name: str) -> bool:
    """Whether the environment and the override name different hosts, however they are written."""
    mine, other = found.get(name), overrides[name]
    if not isinstance(mine, str) or not isinstance(other, str):
        return mine is not None
    try:
        return str(allowed_origin(mine)) != str(allowed_origin(other))
    except HostRefusedError:
        return mine != other


def read_environment(rows: Iterable[Setting], environ: Mapping[str, str] | None) -> dict[str, object]:
    """The settings that variables hold, secrets opaque.

    Args:
        rows: The settings to look for.
        environ: Variables to read; None for the process's own.
    """
    found: dict[str, object] = {}
    for row in rows:
        for name in row.env:
            if _variable(environ, name):
                found.setdefault(row.name, row.hidden(_variable(environ, name)))
    return found


def opaque(rows: Iterable[Setting], mapping: Mapping[str, object]) -> dict[str, object]:
    """A copy in which secrets are opaque, since a traceback may show the frame that holds it."""
    by_name = {row.name: row for row in rows}
    # The value of an unknown name may be a secret with a misspelt name.
    return {
        name: by_name[name].hidden(value) if name in by_name else Unreadable(type(value).__name__)
        for name, value in mapping.items()
    }


def _variable(environ: Mapping[str, str] | None, name: str) -> str | None:
    # A separate function, so that no frame that an error passes through holds the whole environment.
    return (os.environ if environ is None else environ).get(name)
