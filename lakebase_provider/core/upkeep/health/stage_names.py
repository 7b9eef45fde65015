"""The stages of the health check by name, for DAG files, without the driver that they need."""

from __future__ import annotations

from collections.abc import Iterable

from lakebase_provider.core.errors import ConfigError

#: Each stage with the stages that it depends on, in the order in which they run.
STAGES: dict[str, tuple[str, ...]] = {
    "resolve": (),
    "credential": (),
    "dns": ("resolve",),
    "tcp": ("dns",),
    "tls": ("tcp",),
    "login": ("credential", "tls"),
    "query": ("login",),
    "write": ("login",),
}


def with_foundations(checks: Iterable[str]) -> set[str]:
    """The stages, and those that they depend on.

    Args:
        checks: Names of stages.

    Raises:
        ConfigError: A stage is unknown, or a name is given instead of a list.
    """
    if isinstance(checks, str):
        raise ConfigError("checks is a str.", remedy=f"Give a list: checks=[{checks!r}].")
    wanted: set[str] = set()
    todo = list(checks)
    while todo:
        name = todo.pop()
        if name not in STAGES:
            raise ConfigError(
                f"Unknown health check '{name}'.", remedy=f"Use one or more of: {', '.join(STAGES)}."
            )
        if name not in wanted:
            wanted.add(name)
            todo.extend(STAGES[name])
    return wanted
