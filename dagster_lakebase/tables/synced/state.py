"""What the workspace knows of a synced table, and how Dagster shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_lakebase.tables.asset_keys import Asset, asset_specs
from dagster_lakebase.tables.assets import TABLE_NAME
from lakebase_provider.core.config.resource_names import UC_TABLE

if TYPE_CHECKING:
    from lakebase_provider.core.workspace.objects.sync.pipelines import PipelineUpdate
    from lakebase_provider.core.workspace.objects.sync.synced_table import SyncedTable
    from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects

SYNCED_TABLE = "lakebase/synced_table"


@dataclass(frozen=True)
class SyncState:
    """A synced table and the last updates of its pipeline.

    Attributes:
        table: The synced table.
        updates: The updates, the newest first.
    """

    table: SyncedTable
    updates: tuple[PipelineUpdate, ...]

    @classmethod
    def read(cls, workspace: WorkspaceObjects, name: str) -> SyncState:
        """Ask the workspace. No session is opened in Postgres, so that a suspended compute sleeps on.

        Raises:
            NotFoundError: There is no such synced table, or the principal cannot see it.
            LakebaseError: The workspace refused or could not be reached.
        """
        table = workspace.synced_tables.get(name)
        return cls(table, () if table.pipeline_id is None else workspace.pipelines.updates(table.pipeline_id))

    @property
    def last_ended(self) -> PipelineUpdate | None:
        """The newest update that has ended, well or not."""
        return next((one for one in self.updates if not one.is_active), None)

    @property
    def as_of(self) -> datetime | None:
        """When the newest sync began that ended well: what the source had then is there.

        One with nothing to do shows in the updates alone.
        """
        begun = [one.create_time for one in self.updates if one.state == "COMPLETED"]
        return max((one for one in (self.table.sync_start_time, *begun) if one is not None), default=None)

    @property
    def data_version(self) -> str | None:
        """The version of the source whose rows are there; None while the workspace does not tell it."""
        return None if self.table.version is None else str(self.table.version)

    def metadata(self) -> dict[str, Any]:
        """What an asset's metadata say of it."""
        table, latest = self.table, next(iter(self.updates), None)
        known = {
            "lakebase/state": table.state,
            "lakebase/source_version": table.version,
            "lakebase/sync_started": _timestamp(table.sync_start_time),
            "lakebase/sync_ended": _timestamp(table.sync_end_time),
            "lakebase/update": None if latest is None else latest.name,
            "lakebase/update_state": None if latest is None else latest.state,
            # From this freshness is judged.
            "dagster/last_updated_timestamp": _timestamp(self.as_of),
        }
        return {**named(table.id), **{name: value for name, value in known.items() if value is not None}}


def named(name: str) -> dict[str, str]:
    """The metadata that name a synced table, and its table in Postgres.

    Args:
        name: Its name, ``<catalog>.<schema>.<table>``.
    """
    return {SYNCED_TABLE: name, TABLE_NAME: name.partition(".")[2]}


def synced_name(key: dg.AssetKey, metadata: Mapping[str, Any]) -> str:
    """The name in the Unity Catalog of the synced table that an asset is.

    Args:
        key: The asset; a key of three parts is the name.
        metadata: Where ``lakebase/synced_table`` says otherwise.

    Raises:
        DagsterInvalidDefinitionError: Neither is a name.
    """
    given = metadata.get(SYNCED_TABLE, ".".join(key.path))
    # Dagster may have wrapped it.
    name = getattr(given, "value", given)
    if not isinstance(name, str) or not UC_TABLE.fullmatch(name):
        raise dg.DagsterInvalidDefinitionError(
            f"The synced table of asset {key.to_user_string()} is {name!r}. Name it in the asset's metadata, "
            f"{SYNCED_TABLE}: <catalog>.<schema>.<table>."
        )
    return name


def synced_specs(assets: Iterable[Asset], function: str) -> dict[dg.AssetKey, dg.AssetSpec]:
    """Specifications of assets that are synced tables, which say so in their metadata.

    Args:
        assets: The assets, or their keys.
        function: The function that was given them, for the error.

    Raises:
        DagsterInvalidDefinitionError: There are none, or one is no synced table.
    """
    return {
        key: spec.replace_attributes(metadata={**named(synced_name(key, spec.metadata)), **spec.metadata})
        for key, spec in asset_specs(assets, function).items()
    }


def in_use(instance: dg.DagsterInstance, key: dg.AssetKey, name: str) -> str:
    """The synced table that an asset last was: one that was replaced has a second name.

    Args:
        instance: Dagster's instance, which has the asset's materializations.
        key: The asset.
        name: What it is declared as.
    """
    event = instance.get_latest_materialization_event(key)
    made = None if event is None else event.asset_materialization
    shown = {} if made is None else made.metadata
    last = getattr(shown.get(SYNCED_TABLE), "value", None)
    return last if last == f"{name}_b" else name


def _timestamp(when: datetime | None) -> dg.TimestampMetadataValue | None:
    return None if when is None else dg.MetadataValue.timestamp(when)
