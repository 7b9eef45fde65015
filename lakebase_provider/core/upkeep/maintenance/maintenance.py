"""The way to a client's maintenance: ``client.maintenance``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from psycopg import sql

from lakebase_provider.core.base.clock import Clock
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.database.catalog import TableName
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.upkeep.maintenance import (
    sequence_repair,
    statements_digest,
    vacuuming,
    view_refresh,
)
from lakebase_provider.core.upkeep.maintenance.maintenance_options import (
    ATTEMPTS,
    DEAD_SHARE,
    LOCK_TIMEOUT,
    LONG_TRANSACTION,
    TIMEOUT,
    Concurrently,
    require_options,
)
from lakebase_provider.core.upkeep.maintenance.maintenance_report import MaintenanceReport
from lakebase_provider.core.upkeep.maintenance.own_session import OwnSession, Patience, own_session
from lakebase_provider.core.upkeep.maintenance.structures import index_work, partition_work
from lakebase_provider.core.upkeep.maintenance.structures.index_definition import IndexDefinition
from lakebase_provider.core.upkeep.maintenance.structures.partition_work import PartitionPlan
from lakebase_provider.core.upkeep.maintenance.structures.periods import Every
from lakebase_provider.core.upkeep.maintenance.tended_tables import Named, checked_names
from lakebase_provider.core.workspace.operations import in_thread


class Maintenance:
    """Looks after tables in use: rows, views, indexes, partitions and sequences.

    Each method has a session of its own, so nothing runs inside somebody's transaction, and returns a
    :class:`.MaintenanceReport`. Each may be repeated: what is as it should be is left alone, and what a
    killed run has left is finished or removed. A lock for which others would queue is waited for no longer
    than `lock_timeout` seconds, and then again after a pause; the error says who held it. A synced table is
    left alone, except for its indexes. Maintenance of one table waits for other maintenance of it. Progress
    is logged every 15 seconds at most.

    Each method has a twin for asyncio, such as ``avacuum``, which runs in a thread.

    Args:
        connect: Opens a session as the client does.
        unload: Writes what a query returns to a file, and returns how many rows that were.
        clock: Where the time comes from.
    """

    def __init__(
        self,
        connect: Callable[..., LakebaseConnection],
        unload: Callable[[sql.Composed, Any], int],
        clock: Clock,
    ) -> None:
        self._connect = connect
        self._unload = unload
        self._clock = clock

    def vacuum(
        self,
        tables: Named | Sequence[Named] | None = None,
        *,
        dead_share: float | None = None,
        analyze: bool = True,
        long_transaction: float = LONG_TRANSACTION,
        lock_timeout: float = LOCK_TIMEOUT,
        attempts: int = ATTEMPTS,
        timeout: float = TIMEOUT,
    ) -> MaintenanceReport:
        """Remove dead rows, partition by partition, and renew statistics.

        A table is skipped while a long transaction, a prepared one or an unused replication slot keeps its
        dead rows from being removed. Of other roles' sessions this is seen by a role with
        ``pg_read_all_stats`` alone.

        Args:
            tables: The tables or materialized views; by default all that the role may vacuum.
            dead_share: The least share of dead rows, from 0 to 1, by the statistics; of tables that are named
                any by default, else 0.1. With it, a table with fewer than 50 dead rows is left alone.
            analyze: Whether to renew statistics, too.
            long_transaction: Seconds from which on a transaction counts as a long one.
            lock_timeout: Seconds that a statement waits for a lock.
            attempts: How many times it is tried that gets none.
            timeout: Seconds that all of it may take.

        Raises:
            ConfigError: An argument is malformed.
            TableNotFoundError: There is no such table.
            LockTimeoutError: A lock was not acquired in any of the attempts; names its holder. What could be
                done to other tables is done.
            StatementError: The server refused, or it was not done in time.

        Example:
            >>> print(client.maintenance.vacuum(dead_share=0.2).to_markdown())
        """
        names = None if tables is None else checked_names("tables", tables)
        require_options({"dead_share": dead_share, "long_transaction": long_transaction})
        if dead_share is None and names is None:
            dead_share = DEAD_SHARE
        with self._session("vacuum", lock_timeout, attempts, timeout) as session:
            vacuuming.vacuum(
                session, names, dead_share=dead_share, analyze=analyze, long_transaction=long_transaction
            )
            return session.report()

    def analyze(
        self,
        tables: Named | Sequence[Named] | None = None,
        *,
        lock_timeout: float = LOCK_TIMEOUT,
        attempts: int = ATTEMPTS,
        timeout: float = TIMEOUT,
    ) -> MaintenanceReport:
        """Renew the statistics by which the server plans queries; of partitioned tables, too.

        Args:
            tables: The tables or materialized views; by default all that the role may analyze.
            lock_timeout: Seconds that a statement waits for a lock.
            attempts: How many times it is tried that gets none.
            timeout: Seconds that all of it may take.

        Raises:
            LakebaseError: As for :meth:`vacuum`.

        Example:
            >>> client.maintenance.analyze("sales.orders")
        """
        names = None if tables is None else checked_names("tables", tables)
        with self._session("analyze", lock_timeout, attempts, timeout) as session:
            vacuuming.analyze(session, names)
            return session.report()

    def refresh(
        self,
        views: Named | Sequence[Named],
        *,
        concurrently: Concurrently = "auto",
        lock_timeout: float = LOCK_TIMEOUT,
        attempts: int = ATTEMPTS,
        timeout: float = TIMEOUT,
    ) -> MaintenanceReport:
        """Refresh materialized views, in their order.

        Args:
            views: The views.
            concurrently: Whether readers go on meanwhile. That needs rows in the view, and a unique index
                on plain columns without a condition; ``"auto"`` does so where it is possible. Otherwise
                readers wait for as long as the refresh takes.
            lock_timeout: Seconds that a statement waits for a lock.
            attempts: How many times it is tried that gets none.
            timeout: Seconds that all of it may take.

        Raises:
            ConfigError: One is no materialized view, or cannot be refreshed concurrently, as it was asked to.
            LakebaseError: As for :meth:`vacuum`.

        Example:
            >>> client.maintenance.refresh(["sales.by_day", "sales.by_month"])
        """
        require_options({"concurrently": concurrently})
        names = checked_names("views", views)
        with self._session("refresh", lock_timeout, attempts, timeout) as session:
            view_refresh.refresh(session, names, concurrently)
            return session.report()

    def create_index(
        self,
        table: Named,
        on: str | Sequence[str],
        *,
        name: str | None = None,
        unique: bool = False,
        method: str = "btree",
        include: Sequence[str] = (),
        where: str | None = None,
        lock_timeout: float = LOCK_TIMEOUT,
        attempts: int = ATTEMPTS,
        timeout: float = TIMEOUT,
    ) -> MaintenanceReport:
        """Have an index as it is declared, built while others write.

        An invalid one of that name, which a killed build has left, is dropped first; a valid one that is the
        same is left alone. On a partitioned table it is built on one partition after another, and attached.
        A concurrent build waits for older transactions, which wait for nothing: `timeout` is its limit.

        Args:
            table: The table.
            on: The columns, as a list; or all that stands in the parentheses, as SQL: ``"lower(email)"``.
            name: Its name, without a schema; by default it follows from the table and the columns.
            unique: Whether it refuses a second row of the same.
            method: Its access method, such as ``"gin"`` or ``"hnsw"``.
            include: Columns that it holds besides.
            where: Condition of the rows that it holds, in SQL; all by default.
            lock_timeout: Seconds that a statement waits for a lock for which others would queue.
            attempts: How many times it is tried that gets none.
            timeout: Seconds that all of it may take.

        Raises:
            ConfigError: There is another index of that name, or an argument is malformed.
            TableNotFoundError: There is no such table.
            LockTimeoutError: A lock was not acquired in any of the attempts; names its holder.
            StatementError: The server refused, as for rows that are not unique, or it was not done in time.

        Example:
            >>> client.maintenance.create_index("sales.orders", ["customer_id"], include=["total"])
        """
        wanted = TableName.parse(table)
        index = IndexDefinition.of(
            wanted, on, name=name, unique=unique, method=method, include=include, where=where
        )
        with self._session("create_index", lock_timeout, attempts, timeout) as session:
            index_work.create(session, wanted, index)
            return session.report()

    def reindex(
        self,
        table: Named | None = None,
        *,
        index: Named | None = None,
        lock_timeout: float = LOCK_TIMEOUT,
        attempts: int = ATTEMPTS,
        timeout: float = TIMEOUT,
    ) -> MaintenanceReport:
        """Rebuild indexes while others write: of a table and its partitions, or one index and those below it.

        Indexes that a killed rebuild has left (``_ccnew``, ``_ccold``) are dropped first; one that is invalid
        becomes valid.

        Args:
            table: The table; or else `index`.
            index: The index.
            lock_timeout: Seconds that a statement waits for a lock for which others would queue.
            attempts: How many times it is tried that gets none.
            timeout: Seconds that all of it may take.

        Raises:
            ConfigError: Both are given, or none, or there is no such index.
            LakebaseError: As for :meth:`create_index`.

        Example:
            >>> client.maintenance.reindex("sales.orders")
        """
        if (table is None) == (index is None):
            raise ConfigError("Either 'table' or 'index' is to be given.", remedy="Name one of them.")
        with self._session("reindex", lock_timeout, attempts, timeout) as session:
            name = TableName.parse(table if index is None else index)  # type: ignore[arg-type]
            index_work.reindex(session, name, "table" if index is None else "index")
            return session.report()

    def drop_index(
        self,
        index: Named,
        *,
        lock_timeout: float = LOCK_TIMEOUT,
        attempts: int = ATTEMPTS,
        timeout: float = TIMEOUT,
    ) -> MaintenanceReport:
        """Drop an index while others write, if it is there.

        That of a partitioned table is dropped with those of its partitions at once, under a short lock.

        Args:
            index: Its name, with its schema.
            lock_timeout: Seconds that a statement waits for a lock for which others would queue.
            attempts: How many times it is tried that gets none.
            timeout: Seconds that all of it may take.

        Raises:
            ConfigError: It belongs to a constraint, or the name is of something else.
            LakebaseError: As for :meth:`create_index`.

        Example:
            >>> client.maintenance.drop_index("sales.orders_day_idx")
        """
        name = TableName.parse(index)
        with self._session("drop_index", lock_timeout, attempts, timeout) as session:
            index_work.drop(session, name)
            return session.report()

    def partitions(
        self,
        table: Named,
        *,
        every: Every,
        premake: int = 3,
        keep: int | None = None,
        archive: str | None = None,
        at: datetime | str | None = None,
        lock_timeout: float = LOCK_TIMEOUT,
        attempts: int = ATTEMPTS,
        timeout: float = TIMEOUT,
    ) -> MaintenanceReport:
        """Make a table's partitions before they are needed, and retire those that are old.

        The table is partitioned by range of one ``date`` or timestamp column; bounds are in UTC. A partition
        is made beside the table and attached, which waits for no writer. One that is old is detached, if
        possible concurrently, archived and dropped; what a killed run has left half-way is finished. A period
        whose rows stand in the default partition is reported and left alone.

        Args:
            table: The partitioned table.
            every: How much time a partition holds; a week begins on Monday.
            premake: How many partitions are made beyond that of now.
            keep: How many whole periods before that of now are kept; older partitions are dropped, all by
                default are kept. Partitions with bounds of another kind are left alone.
            archive: Path or URI of the file that a partition's rows go to before it is dropped, with
                ``{partition}`` for its name: ``"/lake/{partition}.parquet"``. Its end says the format.
            at: The moment that counts as now, such as a run's logical date; as text in ISO 8601.
            lock_timeout: Seconds that a statement waits for a lock.
            attempts: How many times it is tried that gets none.
            timeout: Seconds that all of it may take, but for writing to archives.

        Raises:
            ConfigError: It is no such table, or arguments contradict each other.
            LoadError: A partition could not be archived; it is detached, and neither dropped nor lost.
            LakebaseError: As for :meth:`create_index`.

        Example:
            >>> client.maintenance.partitions("events", every="month", premake=3, keep=12)
        """
        name = TableName.parse(table)
        plan = PartitionPlan.of(every, premake, keep, archive, at, self._clock.wall())
        with self._session("partitions", lock_timeout, attempts, timeout) as session:
            partition_work.look_after(session, name, plan, self._unload)
            return session.report()

    def repair_sequences(
        self,
        tables: Named | Sequence[Named] | None = None,
        *,
        lock_timeout: float = LOCK_TIMEOUT,
        attempts: int = ATTEMPTS,
        timeout: float = TIMEOUT,
    ) -> MaintenanceReport:
        """Move sequences on that would give values which rows have, as after a load with values of its own.

        Those of identity and serial columns, and of any default that takes from a sequence. None is moved
        back.

        Args:
            tables: The tables; by default all that the role owns.
            lock_timeout: Seconds that a statement waits for a lock.
            attempts: How many times it is tried that gets none.
            timeout: Seconds that all of it may take.

        Raises:
            LakebaseError: As for :meth:`vacuum`.

        Example:
            >>> client.maintenance.repair_sequences("sales.orders")
        """
        names = None if tables is None else checked_names("tables", tables)
        with self._session("repair_sequences", lock_timeout, attempts, timeout) as session:
            sequence_repair.repair(session, names)
            return session.report()

    def digest_statements(
        self,
        into: Named = "public.lakebase_statements",
        *,
        top: int = 500,
        keep_days: int | None = 90,
        lock_timeout: float = LOCK_TIMEOUT,
        attempts: int = ATTEMPTS,
        timeout: float = TIMEOUT,
    ) -> MaintenanceReport:
        """Add what pg_stat_statements knows of this database to a table: a suspended compute forgets it.

        Of statements that neither read nor write rows the first word alone is kept: they may hold secrets.

        Args:
            into: The table, which is created.
            top: How many statements are kept, those that took the longest in all.
            keep_days: Days after which rows of earlier digests are removed; None for never.
            lock_timeout: Seconds that a statement waits for a lock.
            attempts: How many times it is tried that gets none.
            timeout: Seconds that all of it may take.

        Raises:
            ConfigError: The database has no such extension.
            LakebaseError: As for :meth:`vacuum`.

        Example:
            >>> client.maintenance.digest_statements(keep_days=30)
        """
        name = TableName.parse(into)
        require_options({"top": top, "keep_days": keep_days})
        with self._session("digest_statements", lock_timeout, attempts, timeout) as session:
            statements_digest.take(session, name, top=top, keep_days=keep_days)
            return session.report()

    avacuum = in_thread(vacuum)
    aanalyze = in_thread(analyze)
    arefresh = in_thread(refresh)
    acreate_index = in_thread(create_index)
    areindex = in_thread(reindex)
    adrop_index = in_thread(drop_index)
    apartitions = in_thread(partitions)
    arepair_sequences = in_thread(repair_sequences)
    adigest_statements = in_thread(digest_statements)

    @contextmanager
    def _session(
        self, action: str, lock_timeout: float, attempts: int, timeout: float
    ) -> Iterator[OwnSession]:
        require_options({"lock_timeout": lock_timeout, "attempts": attempts, "timeout": timeout})
        patience = Patience(lock_timeout, attempts, timeout)
        with own_session(action, self._connect, patience, self._clock) as session:
            yield session
