"""What the control plane knows, as JSON for a folder that outlives the run, and back.

Settings of the admin API, faults, counters and operations end with the run. So do read replicas, which have
no data of their own, synced tables and Lakehouse sync with their pipelines, and whatever is not finished.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lakebase_provider.local.contract.options import ENDPOINT, PROJECT
from lakebase_provider.local.postgres.clusters import Clusters
from lakebase_provider.local.workspace import kinds
from lakebase_provider.local.workspace.resources import database_id_of
from lakebase_provider.local.workspace.state import (
    READ_ONLY,
    Branch,
    Endpoint,
    Project,
    Resource,
    Snapshot,
    Workspace,
)

_Json = dict[str, Any]
#: Attributes that are kept of each resource, and more of each kind.
_ALL = ("id", "uid", "created", "updated", "expires_at", "spec")
_MORE: dict[type[Resource], tuple[str, ...]] = {
    Project: ("default_branch", "deleted", "purged_at"),
    Branch: (
        *("state", "state_changed", "protected", "snapshot", "source_lsn", "source_time", "deleted"),
        *("purged_at", "schedule", "role_ids", "database_ids", "passwords"),
    ),
    Endpoint: ("host", "disabled", "last_active"),
    Snapshot: ("scheduled",),
}


def describe(workspace: Workspace) -> _Json:
    """All that is to be restored."""
    return {
        "first": workspace.branch.uid,
        "projects": [_project(project) for project in workspace.projects.values()],
        "catalogs": [_resource(catalog) for catalog in workspace.catalogs.values()],
        # Their pipelines end with the run.
        "synced": [one.name for one in (*workspace.synced_tables.values(), *workspace.cdf_configs.values())],
    }


def _resource(found: Resource) -> _Json:
    return {name: getattr(found, name) for name in (*_ALL, *_MORE.get(type(found), ()))}


def _project(project: Project) -> _Json:
    return {
        **_resource(project),
        "branches": [_branch(branch) for branch in project.branches.values() if branch.state != "INIT"],
        "snapshots": [_resource(snapshot) for snapshot in project.snapshots.values()],
    }


def _branch(branch: Branch) -> _Json:
    return {
        **_resource(branch),
        "source": branch.source and {"id": branch.source.id, "uid": branch.source.uid},
        "endpoints": [_resource(one) for one in branch.endpoints.values() if one.type != READ_ONLY],
        "replicas": [one.name for one in branch.endpoints.values() if one.type == READ_ONLY],
        "data_apis": {database: _resource(one) for database, one in branch.data_apis.items()},
    }


def restore_first(workspace: Workspace, kept: Mapping[str, Any]) -> None:
    """Restore the first project's first branch, before anything is known by its uid.

    Raises:
        LookupError, TypeError: What is kept is damaged.
    """
    for project, first in _first(kept):
        _restore(workspace.branch.project, project)
        _restore(workspace.branch, first)
        [endpoint] = [one for one in first["endpoints"] if one["id"] == ENDPOINT]
        host = workspace.endpoint.host
        _restore(workspace.endpoint, endpoint)
        workspace.endpoint.host, workspace.endpoint.cluster = host, workspace.branch.uid
        # It is there in each run, whatever became of it in the one before.
        workspace.branch.project.deleted = workspace.branch.project.purged_at = None
        workspace.branch.enter("READY", workspace.branch.state_changed)


def _first(kept: Mapping[str, Any]) -> Iterator[tuple[_Json, _Json]]:
    for project in kept.get("projects", ()):
        for branch in project["branches"]:
            if branch["uid"] == kept["first"]:
                yield project, branch


def restore(workspace: Workspace, clusters: Clusters, kept: Mapping[str, Any]) -> list[str]:
    """Restore all else, asleep, and return the names of what is not there any more.

    Raises:
        LookupError, TypeError: What is kept is damaged.
    """
    lost: list[str] = list(kept.get("synced", ()))
    for given in kept.get("projects", ()):
        first = workspace.branch if any(one["uid"] == kept["first"] for one in given["branches"]) else None
        if given["id"] == PROJECT and first is None:
            # The first project was purged, and this one had its name; the first one is there in each run.
            lost.append(f"projects/{PROJECT}")
            continue
        project = first.project if first else Project(given["id"], given["created"])
        if first is None:
            _restore(project, given)
        for one in given["branches"]:
            branch = first if first and one["uid"] == first.uid else _restored_branch(project, one)
            if not clusters.has(branch.uid):
                lost.append(branch.name)
                continue
            project.branches[branch.id] = branch
            lost += one["replicas"]
            _restore_data_apis(branch, one["data_apis"])
        for one in given["branches"]:
            source, child = one["source"], project.branches.get(one["id"])
            if source and child is not None:
                there = project.branches.get(source["id"])
                child.source = there if there and there.uid == source["uid"] else _gone(project, source)
        for one in given["snapshots"]:
            snapshot = Snapshot(one["id"], project, one["created"], scheduled=one["scheduled"])
            _restore(snapshot, one)
            if clusters.has(snapshot.uid):
                project.snapshots[snapshot.id] = snapshot
            else:
                lost.append(snapshot.name)
        if project.branches:
            workspace.projects[project.id] = project
    for one in kept.get("catalogs", ()):
        catalog = workspace.catalogs[one["id"]] = Resource(kinds.CATALOG, one["id"], None, one["created"])
        _restore(catalog, one)
    resources = [[*one.branches.values(), *one.snapshots.values()] for one in workspace.projects.values()]
    named = {found.uid for several in resources for found in several}
    for keys in clusters.kept().values():
        for key in keys.keys() - named:
            clusters.drop(key)
    return lost


def _restore(found: Resource, given: Mapping[str, Any]) -> None:
    for name in (*_ALL, *_MORE.get(type(found), ())):
        setattr(found, name, given[name])


def _restored_branch(project: Project, given: Mapping[str, Any]) -> Branch:
    branch = Branch(given["id"], project, given["created"])
    _restore(branch, given)
    for one in given["endpoints"]:
        endpoint = Endpoint(one["id"], branch, one["host"], one["created"])
        _restore(endpoint, one)
        endpoint.state = "IDLE"
        branch.endpoints[endpoint.id] = endpoint
    return branch


def _restore_data_apis(branch: Branch, given: Mapping[str, Any]) -> None:
    for name, one in given.items():
        database = Resource(kinds.DATABASE, database_id_of(branch, name), branch, branch.created)
        branch.data_apis[name] = Resource(kinds.DATA_API, "", database, one["created"])
        _restore(branch.data_apis[name], one)


def _gone(project: Project, given: Mapping[str, str]) -> Branch:
    """A branch that is there no more, of which one is a copy that is no root therefore."""
    branch = Branch(given["id"], project, project.created)
    branch.uid = given["uid"]
    return branch
