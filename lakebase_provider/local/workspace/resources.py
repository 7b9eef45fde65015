"""Finds what has a name, and shows it in the shapes that the control plane answers with."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from lakebase_provider.local.identity.certificates import pooled_name
from lakebase_provider.local.network.hosts import pooler_at
from lakebase_provider.local.postgres import databricks_auth
from lakebase_provider.local.postgres.clusters import Clusters
from lakebase_provider.local.postgres.postgres import Postgres
from lakebase_provider.local.workspace import kinds
from lakebase_provider.local.workspace.kinds import timestamp
from lakebase_provider.local.workspace.settings import ApiError
from lakebase_provider.local.workspace.state import (
    INSTANCE,
    READ_ONLY,
    Branch,
    Endpoint,
    Project,
    Resource,
    Workspace,
)

#: Bytes; what a branch may hold.
_LARGEST_BRANCH = 8_796_093_022_208


class Kept(Protocol):
    """Where resources are kept that have a room of their own (:mod:`.sync`)."""

    def parent(self, ids: Mapping[str, str]) -> Any:
        """What one stands in, by the ids of its path."""

    def list(self, ids: Mapping[str, str]) -> list[dict[str, Any]]:
        """GET of all."""

    def get(self, ids: Mapping[str, str]) -> dict[str, Any]:
        """GET of one."""


class Views:
    """Reads the workspace and Postgres; what asks Postgres blocks.

    Args:
        workspace: All that has a name.
        clusters: Asked for roles and databases.
    """

    def __init__(self, workspace: Workspace, clusters: Clusters) -> None:
        self._workspace = workspace
        self._clusters = clusters
        #: Kind → who keeps those of it that are not kept here.
        self.more: dict[str, Kept] = {}
        self._statuses: dict[str, Callable[[Any], dict[str, Any]]] = {
            "project": self._project_status,
            "branch": self._branch_status,
            "endpoint": self._endpoint_status,
            "snapshot": self._snapshot_status,
            "catalog": self._catalog_status,
        }

    # Finding.

    def missing(self, what: str) -> ApiError:
        """The error that something does not exist."""
        return self._workspace.errors.error("not_found", what=what)

    def ids(self, name: str, *kind_names: str) -> list[str]:
        """The ids in a full name of that form; none where it has another form."""
        parts = name.split("/")
        plurals = [kinds.KINDS[kind].plural for kind in kind_names]
        good = len(parts) == 2 * len(plurals) and parts[::2] == plurals and all(parts)
        return parts[1::2] if good else []

    def resolve(self, name: str) -> Endpoint:
        """Find an endpoint by its full name, `projects/P/branches/B/endpoints/E`."""
        ids = self.ids(name, "project", "branch", "endpoint")
        if not ids:
            raise self.missing("endpoint id")
        return self.endpoint(*ids)

    def project(self, project: str, *, deleted: bool = False) -> Project:
        """Find a project, also one that is `deleted`."""
        found = self._workspace.projects.get(project)
        if found is None or (found.gone and not deleted):
            raise self.missing("project id")
        return found

    def branch(self, project: str, branch: str, *, deleted: bool = False) -> Branch:
        """Find a branch, also one that is `deleted`."""
        found = self.project(project).branches.get(branch)
        if found is None or (found.gone and not deleted):
            raise self.missing("branch id")
        return found

    def endpoint(self, project: str, branch: str, endpoint: str) -> Endpoint:
        """Find an endpoint."""
        found = _present(self.branch(project, branch)).get(endpoint)
        if found is None:
            raise self.missing("endpoint id")
        return found

    def find(self, kind: kinds.Kind, ids: Mapping[str, str], *, deleted: bool = False) -> Resource:
        """Find something by the ids of its path; Postgres is asked for a database, and no role is found."""
        if kind is kinds.PROJECT:
            return self.project(ids["project"], deleted=deleted)
        if kind is kinds.BRANCH:
            return self.branch(ids["project"], ids["branch"], deleted=deleted)
        if kind is kinds.ENDPOINT:
            return self.endpoint(ids["project"], ids["branch"], ids["endpoint"])
        if kind in (kinds.DATABASE, kinds.DATA_API):
            branch = self.branch(ids["project"], ids["branch"])
            database = Resource(kinds.DATABASE, ids["database"], branch, branch.created)
            database.spec["postgres_database"], _ = self.database(branch, ids["database"])
            if kind is kinds.DATABASE:
                return database
            if database.spec["postgres_database"] not in branch.data_apis:
                raise self.missing("data api")
            return branch.data_apis[database.spec["postgres_database"]]
        kept = self._workspace.catalogs if kind is kinds.CATALOG else self.project(ids["project"]).snapshots
        if ids[kind.name] not in kept:
            raise self.missing(f"{kind.name} id")
        return kept[ids[kind.name]]

    def parent(self, kind: kinds.Kind, ids: Mapping[str, str]) -> Resource | None:
        """Find what something of that kind stands in."""
        if kind.name in self.more:
            found: Resource | None = self.more[kind.name].parent(ids)
            return found
        return self.find(kinds.KINDS[kind.parent], ids) if kind.parent else None

    def postgres(self, branch: Branch) -> Postgres:
        """The cluster of a branch, which is woken where it is suspended."""
        self._clusters.start(branch.uid)
        return self._clusters.cluster(branch.uid)

    def role(self, branch: Branch, role_id: str) -> databricks_auth.RoleRow:
        """Find a role by its id."""
        for row in databricks_auth.list_roles(self.postgres(branch)):
            if role_id_of(branch, row.name) == role_id:
                return row
        raise self.missing("role id")

    def database(self, branch: Branch, database_id: str) -> tuple[str, str]:
        """Find a database by its id: its name and its owner's."""
        for name, owner in databricks_auth.list_databases(self.postgres(branch)):
            if database_id_of(branch, name) == database_id:
                return name, owner
        raise self.missing("database id")

    # Answering.

    def list(self, kind: kinds.Kind, ids: Mapping[str, str], *, deleted: bool) -> list[dict[str, Any]]:
        """GET of all of a kind, also of those that are `deleted`."""
        if kind.name in self.more:
            return self.more[kind.name].list(ids)
        parent = self.parent(kind, ids)
        if isinstance(parent, Branch) and kind is kinds.ROLE:
            return [self.role_view(parent, row) for row in databricks_auth.list_roles(self.postgres(parent))]
        if isinstance(parent, Branch) and kind is kinds.DATABASE:
            found = databricks_auth.list_databases(self.postgres(parent))
            return [self.database_view(parent, name, owner) for name, owner in found]
        if isinstance(parent, Branch):
            return [self.view(endpoint) for endpoint in _present(parent).values()]
        if isinstance(parent, Project) and kind is kinds.SNAPSHOT:
            return [self.view(snapshot) for snapshot in [*parent.snapshots.values()]]
        holder = parent.branches if isinstance(parent, Project) else self._workspace.projects
        return [self.view(found) for found in [*holder.values()] if deleted or not found.gone]

    def get(self, kind: kinds.Kind, ids: Mapping[str, str]) -> dict[str, Any]:
        """GET of one."""
        if kind.name in self.more:
            return self.more[kind.name].get(ids)
        if kind is kinds.SCHEDULE:
            return schedule_view(self.branch(ids["project"], ids["branch"]))
        if kind in (kinds.ROLE, kinds.DATABASE):
            branch = self.branch(ids["project"], ids["branch"])
            if kind is kinds.ROLE:
                return self.role_view(branch, self.role(branch, ids["role"]))
            return self.database_view(branch, *self.database(branch, ids["database"]))
        found = self.find(kind, ids, deleted=self._workspace.settings.deleted_readable)
        if kind is kinds.DATA_API:
            return self.data_api_view(self.branch(ids["project"], ids["branch"]), found)
        return self.view(found)

    def view(self, found: Resource) -> dict[str, Any]:
        """A resource as it is answered: with its status, and without its spec."""
        answer: dict[str, Any] = {
            "name": found.name,
            f"{found.kind.name}_id": found.id,
            "uid": found.uid,
            "create_time": timestamp(found.created),
            "status": self._statuses[found.kind.name](found),
        }
        if found.parent is not None and found.kind is not kinds.SNAPSHOT:
            answer["parent"] = found.parent.name
        if found.kind is not kinds.SNAPSHOT:
            answer["update_time"] = timestamp(found.updated)
        if isinstance(found, Project):
            answer |= _deletion(found)
        return answer

    def _project_status(self, project: Project) -> dict[str, Any]:
        return {
            "project_id": project.id,
            "default_branch": f"{project.name}/branches/{project.default_branch}",
            "pg_version": self._workspace.pg_version,
            "branch_logical_size_limit_bytes": _LARGEST_BRANCH,
            **project.spec,
        }

    def _branch_status(self, branch: Branch) -> dict[str, Any]:
        status: dict[str, Any] = {
            "branch_id": branch.id,
            "current_state": branch.state,
            "state_change_time": timestamp(branch.state_changed),
            "default": branch.default,
            "is_protected": branch.protected,
            "logical_size_bytes": 0 if branch.state == "INIT" else self._size(branch),
            **_deletion(branch),
        }
        if branch.source is not None:
            status["source_branch"] = branch.source.name
        if branch.snapshot is not None:
            status["source_snapshot"] = branch.snapshot
        if branch.source_lsn is not None:
            status["source_branch_lsn"] = branch.source_lsn
        if branch.source_time is not None:
            status["source_branch_time"] = timestamp(branch.source_time)
        if branch.expires_at is not None:
            status["expire_time"] = timestamp(branch.expires_at)
        if branch.state == "INIT" or branch.leaving:
            status["pending_state"] = "DELETED" if branch.leaving else "READY"
        return status

    def _size(self, branch: Branch) -> int:
        try:
            return self._clusters.size(branch.uid)
        except KeyError:
            # Dropped, by an operation that is not done yet.
            return 0

    def _endpoint_status(self, endpoint: Endpoint) -> dict[str, Any]:
        read_only = endpoint.type == READ_ONLY
        group = {
            "min": 1,
            "max": 1,
            "enable_readable_secondaries": read_only,
            **endpoint.spec.get("group", {}),
        }
        status: dict[str, Any] = {
            "endpoint_id": endpoint.id,
            "endpoint_type": endpoint.type,
            "current_state": endpoint.state,
            "disabled": endpoint.disabled,
            "settings": {},
            **endpoint.spec,
            "group": group,
            "last_active_time": timestamp(endpoint.last_active),
        }
        # A compute that was never started is nowhere yet.
        if endpoint.state != "INIT":
            pooler = pooler_at(endpoint.host) or pooled_name(endpoint.host)
            status["hosts"] = {"host": endpoint.host}
            if read_only or group["enable_readable_secondaries"]:
                status["hosts"] |= {"read_only_host": endpoint.host, "read_only_pooled_host": pooler}
            if not read_only:
                status["hosts"]["read_write_pooled_host"] = pooler
        if pending := endpoint.pending_state(self._workspace.now()):
            status["pending_state"] = pending
        return status

    def _snapshot_status(self, snapshot: Resource) -> dict[str, Any]:
        expiry: dict[str, Any] = {"no_expiry": True}
        if snapshot.expires_at is not None:
            expiry = {"expire_time": timestamp(snapshot.expires_at)}
        return {**snapshot.spec, **expiry}

    def _catalog_status(self, catalog: Resource) -> dict[str, Any]:
        project = "/".join(catalog.spec["branch"].split("/")[:2])
        return {**catalog.spec, "project": project}

    def role_view(self, branch: Branch, row: databricks_auth.RoleRow) -> dict[str, Any]:
        """A role as it is answered."""
        method = "LAKEBASE_OAUTH_V1" if row.identity_type else "PG_PASSWORD_SCRAM_SHA_256"
        if row.identity_type == "GROUP":
            method = self._workspace.settings.group_auth_method
        if not row.login:
            method = "NO_LOGIN"
        identity = role_id_of(branch, row.name)
        status = {
            "role_id": identity,
            "postgres_role": row.name,
            "auth_method": method,
            "identity_type": row.identity_type or "IDENTITY_TYPE_UNSPECIFIED",
            "attributes": row.attributes,
        }
        if row.superuser:
            status["membership_roles"] = ["DATABRICKS_SUPERUSER"]
        return {
            "name": f"{branch.name}/roles/{identity}",
            "role_id": identity,
            "parent": branch.name,
            "status": status,
        }

    def database_view(self, branch: Branch, name: str, owner: str) -> dict[str, Any]:
        """A database as it is answered."""
        identity = database_id_of(branch, name)
        return {
            "name": f"{branch.name}/databases/{identity}",
            "database_id": identity,
            "parent": branch.name,
            "status": {
                "database_id": identity,
                "postgres_database": name,
                "role": f"{branch.name}/roles/{role_id_of(branch, owner)}",
            },
        }

    def data_api_view(self, branch: Branch, found: Resource) -> dict[str, Any]:
        """A data API as it is answered; its database is asked which schemas there are."""
        database = next((name for name, one in [*branch.data_apis.items()] if one is found), None)
        if database is None:
            raise self.missing("data api")
        schemas = databricks_auth.list_schemas(self.postgres(branch), database)
        endpoint = branch.read_write
        place = f"api/2.0/workspace/{self._workspace.workspace_id}/rest/{database}"
        return {
            "name": found.name,
            "parent": found.parent.name if found.parent else None,
            "create_time": timestamp(found.created),
            "update_time": timestamp(found.updated),
            "status": {
                "db_schemas": ["public"],
                "db_aggregates_enabled": True,
                "jwt_role_claim_key": ".sub",
                **found.spec,
                "available_schemas": schemas,
                "url": f"https://{endpoint.host if endpoint else ''}/{place}",
            },
        }

    # Lakebase Provisioned.

    def instances(self) -> dict[str, Any]:
        """GET of all Provisioned instances."""
        return {"database_instances": [self.instance(INSTANCE)]}

    def instance(self, instance: str) -> dict[str, Any]:
        """GET of one Provisioned instance."""
        endpoint = self._workspace.endpoint
        if instance != INSTANCE or endpoint.removed:
            raise self.missing(f"Database instance '{instance}'")
        return {
            "name": INSTANCE,
            "uid": endpoint.uid,
            "capacity": "CU_1",
            "pg_version": f"PG_VERSION_{self._workspace.pg_version}",
            "state": "STOPPED" if endpoint.disabled else "AVAILABLE",
            "read_write_dns": endpoint.host,
            "read_only_dns": endpoint.host,
        }


def schedule_view(branch: Branch) -> dict[str, Any]:
    """GET …/snapshot-schedule: empty where none was ever set."""
    return {"name": f"{branch.name}/{kinds.SCHEDULE.plural}", "schedule": branch.schedule}


def _deletion(found: Project | Branch) -> dict[str, str]:
    times = {"delete_time": found.deleted, "purge_time": found.purged_at}
    return {name: timestamp(time) for name, time in times.items() if time is not None}


def _present(branch: Branch) -> dict[str, Endpoint]:
    """An archived branch has no compute, and a removed endpoint is in no list."""
    if branch.state == "ARCHIVED":
        return {}
    return {key: endpoint for key, endpoint in [*branch.endpoints.items()] if not endpoint.removed}


def role_id_of(branch: Branch, name: str) -> str:
    """The id of a role: given by who created it, else made from its name."""
    return branch.role_ids.get(name) or resource_id(name)


def database_id_of(branch: Branch, name: str) -> str:
    """The id of a database: given by who created it, else made from its name."""
    return branch.database_ids.get(name) or resource_id(name)


def resource_id(name: str) -> str:
    """Turn a Postgres name into an id: lower case, digits and hyphens, first a letter."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return plain if plain[:1].isalpha() else f"r-{plain}"
