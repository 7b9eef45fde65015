"""Databricks Lakebase for Dagster: resource, I/O manager, health checks, branches, migrations, components.

What connects is :mod:`lakebase_provider.core`; this package gives it Dagster's shape. Importing it loads
neither the Postgres driver nor databricks-sdk.
"""

from __future__ import annotations

from dagster_shared.libraries import DagsterLibraryRegistry

from dagster_lakebase.components import (
    LakebaseBranchComponent,
    LakebaseConnectionComponent,
    LakebaseHealthComponent,
    LakebaseIOManagerComponent,
    LakebaseLoadComponent,
    LakebaseMaintenanceComponent,
    LakebaseMigrationComponent,
    LakebaseObservationComponent,
    LakebaseRehearsalComponent,
    LakebaseRestoreComponent,
    LakebaseSqlComponent,
    LakebaseSyncedTableComponent,
    LakebaseUnloadComponent,
)
from dagster_lakebase.health.checks import (
    LakebaseHealthCheckConfig,
    build_lakebase_health_checks,
    lakebase_health_check_op,
)
from dagster_lakebase.health.failures import build_lakebase_failure_hook
from dagster_lakebase.health.inspection import build_lakebase_inspection_checks
from dagster_lakebase.health.sensor import build_lakebase_health_sensor
from dagster_lakebase.io_manager.io_manager import LakebaseIOManager
from dagster_lakebase.resource.branch_deployment import LakebaseBranchDeployment
from dagster_lakebase.resource.resource import LakebaseResource
from dagster_lakebase.tables.observation import (
    build_lakebase_table_observation,
    build_lakebase_table_observation_sensor,
)
from dagster_lakebase.tables.owners import validate_table_owners
from dagster_lakebase.tables.synced.checks import build_lakebase_sync_checks
from dagster_lakebase.tables.synced.mirror import build_lakebase_mirror_checks
from dagster_lakebase.tables.synced.observation import build_lakebase_synced_table_observation
from dagster_lakebase.tables.synced.sync import (
    LakebaseSyncConfig,
    build_lakebase_sync_asset,
    lakebase_sync_op,
)
from dagster_lakebase.upkeep.branches import (
    LakebaseCreateBranchConfig,
    LakebaseDeleteBranchConfig,
    LakebaseSweepBranchesConfig,
    build_lakebase_sweep_sensor,
    lakebase_create_branch_op,
    lakebase_delete_branch_op,
    lakebase_sweep_branches_op,
)
from dagster_lakebase.upkeep.maintenance import (
    LakebaseMaintenanceConfig,
    build_lakebase_maintenance_job,
    lakebase_maintenance_op,
)
from dagster_lakebase.upkeep.migrations import LakebaseMigrationConfig, build_lakebase_migration_asset
from dagster_lakebase.upkeep.rehearsal import (
    LakebaseRehearseConfig,
    build_lakebase_rehearsal_asset,
    lakebase_rehearse_op,
)
from dagster_lakebase.upkeep.restoring import (
    LakebaseRestoreRowsConfig,
    lakebase_restore_point_op,
    lakebase_restore_rows_op,
)
from lakebase_provider.version import __version__

__all__ = [
    "LakebaseBranchComponent",
    "LakebaseBranchDeployment",
    "LakebaseConnectionComponent",
    "LakebaseCreateBranchConfig",
    "LakebaseDeleteBranchConfig",
    "LakebaseHealthCheckConfig",
    "LakebaseHealthComponent",
    "LakebaseIOManager",
    "LakebaseIOManagerComponent",
    "LakebaseLoadComponent",
    "LakebaseMaintenanceComponent",
    "LakebaseMaintenanceConfig",
    "LakebaseMigrationComponent",
    "LakebaseMigrationConfig",
    "LakebaseObservationComponent",
    "LakebaseRehearsalComponent",
    "LakebaseRehearseConfig",
    "LakebaseResource",
    "LakebaseRestoreComponent",
    "LakebaseRestoreRowsConfig",
    "LakebaseSqlComponent",
    "LakebaseSweepBranchesConfig",
    "LakebaseSyncConfig",
    "LakebaseSyncedTableComponent",
    "LakebaseUnloadComponent",
    "build_lakebase_failure_hook",
    "build_lakebase_health_checks",
    "build_lakebase_health_sensor",
    "build_lakebase_inspection_checks",
    "build_lakebase_maintenance_job",
    "build_lakebase_migration_asset",
    "build_lakebase_mirror_checks",
    "build_lakebase_rehearsal_asset",
    "build_lakebase_sweep_sensor",
    "build_lakebase_sync_asset",
    "build_lakebase_sync_checks",
    "build_lakebase_synced_table_observation",
    "build_lakebase_table_observation",
    "build_lakebase_table_observation_sensor",
    "lakebase_create_branch_op",
    "lakebase_delete_branch_op",
    "lakebase_health_check_op",
    "lakebase_maintenance_op",
    "lakebase_rehearse_op",
    "lakebase_restore_point_op",
    "lakebase_restore_rows_op",
    "lakebase_sweep_branches_op",
    "lakebase_sync_op",
    "validate_table_owners",
]

DagsterLibraryRegistry.register("dagster-lakebase", __version__, is_dagster_package=False)
