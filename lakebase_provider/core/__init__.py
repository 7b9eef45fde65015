"""The credential core: it knows neither Airflow nor Dagster.

The public names are loaded at first use, so that reading the table of settings (Airflow does it for its
connection form, at every parse) does not import psycopg.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lakebase_provider.core.base.secret import Secret
    from lakebase_provider.core.bulk.load.load import load
    from lakebase_provider.core.bulk.load.result import LoadResult
    from lakebase_provider.core.bulk.load.transfer.transfer import PostgresQuery
    from lakebase_provider.core.bulk.sources.delta.delta import Delta
    from lakebase_provider.core.bulk.unload.unload import UnloadResult
    from lakebase_provider.core.client import LakebaseClient
    from lakebase_provider.core.config import LakebaseConfig
    from lakebase_provider.core.database.catalog import TableName
    from lakebase_provider.core.database.fence import fence
    from lakebase_provider.core.database.structure.catalog_diff import CatalogDiff
    from lakebase_provider.core.database.structure.catalog_dump import CatalogDump
    from lakebase_provider.core.errors import LakebaseError
    from lakebase_provider.core.shared import close_shared_clients, shared_client
    from lakebase_provider.core.tokens.token import Token, TokenPolicy
    from lakebase_provider.core.upkeep.branches.budget import BranchLimits
    from lakebase_provider.core.upkeep.branches.lease import BranchLease
    from lakebase_provider.core.upkeep.branches.lease_options import branch_id_for
    from lakebase_provider.core.upkeep.branches.restore_point import RestorePoint
    from lakebase_provider.core.upkeep.health.limits import HealthLimits
    from lakebase_provider.core.upkeep.health.stages import HealthReport, StageResult
    from lakebase_provider.core.upkeep.inspection.inspection_report import (
        InspectionFinding,
        InspectionReport,
    )
    from lakebase_provider.core.upkeep.inspection.report import html_report
    from lakebase_provider.core.upkeep.migrations.migration_report import MigrationReport
    from lakebase_provider.core.upkeep.rehearsal.rehearsal_report import RehearsalReport
    from lakebase_provider.core.upkeep.restoring.restore_report import RestoreReport
    from lakebase_provider.core.workspace.objects.snapshots import Cadence
    from lakebase_provider.core.workspace.objects.sync.delta_version import delta_version

__all__ = [
    "BranchLease",
    "BranchLimits",
    "Cadence",
    "CatalogDiff",
    "CatalogDump",
    "Delta",
    "HealthLimits",
    "HealthReport",
    "InspectionFinding",
    "InspectionReport",
    "LakebaseClient",
    "LakebaseConfig",
    "LakebaseError",
    "LoadResult",
    "MigrationReport",
    "PostgresQuery",
    "RehearsalReport",
    "RestorePoint",
    "RestoreReport",
    "Secret",
    "StageResult",
    "TableName",
    "Token",
    "TokenPolicy",
    "UnloadResult",
    "branch_id_for",
    "close_shared_clients",
    "delta_version",
    "fence",
    "html_report",
    "load",
    "shared_client",
]

_HOMES = {
    "BranchLease": "upkeep.branches.lease",
    "BranchLimits": "upkeep.branches.budget",
    "Cadence": "workspace.objects.snapshots",
    "CatalogDiff": "database.structure.catalog_diff",
    "CatalogDump": "database.structure.catalog_dump",
    "Delta": "bulk.sources.delta.delta",
    "HealthLimits": "upkeep.health.limits",
    "HealthReport": "upkeep.health.stages",
    "InspectionFinding": "upkeep.inspection.inspection_report",
    "InspectionReport": "upkeep.inspection.inspection_report",
    "LakebaseClient": "client",
    "LakebaseConfig": "config",
    "LakebaseError": "errors",
    "LoadResult": "bulk.load.result",
    "MigrationReport": "upkeep.migrations.migration_report",
    "PostgresQuery": "bulk.load.transfer.transfer",
    "RehearsalReport": "upkeep.rehearsal.rehearsal_report",
    "RestorePoint": "upkeep.branches.restore_point",
    "RestoreReport": "upkeep.restoring.restore_report",
    "Secret": "base.secret",
    "StageResult": "upkeep.health.stages",
    "TableName": "database.catalog",
    "Token": "tokens.token",
    "TokenPolicy": "tokens.token",
    "UnloadResult": "bulk.unload.unload",
    "branch_id_for": "upkeep.branches.lease_options",
    "close_shared_clients": "shared",
    "delta_version": "workspace.objects.sync.delta_version",
    "fence": "database.fence",
    "html_report": "upkeep.inspection.report",
    "load": "bulk.load.load",
    "shared_client": "shared",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
