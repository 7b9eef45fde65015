"""A synced table as each of the two APIs tells of it. Every field of its status may be missing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from lakebase_provider.core.workspace.answers import Answer
from lakebase_provider.core.workspace.objects.object_kind import At, Named

_PREFIX = "synced_tables/"
_ONLINE = "SYNCED_TABLE_ONLINE"
_FAILED = ("SYNCED_TABLE_OFFLINE", "SYNCED_TABLE_OFFLINE_FAILED", "SYNCED_TABLE_ONLINE_PIPELINE_FAILED")


def _name(answer: Answer, name: str) -> str | None:
    found = answer.text(name)
    return found if found is None or "/" in found else _PREFIX + found


def _state(answer: Answer, name: str) -> str | None:
    found = answer.state(name)
    # The older API has one with a slip of the pen.
    return "SYNCED_TABLE_OFFLINE" if found == "SYNCED_TABLED_OFFLINE" else found


def _whole(answer: Answer, name: str) -> int | None:
    found = answer.number(name)
    return None if found is None else int(found)


def _commit_time(answer: Answer, name: str) -> datetime | None:
    found = answer.moment(name)
    # That is how the workspace says that it does not know.
    return None if found is None or found.timestamp() == 0 else found


@dataclass(frozen=True, kw_only=True)
class SyncedTable(Named):
    """A synced table: a table in Postgres that a pipeline fills from a Delta table.

    The workspace does not tell what it was declared with: neither its source, nor its key or mode. Each of
    these may be None at any time.

    Attributes:
        name: Its full name, ``synced_tables/<catalog>.<schema>.<table>``.
        uid: Its id in the Unity Catalog.
        create_time: When it was created.
        project: Name of the project.
        state: ``SYNCED_TABLE_PROVISIONING``, ``SYNCED_TABLE_ONLINE_NO_PENDING_UPDATE`` or what else the
            workspace says. That it is online says that some earlier sync ended well.
        message: What the workspace says about the state.
        uc_state: State of its entry in the Unity Catalog: ``ACTIVE``, ``PROVISIONING``, ``FAILED`` …
        provisioning_phase: What its pipeline is at.
        pipeline_id: Id of the pipeline that copies its rows.
        synced_version: Version of the source that the last sync has brought; none while all is copied anew.
        processed_version: Version of the source up to which changes were applied.
        commit_time: When that version was committed; None where the workspace says 1970.
        sync_start_time: When the last sync began that ended well; it stays if there was nothing to do.
        sync_end_time: When it ended.
        last_sync_time: When rows were last written.
        processing_version: The version that is being copied.
        synced_rows: Rows that the running sync has copied.
        total_rows: Rows that it has to copy, which may be an estimate.
        progress: The part that is copied, 0 to 1.
        seconds_left: Seconds that it may still take.
    """

    name: Annotated[str, At("name", _name)] = ""
    uid: Annotated[str | None, At("uid", Answer.text)] = None
    create_time: Annotated[datetime | None, At("create_time", Answer.moment)] = None
    project: Annotated[str | None, At("status.project", Answer.text)] = None
    state: Annotated[str | None, At("status.detailed_state", _state)] = None
    message: Annotated[str | None, At("status.message", Answer.text)] = None
    uc_state: Annotated[str | None, At("status.unity_catalog_provisioning_state", Answer.state)] = None
    provisioning_phase: Annotated[str | None, At("status.provisioning_phase", Answer.state)] = None
    pipeline_id: Annotated[str | None, At("status.pipeline_id", Answer.text)] = None
    synced_version: Annotated[
        int | None, At("status.last_sync.delta_table_sync_info.delta_commit_version", _whole)
    ] = None
    processed_version: Annotated[int | None, At("status.last_processed_commit_version", _whole)] = None
    commit_time: Annotated[
        datetime | None, At("status.last_sync.delta_table_sync_info.delta_commit_time", _commit_time)
    ] = None
    sync_start_time: Annotated[datetime | None, At("status.last_sync.sync_start_time", Answer.moment)] = None
    sync_end_time: Annotated[datetime | None, At("status.last_sync.sync_end_time", Answer.moment)] = None
    last_sync_time: Annotated[datetime | None, At("status.last_sync_time", Answer.moment)] = None
    processing_version: Annotated[
        int | None, At("status.ongoing_sync_progress.latest_version_currently_processing", _whole)
    ] = None
    synced_rows: Annotated[int | None, At("status.ongoing_sync_progress.synced_row_count", _whole)] = None
    total_rows: Annotated[int | None, At("status.ongoing_sync_progress.total_row_count", _whole)] = None
    progress: Annotated[
        float | None, At("status.ongoing_sync_progress.sync_progress_completion", Answer.number)
    ] = None
    seconds_left: Annotated[
        float | None, At("status.ongoing_sync_progress.estimated_completion_time_seconds", Answer.number)
    ] = None

    @property
    def version(self) -> int | None:
        """The source's version whose rows are there, by whichever field tells more."""
        told = [one for one in (self.synced_version, self.processed_version) if one is not None]
        return max(told, default=None)

    @property
    def sync_key(self) -> str | None:
        """What tells the last sync that ended well from others; None if there was none, or it is not told.

        It is the source's version, which a sync with nothing to do leaves, or else when the sync began.
        """
        if self.synced_version is not None:
            return str(self.synced_version)
        return None if self.sync_start_time is None else self.sync_start_time.isoformat()

    @property
    def is_online(self) -> bool:
        """Whether it has rows, of whatever version."""
        return (self.state or "").startswith(_ONLINE)

    @property
    def is_continuous(self) -> bool:
        """Whether its pipeline runs without end."""
        return self.state == "SYNCED_TABLE_ONLINE_CONTINUOUS_UPDATE"

    @property
    def has_failed(self) -> bool:
        """Whether its state is one that does not pass by itself."""
        return self.state in _FAILED or self.uc_state == "FAILED"


_OLD = "data_synchronization_status"
_PROGRESS = f"{_OLD}.triggered_update_status.triggered_update_progress"


@dataclass(frozen=True, kw_only=True)
class ProvisionedSyncedTable(SyncedTable):
    """A synced table of Lakebase Provisioned, which the older API tells of."""

    project: Annotated[str | None, At("project", Answer.text)] = None
    state: Annotated[str | None, At(f"{_OLD}.detailed_state", _state)] = None
    message: Annotated[str | None, At(f"{_OLD}.message", Answer.text)] = None
    uc_state: Annotated[str | None, At("unity_catalog_provisioning_state", Answer.state)] = None
    provisioning_phase: Annotated[str | None, At(f"{_PROGRESS}.provisioning_phase", Answer.state)] = None
    pipeline_id: Annotated[str | None, At(f"{_OLD}.pipeline_id", Answer.text)] = None
    synced_version: Annotated[
        int | None, At(f"{_OLD}.last_sync.delta_table_sync_info.delta_commit_version", _whole)
    ] = None
    processed_version: Annotated[
        int | None, At(f"{_OLD}.triggered_update_status.last_processed_commit_version", _whole)
    ] = None
    commit_time: Annotated[
        datetime | None, At(f"{_OLD}.last_sync.delta_table_sync_info.delta_commit_timestamp", _commit_time)
    ] = None
    sync_start_time: Annotated[
        datetime | None, At(f"{_OLD}.last_sync.sync_start_timestamp", Answer.moment)
    ] = None
    sync_end_time: Annotated[datetime | None, At(f"{_OLD}.last_sync.sync_end_timestamp", Answer.moment)] = (
        None
    )
    last_sync_time: Annotated[
        datetime | None, At(f"{_OLD}.triggered_update_status.timestamp", Answer.moment)
    ] = None
    processing_version: Annotated[
        int | None, At(f"{_PROGRESS}.latest_version_currently_processing", _whole)
    ] = None
    synced_rows: Annotated[int | None, At(f"{_PROGRESS}.synced_row_count", _whole)] = None
    total_rows: Annotated[int | None, At(f"{_PROGRESS}.total_row_count", _whole)] = None
    progress: Annotated[float | None, At(f"{_PROGRESS}.sync_progress_completion", Answer.number)] = None
    seconds_left: Annotated[
        float | None, At(f"{_PROGRESS}.estimated_completion_time_seconds", Answer.number)
    ] = None
