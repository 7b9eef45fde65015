"""Waiting for the rows of a Delta table in Postgres, and for what Postgres has committed in Delta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lakebase_provider._airflow.task.arguments import moment_of, require_synced_table, version_of
from lakebase_provider.sensors._managing import ManagingSensor

if TYPE_CHECKING:
    from datetime import datetime

    from lakebase_provider.hooks._branches import Managed
    from lakebase_provider.triggers._managing import ManagedPolls


class LakebaseSyncedTableSensor(ManagingSensor):
    """Waits until a synced table, which others trigger or which is continuous, has the rows that it should.

    It returns what :class:`~lakebase_provider.operators.sync.LakebaseSyncOperator` returns. An update that
    has failed ends the wait at once.

    Args:
        table: Name of the synced table in the Unity Catalog, ``<catalog>.<schema>.<table>`` (templated).
        version: The source's version whose rows are to be there (templated), such as another task returns.
        since: The moment at which, or after which, a sync is to have begun, with a time zone (templated), as
            of ``"{{ data_interval_end }}"``. One of the two is needed.
        kwargs: ``conn_id``, ``manage_conn_id``, ``deferrable`` as for
            :class:`~lakebase_provider.sensors._managing.ManagingSensor`, and arguments of
            ``BaseSensorOperator``, such as `poke_interval` and `timeout`, in seconds.

    Raises:
        ConfigError: An argument is malformed, or neither `version` nor `since` is given; when the DAG is
            parsed.
        AirflowFailException: When the task runs and the connection's settings cannot work.

    Example:
        >>> LakebaseSyncedTableSensor(
        ...     task_id="there", table="main.pub.trips", version=job.output["version"], deferrable=True
        ... )
    """

    template_fields: Sequence[str] = (*ManagingSensor.template_fields, "table", "version", "since")

    def __init__(
        self,
        *,
        table: str,
        version: int | str | None = None,
        since: datetime | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.table = table
        self.version = version
        self.since = since
        if version is None and since is None:
            from lakebase_provider.core.errors import ConfigError

            raise ConfigError(
                f"It is not said what of {table} is waited for.", remedy="Give version or since."
            )
        self._check_own_arguments(("table", "version", "since"))

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        require_synced_table(given.get("table"))
        version_of(given.get("version"))
        moment_of("since", given.get("since"))

    def _look(self, managed: Managed) -> Any:
        from lakebase_provider.hooks._sync import sync_of

        version, since = version_of(self.version), moment_of("since", self.since)
        done = managed.workspace.synced_tables.reached(self.table, version=version, since=since)
        return None if done is None else sync_of(done.table)

    def _polls(self, **arguments: Any) -> ManagedPolls:
        from lakebase_provider.triggers.sync import LakebaseSyncedTableTrigger

        since = moment_of("since", self.since)
        return LakebaseSyncedTableTrigger(
            table=self.table,
            version=version_of(self.version),
            since=None if since is None else since.isoformat(),
            **arguments,
        )


class LakebaseInDeltaSensor(ManagingSensor):
    """Waits until what was committed in Postgres is in the Delta tables of Lakehouse sync.

    It returns, for each table, ``postgres_table``, ``uc_table``, ``state``, ``committed_lsn`` and
    ``last_sync_time``. A table that is skipped ends the wait at once, with the reason.

    Args:
        lsn: What ``SELECT pg_current_wal_lsn()`` returned after the commit, such as ``"16/B374D848"``
            (templated).
        cdf_config: Name of the configuration of Lakehouse sync, or its id in the connection's database
            (templated).
        tables: Names of the tables in Postgres (templated); by default all but those that are skipped.
        kwargs: ``conn_id``, ``manage_conn_id``, ``deferrable`` as for
            :class:`~lakebase_provider.sensors._managing.ManagingSensor`, and arguments of
            ``BaseSensorOperator``, such as `poke_interval` and `timeout`, in seconds.

    Raises:
        AirflowFailException: When the task runs and a table is skipped, or the connection's settings cannot
            work.

    Example:
        >>> LakebaseInDeltaSensor(task_id="mirrored", lsn=lsn.output, cdf_config="mirror", tables=["orders"])
    """

    template_fields: Sequence[str] = (*ManagingSensor.template_fields, "lsn", "cdf_config", "tables")

    def __init__(
        self, *, lsn: str, cdf_config: str, tables: Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.lsn = lsn
        self.cdf_config = cdf_config
        self.tables = tables
        self._check_own_arguments(())

    def _look(self, managed: Managed) -> Any:
        from lakebase_provider.hooks._sync import mirror_of

        configs = managed.workspace.cdf_configs
        found = configs.in_delta(self.lsn, self.cdf_config, tables=self.tables)
        return None if found is None else mirror_of(found)

    def _polls(self, **arguments: Any) -> ManagedPolls:
        from lakebase_provider.triggers.sync import LakebaseInDeltaTrigger

        return LakebaseInDeltaTrigger(
            lsn=self.lsn, cdf_config=self.cdf_config, tables=self.tables, **arguments
        )
