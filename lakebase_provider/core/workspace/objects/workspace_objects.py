"""The way to all kinds of objects: ``client.workspace``."""

from __future__ import annotations

from functools import cached_property

from lakebase_provider.core.base.clock import Clock
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.workspace.objects.branches import Branches
from lakebase_provider.core.workspace.objects.databases import Catalogs, Databases, Roles
from lakebase_provider.core.workspace.objects.endpoints import Endpoints
from lakebase_provider.core.workspace.objects.projects import Projects
from lakebase_provider.core.workspace.objects.snapshots import Snapshots
from lakebase_provider.core.workspace.objects.sync.catalog_tables import CatalogTables
from lakebase_provider.core.workspace.objects.sync.cdf_configs import CdfConfigs
from lakebase_provider.core.workspace.objects.sync.pipelines import Pipelines
from lakebase_provider.core.workspace.objects.sync.synced_tables import ProvisionedSyncedTables, SyncedTables
from lakebase_provider.core.workspace.operations import Operation, operation_named
from lakebase_provider.core.workspace.workspace import ControlPlane


class WorkspaceObjects:
    """The objects of Lakebase Autoscaling in a workspace. Nothing is requested before it is asked for.

    Args:
        config: Says which workspace, and which project and branch a bare id is in.
        control_plane: Sends the requests.
        clock: Where the time comes from.
    """

    def __init__(self, config: LakebaseConfig, control_plane: ControlPlane, clock: Clock) -> None:
        self._config = config
        self._control_plane = control_plane
        self._clock = clock

    @cached_property
    def projects(self) -> Projects:
        """Projects."""
        return Projects(self._config, self._control_plane, self._clock)

    @cached_property
    def branches(self) -> Branches:
        """Branches."""
        return Branches(self._config, self._control_plane, self._clock)

    @cached_property
    def endpoints(self) -> Endpoints:
        """Endpoints."""
        return Endpoints(self._config, self._control_plane, self._clock)

    @cached_property
    def snapshots(self) -> Snapshots:
        """Snapshots and their schedules."""
        return Snapshots(self._config, self._control_plane, self._clock)

    @cached_property
    def roles(self) -> Roles:
        """Roles."""
        return Roles(self._config, self._control_plane, self._clock)

    @cached_property
    def databases(self) -> Databases:
        """Databases."""
        return Databases(self._config, self._control_plane, self._clock)

    @cached_property
    def catalogs(self) -> Catalogs:
        """Catalogs of Unity Catalog."""
        return Catalogs(self._config, self._control_plane, self._clock)

    @cached_property
    def synced_tables(self) -> SyncedTables:
        """Tables that are filled from Delta tables; of the configuration's instance, if it names one."""
        kind = SyncedTables if self._config.instance is None else ProvisionedSyncedTables
        return kind(self._config, self._control_plane, self._clock)

    @cached_property
    def pipelines(self) -> Pipelines:
        """Pipelines of synced tables."""
        return Pipelines(self._control_plane, self._clock)

    @cached_property
    def catalog_tables(self) -> CatalogTables:
        """Tables of the Unity Catalog, as far as they are read from outside of it."""
        return CatalogTables(self._control_plane, self._clock)

    @cached_property
    def cdf_configs(self) -> CdfConfigs:
        """Lakehouse sync: schemas whose changes are written to Delta tables."""
        return CdfConfigs(self._config, self._control_plane, self._clock)

    def operation(self, name: str) -> Operation:
        """A long-running operation, to be waited for.

        Args:
            name: Its name, as :class:`.Operation` has it.

        Raises:
            ConfigError: It is no name of an operation.
        """
        operation_named(name)
        return Operation(name, self._control_plane, self._clock)
