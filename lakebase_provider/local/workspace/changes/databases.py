"""Roles and databases: what stands in a branch's Postgres, which alone knows them; and data APIs of those."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from lakebase_provider.local.postgres import databricks_auth
from lakebase_provider.local.postgres.databricks_auth import RoleRow
from lakebase_provider.local.workspace import kinds
from lakebase_provider.local.workspace.changes.rules import Changing, Made
from lakebase_provider.local.workspace.operations import Plan
from lakebase_provider.local.workspace.resources import database_id_of, resource_id, role_id_of
from lakebase_provider.local.workspace.state import Branch, Resource

_ATTRIBUTES = ("createdb", "createrole", "bypassrls")
_PASSWORD = "PG_PASSWORD_SCRAM_SHA_256"  # noqa: S105 - a method


class Roles(Changing):
    """Roles."""

    asks = True

    def make(self, parent: Branch, identity: str, body: dict[str, Any], replace: bool) -> Made:
        """Create one; one of that id is updated where it may be replaced."""
        spec, postgres = body["spec"], self._views.postgres(parent)
        name = spec["postgres_role"]
        rows = databricks_auth.list_roles(postgres)
        for row in rows:
            same_id = bool(identity) and role_id_of(parent, row.name) == identity
            if same_id and replace:
                # What is left out stays, but for the memberships.
                return self._change(
                    parent, row, spec.get("attributes", {}), bool(spec.get("membership_roles"))
                )
            if same_id or row.name == name:
                raise self._rules.error("role_exists")
        self._rules.limit(len(rows), self._settings.role_limit, "roles")
        kind = spec.get("identity_type")
        method = spec.get("auth_method")
        if method is None:
            method = self._settings.group_auth_method if kind == "GROUP" else "" if kind else _PASSWORD
        role_id = identity or resource_id(name)

        def work() -> None:
            if kind:
                databricks_auth.create_role(postgres, name, kind, login=method != "NO_LOGIN")
            else:
                databricks_auth.create_native_role(postgres, name, login=method != "NO_LOGIN")
            attributes, member = spec.get("attributes", {}), bool(spec.get("membership_roles"))
            databricks_auth.change_role(postgres, name, attributes, member or None)

        def settle() -> None:
            parent.role_ids[name] = role_id
            if method == _PASSWORD:
                parent.passwords[name] = secrets.token_urlsafe(16)

        return f"{parent.name}/roles/{role_id}", Plan(
            work=work,
            settle=settle,
            view=lambda: self._views.role_view(parent, self._views.role(parent, role_id)),
        )

    def update(self, ids: Mapping[str, str], changed: dict[str, Any], paths: list[str]) -> Made:
        """Change its attributes and memberships."""
        branch = self._views.branch(ids["project"], ids["branch"])
        row = self._views.role(branch, ids["role"])
        spec = changed.get("spec") or {}
        attributes: dict[str, bool] = spec.get("attributes", {})
        superuser = bool(spec["membership_roles"]) if "membership_roles" in spec else None
        if "*" in paths or ("spec" in paths and len(paths) > 1):
            # These select all that can change, so all of it has to be there; but for the memberships, which
            # are none then.
            for attribute in _ATTRIBUTES:
                if attribute not in attributes:
                    raise self._rules.error("not_provided", field=f"spec.attributes.{attribute}")
            superuser = bool(superuser)
        return self._change(branch, row, attributes, superuser)

    def _change(
        self, branch: Branch, row: RoleRow, attributes: dict[str, bool], superuser: bool | None
    ) -> Made:
        postgres, role_id = self._views.postgres(branch), role_id_of(branch, row.name)
        return f"{branch.name}/roles/{role_id}", Plan(
            work=lambda: databricks_auth.change_role(postgres, row.name, attributes, superuser),
            view=lambda: self._views.role_view(branch, self._views.role(branch, role_id)),
        )

    def remove(self, ids: Mapping[str, str], query: Mapping[str, str]) -> Made:
        """Drop one; what it owns goes to another where `reassign_owned_to` names it."""
        branch = self._views.branch(ids["project"], ids["branch"])
        row, heir = self._views.role(branch, ids["role"]), query.get("reassign_owned_to", "")
        postgres = self._views.postgres(branch)
        heirs = [found.name for found in databricks_auth.list_roles(postgres)]
        wanted = heir.rpartition("/")[2]
        found = [name for name in heirs if wanted in (name, role_id_of(branch, name))]
        if heir and not found:
            raise self._rules.error("owner_not_found", value=wanted)

        def settle() -> None:
            branch.role_ids.pop(row.name, None)
            branch.passwords.pop(row.name, None)

        return f"{branch.name}/roles/{ids['role']}", Plan(
            work=lambda: databricks_auth.drop_role(postgres, row.name, found[0] if heir else None),
            settle=settle,
        )


class Databases(Changing):
    """Databases."""

    asks = True

    def make(self, parent: Branch, identity: str, body: dict[str, Any], replace: bool) -> Made:
        """Create one; one of that id is given the owner where it may be replaced."""
        spec, postgres = body.get("spec") or {}, self._views.postgres(parent)
        if not spec.get("role"):
            raise self._rules.error("required", field="database.spec.role")
        name = spec.get("postgres_database") or identity
        if not name:
            raise self._rules.error("required", field="database.spec.postgres_database")
        owner = self._owner(parent, spec["role"])
        present = databricks_auth.list_databases(postgres)
        for known, _ in present:
            same_id = bool(identity) and database_id_of(parent, known) == identity
            if same_id and replace:
                return self._change(parent, identity, known, spec.get("postgres_database") or known, owner)
            if same_id or known == name:
                raise self._rules.error("database_exists")
        self._rules.limit(len(present), self._settings.database_limit, "databases")
        database_id = identity or resource_id(name)

        def settle() -> None:
            parent.database_ids[name] = database_id

        return f"{parent.name}/databases/{database_id}", Plan(
            work=lambda: databricks_auth.create_database(postgres, name, owner),
            settle=settle,
            view=lambda: self._views.database_view(parent, *self._views.database(parent, database_id)),
        )

    def _owner(self, branch: Branch, role: str) -> str:
        """The Postgres role of that full name."""
        ids = self._views.ids(role, "project", "branch", "role")
        if ids and f"projects/{ids[0]}/branches/{ids[1]}" == branch.name:
            for row in databricks_auth.list_roles(self._views.postgres(branch)):
                if role_id_of(branch, row.name) == ids[2]:
                    return row.name
        raise self._rules.error("owner_not_found", value=role.rpartition("/")[2])

    def update(self, ids: Mapping[str, str], changed: dict[str, Any], paths: list[str]) -> Made:
        """Rename one, or give it another owner."""
        branch = self._views.branch(ids["project"], ids["branch"])
        name, owner = self._views.database(branch, ids["database"])
        spec = changed.get("spec") or {}
        if "role" in spec:
            owner = self._owner(branch, spec["role"])
        return self._change(branch, ids["database"], name, spec.get("postgres_database", name), owner)

    def _change(self, branch: Branch, database_id: str, name: str, new_name: str, owner: str) -> Made:
        postgres = self._views.postgres(branch)

        def settle() -> None:
            branch.database_ids.pop(name, None)
            branch.database_ids[new_name] = database_id
            if name in branch.data_apis:
                branch.data_apis[new_name] = branch.data_apis.pop(name)

        return f"{branch.name}/databases/{database_id}", Plan(
            work=lambda: databricks_auth.change_database(postgres, name, new_name=new_name, owner=owner),
            settle=settle,
            view=lambda: self._views.database_view(branch, *self._views.database(branch, database_id)),
        )

    def remove(self, ids: Mapping[str, str], query: Mapping[str, str]) -> Made:
        """Drop one; its sessions are closed."""
        branch = self._views.branch(ids["project"], ids["branch"])
        name, _ = self._views.database(branch, ids["database"])
        postgres = self._views.postgres(branch)

        def settle() -> None:
            branch.database_ids.pop(name, None)
            branch.data_apis.pop(name, None)

        return f"{branch.name}/databases/{ids['database']}", Plan(
            work=lambda: databricks_auth.drop_database(postgres, name), settle=settle
        )


class DataApis(Changing):
    """Data APIs: at most one of a database."""

    asks = True

    def make(self, parent: Resource, identity: str, body: dict[str, Any], replace: bool) -> Made:
        """Enable it."""
        branch, database = parent.parent, parent.spec["postgres_database"]
        assert isinstance(branch, Branch)
        if not body:
            raise self._rules.error("data_api_empty")
        if database in branch.data_apis:
            raise self._rules.error("data_api_exists")
        made = Resource(kinds.DATA_API, "", parent, self._workspace.now())
        made.spec = body.get("spec") or {}

        def settle() -> None:
            branch.data_apis[database] = made

        return made.name, Plan(settle=settle, view=lambda: self._views.data_api_view(branch, made))

    def update(self, ids: Mapping[str, str], changed: dict[str, Any], paths: list[str]) -> Made:
        """Change what it is set to; what is left out stays, and the schemas are read anew."""
        branch = self._views.branch(ids["project"], ids["branch"])
        found = self._views.find(kinds.DATA_API, ids)

        def settle() -> None:
            found.spec = {**found.spec, **(changed.get("spec") or {})}
            found.updated = self._workspace.now()

        return found.name, Plan(settle=settle, view=lambda: self._views.data_api_view(branch, found))

    def remove(self, ids: Mapping[str, str], query: Mapping[str, str]) -> Made:
        """Disable it."""
        branch = self._views.branch(ids["project"], ids["branch"])
        found = self._views.find(kinds.DATA_API, ids)

        def settle() -> None:
            branch.data_apis = {name: one for name, one in branch.data_apis.items() if one is not found}

        return found.name, Plan(settle=settle)
