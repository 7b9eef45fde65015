"""Synced tables: created, shown and deleted, by Autoscaling's API and by the older one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lakebase_provider.local.contract.records import Principal
from lakebase_provider.local.workspace import kinds
from lakebase_provider.local.workspace.changes.rules import Changing, Made, Rules
from lakebase_provider.local.workspace.kinds import timestamp
from lakebase_provider.local.workspace.operations import Plan
from lakebase_provider.local.workspace.state import INSTANCE, Branch
from lakebase_provider.local.workspace.sync import copying, delta
from lakebase_provider.local.workspace.sync.copying import Target
from lakebase_provider.local.workspace.sync.pipelines import Pipeline, Pipelines, SyncedTable


class SyncedTables(Changing):
    """Synced tables.

    Args:
        rules: Those of all kinds.
        pipelines: Copy their rows.
    """

    asks = True

    def __init__(self, rules: Rules, pipelines: Pipelines) -> None:
        super().__init__(rules)
        self._pipelines = pipelines
        #: Name of a deleted one → Unix time until which it is reserved.
        self._reserved: dict[str, float] = {}
        self._tables: dict[str, Any] = self._workspace.synced_tables

    # Autoscaling's API, which lists none.

    def parent(self, ids: Mapping[str, str]) -> None:
        """It stands in nothing."""

    def list(self, ids: Mapping[str, str]) -> list[dict[str, Any]]:
        """No route leads here (`kinds.py`)."""
        raise NotImplementedError

    def get(self, ids: Mapping[str, str]) -> dict[str, Any]:
        """GET of one."""
        return self.view(self.find(ids["synced_table"]))

    def make(self, parent: None, identity: str, body: dict[str, Any], replace: bool) -> Made:
        """Create one in a branch."""
        spec = body["spec"]
        catalog = self._workspace.catalogs.get(identity.split(".")[0])
        branch_name = spec.get("branch") or (catalog.spec["branch"] if catalog else None)
        database = spec.get("postgres_database") or (catalog.spec["postgres_database"] if catalog else None)
        if catalog and (branch_name, database) != (catalog.spec["branch"], catalog.spec["postgres_database"]):
            raise self._rules.error("bad_value", field="spec.postgres_database", why="must be the catalog's")
        if not branch_name or not database:
            field = "postgres_database" if branch_name else "branch"
            raise self._rules.error("required", field=f"spec.{field}")
        ids = self._views.ids(branch_name, "project", "branch")
        if not ids:
            raise self._views.missing("branch id")
        table, plan = self.plan(identity, self._views.branch(*ids), database, spec, None, None)
        return table.name, plan

    def plan(
        self,
        name: str,
        branch: Branch,
        database: str,
        spec: dict[str, Any],
        instance: str | None,
        caller: Principal | None,
    ) -> tuple[SyncedTable, Plan]:
        """A new one, and what its creation does.

        Args:
            name: Name in the Unity Catalog.
            branch: Whose Postgres gets it.
            database: Name of the database there.
            spec: Checked.
            instance: Name of the instance, in the older API.
            caller: Who creates it.
        """
        delta.require_deltalake(self._workspace.errors)
        if name in self._tables or self._workspace.now() < self._reserved.get(name, 0.0):
            raise self._rules.error("synced_table_exists")
        if not delta.exists(self._workspace.lakehouse, spec["source_table_full_name"]):
            raise self._rules.error("source_missing", value=spec["source_table_full_name"])
        pipeline = self._pipeline(spec, caller)
        _, schema, plain = name.split(".")
        target = Target(
            database,
            schema,
            plain,
            tuple(spec["primary_key_columns"]),
            spec.get("timeseries_key"),
            tuple(spec.get("extra_columns") or ()),
        )
        table = SyncedTable(name, branch, spec, target, self._workspace.now(), instance)
        postgres = self._views.postgres(branch)

        def begin() -> None:
            self._tables[name] = table

        def work() -> None:
            create = spec.get("create_database_objects_if_missing", True)
            hindrance = copying.prepare(postgres, target, create=create)
            if hindrance == "orphan":
                shown = f"{target.database}.{target.schema}.{target.table}"
                raise self._rules.error("destination_exists", value=shown)
            if hindrance is not None:
                raise self._rules.error("bad_value", field="spec.postgres_database", why=hindrance)

        def settle() -> None:
            if self._tables.get(name) is table:
                self._pipelines.attach(table, pipeline)

        def undo() -> None:
            if self._tables.get(name) is table:
                del self._tables[name]

        return table, Plan(begin, work, settle, undo, lambda: self.view(table))

    def _pipeline(self, spec: dict[str, Any], caller: Principal | None) -> Pipeline:
        """The pipeline that is to copy a table: one that is there, or a new one."""
        policy, existing = spec["scheduling_policy"], spec.get("existing_pipeline_id")
        if existing is None:
            storage = (spec.get("new_pipeline_spec") or {}).get("storage_catalog")
            return Pipeline(policy, caller.name if caller else "", storage)
        found = self._pipelines.find(existing)
        if found.policy != policy:
            why = f"must be that of the pipeline, {found.policy}"
            raise self._rules.error("bad_value", field="spec.scheduling_policy", why=why)
        return found

    def remove(self, ids: Mapping[str, str], query: Mapping[str, str]) -> Made:
        """Delete one with its pipeline; the table in Postgres stays."""
        table = self.find(ids["synced_table"])
        return table.name, Plan(settle=lambda: self._leave(table))

    def find(self, name: str, *, provisioned: bool = False) -> SyncedTable:
        """The one of that name; those of the other API are not seen."""
        found = self._tables.get(name)
        if not isinstance(found, SyncedTable) or (found.instance is not None) != provisioned:
            raise self._views.missing("synced table id")
        return found

    def _leave(self, table: SyncedTable) -> None:
        if self._tables.get(table.id) is table:
            del self._tables[table.id]
            self._reserved[table.id] = self._workspace.now() + self._settings.synced_name_seconds
            self._pipelines.detach(table)

    def clear(self) -> None:
        """Forget all of them, and their pipelines."""
        for table in [*self._tables.values()]:
            self._leave(table)
        self._reserved.clear()

    def view(self, table: SyncedTable) -> dict[str, Any]:
        """One as Autoscaling's API answers."""
        status: dict[str, Any] = {
            "detailed_state": table.state,
            "message": table.message,
            "unity_catalog_provisioning_state": "ACTIVE" if table.pipeline else "PROVISIONING",
            "project": table.branch.project.name,
        }
        if table.pipeline is not None:
            status["pipeline_id"] = table.pipeline.id
        if table.sync is not None:
            status["last_sync"] = {
                "delta_table_sync_info": self._position(table, "delta_commit_time"),
                "sync_start_time": timestamp(table.sync.began),
                "sync_end_time": timestamp(table.sync.ended),
            }
            status["last_sync_time"] = timestamp(table.sync.ended)
            if self._settings.processed_version_is_told:
                status["last_processed_commit_version"] = table.sync.version
        return {
            "name": table.name,
            "synced_table_id": table.id,
            "uid": table.uid,
            "create_time": timestamp(table.created),
            "status": status,
        }

    def _position(self, table: SyncedTable, time_name: str) -> dict[str, Any]:
        assert table.sync is not None
        committed = table.sync.commit_time if self._settings.commit_time_is_told else 0.0
        return {time_name: timestamp(committed), "delta_commit_version": table.sync.version}

    # The older API, which answers at once.

    def make_provisioned(self, body: dict[str, Any], caller: Principal) -> tuple[SyncedTable, Plan]:
        """Create one in the instance."""
        if not body.get("name"):
            raise self._rules.error("required", field="name")
        kinds.DATABASE_TABLE.check(body, self._workspace.errors, new=True)
        for field in ("database_instance_name", "logical_database_name"):
            if not body.get(field):
                raise self._rules.error("required", field=field)
        self._views.instance(body["database_instance_name"])
        branch, database = self._workspace.branch, body["logical_database_name"]
        return self.plan(body["name"], branch, database, body["spec"], INSTANCE, caller)

    def provisioned(self, instance: str) -> Iterator[SyncedTable]:
        """All of an instance."""
        self._views.instance(instance)
        return (one for one in [*self._tables.values()] if isinstance(one, SyncedTable) and one.instance)

    def remove_provisioned(self, name: str, *, purge: bool) -> None:
        """Delete one, where it is to be purged with its table in Postgres."""
        table = self.find(name, provisioned=True)
        if purge:
            copying.drop(self._views.postgres(table.branch), table.target)

    def leave(self, name: str) -> None:
        """Forget one that :meth:`remove_provisioned` has found."""
        self._leave(self.find(name, provisioned=True))

    def provisioned_view(self, table: SyncedTable) -> dict[str, Any]:
        """One as the older API answers: its spec, too, and all times as texts."""
        status: dict[str, Any] = {"detailed_state": table.state, "message": table.message}
        if table.pipeline is not None:
            status["pipeline_id"] = table.pipeline.id
        if table.sync is not None:
            told = {
                "last_processed_commit_version": table.sync.version,
                "timestamp": timestamp(table.sync.ended),
            }
            status["last_sync"] = {
                "delta_table_sync_info": self._position(table, "delta_commit_timestamp"),
                "sync_start_timestamp": timestamp(table.sync.began),
                "sync_end_timestamp": timestamp(table.sync.ended),
            }
            kind = "continuous" if table.policy == "CONTINUOUS" else "triggered"
            status["failed_status" if table.failed else f"{kind}_update_status"] = told
        return {
            "name": table.id,
            "database_instance_name": table.instance,
            "effective_database_instance_name": table.instance,
            "logical_database_name": table.target.database,
            "effective_logical_database_name": table.target.database,
            "spec": table.spec,
            "unity_catalog_provisioning_state": "ACTIVE" if table.pipeline else "PROVISIONING",
            "data_synchronization_status": status,
        }
