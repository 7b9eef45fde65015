"""What the operators share that wait for a sync: the triggerer's part of it, and what is told of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lakebase_provider._airflow.task.failing_fast import failing_fast
from lakebase_provider.links import LakebaseConsoleLink, LakebasePipelineLink
from lakebase_provider.operators.branches.managing import ManagingOperator, found_in

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from lakebase_provider.core.workspace.objects.sync.pipelines import StartedUpdate


class SyncingOperator(ManagingOperator):
    """Waits for a sync of a table.

    Args:
        table: Name of the synced table in the Unity Catalog.
        kwargs: As for :class:`~lakebase_provider.operators.branches.managing.ManagingOperator`.
    """

    operator_extra_links = (LakebasePipelineLink(), LakebaseConsoleLink())

    def __init__(self, *, table: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = table
        #: What is told of the sync, once there is one.
        self.sync: dict[str, Any] = {}

    def _defer_sync(
        self,
        *,
        version: int | None = None,
        since: datetime | None = None,
        update: StartedUpdate | None = None,
    ) -> None:
        """Go on in ``execute_complete`` when the sync is done."""
        from lakebase_provider.triggers.sync import LakebaseSyncTrigger

        trigger = LakebaseSyncTrigger(
            conn_id=self.conn_id,
            manage_conn_id=self.manage_conn_id,
            timeout=self.timeout,
            table=self.table,
            version=version,
            since=None if since is None else since.isoformat(),
            update=None if update is None else asdict(update),
        )
        self.log.info("Deferring: the triggerer waits for the sync of %s.", self.table)
        # Without kwargs, which dag.test() drops.
        self.defer(trigger=trigger, method_name="execute_complete", timeout=self.execution_timeout)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return what ``execute`` does, or raise the trigger's error."""
        # An error carries the update's name. Of one that has failed, too, the link leads there.
        match str((event.get("details") or {}).get("name")).split("/"):
            case ["pipelines", pipeline, "updates", update]:
                self.sync = {"pipeline_id": pipeline, "update_id": update}
        found: dict[str, Any] = found_in(event)["sync"]
        with failing_fast():
            return self._synced(context, found)

    def _synced(self, context: Context, sync: dict[str, Any]) -> dict[str, Any]:
        """Note a sync for links, lineage and the assets that the task writes."""
        from airflow.sdk import Asset

        self.sync = sync
        self.log.info("The sync of %s is done: %s", self.table, sync)
        events: Any = context.get("outlet_events")
        for outlet in self.outlets or ():
            if events is not None and isinstance(outlet, Asset):
                events[outlet].extra.update(sync)
        return sync

    def _source(self) -> str | None:
        """Name of the Delta table, if it is known."""
        return None

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """The Delta table is read, the one in Postgres written."""
        from lakebase_provider._airflow.task.lineage import synced_table_lineage

        client = self.get_db_hook().client
        return synced_table_lineage(client, self.table, self._source(), self.sync.get("rows"))
