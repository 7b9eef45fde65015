"""What ``dg scaffold defs`` writes: definitions that ``dg check`` accepts unchanged."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import BaseModel, Field

_CONNECTION = "dagster_lakebase.LakebaseConnectionComponent"
_KEY = "lakebase"
#: Files that may name a connection.
_DEFINITIONS = (".yaml", ".yml", ".py")
_QUERY = """\
-- Runs in one transaction. Bind parameters are written as %(name)s and set under "parameters" in defs.yaml;
-- a partitioned asset has %(partition_key)s, and by time %(partition_start)s and %(partition_end)s.
SELECT 1;
"""

_MIGRATIONS = """\
SQL files go here: `0001_name.sql`, `0002_name.sql` and so on. Each runs once, in one transaction. One that
has run is not edited any more.
"""


class ConnectionParams(BaseModel):
    """Options of ``dg scaffold defs dagster_lakebase.LakebaseConnectionComponent``."""

    endpoint: str = Field(
        default="", description="projects/<project>/branches/<branch>/endpoints/<endpoint>."
    )
    database: str = Field(default="", description="Name of the Postgres database.")
    resource_key: str = Field(default=_KEY, description="The key under which the resource is bound.")


class ConnectionScaffolder(dg.Scaffolder[ConnectionParams]):
    """Writes a connection that reads from the environment what is left out."""

    @classmethod
    def get_scaffold_params(cls) -> type[ConnectionParams]:
        """The options."""
        return ConnectionParams

    def scaffold(self, request: dg.ScaffoldRequest[ConnectionParams]) -> None:
        """Write ``defs.yaml``."""
        given = request.params.model_dump()
        dg.scaffold_component(request, {name: value for name, value in given.items() if value})


class SqlParams(BaseModel):
    """Options of ``dg scaffold defs dagster_lakebase.LakebaseSqlComponent``."""

    asset: str = Field(default="", description="Key of the asset; the folder's name if left out.")
    table: str = Field(default="", description="The table that the SQL fills, as schema.table.")
    connection: str = Field(default=_KEY, description="Key of the LakebaseResource.")


class SqlScaffolder(dg.Scaffolder[SqlParams]):
    """Writes an asset and its SQL, and a connection if the project has none."""

    @classmethod
    def get_scaffold_params(cls) -> type[SqlParams]:
        """The options."""
        return SqlParams

    def scaffold(self, request: dg.ScaffoldRequest[SqlParams]) -> None:
        """Write ``defs.yaml`` and the SQL file next to it."""
        folder = _folder(request)
        params = request.params
        asset = _asset(params.asset or folder.name, params.table)
        file = folder / f"{_file_name(asset['key'])}.sql"
        if not file.exists():
            file.write_text(_QUERY, encoding="utf-8")
        dg.scaffold_component(
            request, {"connection": params.connection, "sql": {"path": file.name}, "assets": [asset]}
        )
        _scaffold_missing_connection(request, folder)


class IOManagerParams(BaseModel):
    """Options of ``dg scaffold defs dagster_lakebase.LakebaseIOManagerComponent``."""

    schema_name: str = Field(default="", description="Schema of assets whose metadata names none.")
    resource_key: str = Field(
        default="io_manager", description="The key under which the I/O manager is bound."
    )
    connection: str = Field(default=_KEY, description="resource_key of a LakebaseConnectionComponent.")


class IOManagerScaffolder(dg.Scaffolder[IOManagerParams]):
    """Writes an I/O manager, and a connection if the project has none."""

    @classmethod
    def get_scaffold_params(cls) -> type[IOManagerParams]:
        """The options."""
        return IOManagerParams

    def scaffold(self, request: dg.ScaffoldRequest[IOManagerParams]) -> None:
        """Write ``defs.yaml``."""
        params = request.params
        attributes = {"connection": params.connection, "resource_key": params.resource_key}
        if params.schema_name:
            attributes["schema"] = params.schema_name
        dg.scaffold_component(request, attributes)
        _scaffold_missing_connection(request, _folder(request))


class LoadParams(BaseModel):
    """Options of ``dg scaffold defs dagster_lakebase.LakebaseLoadComponent``."""

    asset: str = Field(default="", description="Key of the asset; the folder's name if left out.")
    table: str = Field(default="", description="The table that the files go to, as schema.table.")
    source: str = Field(
        default="landing/*.parquet",
        description="Path or URI of a file, or a pattern; relative to the component's folder.",
    )
    connection: str = Field(default=_KEY, description="Key of the LakebaseResource.")


class LoadScaffolder(dg.Scaffolder[LoadParams]):
    """Writes a load and the folder where files land, and a connection if the project has none."""

    @classmethod
    def get_scaffold_params(cls) -> type[LoadParams]:
        """The options."""
        return LoadParams

    def scaffold(self, request: dg.ScaffoldRequest[LoadParams]) -> None:
        """Write ``defs.yaml``."""
        folder, params = _folder(request), request.params
        attributes: dict[str, Any] = {
            "connection": params.connection,
            "source": params.source,
            "mode": "append",
            "load_id": "{file}",
            # Until the first file has landed.
            "allow_no_files": True,
            "asset": _asset(params.asset or folder.name, params.table),
        }
        dg.scaffold_component(request, attributes)
        _scaffold_missing_connection(request, folder)


class UnloadParams(BaseModel):
    """Options of ``dg scaffold defs dagster_lakebase.LakebaseUnloadComponent``."""

    asset: str = Field(default="", description="Key of the asset; the folder's name if left out.")
    sql: str = Field(default="SELECT 1 AS id", description="The query.")
    to: str = Field(default="", description="The Delta table, delta: and its path, or the path of a file.")
    connection: str = Field(default=_KEY, description="Key of the LakebaseResource.")


class UnloadScaffolder(dg.Scaffolder[UnloadParams]):
    """Writes an unload to a Delta table beside it, and a connection if the project has none."""

    @classmethod
    def get_scaffold_params(cls) -> type[UnloadParams]:
        """The options."""
        return UnloadParams

    def scaffold(self, request: dg.ScaffoldRequest[UnloadParams]) -> None:
        """Write ``defs.yaml``."""
        folder, params = _folder(request), request.params
        attributes = {
            "connection": params.connection,
            "sql": params.sql,
            "to": params.to or f"delta:{folder.name}",
            "asset": {"key": params.asset or folder.name, "kinds": ["delta"]},
        }
        dg.scaffold_component(request, attributes)
        _scaffold_missing_connection(request, folder)


class SyncedTableParams(BaseModel):
    """Options of ``dg scaffold defs dagster_lakebase.LakebaseSyncedTableComponent``."""

    synced_table: str = Field(
        default="",
        description="Name of the synced table, <catalog>.<schema>.<table>; main.public and the folder's name "
        "if left out.",
    )
    asset: str = Field(default="", description="Key of the asset; the folder's name if left out.")
    connection: str = Field(default=_KEY, description="Key of the LakebaseResource.")


class SyncedTableScaffolder(dg.Scaffolder[SyncedTableParams]):
    """Writes a synced table with its checks, and a connection if the project has none."""

    @classmethod
    def get_scaffold_params(cls) -> type[SyncedTableParams]:
        """The options."""
        return SyncedTableParams

    def scaffold(self, request: dg.ScaffoldRequest[SyncedTableParams]) -> None:
        """Write ``defs.yaml``."""
        folder, params = _folder(request), request.params
        attributes = {
            "connection": params.connection,
            "synced_table": params.synced_table or f"main.public.{_file_name(folder.name)}",
            "asset": _asset(params.asset or folder.name, ""),
            "max_age": 86_400,
        }
        dg.scaffold_component(request, attributes)
        _scaffold_missing_connection(request, folder)


class HealthParams(BaseModel):
    """Options of ``dg scaffold defs dagster_lakebase.LakebaseHealthComponent``."""

    asset: str = Field(default=_KEY, description="Key of the asset to check.")
    connection: str = Field(default=_KEY, description="Key of the LakebaseResource.")


class HealthScaffolder(dg.Scaffolder[HealthParams]):
    """Writes a health check, and a connection if the project has none."""

    @classmethod
    def get_scaffold_params(cls) -> type[HealthParams]:
        """The options."""
        return HealthParams

    def scaffold(self, request: dg.ScaffoldRequest[HealthParams]) -> None:
        """Write ``defs.yaml``."""
        params = request.params
        dg.scaffold_component(request, {"connection": params.connection, "assets": [params.asset]})
        _scaffold_missing_connection(request, _folder(request))


class ObservationParams(BaseModel):
    """Options of ``dg scaffold defs dagster_lakebase.LakebaseObservationComponent``."""

    asset: str = Field(default="", description="Key of the asset; the folder's name if left out.")
    table: str = Field(default="", description="The table, as schema.table; the asset's key if left out.")
    timestamp_column: str = Field(
        default="", description="A column that holds the time of each row's last write."
    )
    connection: str = Field(default=_KEY, description="Key of the LakebaseResource.")


class ObservationScaffolder(dg.Scaffolder[ObservationParams]):
    """Writes an observed table, and a connection if the project has none."""

    @classmethod
    def get_scaffold_params(cls) -> type[ObservationParams]:
        """The options."""
        return ObservationParams

    def scaffold(self, request: dg.ScaffoldRequest[ObservationParams]) -> None:
        """Write ``defs.yaml``."""
        folder = _folder(request)
        params = request.params
        asset: dict[str, Any] = {"key": params.asset or folder.name, "kinds": ["postgres"]}
        if params.table:
            asset["metadata"] = {"dagster/table_name": params.table}
        attributes: dict[str, Any] = {"connection": params.connection, "assets": [asset]}
        if params.timestamp_column:
            attributes["timestamp_column"] = params.timestamp_column
        dg.scaffold_component(request, {**attributes, "cron_schedule": "@hourly"})
        _scaffold_missing_connection(request, folder)


class BranchParams(BaseModel):
    """Options of ``dg scaffold defs dagster_lakebase.LakebaseBranchComponent``."""

    connection: str = Field(default=_KEY, description="Key of the LakebaseResource.")


class BranchScaffolder(dg.Scaffolder[BranchParams]):
    """Writes jobs for branches and an hourly sweep, and a connection if the project has none."""

    @classmethod
    def get_scaffold_params(cls) -> type[BranchParams]:
        """The options."""
        return BranchParams

    def scaffold(self, request: dg.ScaffoldRequest[BranchParams]) -> None:
        """Write ``defs.yaml``."""
        attributes = {"connection": request.params.connection, "sensor_interval_seconds": 3600}
        dg.scaffold_component(request, attributes)
        _scaffold_missing_connection(request, _folder(request))


class MigrationParams(BaseModel):
    """Options of ``dg scaffold defs dagster_lakebase.LakebaseMigrationComponent``."""

    asset: str = Field(default="lakebase_migrations", description="Key of the asset.")
    connection: str = Field(default=_KEY, description="Key of the LakebaseResource.")


class MigrationScaffolder(dg.Scaffolder[MigrationParams]):
    """Writes an asset and a folder for its files, and a connection if the project has none."""

    @classmethod
    def get_scaffold_params(cls) -> type[MigrationParams]:
        """The options."""
        return MigrationParams

    def scaffold(self, request: dg.ScaffoldRequest[MigrationParams]) -> None:
        """Write ``defs.yaml``, and a folder that says what goes into it."""
        folder, params = _folder(request), request.params
        migrations = folder / "migrations"
        if not migrations.exists():
            migrations.mkdir()
            (migrations / "README.md").write_text(_MIGRATIONS, encoding="utf-8")
        dg.scaffold_component(
            request,
            {"connection": params.connection, "folder": migrations.name, "asset": _asset(params.asset, "")},
        )
        _scaffold_missing_connection(request, folder)


class RehearsalParams(BaseModel):
    """Options of ``dg scaffold defs dagster_lakebase.LakebaseRehearsalComponent``."""

    asset: str = Field(default="", description="Key of the asset; the folder's name if left out.")
    sql: str = Field(default="SELECT 1", description="The change.")
    connection: str = Field(default=_KEY, description="Key of the LakebaseResource.")


class RehearsalScaffolder(dg.Scaffolder[RehearsalParams]):
    """Writes a change that is rehearsed before it runs, and a connection if the project has none."""

    @classmethod
    def get_scaffold_params(cls) -> type[RehearsalParams]:
        """The options."""
        return RehearsalParams

    def scaffold(self, request: dg.ScaffoldRequest[RehearsalParams]) -> None:
        """Write ``defs.yaml``."""
        folder, params = _folder(request), request.params
        asset = _asset(params.asset or folder.name, "")
        dg.scaffold_component(request, {"connection": params.connection, "asset": asset, "sql": params.sql})
        _scaffold_missing_connection(request, folder)


class RestoreParams(BaseModel):
    """Options of ``dg scaffold defs dagster_lakebase.LakebaseRestoreComponent``."""

    connection: str = Field(default=_KEY, description="Key of the LakebaseResource.")


class RestoreScaffolder(dg.Scaffolder[RestoreParams]):
    """Writes jobs that bring rows back, and a connection if the project has none."""

    @classmethod
    def get_scaffold_params(cls) -> type[RestoreParams]:
        """The options."""
        return RestoreParams

    def scaffold(self, request: dg.ScaffoldRequest[RestoreParams]) -> None:
        """Write ``defs.yaml``."""
        dg.scaffold_component(request, {"connection": request.params.connection})
        _scaffold_missing_connection(request, _folder(request))


class MaintenanceParams(BaseModel):
    """Options of ``dg scaffold defs dagster_lakebase.LakebaseMaintenanceComponent``."""

    connection: str = Field(default=_KEY, description="Key of the LakebaseResource.")


class MaintenanceScaffolder(dg.Scaffolder[MaintenanceParams]):
    """Writes a nightly job that vacuums, and a connection if the project has none."""

    @classmethod
    def get_scaffold_params(cls) -> type[MaintenanceParams]:
        """The options."""
        return MaintenanceParams

    def scaffold(self, request: dg.ScaffoldRequest[MaintenanceParams]) -> None:
        """Write ``defs.yaml``."""
        dg.scaffold_component(
            request,
            {
                "connection": request.params.connection,
                "tasks": [{"action": "vacuum", "options": {"dead_share": 0.2}}],
                "cron_schedule": "0 2 * * *",
            },
        )
        _scaffold_missing_connection(request, _folder(request))


def _scaffold_missing_connection(request: dg.ScaffoldRequest[Any], folder: Path) -> None:
    """Give a project's first component its connection: ``dg check defs`` refuses one without its resource."""
    if request.params.connection != _KEY or request.project_root is None:
        return
    for file in request.project_root.rglob("*"):
        if file.suffix in _DEFINITIONS and ".venv" not in file.parts and _names_connection(file):
            return
    target = folder.parent / _KEY
    if target.exists():
        return
    target.mkdir()
    connection = dg.ScaffoldRequest(
        type_name=_CONNECTION,
        target_path=target,
        scaffold_format="yaml",
        project_root=request.project_root,
        params=ConnectionParams(),
    )
    ConnectionScaffolder().scaffold(connection)


def _names_connection(file: Path) -> bool:
    text = file.read_text(encoding="utf-8", errors="replace")
    return "LakebaseConnectionComponent" in text or "LakebaseResource" in text


def _asset(key: str, table: str) -> dict[str, Any]:
    asset: dict[str, Any] = {"key": key, "kinds": ["postgres"]}
    if table:
        asset["metadata"] = {"dagster/table_name": table}
    return asset


def _folder(request: dg.ScaffoldRequest[Any]) -> Path:
    # For an appended definition, the target is the existing file.
    return request.target_path.parent if request.append else request.target_path


def _file_name(key: str) -> str:
    return re.sub(r"\W+", "_", key).strip("_") or "query"
