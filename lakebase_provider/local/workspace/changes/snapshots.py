"""Snapshots, their schedules, and catalogs: what is kept of a branch, or registered of it."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from lakebase_provider.local.postgres import databricks_auth
from lakebase_provider.local.workspace import kinds
from lakebase_provider.local.workspace.changes.rules import Changing, Made, Rules, forget
from lakebase_provider.local.workspace.operations import Plan
from lakebase_provider.local.workspace.resources import schedule_view
from lakebase_provider.local.workspace.state import Branch, Project, Resource, Snapshot


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
        asked_for = [found for found in parent.snapshots.values() if not found.scheduled]
        self._rules.limit(len(asked_for), self._settings.snapshot_limit, "snapshots")
        snapshot = Snapshot(identity, parent, now)
        return snapshot.name, self.take(snapshot, source, expires, moment)

    def take(self, snapshot: Snapshot, source: Branch, expires: float | None, moment: dict[str, Any]) -> Plan:
        """Keep the data of a branch.

        Args:
            snapshot: As what.
            source: The branch.
            expires: Until when, Unix time.
            moment: The time or the log sequence number that is kept; empty for now.
        """

        def work() -> None:
            size = self._clusters.snapshot(snapshot.uid, source.uid, **moment).full_size_bytes
            snapshot.spec = {
                "source_branch": source.name,
                "full_size_bytes": size,
                "diff_size_bytes": int(size * self._settings.diff_size_part),
            }

        def settle() -> None:
            snapshot.project.snapshots[snapshot.id] = snapshot
            snapshot.expires_at = expires
            self.resume(snapshot)

        return Plan(work=work, settle=settle, view=lambda: self._views.view(snapshot))

    def resume(self, snapshot: Snapshot) -> None:
        """Have one of an earlier run expire when its time has come."""
        self._rules.expire_at(snapshot, snapshot.expires_at, lambda: self._leave(snapshot))

    def remove(self, ids: Mapping[str, str], query: Mapping[str, str]) -> Made:
        """Delete one."""
        snapshot = self._views.find(kinds.SNAPSHOT, ids)
        assert isinstance(snapshot, Snapshot)
        return snapshot.name, self._leave(snapshot) or Plan()

    def _leave(self, snapshot: Snapshot) -> Plan | None:
        if snapshot.project.snapshots.get(snapshot.id) is not snapshot:
            return None
        return Plan(
            work=lambda: self._clusters.drop(snapshot.uid),
            settle=lambda: forget(snapshot.project.snapshots, snapshot),
        )


class Schedules(Changing):
    """When snapshots of a branch are taken.

    Args:
        rules: Those of all kinds.
        snapshots: Takes them.
    """

    def __init__(self, rules: Rules, snapshots: Snapshots) -> None:
        super().__init__(rules)
        self._snapshots = snapshots

    def make(self, parent: Branch, identity: str, body: dict[str, Any], replace: bool) -> Made:
        """Each branch has one, so that no route leads here (`kinds.py`)."""
        raise NotImplementedError

    def update(self, ids: Mapping[str, str], changed: dict[str, Any], paths: list[str]) -> Made:
        """Replace it as a whole."""
        branch = self._views.branch(ids["project"], ids["branch"])

        def settle() -> None:
            branch.schedule = changed.get("schedule", branch.schedule)
            self.resume(branch)

        name = f"{branch.name}/{kinds.SCHEDULE.plural}"
        return name, Plan(settle=settle, view=lambda: schedule_view(branch))

    def resume(self, branch: Branch) -> None:
        """Have the snapshots of a branch taken from now on."""
        self._plan(branch, self._workspace.now())

    def _plan(self, branch: Branch, after: float) -> None:
        """Have the next snapshot taken; cadences that meet make one, which the longest retention keeps."""
        schedule = branch.schedule
        times = [(_next(cadence, after), kinds.seconds(cadence["retention"])) for cadence in schedule]
        if not times:
            return
        due = min(time for time, _ in times)
        retention = max(kept for time, kept in times if time == due)

        def take() -> None:
            if branch.schedule is not schedule or branch.gone:
                return
            identity = self._settings.scheduled_snapshot_id.replace("{time}", str(int(due)))
            identity = identity.replace("{branch}", branch.id)
            snapshot = Snapshot(identity, branch.project, due, scheduled=True)
            self._rules.apply(self._snapshots.take(snapshot, branch, due + retention, {}))
            self._plan(branch, due)

        self._workspace.agenda.at(due, take)

    def remove(self, ids: Mapping[str, str], query: Mapping[str, str]) -> Made:
        """Each branch has one, so that no route leads here (`kinds.py`)."""
        raise NotImplementedError


def _next(cadence: dict[str, Any], after: float) -> float:
    """The first time after another that a cadence names."""
    (times,) = [cadence[name] for name in kinds.CADENCES if name in cadence]
    day = datetime.fromtimestamp(after, timezone.utc).replace(minute=0, second=0, microsecond=0)
    for _ in range(400):
        due = day.replace(hour=times.get("hour", 0))
        # A month that has no such day ends it earlier.
        last = monthrange(due.year, due.month)[1]
        fits = due.day == min(times.get("day", due.day), last)
        fits &= due.weekday() == kinds.DAYS.index(times.get("day_of_week", kinds.DAYS[due.weekday()]))
        if fits and due.timestamp() > after:
            return due.timestamp()
        day += timedelta(days=1)
    raise AssertionError("every cadence comes round within a year")


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
