"""A branch reset from its parent: purged, and created again under the same name.

The API has no reset of its own. What the new branch has no copy of is told: roles and grants that were made
on the branch.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lakebase_provider.core.base.threads import until_gone
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.errors import LakebaseError
from lakebase_provider.core.workspace.objects.branches import Branch, BranchOptions, after_purge
from lakebase_provider.core.workspace.objects.endpoints import Endpoint, EndpointOptions, EndpointType
from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects

logger = logging.getLogger(__name__)

#: Privileges on a database and on what is in it, but for those of PUBLIC.
_GRANTS = """
SELECT kind, name, grantee::pg_catalog.regrole::text, privilege_type FROM (
    SELECT 'table' AS kind, c.oid::pg_catalog.regclass::text AS name, a.grantee, a.privilege_type
    FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
    WHERE c.relnamespace::pg_catalog.regnamespace::text NOT LIKE 'pg\\_%'
        AND c.relnamespace <> 'information_schema'::pg_catalog.regnamespace
    UNION ALL
    SELECT 'schema', n.nspname, a.grantee, a.privilege_type
    FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a WHERE n.nspname NOT LIKE 'pg\\_%'
    UNION ALL
    SELECT 'routine', p.oid::pg_catalog.regprocedure::text, a.grantee, a.privilege_type
    FROM pg_catalog.pg_proc p, pg_catalog.aclexplode(p.proacl) a
    WHERE p.pronamespace::pg_catalog.regnamespace::text NOT LIKE 'pg\\_%'
        AND p.pronamespace <> 'information_schema'::pg_catalog.regnamespace
    UNION ALL
    SELECT 'database', d.datname, a.grantee, a.privilege_type
    FROM pg_catalog.pg_database d, pg_catalog.aclexplode(d.datacl) a WHERE d.datname = current_database()
) granted WHERE grantee <> 0
"""


@dataclass(frozen=True, order=True)
class Grant:
    """A privilege that a role was given.

    Attributes:
        kind: ``"table"``, ``"schema"``, ``"routine"`` or ``"database"``.
        name: On what.
        role: To whom.
        privilege: What, such as ``"SELECT"``.
    """

    kind: str
    name: str
    role: str
    privilege: str


@dataclass(frozen=True)
class BranchReset:
    """What has become of a branch that was reset.

    Attributes:
        branch: The new branch, with another uid.
        former_uid: The former one's uid.
        endpoints: Its endpoints, sized as before, at other hosts.
        lost_roles: Postgres roles that the former branch had and the new one does not.
        lost_grants: Privileges likewise, in the client's database; None if one of the two could not be asked.
    """

    branch: Branch
    former_uid: str | None
    endpoints: tuple[Endpoint, ...]
    lost_roles: tuple[str, ...]
    lost_grants: tuple[Grant, ...] | None


def reset(
    name: str,
    workspace: WorkspaceObjects,
    connect: Callable[[], LakebaseConnection] | None,
    remaining: Callable[[], float],
    wait_ready: Callable[[], Branch],
) -> BranchReset:
    """Purge a branch, create it again from its source as that is now, and put back what was chosen about it.

    Args:
        name: The branch's full name.
        workspace: Where it is.
        connect: Opens a session on the branch, to read its grants; None not to.
        remaining: Seconds that are left.
        wait_ready: Waits until the new branch can be used.

    Raises:
        ObjectStateError: It is protected, a root, the default, or has children; nothing was changed.
        LakebaseError: The workspace refused, or was not done in time. If the branch is purged by then, the
            error says so, and its remedy is the calls that have it back.
    """
    former = workspace.branches.get(name)
    workspace.branches.require_disposable(former)
    computes = workspace.endpoints.list(name)
    roles = _roles(workspace, name)
    grants = _grants(connect)
    options: BranchOptions = {"source_branch": former.source_branch or ""}
    if former.expire_time is None:
        options["no_expiry"] = True
    else:
        options["expire_time"] = former.expire_time
    calls = [_call("branches.ensure", name, options)]
    calls += [_call("endpoints.ensure", one.name, _options(one)) for one in computes]

    back = f"To have it back, call {'; '.join(calls)}."
    # After a kill nobody raises an error.
    logger.info("The branch %s is reset. If this is killed: %s", name, back)

    def remake() -> tuple[Endpoint, ...]:
        workspace.branches.delete(name, purge=True, timeout=remaining())
        try:
            workspace.branches.create(name, timeout=remaining(), **options)
        except LakebaseError as error:
            raise after_purge(error, name, back) from error
        return tuple(_put_back(workspace, compute, remaining) for compute in computes)

    # Whoever is cancelled in between would leave no branch behind: this is not ended by that.
    restored = until_gone(remake, threading.Event())
    branch = wait_ready()
    kept = _grants(connect) if grants is not None else None
    return BranchReset(
        branch,
        former.uid,
        restored,
        tuple(sorted(roles - _roles(workspace, name))),
        None if grants is None or kept is None else tuple(sorted(grants - kept)),
    )


def _put_back(workspace: WorkspaceObjects, former: Endpoint, remaining: Callable[[], float]) -> Endpoint:
    try:
        if former.endpoint_type == "READ_ONLY":
            return workspace.endpoints.create(former.name, timeout=remaining(), **_options(former))
        return workspace.endpoints.update(former.name, timeout=remaining(), **former.settings())
    except LakebaseError as error:
        copy = error.again()
        copy.message = f"The branch was reset, but not the settings of {former.name}: {error.message}"
        copy.remedy = f"Call {_call('endpoints.ensure', former.name, _options(former))}."
        raise copy from error


def _options(former: Endpoint) -> EndpointOptions:
    kind: EndpointType = "READ_ONLY" if former.endpoint_type == "READ_ONLY" else "READ_WRITE"
    return {"endpoint_type": kind, **former.settings()}


def _call(method: str, name: str, options: Mapping[str, Any]) -> str:
    given = "".join(f", {option}={value!r}" for option, value in options.items())
    return f"client.workspace.{method}({name!r}{given})"


def _roles(workspace: WorkspaceObjects, branch: str) -> set[str]:
    return {role.postgres_role or role.name for role in workspace.roles.list(branch)}


def _grants(connect: Callable[[], LakebaseConnection] | None) -> set[Grant] | None:
    if connect is None:
        return None
    try:
        with connect() as connection:
            rows: Iterable[tuple[str, str, str, str]] = connection.execute(_GRANTS).fetchall()
            return {Grant(*row) for row in rows}
    except LakebaseError:
        return None
