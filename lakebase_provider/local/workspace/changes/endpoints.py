"""Endpoints: computes of a branch, one that writes and others that read."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from lakebase_provider.local.contract.errors import LocalLakebaseError
from lakebase_provider.local.workspace import kinds
from lakebase_provider.local.workspace.changes.rules import Changing, Made, forget
from lakebase_provider.local.workspace.kinds import merge
from lakebase_provider.local.workspace.operations import Plan
from lakebase_provider.local.workspace.state import READ_ONLY, Branch, Endpoint, Project


class Endpoints(Changing):
    """Endpoints."""

    def new(self, branch: Branch, identity: str, *, read_only: bool = False) -> Endpoint:
        """An endpoint with its project's settings, shown to nobody yet."""
        now = self._workspace.now()
        endpoint = Endpoint(identity, branch, self._workspace.new_host(), now, read_only=read_only)
        defaults = copy.deepcopy(branch.project.spec["default_endpoint_settings"])
        settings = {"pg_settings": defaults.pop("pg_settings")} if "pg_settings" in defaults else {}
        endpoint.spec = sized({**defaults, "settings": settings}, {})
        endpoint.state = "INIT"
        return endpoint

    def check_size(self, spec: dict[str, Any], prefix: str) -> None:
        """Refuse sizes that do not fit each other."""
        least, most = spec["autoscaling_limit_min_cu"], spec["autoscaling_limit_max_cu"]
        if not 0 <= most - least <= 16:
            raise self._rules.error(
                "bad_value", field=f"{prefix}.autoscaling_limit_max_cu", why="must be min_cu to min_cu + 16"
            )
        group = spec.get("group", {})
        if group.get("min", 1) != group.get("max", 1):
            raise self._rules.error("bad_value", field=f"{prefix}.group", why="must have equal min and max")
        if group.get("max", 1) > 1 and "suspend_timeout_duration" in spec:
            raise self._rules.error("bad_value", field=f"{prefix}.group", why="requires no_suspension")

    def limit(self, project: Project) -> None:
        """Refuse one more compute than a project may have, its default branch's left out."""
        others = [branch for branch in project.branches.values() if not branch.default and not branch.gone]
        count = sum(len(branch.endpoints) for branch in others)
        self._rules.limit(count, self._settings.compute_limit, "computes")

    def make(self, parent: Branch, identity: str, body: dict[str, Any], replace: bool) -> Made:
        """Create one; only a branch that is new has none that writes."""
        spec = body["spec"]
        existing = parent.endpoints.get(identity)
        if existing is not None and replace:
            return self._change(existing, spec)
        if existing is not None:
            raise self._rules.error("endpoint_exists")
        read_only = spec["endpoint_type"] == READ_ONLY
        if not read_only and parent.read_write is not None:
            raise self._rules.error("read_write_endpoint_exists")
        self.limit(parent.project)
        endpoint = self.new(parent, identity, read_only=read_only)
        endpoint.spec = sized(endpoint.spec, spec)
        endpoint.disabled = bool(spec.get("disabled"))
        self.check_size(endpoint.spec, "spec")

        def begin() -> None:
            parent.endpoints[identity] = endpoint

        def work() -> None:
            if read_only:
                self._clusters.standby(endpoint.cluster, parent.uid)
            if endpoint.disabled:
                self._clusters.stop(endpoint.cluster)

        return endpoint.name, Plan(
            begin=begin,
            work=work,
            settle=lambda: self.arrive(endpoint),
            undo=lambda: forget(parent.endpoints, endpoint),
            view=lambda: self._views.view(endpoint),
        )

    def arrive(self, endpoint: Endpoint) -> None:
        """Let clients reach a new one."""
        endpoint.state = "IDLE" if endpoint.disabled else "ACTIVE"
        endpoint.pending_until = self._workspace.now() + self._settings.pending_seconds
        self._workspace.on_endpoint(endpoint, True)
        endpoint.last_active = self._workspace.now()
        self._workspace.doze(endpoint)

    def resume(self, endpoint: Endpoint) -> None:
        """Let clients reach one of an earlier run, elsewhere if its address is taken by now."""
        try:
            self._workspace.on_endpoint(endpoint, True)
        except (LocalLakebaseError, OSError):
            endpoint.host = endpoint.first_host = self._workspace.new_host()
            self._workspace.on_endpoint(endpoint, True)

    def suspend(self, endpoint: Endpoint) -> None:
        """Put one to sleep that nobody uses."""
        self._rules.apply(
            Plan(
                begin=lambda: endpoint.sleep(self._workspace.wake_delay),
                work=lambda: self._clusters.stop(endpoint.cluster),
            )
        )

    def update(self, ids: Mapping[str, str], changed: dict[str, Any], paths: list[str]) -> Made:
        """Change its size, its settings, or whether it is off."""
        found = self._views.endpoint(ids["project"], ids["branch"], ids["endpoint"])
        return self._change(found, changed.get("spec") or {})

    def _change(self, endpoint: Endpoint, changed: dict[str, Any]) -> Made:
        self._check_settled(endpoint)
        spec = sized(endpoint.spec, changed)
        self.check_size(spec, "spec")
        was, disabled = endpoint.disabled, bool(changed.get("disabled", endpoint.disabled))

        def begin() -> None:
            # First the state: a client that reconnects at once must find it off.
            endpoint.disabled = endpoint.disabled or disabled

        def work() -> None:
            if disabled and not was:
                self._clusters.stop(endpoint.cluster)

        def settle() -> None:
            now = self._workspace.now()
            endpoint.spec, endpoint.disabled, endpoint.updated = spec, disabled, now
            endpoint.pending_until = now + self._settings.pending_seconds
            if disabled and not was:
                endpoint.sleep(self._workspace.wake_delay)
            self._workspace.doze(endpoint)

        def undo() -> None:
            endpoint.disabled = was

        return endpoint.name, Plan(begin, work, settle, undo, lambda: self._views.view(endpoint))

    def remove(self, ids: Mapping[str, str], query: Mapping[str, str]) -> Made:
        """Delete a replica."""
        endpoint = self._views.endpoint(ids["project"], ids["branch"], ids["endpoint"])
        if endpoint.type != READ_ONLY:
            raise self._rules.error("read_write_endpoint", name=endpoint.name)
        if endpoint.branch.protected:
            raise self._rules.error("protected_endpoint")
        self._check_settled(endpoint)

        def show(shown: bool) -> None:
            endpoint.removed = not shown
            self._workspace.on_endpoint(endpoint, shown)

        return endpoint.name, Plan(
            begin=lambda: show(False),
            work=lambda: self._clusters.drop(endpoint.cluster),
            settle=lambda: forget(endpoint.branch.endpoints, endpoint),
            undo=lambda: show(True),
        )

    def _check_settled(self, endpoint: Endpoint) -> None:
        if self._workspace.now() < endpoint.pending_until:
            raise self._rules.error("reconciliation", name=endpoint.name)


def sized(spec: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    """Settings of an endpoint with what changed; one that never sleeps has no timeout."""
    spec = copy.deepcopy(spec)
    known = ("autoscaling_limit_min_cu", "autoscaling_limit_max_cu", "group", "settings", "pg_settings")
    merge(spec, {key: copy.deepcopy(value) for key, value in changed.items() if key in known})
    if changed.get("no_suspension"):
        spec.pop("suspend_timeout_duration", None)
    elif "suspend_timeout_duration" in changed:
        spec["suspend_timeout_duration"] = kinds.duration(kinds.seconds(changed["suspend_timeout_duration"]))
    return spec
