"""Branches: copies of another one's data, as it is, as it was, or from a snapshot."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from lakebase_provider.local.contract.options import ENDPOINT
from lakebase_provider.local.workspace import kinds
from lakebase_provider.local.workspace.changes.endpoints import Endpoints
from lakebase_provider.local.workspace.changes.rules import Changing, Made, Rules, forget
from lakebase_provider.local.workspace.operations import Plan
from lakebase_provider.local.workspace.state import Branch, Project, Resource

_EXPIRATION = {*kinds.GROUPS["expiration"]}


class Branches(Changing):
    """Branches.

    Args:
        rules: Those of all kinds.
        endpoints: For the one that each new branch gets.
    """

    def __init__(self, rules: Rules, endpoints: Endpoints) -> None:
        super().__init__(rules)
        self._endpoints = endpoints

    def make(self, parent: Project, identity: str, body: dict[str, Any], replace: bool) -> Made:
        """Copy a branch or restore a snapshot; one that is there is updated, but never copied anew."""
        spec, settings, now = body.get("spec") or {}, self._settings, self._workspace.now()
        existing = parent.branches.get(identity)
        if existing is not None and not existing.gone and replace:
            return self._change(existing, spec)
        if existing is not None and (not existing.gone or settings.deleted_id_reserved):
            raise self._rules.error("branch_exists")
        if settings.expiration_required and not spec.keys() & _EXPIRATION:
            raise self._rules.error("expiration_required")
        expires = self._rules.expiration(spec, now)
        branch = Branch(identity, parent, now)
        branch.protected = bool(spec.get("is_protected"))
        snapshot = self._snapshot(parent, spec["source_snapshot"]) if "source_snapshot" in spec else None
        if snapshot is None:
            default = f"{parent.name}/branches/{parent.default_branch}"
            branch.source = self._rules.source(parent, spec.get("source_branch") or default)
            if branch.source.expires_at is not None:
                raise self._rules.error("expiring_parent")
        else:
            branch.snapshot = snapshot.name
        moment = self._rules.moment(spec, branch.source) if branch.source else {}
        self._check_protection(branch, expires, protected=branch.protected)
        self._check_limits(parent, root=branch.source is None)
        self._inherit(branch)
        branch.endpoints[ENDPOINT] = self._endpoints.new(branch, ENDPOINT)

        def begin() -> None:
            parent.branches[identity] = branch
            branch.enter("INIT", now)

        def work() -> None:
            if existing is not None:
                # It was deleted for a while only, and now cannot come back.
                self._drop(existing)
            if snapshot is not None:
                self._clusters.fork_snapshot(branch.uid, snapshot.uid)
                return
            assert branch.source is not None
            fork = self._clusters.fork(branch.uid, branch.source.uid, **moment)
            branch.source_lsn, branch.source_time = fork.lsn, self._workspace.shown_time(fork.time)

        def settle() -> None:
            self.arrive(branch)
            self.expire_at(branch, expires)

        return branch.name, Plan(
            begin, work, settle, lambda: forget(parent.branches, branch), lambda: self._views.view(branch)
        )

    def _snapshot(self, project: Project, name: str) -> Resource:
        ids = self._views.ids(name, "project", "snapshot")
        if not ids or ids[0] != project.id:
            raise self._rules.error("foreign_snapshot")
        return self._views.find(kinds.SNAPSHOT, {"project": ids[0], "snapshot": ids[1]})

    def _check_limits(self, project: Project, *, root: bool) -> None:
        settings = self._settings
        present = [found for found in project.branches.values() if not found.gone or settings.deleted_counts]
        self._rules.limit(len(present), settings.branch_limit, "branches")
        unarchived = [found for found in present if found.state != "ARCHIVED"]
        self._rules.limit(len(unarchived), settings.unarchived_branch_limit, "unarchived branches")
        if root:
            roots = [found for found in present if found.source is None]
            self._rules.limit(len(roots), settings.root_branch_limit, "root branches")
        self._endpoints.limit(project)

    def _check_protection(self, branch: Branch, expires: float | None, *, protected: bool) -> None:
        if protected and expires is not None:
            raise self._rules.error("protected_expiration")
        others = [other for other in branch.project.branches.values() if other is not branch]
        if protected and not branch.gone:
            count = sum(other.protected for other in others if not other.gone)
            self._rules.limit(count, self._settings.protected_branch_limit, "protected branches")

    def _inherit(self, branch: Branch) -> None:
        """Take over from the source what the control plane alone knows of its roles and databases."""
        source = branch.source or self._workspace.branch
        branch.role_ids, branch.database_ids = {**source.role_ids}, {**source.database_ids}
        branch.passwords = {
            role: secrets.token_urlsafe(16) if source.protected else password
            for role, password in source.passwords.items()
        }

    def arrive(self, branch: Branch) -> None:
        """Let clients reach a new branch, once logins at it are known."""
        now = self._workspace.now()
        branch.enter("READY", now)
        branch.usable_at = now + self._settings.auth_delay
        for endpoint in branch.endpoints.values():
            self._endpoints.arrive(endpoint)

    def expire_at(self, branch: Branch, at: float | None) -> None:
        """Let a branch be deleted at a time."""

        def expire() -> Plan | None:
            here = branch.project.branches.get(branch.id) is branch and not branch.gone
            return self.leave(branch, purge=self._settings.expired_is_purged) if here else None

        self._rules.expire_at(branch, at, expire)

    def update(self, ids: Mapping[str, str], changed: dict[str, Any], paths: list[str]) -> Made:
        """Change its protection and its expiration."""
        return self._change(self._views.branch(ids["project"], ids["branch"]), changed.get("spec") or {})

    def _change(self, branch: Branch, spec: dict[str, Any]) -> Made:
        protected = spec.get("is_protected", branch.protected)
        given = spec.keys() & _EXPIRATION
        expires = self._rules.expiration(spec, branch.created) if given else branch.expires_at
        if expires is not None and branch.default:
            raise self._rules.error("default_expiration")
        if expires is not None and branch.project.children(branch):
            raise self._rules.error("children_expiration")
        self._check_protection(branch, expires, protected=protected)

        def settle() -> None:
            branch.protected, branch.updated = protected, self._workspace.now()
            if given:
                self.expire_at(branch, expires)

        return branch.name, Plan(settle=settle, view=lambda: self._views.view(branch))

    def remove(self, ids: Mapping[str, str], query: Mapping[str, str]) -> Made:
        """Delete a branch, for a while or, with `purge`, for good."""
        purge = self._rules.flag(query, "purge")
        branch = self._views.branch(ids["project"], ids["branch"], deleted=purge)
        if branch.source is None and branch.snapshot is None:
            raise self._rules.error("root_branch", name=branch.name)
        if branch.default:
            raise self._rules.error("default_branch")
        if branch.protected:
            raise self._rules.error("protected")
        children = branch.project.children(branch, deleted=self._settings.children_of_deleted_count)
        if children:
            raise self._rules.error("has_children", value=", ".join(child.name for child in children))
        return branch.name, self.leave(branch, purge=purge)

    def leave(self, branch: Branch, *, purge: bool) -> Plan:
        """Delete a branch and its endpoints; its children keep their data."""
        was_gone = branch.gone

        def leave(leaving: bool) -> None:
            branch.leaving = leaving
            if not was_gone:
                self.show(branch, not leaving)

        def settle() -> None:
            branch.leaving = False
            if purge:
                forget(branch.project.branches, branch)
            else:
                self.bury(branch)

        def work() -> None:
            (self._drop if purge else self._stop)(branch)

        return Plan(lambda: leave(True), work, settle, lambda: leave(False))

    def show(self, branch: Branch, shown: bool) -> None:
        """Let clients reach its endpoints, or no longer."""
        for endpoint in branch.endpoints.values():
            self._workspace.on_endpoint(endpoint, shown)

    def _stop(self, branch: Branch) -> None:
        for key in self.clusters_of(branch):
            self._clusters.stop(key)

    def _drop(self, branch: Branch) -> None:
        for key in self.clusters_of(branch):
            self._clusters.drop(key)

    def clusters_of(self, branch: Branch) -> list[str]:
        """Keys of its clusters, the replicas' first."""
        return [*{endpoint.cluster for endpoint in branch.endpoints.values()} - {branch.uid}, branch.uid]

    def bury(self, branch: Branch) -> None:
        """Be deleted until the time for bringing it back has passed."""
        now = self._workspace.now()
        branch.enter("DELETED", now)
        branch.deleted, branch.purged_at = now, now + self._settings.deletion_retention
        self._purge_in_time(branch)

    def _purge_in_time(self, branch: Branch) -> None:
        due = branch.purged_at
        assert due is not None

        def purge() -> None:
            if branch.project.branches.get(branch.id) is branch and branch.purged_at == due:
                self._rules.apply(self.leave(branch, purge=True))

        self._workspace.agenda.at(due, purge)

    def resume(self, branch: Branch) -> None:
        """Let clients reach a branch of an earlier run, and have happen what is to happen to it."""
        if branch.gone:
            self._purge_in_time(branch)
            return
        self.expire_at(branch, branch.expires_at)
        if not branch.project.gone:
            for endpoint in branch.endpoints.values():
                self._endpoints.resume(endpoint)

    def bring_back(self, ids: Mapping[str, str]) -> Made:
        """Undo that it was deleted for a while."""
        branch = self._views.branch(ids["project"], ids["branch"], deleted=True)
        if not branch.gone:
            raise self._rules.error("not_deleted", what="branch")

        def settle() -> None:
            now = self._workspace.now()
            branch.deleted = branch.purged_at = None
            branch.updated = now
            branch.enter("READY", now)
            keep = self._settings.undelete_keeps_expiration
            self.expire_at(branch, branch.expires_at if keep else None)
            for endpoint in branch.endpoints.values():
                endpoint.sleep(self._workspace.wake_delay)
                if not self._settings.undelete_keeps_hosts:
                    endpoint.move(self._workspace.new_host(), "endpoint_missing")
            self.show(branch, True)

        return branch.name, Plan(settle=settle)
