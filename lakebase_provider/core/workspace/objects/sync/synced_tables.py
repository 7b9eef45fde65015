"""Synced tables: created, deleted, triggered, and waited for until the rows of a version are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict

from lakebase_provider.core.base.clock import Clock, Deadline
from lakebase_provider.core.config import LakebaseConfig, arguments
from lakebase_provider.core.config.resource_names import UC_TABLE, Kind
from lakebase_provider.core.errors import AlreadyExistsError, ConfigError, LakebaseError, NotFoundError
from lakebase_provider.core.workspace.objects.object_kind import (
    DEFAULT_TIMEOUT,
    Objects,
    Option,
    in_thread,
)
from lakebase_provider.core.workspace.objects.option_values import flag, listed, text
from lakebase_provider.core.workspace.objects.sync.delta_version import wanted_version
from lakebase_provider.core.workspace.objects.sync.goal import Goal
from lakebase_provider.core.workspace.objects.sync.pipelines import Pipelines, PipelineUpdate, StartedUpdate
from lakebase_provider.core.workspace.objects.sync.synced_table import ProvisionedSyncedTable, SyncedTable
from lakebase_provider.core.workspace.operations import Operation, auntil, until
from lakebase_provider.core.workspace.workspace import ControlPlane
from lakebase_provider.core.workspace.writes import again_while_busy

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from typing_extensions import Unpack

    from lakebase_provider.core.workspace.answers import Answer

Policy = Literal["SNAPSHOT", "TRIGGERED", "CONTINUOUS"]

#: Seconds that a sync may take unless the caller says otherwise: a first one provisions its pipeline.
SYNC_TIMEOUT = 1800.0
#: Seconds within which the name of a deleted one is released.
_RELEASE = 120.0


class SyncedTableOptions(TypedDict, total=False):
    """What declares a synced table. The workspace does not tell it afterwards.

    Attributes:
        source_table: Name of the Delta table, ``<catalog>.<schema>.<table>``; required.
        primary_key: Columns that tell its rows apart; required. Rows without a value there are skipped.
        scheduling_policy: ``"SNAPSHOT"`` copies all rows each time, ``"TRIGGERED"`` what has changed,
            ``"CONTINUOUS"`` does so without being asked; required. The latter two need the source's
            change data feed.
        branch: Name of the branch; the configuration's by default. Not for Lakebase Provisioned.
        postgres_database: Name of the database in Postgres; required unless the catalog is registered.
        timeseries_key: Column whose greatest value wins among rows of one key.
        create_database_objects_if_missing: Whether to create the database and the schema; True by default.
        existing_pipeline_id: Id of a pipeline that is to copy it, too; a new one by default.
        storage_catalog: Catalog in which a new pipeline keeps its files; not one of Lakebase.
        storage_schema: Schema there.
        budget_policy_id: Id of a new pipeline's budget policy.
        pipeline_channel: ``"CURRENT"`` or ``"PREVIEW"``, of a new pipeline. Not for Lakebase Provisioned.
        accelerated_sync: Whether the first copy is to be accelerated, where the workspace can.
        extra_columns: Columns that only Postgres has, as the API takes them. Not for Lakebase Provisioned.
        type_overrides: Other types for columns, as the API takes them.
    """

    source_table: str
    primary_key: list[str]
    scheduling_policy: Policy
    branch: str
    postgres_database: str
    timeseries_key: str
    create_database_objects_if_missing: bool
    existing_pipeline_id: str
    storage_catalog: str
    storage_schema: str
    budget_policy_id: str
    pipeline_channel: str
    accelerated_sync: bool
    extra_columns: list[Mapping[str, Any]]
    type_overrides: list[Mapping[str, Any]]


@dataclass(frozen=True)
class SyncResult:
    """A sync that has done what was waited for.

    Attributes:
        table: The synced table, as the workspace told it then.
        update: The update that brought it about; None if none was asked for.
    """

    table: SyncedTable
    update: StartedUpdate | None = None

    @property
    def version(self) -> int | None:
        """The source's version whose rows are there; None where the workspace does not tell it."""
        return self.table.version


def first_of(table: SyncedTable) -> dict[str, Any]:
    """What of a new one to wait for: that it has rows, of whatever version."""
    return {"version": 0} if table.create_time is None else {"since": table.create_time}


def _columns(name: str, value: Any) -> list[Any]:
    found = listed(name, value)
    if not found or not all(isinstance(one, str) and one for one in found):
        raise arguments.wrong(f"Option '{name}'", value, "be names of columns", f"Give a list as {name}.")
    return found


def _source(name: str, value: Any) -> str:
    if not UC_TABLE.fullmatch(text(name, value)):
        raise ConfigError(
            f"Option '{name}' is no name of a table.",
            remedy="Give <catalog>.<schema>.<table> of the Delta table.",
        )
    return str(value)


class SyncedTables(Objects[SyncedTable]):
    """Synced tables, as ``client.workspace.synced_tables``; with twins for asyncio, such as ``acreate``.

    A configuration with an `instance` leads to those of Lakebase Provisioned, by the older API. What one API
    has made, the other does not see. Autoscaling's lists none.
    """

    kind: ClassVar[Kind] = "synced_table"
    shape = SyncedTable
    options: ClassVar[Mapping[str, Option]] = {
        "source_table": Option("spec.source_table_full_name", _source),
        "primary_key": Option("spec.primary_key_columns", _columns),
        "scheduling_policy": Option("spec.scheduling_policy", text),
        "branch": Option("spec.branch", text, is_name="branch"),
        "postgres_database": Option("spec.postgres_database", text),
        "timeseries_key": Option("spec.timeseries_key", text),
        "create_database_objects_if_missing": Option("spec.create_database_objects_if_missing", flag),
        "existing_pipeline_id": Option("spec.existing_pipeline_id", text),
        "storage_catalog": Option("spec.new_pipeline_spec.storage_catalog", text),
        "storage_schema": Option("spec.new_pipeline_spec.storage_schema", text),
        "budget_policy_id": Option("spec.new_pipeline_spec.budget_policy_id", text),
        "pipeline_channel": Option("spec.new_pipeline_spec.pipeline_channel", text),
        "accelerated_sync": Option("spec.accelerated_sync", flag),
        "extra_columns": Option("spec.extra_columns", listed),
        "type_overrides": Option("spec.type_overrides", listed),
    }

    def __init__(self, config: LakebaseConfig, control_plane: ControlPlane, clock: Clock) -> None:
        super().__init__(config, control_plane, clock)
        self._pipelines = Pipelines(control_plane, clock)

    def create(
        self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **options: Unpack[SyncedTableOptions]
    ) -> SyncedTable:
        """Declare a synced table; returns when that is done, which is before its first rows are there.

        :meth:`wait` waits for those. The name of one that was deleted a moment ago is waited for.

        Args:
            name: Its name in the Unity Catalog, ``<catalog>.<schema>.<table>``: schema and table are its name
                in Postgres, too.
            timeout: Seconds that it may take.
            options: The fields of :class:`SyncedTableOptions`.

        Raises:
            AlreadyExistsError: One of that name exists; or a table in Postgres does, such as a deleted one's.
            NotFoundError: There is no such source, branch or pipeline.
            OperationFailedError: The workspace could not create it.
            OperationTimeoutError: It was not done in time, and goes on.
            LakebaseError: The workspace refused or could not be reached.
        """
        return self._create(name, self._checked(options), timeout)

    def ensure(
        self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **options: Unpack[SyncedTableOptions]
    ) -> SyncedTable:
        """Declare a synced table, unless there is one of that name.

        Whether that one is declared the same, the workspace does not tell.

        Raises:
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        return self._ensure(name, self._checked(options), timeout)

    def _checked(self, options: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in options.items() if value is not None}
        for name in ("source_table", "primary_key", "scheduling_policy"):
            if name not in given:
                raise ConfigError(
                    f"Option '{name}' of a synced table is not given.",
                    remedy="Give source_table, primary_key and scheduling_policy.",
                )
        new = [name for name, row in self.options.items() if ".new_pipeline_spec." in row.path]
        beside = [name for name in new if name in given]
        if "existing_pipeline_id" in given and beside:
            raise ConfigError(
                f"Both 'existing_pipeline_id' and '{beside[0]}' are given.", remedy="Keep one of them."
            )
        # The API's own default is told in two ways.
        given.setdefault("create_database_objects_if_missing", True)
        given = self._located(given)
        self._body(given, creating=True)
        return given

    def _located(self, given: dict[str, Any]) -> dict[str, Any]:
        if self._config.branch is not None:
            given.setdefault("branch", self._parent(None))
        return given

    def _create(
        self, name: str, given: Mapping[str, Any], timeout: float | Deadline, **more: Any
    ) -> SyncedTable:
        name, deadline = self.full_name(name), self._deadline(timeout)
        release = Deadline(min(_RELEASE, deadline.remaining()), self._clock)
        while True:
            try:
                return super()._create(name, given, deadline, **more)
            except AlreadyExistsError as error:
                # One that can be seen is in the way, or a table in Postgres; else it was deleted just now.
                is_orphan = "Destination table" in error.message
                if is_orphan or release.remaining() <= 0 or self.find(name) is not None:
                    raise
                self._clock.sleep(min(1.0, release.remaining()))

    def delete(self, name: str, *, missing_ok: bool = False, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Delete a synced table with its pipeline, if that has no other one.

        The table in Postgres stays as it is, and is in the way of another one of that name:
        ``client.synced_tables.delete`` drops it, too.

        Args:
            name: Its name.
            missing_ok: True to accept that there is none.
            timeout: Seconds that it may take.

        Raises:
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        self._delete(name, timeout, missing_ok=missing_ok)

    # Syncing.

    def trigger(
        self,
        name: str,
        *,
        full_refresh: bool = False,
        adopt: bool = True,
        timeout: float | Deadline = DEFAULT_TIMEOUT,
    ) -> StartedUpdate:
        """Begin to copy what has changed, or adopt the update that does so already.

        Args:
            name: The synced table's name.
            full_refresh: Whether to copy all rows anew.
            adopt: False to wait until an update that runs has ended, and begin another one.
            timeout: Seconds that it may take.

        Returns:
            The update, for :meth:`wait`.

        Raises:
            NotFoundError: There is no such table.
            OperationTimeoutError: It has no pipeline yet.
            LakebaseError: The workspace refused or could not be reached.
        """
        name, deadline = self.full_name(name), self._deadline(timeout)
        pipeline = until(
            lambda: self.get(name).pipeline_id,
            f"The creation of the pipeline of {name}",
            name,
            deadline,
            self._clock,
        )
        return self._pipelines.start(pipeline, full_refresh=full_refresh, adopt=adopt, timeout=deadline)

    def wait(
        self,
        name: str,
        *,
        version: int | Callable[[], int] | DeltaTable | None = None,
        since: datetime | None = None,
        update: StartedUpdate | None = None,
        fresh: bool = False,
        timeout: float = SYNC_TIMEOUT,
    ) -> SyncResult:
        """Wait until the rows of a version, or those of a moment, are there.

        It is judged by the update and the version: neither a table that is online nor a pipeline that is idle
        says anything. If the update that is waited for, or else the last one, has failed, this raises at
        once.

        Args:
            name: The synced table's name.
            version: Version of the source, such as :func:`.delta_version` tells; what returns it; or a
                `DeltaTable`, whose newest version with data it is.
            since: The moment at which, or after which, a sync must have begun; with a time zone.
            update: What :meth:`trigger` returned. If it was adopted, and has not brought the version, another
                one is begun.
            fresh: Whether one that was adopted is followed by another, too, if no version is given: all is to
                be there that the source had when :meth:`trigger` was called.
            timeout: Seconds to wait at most.

        Raises:
            OperationFailedError: The update failed, or was cancelled; the error has the text of its event.
            OperationTimeoutError: The rows were not there in time.
            NotFoundError: There is no such table.
            LakebaseError: The workspace refused.
        """
        waiting = self._waiting(name, version, since, update, timeout, fresh=fresh)
        return until(waiting.ask, waiting.subject, waiting.name, waiting.deadline, self._clock)

    async def await_(
        self,
        name: str,
        *,
        version: int | Callable[[], int] | DeltaTable | None = None,
        since: datetime | None = None,
        update: StartedUpdate | None = None,
        fresh: bool = False,
        timeout: float = SYNC_TIMEOUT,
    ) -> SyncResult:
        """:meth:`wait` for asyncio; between its requests no thread is held."""
        waiting = await self._awaiting(name, version, since, update, timeout, fresh=fresh)
        return await auntil(waiting.ask, waiting.subject, waiting.name, waiting.deadline)

    def refresh(
        self,
        name: str,
        *,
        version: int | Callable[[], int] | DeltaTable | None = None,
        full_refresh: bool = False,
        timeout: float = SYNC_TIMEOUT,
    ) -> SyncResult:
        """:meth:`trigger` and :meth:`wait`: all is there that the source had when this was called.

        Args:
            name: The synced table's name.
            version: As in :meth:`wait`. An update that ran already is enough if it has brought it; without a
                version another one follows it.
            full_refresh: Whether to copy all rows anew.
            timeout: Seconds that it may take.

        Raises:
            LakebaseError: As in :meth:`wait`.
        """
        waiting = self._refreshing(name, version, full_refresh, timeout)
        return until(waiting.ask, waiting.subject, waiting.name, waiting.deadline, self._clock)

    async def arefresh(
        self,
        name: str,
        *,
        version: int | Callable[[], int] | DeltaTable | None = None,
        full_refresh: bool = False,
        timeout: float = SYNC_TIMEOUT,
    ) -> SyncResult:
        """:meth:`refresh` for asyncio; between its requests no thread is held."""
        waiting = await self._arefreshing(name, version, full_refresh, timeout)
        return await auntil(waiting.ask, waiting.subject, waiting.name, waiting.deadline)

    def reached(
        self,
        name: str,
        *,
        version: int | Callable[[], int] | DeltaTable | None = None,
        since: datetime | None = None,
    ) -> SyncResult | None:
        """What :meth:`wait` waits for, looked for once.

        Args:
            name: The synced table's name.
            version: As in :meth:`wait`.
            since: As in :meth:`wait`.

        Returns:
            The sync; None if the rows are not there yet.

        Raises:
            OperationFailedError: The last update failed, or was cancelled.
            NotFoundError: There is no such table.
            LakebaseError: The workspace refused.
        """
        return self._waiting(name, version, since, None, SYNC_TIMEOUT).ask()

    def _waiting(
        self,
        name: str,
        version: Any,
        since: datetime | None,
        update: StartedUpdate | None,
        timeout: float,
        *,
        fresh: bool = False,
    ) -> _Waiting:
        name, deadline = self.full_name(name), self._deadline(timeout)
        if since is not None and (not isinstance(since, datetime) or since.tzinfo is None):
            remedy = "Give since as datetime.now(timezone.utc) does."
            raise arguments.wrong("'since'", since, "be a datetime with a time zone", remedy)
        goal = Goal(wanted_version(version), since, update, is_fresh=fresh)
        if (goal.version, since, update) == (None, None, None):
            raise ConfigError(
                f"It is not said what of {name} is waited for.", remedy="Give version, since or update."
            )
        return _Waiting(self, self._pipelines, name, goal, deadline)

    # The version may have to be asked for.
    _awaiting = in_thread(_waiting)

    def _refreshing(self, name: str, version: Any, full_refresh: bool, timeout: float) -> _Waiting:
        name, deadline = self.full_name(name), self._deadline(timeout)
        # Before the update begins, which brings all that was there by then.
        wanted = wanted_version(version)
        update = self.trigger(name, full_refresh=full_refresh, timeout=deadline)
        return _Waiting(self, self._pipelines, name, Goal(wanted, None, update, is_fresh=True), deadline)

    _arefreshing = in_thread(_refreshing)

    aget = in_thread(Objects.get)
    acreate = in_thread(create)
    aensure = in_thread(ensure)
    adelete = in_thread(delete)
    atrigger = in_thread(trigger)
    areached = in_thread(reached)


class _Waiting:
    """One wait: what is asked again and again."""

    def __init__(
        self, tables: SyncedTables, pipelines: Pipelines, name: str, goal: Goal, deadline: Deadline
    ) -> None:
        self._tables, self._pipelines = tables, pipelines
        self.name, self.goal, self.deadline = name, goal, deadline
        wanted = f" at version {goal.version}" if goal.version is not None else ""
        self.subject = f"The sync of {name}{wanted}"

    def ask(self) -> SyncResult | None:
        """The result; None: not yet."""
        # The update first: what its end has brought is in a status that is read after it.
        latest = self._latest()
        table = self._tables.get(self.name)
        if latest is None and self.goal.update is None and table.pipeline_id is not None:
            latest = next(iter(self._pipelines.get(table.pipeline_id).updates), None)
            table = self._tables.get(self.name)
        verdict = self.goal.judge(table, latest)
        if verdict == "reached":
            return SyncResult(table, self.goal.update)
        if verdict == "failed":
            raise self._failure(table, latest)
        if verdict == "again":
            started = self._tables.trigger(self.name, timeout=self.deadline)
            goal = self.goal
            self.goal = Goal(goal.version, goal.since, started, is_fresh=goal.is_fresh)
        return None

    def _latest(self) -> PipelineUpdate | None:
        asked = self.goal.update
        return None if asked is None else self._pipelines.update(asked.pipeline_id, asked.update_id)

    def _failure(self, table: SyncedTable, latest: PipelineUpdate | None) -> LakebaseError:
        asked = self.goal.update
        pipeline_id = table.pipeline_id if asked is None else asked.pipeline_id
        if latest is not None and pipeline_id is not None:
            return self._pipelines.failure(latest, pipeline_id)
        return _offline(table)


def _offline(table: SyncedTable) -> LakebaseError:
    from lakebase_provider.core.errors import OperationFailedError

    said = f": {table.message}" if table.message else ""
    failed = OperationFailedError(f"The synced table {table.name} is {table.state or table.uc_state}{said}.")
    failed.name = table.name
    return failed


def _require_table(answer: Answer) -> None:
    if not UC_TABLE.fullmatch(answer.text("name") or ""):
        raise answer.error("name", "is no name of a table")


class ProvisionedSyncedTables(SyncedTables):
    """Synced tables of Lakebase Provisioned, by the older API, in which there are no operations."""

    shape = ProvisionedSyncedTable
    options: ClassVar[Mapping[str, Option]] = {
        **{
            name: row
            for name, row in SyncedTables.options.items()
            if name not in ("branch", "pipeline_channel", "extra_columns")
        },
        "postgres_database": Option("logical_database_name", text),
    }

    def __init__(self, config: LakebaseConfig, control_plane: ControlPlane, clock: Clock) -> None:
        super().__init__(config, control_plane.of_api("database"), clock)

    def _located(self, given: dict[str, Any]) -> dict[str, Any]:
        return given

    def _answered_as(self, name: str) -> str:
        return name.partition("/")[2]

    def _begin_create(
        self, name: str, given: Mapping[str, Any], deadline: Deadline, **query: Any
    ) -> Operation:
        body, _ = self._body(given, creating=True)
        body |= {"name": name.partition("/")[2], "database_instance_name": self._config.instance}
        what = f"synced table {name}"
        answer = again_while_busy(
            lambda: self._control_plane.request(what, "POST", "synced_tables", body=body, verb="create"),
            deadline,
            self._clock,
        )
        return Operation(name, self._control_plane, self._clock, answer)

    def list(self) -> tuple[SyncedTable, ...]:
        """All synced tables of the configuration's instance.

        Raises:
            LakebaseError: The workspace refused or could not be reached.
        """
        path = f"instances/{self._config.instance}/synced_tables"
        what = f"the synced tables of instance {self._config.instance}"
        pages = self._control_plane.pages
        found = self._asked(lambda: tuple(pages(what, path, "synced_tables", require=_require_table)))
        return tuple(self.shape.of(one.fields, what) for one in found)

    def _delete(self, name: str, timeout: float | Deadline, *, missing_ok: bool, **query: Any) -> None:
        name, deadline, lost = self.full_name(name), self._deadline(timeout), list[LakebaseError]()
        what = f"synced table {name}"

        def send() -> Any:
            return self._control_plane.request(what, "DELETE", name, query=query, verb="delete")

        try:
            with self._alone(name, deadline):
                again_while_busy(send, deadline, self._clock, lost)
        except NotFoundError:
            # After a lost answer that is what the lost request has done.
            if not (missing_ok or lost):
                raise

    alist = in_thread(list)


__all__ = [
    "Policy",
    "ProvisionedSyncedTables",
    "SyncResult",
    "SyncedTableOptions",
    "SyncedTables",
]
