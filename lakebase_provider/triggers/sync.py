"""Syncs that the triggerer waits for, and tells assets of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from lakebase_provider._airflow.task.arguments import conn_id_of, moment_of
from lakebase_provider.triggers._managing import ManagedPolls, ManagingTrigger

if TYPE_CHECKING:
    from lakebase_provider.hooks._branches import Managed

#: Under which the asset's state holds the sync that it was told of last.
_TOLD = "lakebase_sync"
#: What it holds before there was any sync.
_NONE = "none"


class LakebaseSyncTrigger(ManagingTrigger):
    """Waits for a sync, which goes on whatever becomes of this; resumed by the update's ids.

    Args:
        table: Name of the synced table.
        version: The source's version that is waited for.
        since: The moment at which, or after which, a sync is to have begun, as text.
        update: The update that was asked for: ``pipeline_id``, ``update_id`` and ``adopted``.
        kwargs: As for :class:`~lakebase_provider.triggers._managing.ManagingTrigger`.
    """

    def __init__(
        self,
        *,
        table: str,
        version: int | None = None,
        since: str | None = None,
        update: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.table = table
        self.version = version
        self.since = since
        self.update = None if update is None else dict(update)

    def _arguments(self) -> dict[str, Any]:
        return {"table": self.table, "version": self.version, "since": self.since, "update": self.update}

    async def _work(self, managed: Managed) -> dict[str, Any]:
        from lakebase_provider.core.workspace.objects.sync.pipelines import StartedUpdate
        from lakebase_provider.hooks._sync import sync_of

        self.log.info("Waiting for the sync of %s.", self.table)
        done = await managed.workspace.synced_tables.await_(
            self.table,
            version=self.version,
            since=moment_of("since", self.since),
            update=None if self.update is None else StartedUpdate(**self.update),
            fresh=self.update is not None,
            timeout=self.timeout,
        )
        return {"sync": sync_of(done.table, done.update)}


class LakebaseSyncedTableTrigger(ManagedPolls):
    """Waits until a synced table, which others trigger, has the rows that it should.

    Args:
        table: Name of the synced table.
        version: The source's version whose rows are to be there.
        since: The moment at which, or after which, a sync is to have begun, as text.
        kwargs: As for :class:`~lakebase_provider.triggers._managing.ManagedPolls`.
    """

    def __init__(
        self, *, table: str, version: int | None = None, since: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.table = table
        self.version = version
        self.since = since

    def _own_arguments(self) -> dict[str, Any]:
        return {"table": self.table, "version": self.version, "since": self.since}

    def _look(self, managed: Managed) -> Any:
        from lakebase_provider.hooks._sync import sync_of

        done = managed.workspace.synced_tables.reached(
            self.table, version=self.version, since=moment_of("since", self.since)
        )
        return None if done is None else sync_of(done.table)


class LakebaseInDeltaTrigger(ManagedPolls):
    """Waits until what was committed in Postgres is in the Delta tables of Lakehouse sync.

    Args:
        lsn: Position in Postgres' log.
        cdf_config: Name of the configuration of Lakehouse sync, or its id in the connection's database.
        tables: Names of the tables in Postgres.
        kwargs: As for :class:`~lakebase_provider.triggers._managing.ManagedPolls`.
    """

    def __init__(
        self, *, lsn: str, cdf_config: str, tables: Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.lsn = lsn
        self.cdf_config = cdf_config
        self.tables = None if tables is None else list(tables)

    def _own_arguments(self) -> dict[str, Any]:
        return {"lsn": self.lsn, "cdf_config": self.cdf_config, "tables": self.tables}

    def _look(self, managed: Managed) -> Any:
        from lakebase_provider.hooks._sync import mirror_of

        found = managed.workspace.cdf_configs.in_delta(self.lsn, self.cdf_config, tables=self.tables)
        return None if found is None else mirror_of(found)


class LakebaseSyncEventTrigger(BaseEventTrigger):
    """Tells an asset of each sync of a table that has ended well, for an ``AssetWatcher``.

    The event's payload is what :class:`~lakebase_provider.operators.sync.LakebaseSyncOperator` returns:
    ``version``, ``rows``, ``sync_start_time``, ``sync_end_time`` and so on. A version is told once, and of
    several that were synced between two polls the last one. A sync with nothing to do is none.

    What was told is kept in the asset's state, so that another triggerer goes on from there, also with what
    was synced while there was none. Airflow has such states since 3.3: before, each start of the triggerer
    begins with the sync that it finds, and does not tell it. If the process is killed while it hands an event
    over, which takes a second, that event is lost.

    Args:
        table: Name of the synced table in the Unity Catalog, ``<catalog>.<schema>.<table>``.
        conn_id: Id of the Airflow connection, which says which project; nothing else of it is stored.
        lakebase_conn_id: An alias of `conn_id`.
        manage_conn_id: Id of the connection that may see the project's objects; the same one by default.
        poke_interval: Seconds between the end of a poll and the next.

    Example:
        >>> watcher = AssetWatcher(name="trips", trigger=LakebaseSyncEventTrigger(table="main.pub.trips"))
        >>> trips = Asset("trips", watchers=[watcher])
    """

    def __init__(
        self,
        *,
        table: str,
        conn_id: str | None = None,
        lakebase_conn_id: str | None = None,
        manage_conn_id: str | None = None,
        poke_interval: float = 60.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow annotates it not
        from lakebase_provider._airflow.task.arguments import require_seconds, require_synced_table

        require_synced_table(table)
        require_seconds({"poke_interval": poke_interval}, "poke_interval")
        self.table = table
        self.conn_id: str = conn_id_of(conn_id, lakebase_conn_id)
        self.manage_conn_id = manage_conn_id
        self.poke_interval = poke_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """How Airflow recreates this trigger in the triggerer."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "table": self.table,
            "conn_id": self.conn_id,
            "manage_conn_id": self.manage_conn_id,
            "poke_interval": self.poke_interval,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll without end; each event is a sync."""
        state = getattr(self, "asset_state_store", None)
        try:
            told = None if state is None else await state.aget(_TOLD)
        except ValueError:
            # Of equal triggers Airflow makes one, whose assets have a state each, and are not named here.
            self.log.error("Several assets watch %s alike: give each another poke_interval.", self.table)
            state, told = None, None
        while True:
            try:
                key, sync = await self._last_sync()
            except Exception as error:
                # Whatever it is, it may be mended: Airflow would only begin this again, at once.
                self.log.error("The syncs of %s cannot be seen: %s", self.table, error)
            else:
                # There is none while all is copied anew.
                last = key or told or _NONE
                if last != told:
                    is_first, told = told is None, last
                    if state is not None:
                        # Before it is told: no version is told twice.
                        await state.aset(_TOLD, told)
                    if not is_first:
                        self.log.info("The sync of %s has ended: %s", self.table, sync)
                        yield TriggerEvent(sync)  # type: ignore[no-untyped-call] # Airflow annotates it not
            await asyncio.sleep(self.poke_interval)

    async def _last_sync(self) -> tuple[str | None, dict[str, Any]]:
        # The hook brings the driver; making a trigger must not.
        from lakebase_provider.hooks._branches import amanaged
        from lakebase_provider.hooks._sync import last_sync_of

        tables = (await amanaged(self.conn_id, self.manage_conn_id)).workspace.synced_tables
        # It blocks, so it runs off the loop.
        found = await asyncio.to_thread(tables.find, self.table)
        return (None, {}) if found is None else (found.sync_key, last_sync_of(found))
