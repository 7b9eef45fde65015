"""Databricks Lakebase for Dagster: a resource, an I/O manager, health checks and components.

What connects is :mod:`lakebase_provider.core`; this package gives it Dagster's shape. Importing it loads
neither the Postgres driver nor databricks-sdk.
"""

from __future__ import annotations

from dagster_shared.libraries import DagsterLibraryRegistry

from dagster_lakebase.components import (
    LakebaseConnectionComponent,
    LakebaseHealthComponent,
    LakebaseIOManagerComponent,
    LakebaseLoadComponent,
    LakebaseObservationComponent,
    LakebaseSqlComponent,
)
from dagster_lakebase.health.checks import (
    LakebaseHealthCheckConfig,
    build_lakebase_health_checks,
    lakebase_health_check_op,
)
from dagster_lakebase.health.sensor import build_lakebase_health_sensor
from dagster_lakebase.io_manager.io_manager import LakebaseIOManager
from dagster_lakebase.resource.resource import LakebaseResource
from dagster_lakebase.tables.observation import (
    build_lakebase_table_observation,
    build_lakebase_table_observation_sensor,
)
from lakebase_provider.version import __version__

__all__ = [
    "LakebaseConnectionComponent",
    "LakebaseHealthCheckConfig",
    "LakebaseHealthComponent",
    "LakebaseIOManager",
    "LakebaseIOManagerComponent",
    "LakebaseLoadComponent",
    "LakebaseObservationComponent",
    "LakebaseResource",
    "LakebaseSqlComponent",
    "build_lakebase_health_checks",
    "build_lakebase_health_sensor",
    "build_lakebase_table_observation",
    "build_lakebase_table_observation_sensor",
    "lakebase_health_check_op",
]

DagsterLibraryRegistry.register("dagster-lakebase", __version__, is_dagster_package=False)
