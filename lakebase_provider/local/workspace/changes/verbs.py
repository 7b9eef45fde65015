"""Create, update, delete, undelete: the same for all kinds of resource."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool

from lakebase_provider.local.contract.options import BRANCH, ENDPOINT, PROJECT
from lakebase_provider.local.contract.records import Principal
from lakebase_provider.local.postgres.clusters import Clusters
from lakebase_provider.local.workspace import kinds
from lakebase_provider.local.workspace.changes.branches import Branches
from lakebase_provider.local.workspace.changes.databases import DataApis, Databases, Roles
from lakebase_provider.local.workspace.changes.endpoints import Endpoints
from lakebase_provider.local.workspace.changes.projects import Projects
from lakebase_provider.local.workspace.changes.rules import Changing, Made, Rules
from lakebase_provider.local.workspace.changes.snapshots import Catalogs, Schedules, Snapshots
from lakebase_provider.local.workspace.kinds import Kind
from lakebase_provider.local.workspace.resources import Views
from lakebase_provider.local.workspace.state import Workspace
from lakebase_provider.local.workspace.sync.routes import Sync

Ids = Mapping[str, str]
Body = dict[str, Any]


class Changes:
    """Changes the workspace; each verb answers with an operation.

    Args:
        workspace: Holds all that has a name.
        views: Finds and shows it.
        clusters: Holds the data.
    """

    def __init__(self, workspace: Workspace, views: Views, clusters: Clusters) -> None:
        self._workspace, self._views, self._clusters = workspace, views, clusters
        self._rules = rules = Rules(workspace, views, clusters)
        endpoints = Endpoints(rules)
        self._branches = Branches(rules, endpoints)
        self._projects = Projects(rules, self._branches, endpoints)
        workspace.on_idle = endpoints.suspend
        self._snapshots = snapshots = Snapshots(rules)
        self._schedules = Schedules(rules, snapshots)
        self.sync = Sync(rules)
        self._of: dict[str, Changing] = {
            "project": self._projects,
            "branch": self._branches,
            "endpoint": endpoints,
            "role": Roles(rules),
            "database": Databases(rules),
            "data_api": DataApis(rules),
            "snapshot": snapshots,
            "snapshot_schedule": self._schedules,
            "catalog": Catalogs(rules),
            "synced_table": self.sync.tables,
            "cdf_config": self.sync.configs,
        }

    async def create(self, kind: Kind, ids: Ids, query: Ids, body: Body, caller: Principal) -> Body:
        """POST of a new one."""
        self._admit(caller, ids)
        # In a thread where Postgres is asked whether it is there.
        asks = kind.parent == kinds.DATABASE.name or kind.name in self._views.more
        parent = (
            await run_in_threadpool(self._views.parent, kind, ids) if asks else self._views.parent(kind, ids)
        )
        identity = query.get(f"{kind.name}_id", "")
        errors, settings = self._workspace.errors, self._workspace.settings
        if identity:
            kind.check_id(identity, errors)
        elif kind.id_required and (kind is not kinds.DATABASE or settings.database_id_required):
            raise errors.error("required", field=f"{kind.name}_id")
        kind.check(body, errors, new=True)
        replace = "replace" in kind.verbs and self._rules.flag(query, "replace_existing")
        return await self._run(kind, self._of[kind.name].make, parent, identity, body, replace)

    async def update(self, kind: Kind, ids: Ids, query: Ids, body: Body, caller: Principal) -> Body:
        """PATCH of what the mask names."""
        self._admit(caller, ids)
        # What does not exist is said before what is wrong with the request.
        await run_in_threadpool(self._views.get, kind, ids)
        mask, errors = query.get("update_mask", ""), self._workspace.errors
        changed = kind.changes(mask, body, self._workspace.settings, errors)
        kind.check(changed, errors, new=False)
        paths = [path.strip() for path in mask.split(",")]
        return await self._run(kind, self._of[kind.name].update, ids, changed, paths)

    async def delete(self, kind: Kind, ids: Ids, query: Ids, caller: Principal) -> Body:
        """DELETE."""
        self._admit(caller, ids)
        return await self._run(kind, self._of[kind.name].remove, ids, query)

    async def undelete(self, kind: Kind, ids: Ids, caller: Principal) -> Body:
        """POST …/undelete."""
        self._admit(caller, ids)
        found = self._projects if kind is kinds.PROJECT else self._branches
        return await self._run(kind, found.bring_back, ids)

    def _admit(self, caller: Principal, ids: Ids) -> None:
        self._rules.authorize(caller)
        if self._workspace.settings.busy_is_said_first and "project" in ids:
            self._workspace.operations.check_idle(f"projects/{ids['project']}")

    async def reveal(self, ids: Ids, caller: Principal) -> Body:
        """POST …/roles/R/password, which answers with the password at once."""
        self._rules.authorize(caller)
        branch = self._views.branch(ids["project"], ids["branch"])
        row = await run_in_threadpool(self._views.role, branch, ids["role"])
        if row.name not in branch.passwords:
            raise self._rules.error("no_password")
        return {"password": branch.passwords[row.name]}

    async def _run(self, kind: Kind, made: Callable[..., Made], *arguments: Any) -> Body:
        # What asks Postgres does so in a thread; the others decide and begin in one step.
        owner, plan = (
            await run_in_threadpool(made, *arguments) if self._of[kind.name].asks else made(*arguments)
        )
        lock = "/".join(owner.split("/")[:2]) if owner.startswith("projects/") else None
        return await self._workspace.operations.run(owner, kind.name, kind.metadata, lock, plan)

    def resume(self) -> None:
        """Let clients reach what an earlier run left, and have happen what is to happen to it."""
        for project in [*self._workspace.projects.values()]:
            self._projects.resume(project)
            for branch in [*project.branches.values()]:
                self._branches.resume(branch)
                self._schedules.resume(branch)
            for snapshot in [*project.snapshots.values()]:
                self._snapshots.resume(snapshot)

    async def reset(self) -> None:
        """Undo every setting, and remove all but the first project, its first branch and its endpoint."""
        workspace, root = self._workspace, self._workspace.branch
        await workspace.operations.end_all()
        self.sync.clear()
        await workspace.agenda.settle()
        others = [endpoint for endpoint in workspace.endpoints() if endpoint is not workspace.endpoint]
        projects = [*workspace.projects.values(), root.project]
        was_hidden = root.project.gone or projects.count(root.project) == 1
        keys = {endpoint.cluster for endpoint in others}
        keys |= {branch.uid for project in projects for branch in project.branches.values()}
        keys |= {snapshot.uid for project in projects for snapshot in project.snapshots.values()}
        for endpoint in others:
            workspace.on_endpoint(endpoint, False)
        for kept in (workspace.projects, workspace.catalogs, root.endpoints):
            kept.clear()
        root.project.branches.clear()
        root.project.snapshots.clear()
        workspace.projects[PROJECT] = root.project
        root.project.branches[BRANCH] = root
        root.endpoints[ENDPOINT] = workspace.endpoint
        workspace.reset()
        if was_hidden:
            workspace.on_endpoint(workspace.endpoint, True)
        for key in keys - {root.uid}:
            await run_in_threadpool(self._clusters.drop, key)
        workspace.operations.on_change()
