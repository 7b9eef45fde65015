"""Whether a session is on the branch that it is meant to be on, and not on production.

The same token opens every branch of a workspace, and only the host differs: a host that was kept, or set in
the environment, sends a branch's writes to another one.
"""

from __future__ import annotations

from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.errors import WrongBranchError
from lakebase_provider.core.workspace.objects.branches import Branch
from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects

#: Settings by which a server may say which branch it serves. Neon's has the first; none is documented.
BRANCH_SETTINGS = ("neon.branch_id", "databricks.branch_id")

_ASK = "SELECT " + ", ".join(f"pg_catalog.current_setting('{name}', true)" for name in BRANCH_SETTINGS)


def require_session_on(
    branch: Branch, connection: LakebaseConnection, workspace: WorkspaceObjects, *, default_is_meant: bool
) -> None:
    """Raise an error unless a session is on a branch.

    Args:
        branch: The branch, as the workspace has just described it.
        connection: The session.
        workspace: Asked for the hosts of the branch's endpoints.
        default_is_meant: Whether it may be the project's default branch.

    Raises:
        WrongBranchError: It is on another one, or on the default one.
        LakebaseError: The workspace or the server refused.
    """
    if branch.is_default and not default_is_meant:
        raise WrongBranchError(f"The branch {branch.name} is the project's default branch.")
    row = connection.execute(_ASK).fetchone()
    others = [value for value in row or () if value and value != branch.uid]
    if others:
        raise WrongBranchError(
            f"The server says that it serves {others[0]}, not {branch.name} ({branch.uid})."
        )
    # Whatever the server says: any session can set such a setting.
    host = connection.info.host.lower()
    hosts = {
        name.lower()
        for endpoint in workspace.endpoints.list(branch.name)
        for name in (
            endpoint.host,
            endpoint.read_only_host,
            endpoint.pooled_host,
            endpoint.read_only_pooled_host,
        )
        if name
    }
    if host not in hosts:
        raise WrongBranchError(f"The session is at {host}, which is no host of {branch.name}.")
