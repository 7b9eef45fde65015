"""A sync as a task: what has changed in the Delta table is copied, and its rows are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lakebase_provider._airflow.task.arguments import require_synced_table, version_of
from lakebase_provider._airflow.task.failing_fast import failing_fast
from lakebase_provider.operators.branches.managing import ManagingOperator, deferred_by_default
from lakebase_provider.operators.sync.waiting import SyncingOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class LakebaseSyncOperator(SyncingOperator):
    """Syncs a synced table and waits until the rows are there that its source had when the task began.

    It is judged by the update and the version, never by a state such as ONLINE; an update that fails ends the
    task with the text of its event. An update that runs already is adopted: by a retry after a kill that is
    the one which the first try has triggered. With a `version` one that has brought it is enough; without one
    another update follows it, since it may have begun before the last commit. An update goes on if its task
    is ended.

    It returns ``name``, ``state``, ``version`` of the source whose rows are there, ``rows``, ``commit_time``,
    ``sync_start_time``, ``sync_end_time``, ``pipeline_id``, ``update_id`` and whether that was ``adopted``;
    what the workspace does not tell is None. An asset among its `outlets` gets them as its event's extra.

    Args:
        table: Name of the synced table in the Unity Catalog, ``<catalog>.<schema>.<table>`` (templated). It
            is not ``CONTINUOUS``: wait for such a one with
            :class:`~lakebase_provider.sensors.sync.LakebaseSyncedTableSensor`.
        version: The source's version whose rows have to be there (templated), such as the task returns that
            wrote it.
        full_refresh: Whether to copy all rows anew.
        source: Name of the Delta table (templated), for OpenLineage alone: the workspace does not tell it.
        deferrable: Whether the triggerer waits; the deployment's default if left out.
        timeout: Seconds that the sync may take.
        kwargs: ``conn_id`` and ``manage_conn_id`` as for
            :class:`~lakebase_provider.operators.branches.managing.ManagingOperator`, and arguments of
            ``BaseOperator``.

    Raises:
        ConfigError: An argument is malformed; when the DAG is parsed.
        AirflowFailException: When the task fails in a way that a retry cannot help.
        LakebaseError: When the task fails and a retry may help.

    Example:
        >>> LakebaseSyncOperator(task_id="sync", table="main.pub.trips", version=job.output, deferrable=True)
    """

    template_fields: Sequence[str] = (*ManagingOperator.template_fields, "table", "version", "source")

    def __init__(
        self,
        *,
        table: str,
        version: int | str | None = None,
        full_refresh: bool = False,
        source: str | None = None,
        deferrable: bool | None = None,
        timeout: float = 1800.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(table=table, timeout=timeout, **kwargs)
        self.version = version
        self._has_version = version is not None
        self.full_refresh = full_refresh
        self.source = source
        self.deferrable = deferred_by_default(deferrable)
        self._check_own_arguments(("table", "version"))

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        super()._check_arguments(given)
        require_synced_table(given.get("table"))
        version_of(given.get("version"))

    def execute(self, context: Context) -> dict[str, Any]:
        """Trigger the sync, wait for it, and say what it has brought."""
        from lakebase_provider.hooks._sync import sync_of

        with failing_fast(), self._unwinding():
            # What a template or another task says may be nothing: that is not all versions.
            version = version_of("None" if self._has_version and self.version is None else self.version)
            tables = self._managed().workspace.synced_tables
            started = tables.trigger(self.table, full_refresh=self.full_refresh, timeout=self.timeout)
            # Of one that fails, too, the link leads there.
            self.sync = {"pipeline_id": started.pipeline_id, "update_id": started.update_id}
            what = "adopted" if started.adopted else "triggered"
            self.log.info("The update %s of pipeline %s is %s.", started.update_id, started.pipeline_id, what)
            if self.deferrable:
                self._defer_sync(version=version, update=started)
            done = tables.wait(self.table, version=version, update=started, fresh=True, timeout=self.timeout)
            return self._synced(context, sync_of(done.table, done.update))

    def _source(self) -> str | None:
        return self.source
