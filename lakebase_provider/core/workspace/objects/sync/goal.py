"""When a sync has done what is waited for: judged by the version and by the update, and by nothing else.

That a table is ONLINE says that some earlier sync ended well, and a pipeline is IDLE after an update that has
failed. A sync that had nothing to do moves neither a version nor a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from lakebase_provider.core.workspace.objects.sync.pipelines import PipelineUpdate, StartedUpdate
from lakebase_provider.core.workspace.objects.sync.synced_table import SyncedTable

#: ``again``: the update that was adopted has ended, and another one is needed.
Verdict = Literal["reached", "waiting", "failed", "again"]


@dataclass(frozen=True)
class Goal:
    """What is waited for.

    Attributes:
        version: The source's version whose rows are to be there.
        since: The moment at which, or after which, a sync is to have begun.
        update: The update that was asked for.
        is_fresh: Whether an adopted update is not enough if no version tells what it has brought.
    """

    version: int | None = None
    since: datetime | None = None
    update: StartedUpdate | None = None
    is_fresh: bool = False

    def judge(self, table: SyncedTable, latest: PipelineUpdate | None) -> Verdict:
        """What has become of it.

        Args:
            table: As the workspace tells it now; each of its fields may be missing.
            latest: The update that was asked for; without one, the pipeline's latest, if there is any.
        """
        if latest is None:
            return "failed" if table.has_failed else "waiting" if not self._is_told(table) else "reached"
        if self.update is None or table.is_continuous:
            return self._judge_others(table, latest)
        if latest.is_active:
            # Not even at the version: of a source that was made anew, the former versions were higher.
            return "waiting"
        if latest.state != "COMPLETED":
            return "failed"
        if not self.update.adopted:
            # It began when the version was there; the status may be late, and the head move without data.
            return "reached"
        if self.version is None and self.since is None:
            return "again" if self.is_fresh else "reached"
        return "reached" if self._is_told(table) else "again"

    def _judge_others(self, table: SyncedTable, latest: PipelineUpdate) -> Verdict:
        if self._is_told(table):
            return "reached"
        if latest.is_active:
            return "waiting"
        if latest.state == "COMPLETED":
            # With nothing to do, it tells no new time.
            only_since = self.version is None and self._is_since(latest.create_time)
            return "reached" if only_since else "waiting"
        # One that failed before the moment that counts says nothing about what comes.
        is_before = self.since is not None and not self._is_since(latest.create_time)
        return "waiting" if is_before else "failed"

    def _is_told(self, table: SyncedTable) -> bool:
        """Whether the table's status tells that it is reached."""
        if self.version is None and self.since is None:
            return False
        has_version = self.version is None or (table.version is not None and table.version >= self.version)
        return has_version and (self.since is None or self._is_since(table.sync_start_time))

    def _is_since(self, moment: datetime | None) -> bool:
        return self.since is not None and moment is not None and moment >= self.since
