"""The façade that Airflow's hook, Dagster's resource and scripts hold."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from lakebase_provider.core.base import process
from lakebase_provider.core.base.clock import SYSTEM_CLOCK, Clock
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.connect.connection import AsyncLakebaseConnection, LakebaseConnection
from lakebase_provider.core.connect.connector import Connector
from lakebase_provider.core.connect.pools.async_pool import AsyncLakebasePool, AsyncPools
from lakebase_provider.core.connect.pools.engine import create_async_engine, create_engine
from lakebase_provider.core.connect.pools.pool import LakebasePool
from lakebase_provider.core.connect.target import Target, TargetResolver
from lakebase_provider.core.database import roles
from lakebase_provider.core.database.blockers import naming_blockers
from lakebase_provider.core.database.conflicts import again_on_conflict
from lakebase_provider.core.errors.client_names import Names
from lakebase_provider.core.tends import Tends
from lakebase_provider.core.tokens.cache import TokenProvider
from lakebase_provider.core.tokens.minters import minter_for
from lakebase_provider.core.tokens.token import Claims
from lakebase_provider.core.workspace.operations import in_thread
from lakebase_provider.core.workspace.workspace import ControlPlane

if TYPE_CHECKING:
    from psycopg.abc import Query
    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine
    from typing_extensions import Unpack

    from lakebase_provider.core.bulk.load.plan import LoadOptions
    from lakebase_provider.core.bulk.load.result import LoadResult
    from lakebase_provider.core.database.catalog import TableName
    from lakebase_provider.core.database.synced.synced_upkeep import SyncedTableUpkeep
    from lakebase_provider.core.upkeep.branches.branch_upkeep import BranchUpkeep
    from lakebase_provider.core.upkeep.branches.restore_point import RestorePoint
    from lakebase_provider.core.upkeep.health.stages import HealthReport
    from lakebase_provider.core.upkeep.migrations.migrations import Migrations
    from lakebase_provider.core.upkeep.rehearsal.rehearsal_options import RehearsalOptions
    from lakebase_provider.core.upkeep.rehearsal.rehearsal_report import RehearsalReport
    from lakebase_provider.core.upkeep.restoring.restore_report import RestoreReport
    from lakebase_provider.core.upkeep.restoring.restore_rows import RestoreOptions
    from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class ClientStats:
    """Counters of a :class:`LakebaseClient` since its creation.

    Attributes:
        mints: Tokens minted.
        connections: Physical connections opened, pooled or not.
        checkouts: Connections that the pools lent.
        pool: psycopg's own counters of this process's current pool, such as ``pool_size``,
            ``requests_waiting`` and ``requests_wait_ms``; empty without one.
    """

    mints: int
    connections: int
    checkouts: int
    pool: Mapping[str, int]


class LakebaseClient(Tends):
    """Connections to one database as one principal.

    Nothing is opened, minted or imported before it is needed. Safe to share between threads and event loops;
    a forked child gets its own pool, and so does each event loop. After :meth:`close` the next use opens a
    new pool and reuses a token that is still valid.

    Args:
        config: What to connect to, and as whom.
        tokens: Where passwords come from; the client's own cache by default.
        claims: What that cache's tokens may be used for, in the REST API's form; everything if empty. For
            example ``[{"permission_set": "READ_ONLY", "resources": [{"table_name": "orders"}]}]``.
        clock: Where the time comes from.

    Raises:
        ConfigError: There are no workspace credentials. No network call has been made.

    Example:
        >>> with LakebaseClient(LakebaseConfig.from_env()) as client:
        ...     with client.connection() as conn:
        ...         conn.execute("select current_user").fetchone()
    """

    def __init__(
        self,
        config: LakebaseConfig,
        *,
        tokens: TokenProvider | None = None,
        claims: Claims = (),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.config = config
        self._clock = clock
        self._claims = claims
        # A native password with host and user needs no workspace and no credentials for one.
        needs_workspace = config.auth == "oauth" or config.host is None
        names = Names()
        control_plane = ControlPlane(config, names) if needs_workspace else None
        self._control_plane = control_plane
        self.tokens = tokens or TokenProvider(minter_for(config, control_plane, claims), clock=clock)
        self._targets = TargetResolver(config, control_plane)
        self._connector = Connector(config, self.tokens, self._targets, names=names, clock=clock)
        self._async_pools = AsyncPools(config, self._connector)
        self._lock = threading.Lock()
        self._pool: LakebasePool | None = None
        self._pool_pid = process.number
        self._checkouts_of_closed_pools = 0
        self._inherited: list[LakebasePool] = []
        self._workspace: WorkspaceObjects | None = None

    def __enter__(self) -> LakebaseClient:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.close()

    def known_as(self, name: str) -> None:
        """Make errors of connecting, and of requests about objects, say what the user calls this client.

        Args:
            name: Such as ``"Airflow connection 'lakebase_default'"``. Further names are added to it.
        """
        self._connector.names.add(name)

    @property
    def pool(self) -> LakebasePool:
        """This process's pool, opened at the first use."""
        pool = self._pool
        if pool is not None and self._pool_pid == process.number:
            return pool
        if self._pool_pid != process.number:
            self._abandon_inherited_pool()
        with self._lock:
            if self._pool is None:
                self._pool = LakebasePool(self.config, self._connector)
            return self._pool

    async def apool(self) -> AsyncLakebasePool:
        """The running event loop's pool, opened at the first use."""
        return await self._async_pools.current()

    def connection(self, timeout: float | None = None) -> AbstractContextManager[LakebaseConnection]:
        """A pooled connection: commits on success, rolls back on error, then returns clean.

        Args:
            timeout: Seconds to wait at most; the configuration's `connect_budget` by default.

        Raises:
            PoolExhaustedError: All connections stayed in use until the deadline.
            LakebaseError: No connection could be opened; the driver's error is its cause.
        """
        return self.pool.connection(timeout)

    @asynccontextmanager
    async def aconnection(self, timeout: float | None = None) -> AsyncIterator[AsyncLakebaseConnection]:
        """:meth:`connection` for asyncio, from a pool of the running event loop.

        Args:
            timeout: Seconds to wait at most; the configuration's `connect_budget` by default.

        Raises:
            PoolExhaustedError: All connections stayed in use until the deadline.
            LakebaseError: No connection could be opened; the driver's error is its cause.
        """
        pool = await self.apool()
        async with pool.connection(timeout) as connection:
            yield connection

    def run_transaction(
        self,
        work: Callable[[LakebaseConnection], _Result],
        *,
        attempts: int = 5,
        timeout: float | None = None,
    ) -> _Result:
        """Run a whole transaction, and run it again if the server undid it because of another one.

        After a deadlock or a serialization failure it is attempted again after a random pause. Nothing else
        is retried.

        Args:
            work: Does everything on the connection that it is given, and returns the result; it must be safe
                to repeat. The commit follows.
            attempts: How many times it is run at most.
            timeout: Seconds to wait for a connection; the configuration's `connect_budget` by default.

        Raises:
            TransactionConflictError: Each attempt was undone; the last one's error is its cause.
            LockTimeoutError: A lock was not acquired within the configuration's `lock_timeout`; names its
                holder.
            IdleInTransactionError: The server ended the session because it sat idle too long.

        Example:
            >>> client.run_transaction(lambda conn: conn.execute("update counters set n = n + 1"))
        """
        waiting: list[int] = []

        def attempt() -> _Result:
            with self.connection(timeout) as connection:
                waiting[:] = [connection.info.backend_pid]
                return work(connection)

        with naming_blockers(self.connect, self.config.lock_timeout, lambda: waiting):
            return again_on_conflict(attempt, attempts=attempts, clock=self._clock)

    def connect(self, timeout: float | None = None, **parameters: Any) -> LakebaseConnection:
        """One connection outside the pool; the caller closes it.

        Args:
            timeout: Seconds that it may take; the configuration's `connect_budget` by default.
            parameters: Further arguments of ``psycopg.connect``, such as ``autocommit``.
        """
        return self._connector.connect(timeout, **parameters)

    async def aconnect(self, timeout: float | None = None, **parameters: Any) -> AsyncLakebaseConnection:
        """One connection for asyncio outside the pool; the caller closes it.

        Args:
            timeout: Seconds that it may take; the configuration's `connect_budget` by default.
            parameters: Further arguments of ``psycopg.AsyncConnection.connect``, such as ``autocommit``.

        Raises:
            LakebaseError: It could not be opened, or not in time; the driver's error is its cause.
        """
        return await self._connector.aconnect(timeout, **parameters)

    def engine(self, **arguments: Any) -> Engine:
        """A new SQLAlchemy engine with its own pool; the caller disposes of it.

        Args:
            arguments: Further arguments of ``sqlalchemy.create_engine``.
        """
        return create_engine(self._connector, self.target(), **arguments)

    def async_engine(self, **arguments: Any) -> AsyncEngine:
        """A new SQLAlchemy engine for asyncio with its own pool; the caller disposes of it.

        Args:
            arguments: Further arguments of ``sqlalchemy.ext.asyncio.create_async_engine``.
        """
        return create_async_engine(self._connector, self.config, **arguments)

    def target(self) -> Target:
        """Host, port, database and role; the workspace is asked for those that the configuration leaves out.

        Raises:
            LakebaseError: The workspace refused, or did not answer within `connect_budget` seconds.
        """
        with self._connector.names.told():
            return self._targets.resolve(self.config.connect_budget)

    def health(self, checks: Iterable[str] | None = None, *, timeout: float | None = None) -> HealthReport:
        """Run the staged check of the way to the database.

        Args:
            checks: Names of stages; all by default.
            timeout: Timeout of each stage in seconds; the configuration's `connect_budget` by default.
        """
        # Not needed by a task that only runs SQL.
        from lakebase_provider.core.upkeep.health.stages import HealthCheck

        check = HealthCheck(self.config, self.tokens, self._targets, self._connector)
        return check.run(checks, timeout=timeout)

    def load(
        self, source: Any, table: str | tuple[str, str] | TableName, **options: Unpack[LoadOptions]
    ) -> LoadResult:
        """Load rows into a table at the speed of COPY, in one transaction: all of them or none.

        Args:
            source: Rows: tuples, dicts or any iterable of them; pandas, Polars or Arrow data; the path or
                URI of a CSV, JSON lines, Parquet or Arrow file, of a folder of them, or a pattern of their
                names; a DB-API cursor that has run its query.
            table: ``"table"``, ``"schema.table"`` or (schema, table), case-sensitive.
            options: The fields of :class:`.LoadPlan`: ``mode``, ``keys``,
                ``columns``, ``version_column``, ``delete``, ``where``, ``count_outside``, ``load_id``,
                ``force``, ``forced_by``, ``create``, ``schema_evolution``, ``allow_empty``, ``on_error``,
                ``reject_to``, ``ledger_schema``, ``lsn``; for CSV files ``delimiter``, ``encoding``,
                ``null``, ``header``, ``quote``.

        Raises:
            ConfigError: Options contradict each other; nothing was sent.
            LoadError: The load failed and nothing was written; see its ``retryable``.
            CommitUnknownError: The connection was lost during the commit, and the server could not be asked.

        Example:
            >>> client.load(rows, "sales.orders", mode="merge", keys=["id"], load_id="orders/2024-05-01")
        """
        from lakebase_provider.core.bulk.load.commit import load_and_commit
        from lakebase_provider.core.bulk.sources.delta.delta import with_catalog

        source = with_catalog(source, lambda: self.workspace.catalog_tables)
        return load_and_commit(self.connection, source, table, clock=self._clock, **options)

    def executemany_pipeline(self, query: Query, rows: Iterable[Sequence[Any] | Mapping[str, Any]]) -> int:
        """Run one statement for many rows of parameters without waiting for each answer, and commit.

        Args:
            query: The statement.
            rows: Its parameters, row by row.

        Returns:
            How many rows the server changed in all.

        Raises:
            LoadError: A statement failed, and nothing was written.
        """
        from lakebase_provider.core.bulk.load.pipeline import executemany_pipeline

        with self.connection() as connection:
            return executemany_pipeline(connection, query, rows)

    def create_role(
        self,
        name: str,
        identity_type: roles.IdentityType = "SERVICE_PRINCIPAL",
        *,
        grants: Sequence[roles.TablePrivilege] = roles.APPLICATION_PRIVILEGES,
        schema: str = "public",
    ) -> bool:
        """Let another principal log in: :func:`lakebase_provider.core.database.roles.create_role`, committed.

        Args:
            name: The service principal's client id, the user's e-mail address or the group's name.
            identity_type: What `name` is.
            grants: Privileges on the tables of `schema`, present and future.
            schema: The schema whose tables it may use.

        Returns:
            True if the role was created, False if it existed.
        """
        with self.connection() as connection:
            return roles.create_role(connection, name, identity_type, grants=grants, schema=schema)

    @property
    def branches(self) -> BranchUpkeep[LakebaseClient]:
        """Lends branches to runs, waits until they accept logins, holds sessions to one, resets and warms.

        Raises:
            ConfigError: There are no workspace credentials. No network call has been made.

        Example:
            >>> client.branches.require(branch.uid)
        """
        from lakebase_provider.core.upkeep.branches.branch_upkeep import BranchUpkeep

        plane, workspace = self._needed_control_plane(), self.workspace

        def client_on(config: LakebaseConfig) -> LakebaseClient:
            client = LakebaseClient(config, claims=self._claims, clock=self._clock)
            for name in self._connector.names:
                client.known_as(name)
            return client

        return BranchUpkeep(self.config, plane, workspace, self.connect, client_on, self._clock)

    @property
    def synced_tables(self) -> SyncedTableUpkeep:
        """Synced tables as they are declared, in the database of this client.

        Raises:
            ConfigError: There are no workspace credentials. No network call has been made.

        Example:
            >>> client.synced_tables.reconcile("main.pub.trips", source_table="main.src.trips", ...)
        """
        from lakebase_provider.core.database.synced.synced_upkeep import SyncedTableUpkeep

        return SyncedTableUpkeep(self.config, self.workspace, self.connect, self._clock)

    def managed_by(self, workspace: WorkspaceObjects) -> LakebaseClient:
        """A client like this one whose requests about objects are another principal's, with CAN MANAGE.

        Logins stay this client's, whose principal needs no more than CAN USE.

        Args:
            workspace: ``workspace`` of the other client, whose configuration names the same project.

        Example:
            >>> client.managed_by(manager.workspace).branches.take("nightly/2027-01-31", ttl=8 * 3600)
        """
        client = LakebaseClient(self.config, tokens=self.tokens, claims=self._claims, clock=self._clock)
        client._connector.names = self._connector.names
        client._control_plane, client._workspace = self._control_plane, workspace
        return client

    def rehearse(
        self,
        work: str | Sequence[str] | os.PathLike[str] | Callable[[LakebaseConnection], object],
        **options: Unpack[RehearsalOptions],
    ) -> RehearsalReport:
        """Try a change on a branch that is made for it and purged afterwards, and say what it does there.

        The report has the time, rows and strongest lock of each statement, the checks, which rows of the
        tables that are named were added, changed and removed, and how what is defined differs. With
        ``then="run"`` the same runs on this client's own branch afterwards, if it succeeded and all checks
        passed; there a statement that gets no lock within `lock_timeout` is undone and tried again.
        ``arehearse`` is the twin for asyncio.

        Args:
            work: SQL; or a list of statements, which are one transaction unless one of them cannot run in
                any; or a function that does everything on the connection that it is given, may be run again,
                and is followed by the commit; or the ``Path`` of a folder of migrations, of which those run
                that have not run yet.
            options: The fields of :class:`.RehearsalOptions`: ``checks``, ``tables``, ``then``, ``examples``,
                ``run_id``, ``lock_timeout``, ``statement_timeout``, ``attempts``, ``timeout``, ``lease``.

        Raises:
            RehearsalError: With ``then="run"``, the work or a check failed; nothing ran on the parent.
            ConfigError: Options contradict each other, or the configuration names no branch.
            MigrationError: The statements are not well formed; or one failed on the parent.
            LockTimeoutError: A lock was not acquired on the parent in any of the attempts.
            LeaseLostError: The branch was deleted meanwhile.
            LakebaseError: The workspace or the server refused, or was not done in time.

        Example:
            >>> report = client.rehearse("ALTER TABLE orders ADD note text", tables=["orders"])
            >>> print(report.to_markdown())
        """
        from lakebase_provider.core.upkeep.rehearsal.rehearsal import rehearse

        return rehearse(self, work, options, self._clock)

    arehearse = in_thread(rehearse)

    def restore_point(self, timeout: float | None = None) -> RestorePoint:
        """Note the moment that this client's branch has reached, to come back to; no branch is made.

        ``arestore_point`` is the twin for asyncio.

        Args:
            timeout: Seconds to wait for a connection; the configuration's `connect_budget` by default.

        Raises:
            ConfigError: The configuration names no branch.
            LakebaseError: No connection could be opened.

        Example:
            >>> point = client.restore_point()
            >>> client.restore_rows("orders", at=point)
        """
        from lakebase_provider.core.upkeep.branches.restore_point import note

        branch = self.branches.own_branch()
        with self.connection(timeout) as connection:
            return note(connection, branch)

    def restore_rows(
        self,
        table: str | tuple[str, str] | TableName,
        at: RestorePoint | Mapping[str, Any] | datetime | str,
        **options: Unpack[RestoreOptions],
    ) -> RestoreReport:
        """Put rows of a table back from an earlier moment, in one transaction; by default say what would be.

        A branch is made of that moment, the rows are compared by key, and the branch is purged. Rows that
        were deleted since are inserted as they were, values of identity columns included, and sequences are
        moved on past them. Rows that have changed since are listed, and get their former values only with
        ``overwrite``. Rows that are new are left alone. Triggers fire as for any insert. ``arestore_rows`` is
        the twin for asyncio.

        Args:
            table: ``"table"``, ``"schema.table"`` or (schema, table), case-sensitive.
            at: What :meth:`restore_point` returned, or its ``to_dict()``; a time with its zone, as a datetime
                or in ISO 8601; or a position in the log, as ``pg_current_wal_lsn()`` returns it.
            options: The fields of :class:`.RestoreOptions`: ``keys``, ``where``, ``dry_run``, ``overwrite``,
                ``examples``, ``run_id``, ``lock_timeout``, ``attempts``, ``timeout``, ``lease``.

        Raises:
            ConfigError: Options contradict each other, the point is of another branch, or there was no such
                table.
            TableNotFoundError: There is no such table now.
            ObjectStateError: The branch was made after the point, or the point is no longer kept.
            BadRowError: A row cannot be put back: another one has what must be unique, or what it refers to
                is gone. Nothing was written.
            LockTimeoutError: A lock was not acquired in any of the attempts; names its holder.
            TransactionConflictError: Each attempt was undone for another transaction.
            LakebaseError: The workspace or the server refused, or was not done in time.

        Example:
            >>> client.restore_rows("orders", at=point, where="day = '2027-01-31'", dry_run=False)
        """
        from lakebase_provider.core.upkeep.restoring.restore_rows import restore_rows

        return restore_rows(self, table, at, options, self._clock)

    arestore_point = in_thread(restore_point)
    arestore_rows = in_thread(restore_rows)

    @property
    def migrations(self) -> Migrations:
        """Runs files of SQL in their order, each once, and compares what stands in databases.

        Example:
            >>> client.migrations.run("migrations")
        """
        from lakebase_provider.core.upkeep.migrations.migrations import Migrations

        def rehearse(folder: str | os.PathLike[str], options: Mapping[str, Any]) -> RehearsalReport:
            from lakebase_provider.core.upkeep.rehearsal.rehearsal import rehearse_files

            return rehearse_files(self, folder, options, self._clock)

        return Migrations(self.config, self.connect, self.target, self.tokens, self._clock, rehearse)

    @property
    def workspace(self) -> WorkspaceObjects:
        """Branches, endpoints and the other objects of the workspace, with this client's credentials.

        Raises:
            ConfigError: There are no workspace credentials. No network call has been made.

        Example:
            >>> client.workspace.branches.create("ci-1", ttl=3600, source_branch="production")
        """
        if self._workspace is None:
            from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects

            self._workspace = WorkspaceObjects(self.config, self._needed_control_plane(), self._clock)
        return self._workspace

    def _needed_control_plane(self) -> ControlPlane:
        # A native password with host and user needs none to connect.
        if self._control_plane is None:
            names = self._connector.names
            with names.told():
                self._control_plane = ControlPlane(self.config, names)
        return self._control_plane

    def stats(self) -> ClientStats:
        """The counters."""
        return ClientStats(
            mints=self.tokens.stats().mints,
            connections=self._connector.stats().connections,
            checkouts=self._checkouts_of_closed_pools
            + _checkouts(self._pool)
            + self._async_pools.checkouts(),
            pool={} if self._pool is None else self._pool.get_stats(),
        )

    def close(self) -> None:
        """Close the pool and its connections; the token stays.

        :meth:`aclose` closes a running event loop's pool; the pool of a loop that has ended, or that this
        thread no longer runs, is closed here.
        """
        if self._pool_pid != process.number:
            self._abandon_inherited_pool()
        with self._lock:
            pool, self._pool = self._pool, None
            self._checkouts_of_closed_pools += _checkouts(pool)
        if pool is not None:
            pool.close()
        self._async_pools.forget_ended_loops()

    async def aclose_idle(self) -> None:
        """End the idle sessions in the running event loop's pool, except for `min_size`.

        For callers that come back after a while: an idle session keeps the compute from being suspended.
        """
        await self._async_pools.close_idle()

    async def aclose(self) -> None:
        """Close the running event loop's pool and its connections; the token stays."""
        await self._async_pools.close()

    def _abandon_inherited_pool(self) -> None:
        # The parent's sockets are open here too. The pool is kept but never touched again: closing it, or
        # having it garbage-collected, would end sessions that the parent still uses.
        self._lock = threading.Lock()
        if self._pool is not None:
            self._inherited.append(self._pool)
        self._pool = None
        self._pool_pid = process.number


def _checkouts(pool: LakebasePool | None) -> int:
    return 0 if pool is None else pool.get_stats().get("requests_num", 0)
