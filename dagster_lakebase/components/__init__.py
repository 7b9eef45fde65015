"""The components that Dagster's ``dg`` finds: it registers everything exported here, so this only exports."""

from __future__ import annotations

from dagster_lakebase.components.connection import LakebaseConnectionComponent
from dagster_lakebase.components.health import LakebaseHealthComponent
from dagster_lakebase.components.io_manager import LakebaseIOManagerComponent
from dagster_lakebase.components.lakehouse.synced_table import LakebaseSyncedTableComponent
from dagster_lakebase.components.lakehouse.unload import LakebaseUnloadComponent
from dagster_lakebase.components.load import LakebaseLoadComponent
from dagster_lakebase.components.observation import LakebaseObservationComponent
from dagster_lakebase.components.sql import LakebaseSqlComponent
from dagster_lakebase.components.upkeep import (
    LakebaseBranchComponent,
    LakebaseMaintenanceComponent,
    LakebaseMigrationComponent,
    LakebaseRehearsalComponent,
    LakebaseRestoreComponent,
)

__all__ = [
    "LakebaseBranchComponent",
    "LakebaseConnectionComponent",
    "LakebaseHealthComponent",
    "LakebaseIOManagerComponent",
    "LakebaseLoadComponent",
    "LakebaseMaintenanceComponent",
    "LakebaseMigrationComponent",
    "LakebaseObservationComponent",
    "LakebaseRehearsalComponent",
    "LakebaseRestoreComponent",
    "LakebaseSqlComponent",
    "LakebaseSyncedTableComponent",
    "LakebaseUnloadComponent",
]
