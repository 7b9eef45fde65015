"""The resource: one field for each setting of the core, one pool for each process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Literal, overload

from dagster import ConfigurableResource, InitResourceContext
from dagster.components.lib.sql_component.sql_client import SQLClient
from pydantic import ConfigDict, Field, PrivateAttr

from dagster_lakebase.resource.launchpad import MASK, elsewhere, held_back, secrets_behind_masks
from dagster_lakebase.resource.loans import Loans
from dagster_lakebase.resource.sharing import Lease, new_engine
from dagster_lakebase.resource.step_name import aname_session, current_step_name, name_session, resource_name
from dagster_lakebase.resource.variables import resolved
from lakebase_provider.core.config import LakebaseConfig, setting, settings
from lakebase_provider.core.config.addresses import require_not_blank, with_branch_exchanged
from lakebase_provider.core.config.field import Setting
from lakebase_provider.core.errors import LakebaseError

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd
    import polars as pl
    import pyarrow as pa
    from sqlalchemy.engine import Engine

    from lakebase_provider.core.bulk.types.decimals import Numeric
    from lakebase_provider.core.client import LakebaseClient
    from lakebase_provider.core.connect.connection import AsyncLakebaseConnection, LakebaseConnection
    from lakebase_provider.core.upkeep.health.stages import HealthReport


#: Values for a statement's placeholders, by position or by name.
Parameters = Sequence[Any] | Mapping[str, Any] | None


def _field(name: str) -> Any:
    """The field for the setting of that name. Its default, None, means that it is left out."""
    row = setting(name)
    secret = row.kind == "secret"
    return Field(
        default=None,
        description=_description(row),
        repr=not secret,
        json_schema_extra={"dagster__is_secret": True} if secret else None,
    )


def _description(row: Setting) -> str:
    parts = [row.description]
    if row.env:
        parts.append(f"Environment: {' or '.join(row.env)}.")
    if row.default is not None:
        parts.append(f"Default: {row.default}.")
    return " ".join(parts)


class LakebaseResource(ConfigurableResource["LakebaseResource"], SQLClient):
    """Connections to one Lakebase database as one principal.

    Every field may be left out: it is then read from the environment variable that its description names, or
    has its default. So ``LakebaseResource()`` works wherever the Lakebase documentation's variables are set,
    and a field that is set takes precedence over its variable.

    Leave secrets out or give them as ``EnvVar``. One given as text is held back: the field, and with it what
    Dagster stores, has ``********`` in its place. The Launchpad shows ``********`` for each secret; a run
    launched like that uses the secret in the definitions, or the environment's if they have none.

    `branch` leads the same connection to another branch, at a host that is looked up: it takes the place of
    the one in `endpoint`, so that a run's configuration may say it alone.

    Resources with the same settings share one pool in each process, wherever they are bound; it opens its
    first connection when one is requested, and is closed when the last of them is torn down. The token
    outlives it, so the next run in the same process logs in without minting.

    In a run, pg_stat_activity shows the run and the step as the application name of each connection in use,
    unless `application_name` is set. A statement that is interrupted, by Dagster's termination of the run or
    otherwise, is cancelled on the server.

    Raises:
        ConfigError: At set-up: a setting is missing, malformed or contradicts another. The message names
            it and says what to do; no network call has been made.

    Example:
        .. code-block:: python

            import dagster as dg
            from dagster_lakebase import LakebaseResource


            @dg.asset
            def customers(lakebase: LakebaseResource) -> None:
                with lakebase.get_connection() as conn:
                    conn.execute("CREATE TABLE IF NOT EXISTS customers (id bigint PRIMARY KEY, name text)")


            defs = dg.Definitions(
                assets=[customers],
                resources={
                    "lakebase": LakebaseResource(
                        endpoint="projects/shop/branches/production/endpoints/primary",
                        client_id=dg.EnvVar("DATABRICKS_CLIENT_ID"),
                        client_secret=dg.EnvVar("DATABRICKS_CLIENT_SECRET"),
                    )
                },
            )
    """

    # A misspelt field must not pass as left out; a refused value must not be shown, since it may be a secret.
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    endpoint: str | None = _field("endpoint")
    project: str | None = _field("project")
    branch: str | None = _field("branch")
    instance: str | None = _field("instance")
    database: str | None = _field("database")
    user: str | None = _field("user")
    host: str | None = _field("host")
    access: str | None = _field("access")
    port: int | None = _field("port")
    auth: str | None = _field("auth")
    password: str | None = _field("password")
    workspace_host: str | None = _field("workspace_host")
    client_id: str | None = _field("client_id")
    client_secret: str | None = _field("client_secret")
    token: str | None = _field("token")
    profile: str | None = _field("profile")
    auth_type: str | None = _field("auth_type")
    azure_client_id: str | None = _field("azure_client_id")
    azure_client_secret: str | None = _field("azure_client_secret")
    azure_tenant_id: str | None = _field("azure_tenant_id")
    credential_ttl: float | None = _field("credential_ttl")
    credential_store: str | None = _field("credential_store")
    sslmode: str | None = _field("sslmode")
    sslrootcert: str | None = _field("sslrootcert")
    min_size: int | None = _field("min_size")
    max_size: int | None = _field("max_size")
    max_lifetime: float | None = _field("max_lifetime")
    max_idle: float | None = _field("max_idle")
    connect_budget: float | None = _field("connect_budget")
    statement_timeout: float | None = _field("statement_timeout")
    lock_timeout: float | None = _field("lock_timeout")
    application_name: str | None = _field("application_name")

    _lease: Lease | None = PrivateAttr(default=None)
    _run_id: str | None = PrivateAttr(default=None)
    _behind_masks: Mapping[str, Any] = PrivateAttr(default_factory=dict)
    _loans: Loans = PrivateAttr(default_factory=Loans)
    #: What :data:`MASK` stands for in this resource's own fields, by name.
    _held: Mapping[str, object] = PrivateAttr(default_factory=dict)

    # Type checkers know the fields from the class, and would take this for what there is.
    if not TYPE_CHECKING:

        def __init__(self, **data: Any) -> None:
            held = held_back(data, _arguments(type(self)))
            super().__init__(**data)
            self._held = held

        @classmethod
        def configure_at_launch(cls, **kwargs: Any) -> Any:
            """A copy whose fields are those given, or what a run's configuration says instead.

            Raises:
                ConfigError: A secret is given as text, which Dagster would store.
            """
            for name in held_back(kwargs, _arguments(cls)):
                raise setting(name).error(
                    "is given to configure_at_launch() as text, which Dagster stores",
                    remedy=f"Leave '{name}' out, or name its environment variable: {name}=dg.EnvVar(…).",
                )
            return super().configure_at_launch(**kwargs)

    def _with_updated_values(self, values: Mapping[str, Any] | None) -> LakebaseResource:
        # By this Dagster makes the resource of a run from that of the definitions.
        made = super()._with_updated_values(values)
        assert isinstance(made, LakebaseResource)
        made._held = {**self._held, **made._held}
        return made

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> LakebaseResource:
        """One with the same settings, which has not been set up."""
        return self._with_updated_values(None)

    @classmethod
    def _is_dagster_maintained(cls) -> bool:
        return False

    def setup_for_execution(self, context: InitResourceContext) -> None:
        """Check the settings and join the pool's users; nothing is opened yet.

        Raises:
            ConfigError: A setting is missing, malformed or contradicts another; or a run's configuration
                leads a secret elsewhere that is not its own.
        """
        self._run_id = None if context.run is None else context.run.run_id
        self._behind_masks = secrets_behind_masks(context)
        name, refused = resource_name(context), elsewhere(context)
        # It holds the configuration with its secrets, and a traceback may show this frame.
        del context
        if refused is not None:
            raise refused
        self._lease = Lease.acquire(self.lakebase_config, name)

    def teardown_after_execution(self, context: InitResourceContext) -> None:
        """Leave the pool's users; the last one closes it.

        A connection that was not returned is closed, and the run's log says where it was lent.
        """
        lease, self._lease = self._lease, None
        log = context.log
        # As in setup_for_execution.
        del context
        try:
            self._loans.end(log)
        finally:
            if lease is not None:
                lease.release()

    @property
    def lakebase_config(self) -> LakebaseConfig:
        """The fields that are set, taking precedence over the environment.

        Raises:
            ConfigError: A setting is missing, malformed or contradicts another.
        """
        fields = {row.name: _resolved(row, self._given(row.name)) for row in settings()}
        # Any other empty field counts as left out.
        require_not_blank(fields)
        given = {name: value for name, value in fields.items() if value not in (None, "")}
        return LakebaseConfig.from_env(**with_branch_exchanged(given))

    def _given(self, name: str) -> Any:
        value = getattr(self, name)
        if value != MASK:
            return value
        return self._held[name] if name in self._held else self._behind_masks.get(name)

    @property
    def client(self) -> LakebaseClient:
        """The core's client, for anything this resource has no method for.

        Outside a run (a script, a directly invoked asset) its pool stays open until the process ends.
        """
        return self.client_for_branches

    @property
    def client_for_branches(self) -> LakebaseClient:
        """The same client, for what is done to branches: whether its own is there does not matter."""
        if self._lease is not None:
            return self._lease.client
        from lakebase_provider.core.shared import shared_client

        return shared_client(self.lakebase_config)

    def branch_metadata(self) -> dict[str, str]:
        """What metadata of an output say about the branch that it has just been committed on.

        Returns:
            ``lakebase/branch``, the branch's id, and ``lakebase/lsn``, a position in its log that holds the
            output, from which a branch can be made, if the server tells. Nothing unless `branch` is set.
        """
        if not self.branch:
            return {}
        position = self._position()
        return {
            "lakebase/branch": self.client.config.branch or "",
            **({"lakebase/lsn": position} if position else {}),
        }

    def restore_point_metadata(self, log: Any = None) -> dict[str, str]:
        """Note the moment that the branch has reached, before risky work; what metadata of it say.

        Args:
            log: ``context.log``, to say it there too: of a step that fails nothing else is left.

        Returns:
            ``lakebase/restore_lsn``, a position in its log, and ``lakebase/restore_time``, each of which is
            the ``at`` of ``client.restore_rows``.

        Raises:
            ConfigError: The configuration names no branch.
            LakebaseError: No connection could be opened.
        """
        found = point_metadata(self.client.restore_point().to_dict())
        if log is not None:
            log.info("The restore point: %s", found)
        return found

    def log_position(self) -> str:
        """The position in Postgres' log after all that is committed, for ``cdf_configs.wait_in_delta``.

        Raises:
            psycopg.Error: The server is a replica, which has no such position.
            LakebaseError: No connection could be opened.
        """
        ((position,),) = self.fetch("SELECT pg_catalog.pg_current_wal_lsn()::text")
        return str(position)

    def _position(self) -> str | None:
        from psycopg import Error

        try:
            return self.log_position()
        except (Error, LakebaseError):
            # It is told of what is stored already, which no error may make undone.
            return None

    @contextmanager
    def get_connection(self, timeout: float | None = None) -> Iterator[LakebaseConnection]:
        """A pooled psycopg connection: commits on success, rolls back on error, and is then returned.

        Args:
            timeout: Seconds to wait at most, including the token and waking the compute; `connect_budget` by
                default.

        Raises:
            PoolExhaustedError: All connections stayed in use until the timeout.
            LakebaseError: No connection could be opened; the driver's error is its cause.

        Example:
            .. code-block:: python

                with lakebase.get_connection() as conn:
                    conn.execute("INSERT INTO events (name) VALUES (%s)", ["started"])
        """
        client = self.client
        with client.connection(timeout) as connection, self._loans.noted(connection):
            name_session(connection, client.config, current_step_name(self._run_id))
            yield connection

    @asynccontextmanager
    async def get_async_connection(
        self, timeout: float | None = None
    ) -> AsyncIterator[AsyncLakebaseConnection]:
        """:meth:`get_connection` for asyncio, from a pool of the running event loop.

        Args:
            timeout: Seconds to wait at most, including the token and waking the compute; `connect_budget` by
                default.

        Raises:
            PoolExhaustedError: All connections stayed in use until the timeout.
            LakebaseError: No connection could be opened; the driver's error is its cause.

        Example:
            .. code-block:: python

                @dg.asset
                async def events(lakebase: LakebaseResource) -> None:
                    async with lakebase.get_async_connection() as conn:
                        await conn.execute("INSERT INTO events (name) VALUES (%s)", ["started"])
        """
        if self._lease is not None:
            self._lease.join_running_loop()
        client = self.client
        async with client.aconnection(timeout) as connection:
            with self._loans.noted(connection, asyncio.get_running_loop()):
                await aname_session(connection, client.config, current_step_name(self._run_id))
                yield connection

    def execute(self, sql: str, params: Parameters = None) -> int:
        """Run one statement in its own transaction, and commit it.

        Args:
            sql: The statement, with ``%s`` or ``%(name)s`` for parameters. Without `params`, a percent sign
                stands for itself, and there may be several statements, separated by semicolons.
            params: The parameters, bound by the server and not inserted into the text.

        Returns:
            Number of rows that the statement (the last one, if several) inserted, updated, deleted or
            selected; -1 if it has no such number, as for CREATE TABLE.

        Raises:
            psycopg.Error: The server refuses the statement; nothing is committed.
            LakebaseError: No connection could be opened.
        """
        with self.get_connection() as connection:
            # The text is the user's own program, as for psycopg's execute; values are passed as parameters.
            cursor = connection.execute(sql.encode(), params)
            while cursor.nextset():
                pass
            return cursor.rowcount

    def connect_and_execute(self, sql: str) -> None:
        """:meth:`execute`, as Dagster's SQL components call it."""
        self.execute(sql)

    @overload
    def fetch(
        self, sql: str, params: Parameters = None, as_: Literal["rows"] = "rows"
    ) -> list[tuple[Any, ...]]: ...
    @overload
    def fetch(
        self, sql: str, params: Parameters = None, *, as_: Literal["pandas"], numeric: Numeric = "decimal"
    ) -> pd.DataFrame: ...
    @overload
    def fetch(
        self, sql: str, params: Parameters = None, *, as_: Literal["polars"], numeric: Numeric = "decimal"
    ) -> pl.DataFrame: ...
    @overload
    def fetch(
        self, sql: str, params: Parameters = None, *, as_: Literal["arrow"], numeric: Numeric = "decimal"
    ) -> pa.Table: ...
    def fetch(
        self, sql: str, params: Parameters = None, as_: str = "rows", *, numeric: Numeric = "decimal"
    ) -> Any:
        """What a query returns, all of it in memory.

        Args:
            sql: The query, with ``%s`` or ``%(name)s`` for parameters.
            params: The parameters, bound by the server.
            as_: ``"rows"`` for a list of tuples; ``"pandas"``, ``"polars"`` or ``"arrow"`` for a frame, which
                needs the extra of that name. A numeric is a Decimal in each of them, never a float.
            numeric: In frames, ``"text"`` for the text that Postgres writes for a numeric: any number of
                digits, NaN and the infinities.

        Raises:
            ConfigError: `as_` or `numeric` has another value.
            psycopg.Error: The server refuses the query.
            LakebaseError: No connection could be opened.
        """
        if as_ == "rows":
            with self.get_connection() as connection:
                return connection.execute(sql.encode(), params).fetchall()
        from lakebase_provider.core.bulk.read.batches import read_whole
        from lakebase_provider.core.bulk.read.to_frames import frame_of, require_form

        require_form(as_)
        with (
            self.get_connection() as connection,
            read_whole(connection, sql.encode(), params, numeric=numeric) as batches,
        ):
            return frame_of(batches, as_)

    def fetch_last_updated_timestamps(
        self,
        tables: Sequence[str],
        *,
        schema: str = "public",
        timestamp_column: str | None = None,
        ignore_missing_tables: bool = False,
    ) -> Mapping[str, datetime | None]:
        """When each table was last written, for an observation or a freshness check.

        Postgres keeps no such time. It is read from a column that every write sets; without one, from the
        newest row's commit time, which needs ``track_commit_timestamp`` on the server and reads the whole
        table.

        Args:
            tables: Names, without the schema.
            schema: The tables' schema.
            timestamp_column: A column that holds the time of each row's last write. Times without a zone are
                taken as UTC.
            ignore_missing_tables: Leave out tables that do not exist.

        Returns:
            By table, the time in UTC; None for a table without rows or without a known time.

        Raises:
            ConfigError: No column is given and the server keeps no commit times; or the column holds no time.
            TableNotFoundError: A table does not exist.
        """
        from lakebase_provider.core.database.freshness import last_updated

        with self.get_connection() as connection:
            return last_updated(
                connection,
                tables,
                schema=schema,
                timestamp_column=timestamp_column,
                ignore_missing_tables=ignore_missing_tables,
            )

    def get_engine(self) -> Engine:
        """The SQLAlchemy engine, with its own pool of up to `max_size` connections.

        In a run it is shared like the pool and disposed of at teardown. Outside a run each call makes a new
        one, which the caller disposes of.
        """
        return new_engine(self.client) if self._lease is None else self._lease.engine()

    def health(self, checks: Iterable[str] | None = None, timeout: float | None = None) -> HealthReport:
        """Run the staged check of the path to the database.

        Args:
            checks: Names of stages (resolve, credential, dns, tcp, tls, login, query, write); those that they
                depend on run too. All by default.
            timeout: Timeout of each stage in seconds; `connect_budget` by default.

        Returns:
            The stages with status, milliseconds, detail and remedy. A failed stage raises no exception.

        Raises:
            ConfigError: A stage is unknown.
        """
        return self.client.health(checks, timeout=timeout)


def point_metadata(point: Mapping[str, Any]) -> dict[str, str]:
    """What metadata say of a restore point.

    Args:
        point: Its ``to_dict()``.
    """
    return {f"lakebase/restore_{part}": point[part] for part in ("lsn", "time")}


def _arguments(cls: type[LakebaseResource]) -> set[str]:
    return {field.alias or name for name, field in cls.model_fields.items()}


def _resolved(row: Setting, value: Any) -> Any:
    # Hidden at once, so that no frame above holds the text when a traceback shows local variables.
    return row.hidden(resolved(row.name, value))
