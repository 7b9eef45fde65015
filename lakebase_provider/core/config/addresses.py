"""Which endpoint the settings name: by its own name, by project and branch, or by a uid or host to look up.

The settings `endpoint`, `project` and `branch` say one thing, so they are made to agree here, and change
together: another branch never keeps the endpoint, or the host, of the one before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from lakebase_provider.core.config.resource_names import (
    ENDPOINT_FORMAT,
    ENDPOINT_UID,
    FORMATS,
    NameRefusedError,
    endpoint_path,
    resource_path,
)
from lakebase_provider.core.errors import ConfigError

#: The settings that say which endpoint.
ADDRESS = ("endpoint", "project", "branch")
#: What leads to the database, and what each is told as where it is empty.
_LEADS = {
    "endpoint": f"its id or {ENDPOINT_FORMAT}",
    "project": f"its id or {FORMATS['project']}",
    "branch": f"its id or {FORMATS['branch']}",
    "instance": "its name",
    "host": "its name",
    "database": "its name",
}
#: Id of the endpoint that each branch has.
DEFAULT_ENDPOINT = "primary"

_HOST = re.compile(r"[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+")


def agreed(
    endpoint: str | None, project: str | None, branch: str | None
) -> tuple[str | None, str | None, str | None]:
    """The endpoint's name, and the ids of its project and branch.

    Args:
        endpoint: A full name, an id in that branch, or a uid or a host, which are left to be looked up.
        project: An id or a full name.
        branch: An id or a full name.

    Raises:
        ConfigError: One of them is malformed, or they contradict each other.
    """
    project = None if project is None else _id("project", project, None)
    named = branch
    if branch is not None:
        inside = branch.split("/")[1] if branch.count("/") == 3 else None
        _require_same("branch", branch, "project", project, inside)
        project = project or inside
        if project is None and endpoint is None:
            raise _no_project()
        branch = _id("branch", branch, project)
    if endpoint is None:
        if branch is None:
            return None, project, None
        return f"projects/{project}/branches/{branch}/endpoints/{DEFAULT_ENDPOINT}", project, branch
    if is_looked_up(endpoint):
        return endpoint.lower(), project, branch
    if "/" not in endpoint and project is not None and branch is not None:
        endpoint = f"projects/{project}/branches/{branch}/endpoints/{endpoint}"
    try:
        endpoint_path(endpoint)
    except NameRefusedError as refused:
        raise _refused("endpoint", refused) from None
    parts = endpoint.split("/")
    _require_same("endpoint", endpoint, "project", project, parts[1])
    _require_same("endpoint", endpoint, "branch", named and branch, parts[3])
    return endpoint, parts[1], parts[3]


def is_looked_up(endpoint: str) -> bool:
    """Whether the setting is a uid or a host, whose name only the workspace knows."""
    return bool(ENDPOINT_UID.fullmatch(endpoint) or _HOST.fullmatch(endpoint))


def require_not_blank(given: Mapping[str, object], *, none_too: bool = False) -> None:
    """Refuse an empty name of where to go that was asked for: what applies without it may be production.

    Args:
        given: Settings that somebody gives by name, not those of a form or of the environment.
        none_too: Whether None was asked for as well, and does not stand for what is left out.

    Raises:
        ConfigError: One of the settings that say which database is blank.
    """
    for name in (name for name in _LEADS if name in given):
        value = given[name]
        if (value is None and none_too) or (isinstance(value, str) and not value.strip()):
            raise ConfigError(
                f"The {name} is {'None' if value is None else 'empty'}.",
                remedy=f"Give {_LEADS[name]}, or leave '{name}' out.",
            )


def require_own_project(names: Iterable[object], projects: Iterable[str | None]) -> None:
    """Refuse the full name of an object in another project, which a template or a run may have made of it.

    Args:
        names: Names and ids of what is to be changed; what is no full name is somebody else's to check.
        projects: Ids of the projects that may be meant; where none is known, any is.

    Raises:
        ConfigError: One is in another project.
    """
    known = {project for project in projects if project is not None}
    for name in names:
        if known and isinstance(name, str) and "/" in name and name.split("/")[1] not in known:
            raise ConfigError(
                f"{name!r}, which is to be changed, is in another project than the connection's."[:400],
                remedy="Use a connection to that project, or give an id in the connection's own.",
            )


def kept_address(own: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """What stays of the settings that say where, under changes: none of it if another endpoint is named.

    Args:
        own: The settings that are changed, or those of the environment.
        changes: Settings by name, which take precedence.
    """
    where = {name: own[name] for name in (*ADDRESS, "host") if own.get(name) not in (None, "")}
    given = {name: changes[name] for name in ADDRESS if changes.get(name) not in (None, "")}
    if not given and "endpoint" in changes:
        # Taken away, and what follows from it too.
        return {name: value for name, value in where.items() if name == "host"}
    if all(where.get(name) == value for name, value in given.items()):
        return where
    endpoint, branch = given.get("endpoint"), given.get("branch")
    if "project" in given or _is_full(endpoint) or _is_full(branch):
        return {}
    if endpoint is not None:
        # An id in the same branch, if that is given by a setting of its own.
        return {name: where[name] for name in ("project", "branch") if name in where and name not in given}
    project = _own_project(where)
    return {} if project is None else {"project": project}


def with_branch_exchanged(given: Mapping[str, object]) -> dict[str, object]:
    """Settings in which another branch takes the place of the one that a full endpoint is in, and its host's.

    For those that come from two places in one, as where a run's configuration adds a branch to definitions
    that name an endpoint.

    Args:
        given: Settings by name.

    Raises:
        ConfigError: The branch is an id, and nothing says its project.
    """
    endpoint, branch = given.get("endpoint"), given.get("branch")
    if not isinstance(endpoint, str) or not isinstance(branch, str) or not branch or not _is_full(endpoint):
        return dict(given)
    if f"/{branch}/endpoints/" in f"/{endpoint}":
        return dict(given)
    own = {name: value for name, value in given.items() if name != "branch"}
    kept = kept_address(own, {"branch": branch})
    if not kept and "/" not in branch:
        # Not that of the environment: the endpoint may be in another one.
        raise _no_project()
    return {**{n: v for n, v in own.items() if n not in (*ADDRESS, "host")}, **kept, "branch": branch}


def _own_project(where: Mapping[str, object]) -> object:
    for name in (where.get("endpoint"), where.get("branch")):
        parts = name.split("/") if isinstance(name, str) else []
        if len(parts) >= 4:
            return parts[1]
    return where.get("project")


def _is_full(name: object) -> bool:
    return isinstance(name, str) and ("/" in name or is_looked_up(name))


def _id(kind: str, name: str, project: str | None) -> str:
    full = name
    if "/" not in name:
        full = f"projects/{name}" if kind == "project" else f"projects/{project or 'p'}/branches/{name}"
    try:
        resource_path("project" if kind == "project" else "branch", full)
    except NameRefusedError as refused:
        raise _refused(kind, refused) from None
    return full.rpartition("/")[2]


def _no_project() -> ConfigError:
    return ConfigError(
        "Setting 'project' is missing although 'branch' is set.",
        remedy="Set 'project' too, or 'branch' to projects/<project>/branches/<branch>.",
    )


def _refused(name: str, refused: NameRefusedError) -> ConfigError:
    more = " Or set 'project' and 'branch'." if name == "endpoint" else ""
    return ConfigError(f"Setting '{name}' {refused.problem}.", remedy=f"{refused.remedy}{more}")


def _require_same(one: str, shown: str, other: str, expected: str | None, found: str | None) -> None:
    if expected is not None and found is not None and expected != found:
        raise ConfigError(
            f"Setting '{one}' is {shown!r}, which is not in '{other}' {expected!r}.",
            remedy=f"Keep one of them; {ENDPOINT_FORMAT} says it all.",
        )
