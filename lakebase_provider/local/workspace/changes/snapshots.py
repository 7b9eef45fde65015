"""Snapshots, their schedules, and catalogs: what is kept of a branch, or registered of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lakebase_provider.local.postgres import databricks_auth
from lakebase_provider.local.workspace import kinds
from lakebase_provider.local.workspace.changes.rules import Changing, Made, forget
from lakebase_provider.local.workspace.operations import Plan
from lakebase_provider.local.workspace.resources import schedule_view
from lakebase_provider.local.workspace.state import Branch, Project, Resource


class Snapshots(Changing):
    """Snapshots; they outlive their branch."""

    def make(self, parent: Project, identity: str, body: dict[str, Any], replace: bool) -> Made:
        """Keep the data of a branch, as it is or as it was."""
        spec, now = body["spec"], self._workspace.now()
        source = self._rules.source(parent, spec["source_branch"])
        if identity in parent.snapshots:
            raise self._rules.error("snapshot_exists")
        if source.source is not None and self._settings.snapshots_of_roots_only:
            raise self._rules.error("not_a_root")
        moment, expires = self._rules.moment(spec, source), self._rules.expiration(spec, now)
        self._rules.limit(len(parent.snapshots), self._settings.snapshot_limit, "snapshots")
        snapshot = Resource(kinds.SNAPSHOT, identity, parent, now)

        def work() -> None:
            kept = self._clusters.snapshot(snapshot.uid, source.uid, **moment)
            size = kept.full_size_bytes
            snapshot.spec = {"source_branch": source.name, "full_size_bytes": size, "diff_size_bytes": size}

        def settle() -> None:
            parent.snapshots[identity] = snapshot
            self._rules.expire_at(snapshot, expires, lambda: self._leave(snapshot))

        return snapshot.name, Plan(work=work, settle=settle, view=lambda: self._views.view(snapshot))

    def remove(self, ids: Mapping[str, str], query: Mapping[str, str]) -> Made:
        """Delete one."""
        snapshot = self._views.find(kinds.SNAPSHOT, ids)
        plan = self._leave(snapshot)
        assert plan is not None
        return snapshot.name, plan

    def _leave(self, snapshot: Resource) -> Plan | None:
        project = snapshot.parent
        assert isinstance(project, Project)
        if project.snapshots.get(snapshot.id) is not snapshot:
            return None
        return Plan(
            work=lambda: self._clusters.drop(snapshot.uid),
            settle=lambda: forget(project.snapshots, snapshot),
        )


class Schedules(Changing):
    """When snapshots of a branch are taken; it is kept, but none are taken."""

    def make(self, parent: Branch, identity: str, body: dict[str, Any], replace: bool) -> Made:
        """Each branch has one."""
        raise NotImplementedError

    def update(self, ids: Mapping[str, str], changed: dict[str, Any], paths: list[str]) -> Made:
        """Replace it as a whole."""
        branch = self._views.branch(ids["project"], ids["branch"])

        def settle() -> None:
            branch.schedule = changed.get("schedule", branch.schedule)

        name = f"{branch.name}/{kinds.SCHEDULE.plural}"
        return name, Plan(settle=settle, view=lambda: schedule_view(branch))

    def remove(self, ids: Mapping[str, str], query: Mapping[str, str]) -> Made:
        """Each branch has one."""
        raise NotImplementedError


class Catalogs(Changing):
    """Databases that are registered in the Unity Catalog."""

    asks = True

    def make(self, parent: None, identity: str, body: dict[str, Any], replace: bool) -> Made:
        """Register a database, which no other catalog may have, also none of its branch's ancestors."""
        spec, catalogs = body["spec"], self._workspace.catalogs
        ids = self._views.ids(spec["branch"], "project", "branch")
        if not ids:
            raise self._views.missing("branch id")
        branch, database = self._views.branch(*ids), spec["postgres_database"]
        if identity in catalogs:
            raise self._rules.error("catalog_exists")
        if any(self._covers(catalog, branch, database) for catalog in [*catalogs.values()]):
            raise self._rules.error("database_registered")
        postgres = self._views.postgres(branch)
        create = database not in [name for name, _ in databricks_auth.list_databases(postgres)]
        if create and not spec.get("create_database_if_missing"):
            raise self._views.missing("database id")
        catalog = Resource(kinds.CATALOG, identity, None, self._workspace.now())
        catalog.spec = {"branch": branch.name, "postgres_database": database}

        def work() -> None:
            if create:
                databricks_auth.create_database(postgres, database, None)

        def settle() -> None:
            catalogs[identity] = catalog

        return catalog.name, Plan(work=work, settle=settle, view=lambda: self._views.view(catalog))

    def _covers(self, catalog: Resource, branch: Branch, database: str) -> bool:
        """Say whether a registration is this branch's or was copied to it."""
        if catalog.spec["postgres_database"] != database:
            return False
        copied_at, at = float("inf"), branch
        while at.name != catalog.spec["branch"]:
            if at.source is None:
                return False
            copied_at = min(copied_at, at.source_time if at.source_time is not None else at.created)
            at = at.source
        return catalog.created <= copied_at

    def remove(self, ids: Mapping[str, str], query: Mapping[str, str]) -> Made:
        """Take a registration back; the database stays."""
        catalog = self._views.find(kinds.CATALOG, ids)
        return catalog.name, Plan(settle=lambda: forget(self._workspace.catalogs, catalog))
