"""What operators, sensors and triggers tell of a synced table, in JSON types."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lakebase_provider.core.workspace.objects.sync.cdf_configs import CdfStatus
    from lakebase_provider.core.workspace.objects.sync.pipelines import StartedUpdate
    from lakebase_provider.core.workspace.objects.sync.synced_table import SyncedTable

_TIMES = ("commit_time", "sync_start_time", "sync_end_time")
_OF_THE_MIRROR = ("postgres_table", "uc_table", "state", "committed_lsn", "last_sync_time")


def sync_of(table: SyncedTable, update: StartedUpdate | None = None) -> dict[str, Any]:
    """A sync that has ended; what the workspace does not tell is None.

    Args:
        table: The synced table, as it was told then.
        update: The update that was asked for, if there was one.
    """
    return {
        "name": table.id,
        "state": table.state,
        "version": table.version,
        "rows": table.synced_rows,
        **{name: _plain(getattr(table, name)) for name in _TIMES},
        "pipeline_id": table.pipeline_id if update is None else update.pipeline_id,
        "update_id": None if update is None else update.update_id,
        "adopted": update is not None and update.adopted,
    }


def last_sync_of(table: SyncedTable) -> dict[str, Any]:
    """The last sync that ended well, whatever one that runs has applied since."""
    version = table.version if table.synced_version is None else table.synced_version
    return {**sync_of(table), "version": version}


def mirror_of(statuses: tuple[CdfStatus, ...]) -> list[dict[str, Any]]:
    """How far the tables of Lakehouse sync are."""
    return [{name: _plain(getattr(one, name)) for name in _OF_THE_MIRROR} for one in statuses]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
