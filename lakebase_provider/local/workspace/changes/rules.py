"""What the changes of several kinds have in common: their refusals, moments, expirations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool

from lakebase_provider.local.contract.records import Principal
from lakebase_provider.local.postgres.clusters import Clusters
from lakebase_provider.local.workspace.kinds import flag, seconds, unix_time
from lakebase_provider.local.workspace.operations import Plan
from lakebase_provider.local.workspace.resources import Views
from lakebase_provider.local.workspace.settings import ApiError
from lakebase_provider.local.workspace.state import Branch, Project, Resource, Workspace

#: Name of the resource whose operation it is, and what that does.
Made = tuple[str, Plan]


class Rules:
    """Rules that hold for several kinds.

    Args:
        workspace: Holds all that has a name.
        views: Finds and shows it.
        clusters: Holds the data.
    """

    def __init__(self, workspace: Workspace, views: Views, clusters: Clusters) -> None:
        self.workspace, self.views, self.clusters = workspace, views, clusters
        self.settings = workspace.settings

    def error(self, error: str, /, **values: Any) -> ApiError:
        """The error of that name, to be raised."""
        return self.workspace.errors.error(error, **values)

    def authorize(self, caller: Principal) -> None:
        """Refuse who may change nothing."""
        if self.settings.managers is not None and caller.name not in self.settings.managers:
            raise self.error("not_authorized")

    def flag(self, query: Mapping[str, str], name: str) -> bool:
        """A flag of a request's query, which is off where it is not given."""
        return flag(query, name, self.workspace.errors)

    def limit(self, count: int, limit: int, what: str) -> None:
        """Refuse one more."""
        if count >= limit:
            raise self.error("limit", what=what)

    def source(self, project: Project, name: str) -> Branch:
        """The branch of that name, which has to be one of the project."""
        ids = self.views.ids(name, "project", "branch")
        if not ids or ids[0] != project.id:
            raise self.error("foreign_source")
        return self.views.branch(*ids)

    def moment(self, spec: dict[str, Any], source: Branch) -> dict[str, Any]:
        """The time or log sequence number of a source at which a copy begins, as the clusters take it."""
        if "source_branch_time" in spec:
            at, now = unix_time(spec["source_branch_time"]), self.workspace.now()
            if at > now and not self.settings.future_is_refused:
                return {}
            kept = seconds(source.project.spec["history_retention_duration"])
            if not max(now - kept, source.created) <= at <= now:
                raise self.error("outside_history", field="spec.source_branch_time")
            return {"at_time": self.workspace.true_time(at)}
        return {"at_lsn": spec["source_branch_lsn"]} if "source_branch_lsn" in spec else {}

    def expiration(self, spec: dict[str, Any], created: float) -> float | None:
        """When something expires: a time to live counts from its creation, also when it is changed."""
        now = self.workspace.now()
        if "ttl" in spec:
            at = created + seconds(spec["ttl"])
        elif "expire_time" in spec:
            at = unix_time(spec["expire_time"])
        else:
            return None
        if at <= now:
            raise self.error("bad_value", field="spec.expire_time", why="must be in the future")
        if at > now + self.settings.longest_expiration:
            raise self.error("expiration_too_far")
        return at

    def expire_at(self, found: Resource, at: float | None, expire: Callable[[], Plan | None]) -> None:
        """Let something expire.

        Args:
            found: What.
            at: When; None for never.
            expire: Returns what happens then, or None where it is gone already.
        """
        found.expires_at = at

        def act() -> None:
            plan = expire() if found.expires_at == at else None
            if plan is not None:
                self.apply(plan)

        if at is not None:
            self.workspace.agenda.at(at, act)

    def apply(self, plan: Plan) -> None:
        """Do what nobody asked for and what therefore is no operation."""

        async def apply() -> None:
            plan.begin()
            if plan.work is not None:
                await run_in_threadpool(plan.work)
            plan.settle()
            self.workspace.operations.on_change()

        self.workspace.agenda.spawn(apply())


class Changing(ABC):
    """How one kind of resource is changed; each method refuses, or says what an operation does.

    Args:
        rules: Those of all kinds.
    """

    #: True where Postgres is asked, which has to be done in a thread.
    asks = False

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._workspace, self._views, self._clusters = rules.workspace, rules.views, rules.clusters
        self._settings = rules.settings

    @abstractmethod
    def make(self, parent: Any, identity: str, body: dict[str, Any], replace: bool) -> Made:
        """Create one.

        Args:
            parent: Where.
            identity: Its id; empty to have one made.
            body: Checked.
            replace: Whether to update one of that id.
        """

    def update(self, ids: Mapping[str, str], changed: dict[str, Any], paths: list[str]) -> Made:
        """Update one.

        Args:
            ids: Those of its path.
            changed: The masked part of the body.
            paths: The mask.
        """
        # Not abstract: of some kinds nothing can be changed, and no route leads here (`kinds.py`).
        raise NotImplementedError

    @abstractmethod
    def remove(self, ids: Mapping[str, str], query: Mapping[str, str]) -> Made:
        """Delete one.

        Args:
            ids: Those of its path.
            query: What was asked for beside it.
        """


def forget(kept: dict[str, Any], found: Resource) -> None:
    """Remove a resource from where it is kept, if it is what is kept there."""
    if kept.get(found.id) is found:
        del kept[found.id]
