"""What the environment says, as far as it belongs to what the caller asks for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from lakebase_provider.core.secret import Secret
from lakebase_provider.core.setting import Setting

#: Ways to authenticate at the workspace; what belongs to one says nothing about another.
PRINCIPALS = (
    ("client_id", "client_secret"),
    ("token",),
    ("profile",),
    ("azure_client_id", "azure_client_secret", "azure_tenant_id"),
)


def left_out(found: Mapping[str, object], overrides: Mapping[str, object]) -> set[str]:
    """Settings of the environment that belong to another target or principal than the overrides name."""
    given = {name for name, value in overrides.items() if value is not None and value != ""}
    left_out: set[str] = set()
    if given & {"endpoint", "instance"} and any(
        found.get(n) != overrides.get(n) for n in ("endpoint", "instance")
    ):
        left_out |= {"endpoint", "instance", "host"}
    if "access" in given:
        left_out |= {"host"}
    for mine in PRINCIPALS:
        if given.isdisjoint(mine):
            continue
        left_out |= set().union(*(other for other in PRINCIPALS if other != mine))
        # The identity comes first in each: another one has another secret and another role.
        identity = mine[0]
        if identity in given and found.get(identity) != overrides[identity]:
            left_out |= {"user"}
            left_out |= set(mine) if identity in found else set()
    return left_out - given


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
                found.setdefault(row.name, _opaque_value(row, _variable(environ, name)))
    return found


def opaque(rows: Iterable[Setting], mapping: Mapping[str, object]) -> dict[str, object]:
    """A copy in which secrets are opaque, for a traceback may show the frame that holds it."""
    by_name = {row.name: row for row in rows}
    return {k: _opaque_value(by_name[k], value) if k in by_name else value for k, value in mapping.items()}


def _variable(environ: Mapping[str, str] | None, name: str) -> str | None:
    # A function of its own: no frame that an error passes through holds the whole environment.
    return (os.environ if environ is None else environ).get(name)


def _opaque_value(row: Setting, value: object) -> object:
    return Secret(value) if row.kind == "secret" and isinstance(value, str) and value else value
