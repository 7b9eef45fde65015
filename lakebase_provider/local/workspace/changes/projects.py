"""Projects: each with a first branch and its endpoint."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from lakebase_provider.local.contract.options import BRANCH, ENDPOINT
from lakebase_provider.local.workspace import kinds
from lakebase_provider.local.workspace.changes.branches import Branches
from lakebase_provider.local.workspace.changes.endpoints import Endpoints, sized
from lakebase_provider.local.workspace.changes.rules import Changing, Made, Rules, forget
from lakebase_provider.local.workspace.kinds import get, merge
from lakebase_provider.local.workspace.operations import Plan
from lakebase_provider.local.workspace.state import Branch, Project

_SIZES = "default_endpoint_settings"


class Projects(Changing):
    """Projects.

    Args:
        rules: Those of all kinds.
        branches: For those that they have.
        endpoints: For those of their branches.
    """

    def __init__(self, rules: Rules, branches: Branches, endpoints: Endpoints) -> None:
        super().__init__(rules)
        self._branches, self._endpoints = branches, endpoints

    def make(self, parent: None, identity: str, body: dict[str, Any], replace: bool) -> Made:
        """Create one with the branch `production`, whose data is new."""
        projects, settings, now = self._workspace.projects, self._settings, self._workspace.now()
        existing = projects.get(identity)
        if existing is not None and (not existing.gone or settings.deleted_id_reserved):
            raise self._rules.error("project_exists")
        counted = [found for found in projects.values() if settings.deleted_counts or not found.gone]
        self._rules.limit(len(counted), settings.project_limit, "projects")
        project = Project(identity, now)
        project.spec = {
            "display_name": identity,
            "enable_pg_native_login": False,
            "history_retention_duration": "604800s",
            _SIZES: {
                "autoscaling_limit_min_cu": settings.default_min_cu,
                "autoscaling_limit_max_cu": settings.default_max_cu,
                "suspend_timeout_duration": kinds.duration(settings.default_suspend_timeout),
            },
        }
        project.spec = self._changed(project, body.get("spec") or {})
        branch = project.branches[BRANCH] = Branch(BRANCH, project, now)
        branch.protected = bool(get(body, "initial_branch_spec.is_protected"))
        endpoint = branch.endpoints[ENDPOINT] = self._endpoints.new(branch, ENDPOINT)
        endpoint.spec = sized(endpoint.spec, body.get("initial_endpoint_spec") or {})
        self._endpoints.check_size(endpoint.spec, "initial_endpoint_spec")

        def begin() -> None:
            projects[identity] = project
            branch.enter("INIT", now)

        return project.name, Plan(
            begin=begin,
            work=lambda: self._clusters.create(branch.uid),
            settle=lambda: self._branches.arrive(branch),
            undo=lambda: forget(projects, project),
            view=lambda: self._views.view(project),
        )

    def _changed(self, project: Project, given: dict[str, Any]) -> dict[str, Any]:
        """The settings of a project with what is given; its version of Postgres is that of all."""
        spec = copy.deepcopy(project.spec)
        sizes = sized(spec.pop(_SIZES), given.get(_SIZES) or {})
        self._endpoints.check_size(sizes, f"spec.{_SIZES}")
        merge(spec, {key: value for key, value in given.items() if key not in (_SIZES, "pg_version")})
        return {**spec, _SIZES: sizes}

    def update(self, ids: Mapping[str, str], changed: dict[str, Any], paths: list[str]) -> Made:
        """Change its settings, also which branch is its default."""
        project = self._views.project(ids["project"])
        spec = self._changed(project, changed.get("spec") or {})
        default = spec.pop("default_branch", f"{project.name}/branches/{project.default_branch}")
        branch = self._rules.source(project, default)
        if branch.expires_at is not None:
            raise self._rules.error("default_expiration")

        def settle() -> None:
            project.spec, project.default_branch = spec, branch.id
            project.updated = self._workspace.now()

        return project.name, Plan(settle=settle, view=lambda: self._views.view(project))

    def remove(self, ids: Mapping[str, str], query: Mapping[str, str]) -> Made:
        """Delete one with all that it has, for a while or, with `purge`, for good."""
        purge = self._rules.flag(query, "purge")
        project = self._views.project(ids["project"], deleted=purge)
        if any(branch.protected for branch in project.branches.values() if not branch.gone):
            raise self._rules.error("protected_project")
        return project.name, self._leave(project, purge=purge)

    def _leave(self, project: Project, *, purge: bool) -> Plan:
        was_gone = project.gone

        def show(shown: bool) -> None:
            for branch in project.branches.values():
                if not was_gone and not branch.gone:
                    self._branches.show(branch, shown)

        def work() -> None:
            for branch in [*project.branches.values()]:
                for key in self._branches.clusters_of(branch):
                    # The first project's data stay for when it is there again.
                    if purge and branch is not self._workspace.branch:
                        self._clusters.drop(key)
                    else:
                        self._clusters.stop(key)
            for snapshot in project.snapshots.values() if purge else ():
                self._clusters.drop(snapshot.uid)

        def settle() -> None:
            if purge:
                forget(self._workspace.projects, project)
            self._bury(project)

        return Plan(lambda: show(False), work, settle, lambda: show(True))

    def _bury(self, project: Project) -> None:
        now = self._workspace.now()
        project.deleted, project.purged_at = now, now + self._settings.deletion_retention
        self.resume(project)

    def resume(self, project: Project) -> None:
        """Have one that is deleted purged when its time has come."""
        due = project.purged_at
        if due is None:
            return

        def purge() -> None:
            if self._workspace.projects.get(project.id) is project and project.purged_at == due:
                self._rules.apply(self._leave(project, purge=True))

        self._workspace.agenda.at(due, purge)

    def bring_back(self, ids: Mapping[str, str]) -> Made:
        """Undo that it was deleted for a while; its branches are as they were, and asleep."""
        project = self._views.project(ids["project"], deleted=True)
        if not project.gone:
            raise self._rules.error("not_deleted", what="project")

        def settle() -> None:
            project.deleted = project.purged_at = None
            project.updated = self._workspace.now()
            for branch in project.branches.values():
                if not branch.gone:
                    for endpoint in branch.endpoints.values():
                        endpoint.sleep(self._workspace.wake_delay)
                    self._branches.show(branch, True)

        return project.name, Plan(settle=settle)
