"""Projects, branches, endpoints, roles and databases in the shapes that the control plane answers with."""

from __future__ import annotations

import re
import uuid
from typing import Any

from lakebase_provider.local.identity.certificates import pooled_name
from lakebase_provider.local.postgres import databricks_auth
from lakebase_provider.local.postgres.postgres import Postgres
from lakebase_provider.local.workspace.state import INSTANCE, Branch, Endpoint, Project, Workspace

_NAME = re.compile(r"projects/([^/]+)/branches/([^/]+)/endpoints/([^/]+)")


class MissingError(Exception):
    """A resource does not exist."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} not found [TraceId: {uuid.uuid4().hex}]")


class Views:
    """Reads the workspace and Postgres; each method answers one route.

    Args:
        workspace: Projects, branches and endpoints.
        postgres: Roles and databases.
    """

    def __init__(self, workspace: Workspace, postgres: Postgres) -> None:
        self._workspace = workspace
        self._postgres = postgres

    def resolve(self, name: str) -> Endpoint:
        """Find an endpoint by its full name, `projects/P/branches/B/endpoints/E`."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise MissingError("endpoint id")
        return self._endpoint(*match.groups())

    def projects(self) -> dict[str, Any]:
        """GET …/projects."""
        return {"projects": [self._project_view(project) for project in self._workspace.projects.values()]}

    def project(self, project: str) -> dict[str, Any]:
        """GET …/projects/P."""
        return self._project_view(self._project(project))

    def branches(self, project: str) -> dict[str, Any]:
        """GET …/branches."""
        found = [branch for branch in self._project(project).branches.values() if branch.state != "DELETED"]
        return {"branches": [_branch(project, branch) for branch in found]}

    def branch(self, project: str, branch: str) -> dict[str, Any]:
        """GET …/branches/B."""
        return _branch(project, self._branch(project, branch))

    def endpoints(self, project: str, branch: str) -> dict[str, Any]:
        """GET …/endpoints."""
        found = _present(self._branch(project, branch)).values()
        return {"endpoints": [self._endpoint_view(project, branch, endpoint) for endpoint in found]}

    def endpoint(self, project: str, branch: str, endpoint: str) -> dict[str, Any]:
        """GET …/endpoints/E."""
        return self._endpoint_view(project, branch, self._endpoint(project, branch, endpoint))

    def databases(self, project: str, branch: str) -> dict[str, Any]:
        """GET …/databases."""
        self._branch(project, branch)
        parent = f"projects/{project}/branches/{branch}"
        found = databricks_auth.list_databases(self._postgres)
        return {"databases": [_database(parent, name, owner) for name, owner in found]}

    def database(self, project: str, branch: str, database: str) -> dict[str, Any]:
        """GET …/databases/D."""
        return _pick(self.databases(project, branch)["databases"], "database", database)

    def roles(self, project: str, branch: str) -> dict[str, Any]:
        """GET …/roles."""
        self._branch(project, branch)
        parent = f"projects/{project}/branches/{branch}"
        found = databricks_auth.list_roles(self._postgres)
        return {"roles": [_role(parent, name, identity, login) for name, identity, login in found]}

    def role(self, project: str, branch: str, role: str) -> dict[str, Any]:
        """GET …/roles/R."""
        return _pick(self.roles(project, branch)["roles"], "role", role)

    def create_role(
        self, spec: dict[str, Any], project: str, branch: str, role_id: str | None
    ) -> dict[str, Any]:
        """Create a role and answer with a finished operation.

        Raises:
            ValueError: The role exists, or the request lacks its name.
        """
        name = spec.get("postgres_role") or role_id
        identity = spec.get("identity_type", "SERVICE_PRINCIPAL")
        if not name:
            raise ValueError("Field 'spec.postgres_role' is required")
        if identity not in databricks_auth.IDENTITY_TYPES:
            raise ValueError(f"unknown identity type {identity}")
        roles = self.roles(project, branch)["roles"]
        if any(role["status"]["postgres_role"] == name for role in roles):
            raise ValueError("role with that name already exists")
        databricks_auth.create_role(self._postgres, name, identity)
        return self.role_operation(project, branch, _resource_id(name), uuid.uuid4().hex)

    def role_operation(self, project: str, branch: str, role: str, operation: str) -> dict[str, Any]:
        """GET …/roles/R/operations/O."""
        # Roles are created at once, so an operation is finished whenever it is asked for.
        created = self.role(project, branch, role)
        return {
            "name": f"{created['name']}/operations/{operation}",
            "done": True,
            "metadata": {},
            "response": created,
        }

    def instances(self) -> dict[str, Any]:
        """GET of all Provisioned instances."""
        return {"database_instances": [self.instance(INSTANCE)]}

    def instance(self, instance: str) -> dict[str, Any]:
        """GET of one Provisioned instance."""
        if instance != INSTANCE:
            raise MissingError(f"Database instance '{instance}'")
        if self._workspace.endpoint.removed:
            raise MissingError(f"Database instance '{instance}'")
        host = self._workspace.endpoint.host
        return {
            "name": INSTANCE,
            "uid": self._workspace.endpoint.uid,
            "capacity": "CU_1",
            "pg_version": f"PG_VERSION_{self._workspace.pg_version}",
            "state": "STOPPED" if self._workspace.endpoint.disabled else "AVAILABLE",
            "read_write_dns": host,
            "read_only_dns": host,
        }

    def _project(self, project: str) -> Project:
        if project not in self._workspace.projects:
            raise MissingError("project id")
        return self._workspace.projects[project]

    def _branch(self, project: str, branch: str) -> Branch:
        branches = self._project(project).branches
        if branch not in branches or branches[branch].state == "DELETED":
            raise MissingError("branch id")
        return branches[branch]

    def _endpoint(self, project: str, branch: str, endpoint: str) -> Endpoint:
        endpoints = _present(self._branch(project, branch))
        if endpoint not in endpoints:
            raise MissingError("endpoint id")
        return endpoints[endpoint]

    def _project_view(self, project: Project) -> dict[str, Any]:
        name = f"projects/{project.project_id}"
        default = next(branch for branch in project.branches.values() if branch.default)
        return {
            "name": name,
            "project_id": project.project_id,
            "uid": project.uid,
            "status": {
                "display_name": project.project_id,
                "default_branch": f"{name}/branches/{default.branch_id}",
                "default_endpoint_settings": {
                    "autoscaling_limit_min_cu": 0.5,
                    "autoscaling_limit_max_cu": 2,
                    "suspend_timeout_duration": "300s",
                },
                "enable_pg_native_login": True,
                "history_retention_duration": "604800s",
                "pg_version": self._workspace.pg_version,
            },
        }

    def _endpoint_view(self, project: str, branch: str, endpoint: Endpoint) -> dict[str, Any]:
        parent = f"projects/{project}/branches/{branch}"
        status: dict[str, Any] = {
            "endpoint_id": endpoint.endpoint_id,
            "endpoint_type": "ENDPOINT_TYPE_READ_WRITE",
            "current_state": endpoint.state,
            "autoscaling_limit_min_cu": 0.5,
            "autoscaling_limit_max_cu": 2,
            "suspend_timeout_duration": "300s",
            "disabled": endpoint.disabled,
        }
        # A compute that was never started is nowhere yet.
        if endpoint.state != "INIT":
            status["hosts"] = {
                "host": endpoint.host,
                "read_only_host": endpoint.host,
                "read_write_pooled_host": pooled_name(endpoint.host),
            }
        if endpoint.pending_state:
            status["pending_state"] = endpoint.pending_state
        return {
            "name": f"{parent}/endpoints/{endpoint.endpoint_id}",
            "endpoint_id": endpoint.endpoint_id,
            "parent": parent,
            "uid": endpoint.uid,
            "status": status,
        }


def _branch(project: str, branch: Branch) -> dict[str, Any]:
    return {
        "name": f"projects/{project}/branches/{branch.branch_id}",
        "branch_id": branch.branch_id,
        "parent": f"projects/{project}",
        "uid": branch.uid,
        "status": {
            "branch_id": branch.branch_id,
            "current_state": branch.state,
            "default": branch.default,
            "is_protected": False,
        },
    }


def _present(branch: Branch) -> dict[str, Endpoint]:
    """An archived branch has no compute, and a removed endpoint is in no list."""
    if branch.state == "ARCHIVED":
        return {}
    return {key: endpoint for key, endpoint in branch.endpoints.items() if not endpoint.removed}


def _database(parent: str, name: str, owner: str) -> dict[str, Any]:
    identity = _resource_id(name)
    return {
        "name": f"{parent}/databases/{identity}",
        "database_id": identity,
        "parent": parent,
        "status": {
            "database_id": identity,
            "postgres_database": name,
            "role": f"{parent}/roles/{_resource_id(owner)}",
        },
    }


def _role(parent: str, name: str, identity_type: str | None, login: bool) -> dict[str, Any]:
    method = "LAKEBASE_OAUTH_V1" if identity_type else "PG_PASSWORD_SCRAM_SHA_256" if login else "NO_LOGIN"
    status = {"role_id": _resource_id(name), "postgres_role": name, "auth_method": method}
    if identity_type:
        status["identity_type"] = identity_type
    return {
        "name": f"{parent}/roles/{status['role_id']}",
        "role_id": status["role_id"],
        "parent": parent,
        "status": status,
    }


def _resource_id(name: str) -> str:
    """Turn a Postgres name into an id: lower case, digits and hyphens, first a letter."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return plain if plain[:1].isalpha() else f"r-{plain}"


def _pick(found: list[dict[str, Any]], kind: str, identity: str) -> dict[str, Any]:
    for resource in found:
        if resource[f"{kind}_id"] == identity:
            return resource
    raise MissingError(f"{kind} id")
