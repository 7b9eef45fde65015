"""Pipelines of synced tables: their updates, through all states in order, and the events that tell of it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.concurrency import run_in_threadpool

from lakebase_provider.local.postgres.postgres import Postgres
from lakebase_provider.local.workspace import kinds
from lakebase_provider.local.workspace.kinds import timestamp
from lakebase_provider.local.workspace.operations import OperationFault
from lakebase_provider.local.workspace.resources import Views
from lakebase_provider.local.workspace.settings import ApiError
from lakebase_provider.local.workspace.state import Branch, Resource, Workspace
from lakebase_provider.local.workspace.sync import copying
from lakebase_provider.local.workspace.sync.copying import Target
from lakebase_provider.local.workspace.sync.delta import Source, SyncError

#: Kind under which the ends of updates are scripted.
UPDATE = "pipeline_update"
_ENDED = ("COMPLETED", "FAILED", "CANCELED")
_BEFORE_COPY = ("WAITING_FOR_RESOURCES", "INITIALIZING", "SETTING_UP_TABLES", "RUNNING")


@dataclass(frozen=True)
class Sync:
    """What a table has been brought to.

    Attributes:
        version: Of the source.
        source_id: Which table the source is; another one may get its name.
        commit_time: When the version was committed, Unix time.
        began: When it was begun, Unix time, as is the next one.
        ended: When its rows were there.
        rows: How many rows or changes were copied.
    """

    version: int
    source_id: str
    commit_time: float
    began: float
    ended: float
    rows: int


class SyncedTable(Resource):
    """A synced table of either API.

    Args:
        name: Name in the Unity Catalog.
        branch: Whose Postgres has it.
        spec: Checked.
        target: Where its rows go.
        created: Unix time.
        instance: Name of the instance, for the older API; None for Autoscaling's.

    Attributes:
        pipeline: Copies its rows; None before its operation is done.
        sync: What it has been brought to; None before the first time, and while all is copied anew.
        online: Whether it has rows.
        failed: Whether its last update did.
    """

    def __init__(
        self,
        name: str,
        branch: Branch,
        spec: dict[str, Any],
        target: Target,
        created: float,
        instance: str | None = None,
    ) -> None:
        super().__init__(kinds.SYNCED_TABLE, name, None, created)
        self.branch, self.target, self.instance = branch, target, instance
        self.spec = spec
        self.pipeline: Pipeline | None = None
        self.sync: Sync | None = None
        self.online = self.failed = False
        self.message = "Synced table is being created."

    @property
    def policy(self) -> str:
        """SNAPSHOT, TRIGGERED or CONTINUOUS."""
        return str(self.spec["scheduling_policy"])

    @property
    def state(self) -> str:
        """Its `detailed_state`."""
        active = self.pipeline.active if self.pipeline else None
        if active is None and self.failed:
            return f"SYNCED_TABLE_{'ONLINE_PIPELINE' if self.online else 'OFFLINE'}_FAILED"
        if not self.online:
            copies = active is not None and active.state == "RUNNING"
            phase = "_INITIAL_SNAPSHOT" if copies else "_PIPELINE_RESOURCES" if active else ""
            return f"SYNCED_TABLE_PROVISIONING{phase}"
        if self.policy == "CONTINUOUS":
            return "SYNCED_TABLE_ONLINE_CONTINUOUS_UPDATE"
        return f"SYNCED_TABLE_ONLINE_{'TRIGGERED_UPDATE' if active else 'NO_PENDING_UPDATE'}"


@dataclass
class Update:
    """One update of a pipeline.

    Attributes:
        full_refresh: Whether all is copied anew.
        cause: As the API says it.
        created: Unix time.
    """

    full_refresh: bool
    cause: str
    created: float
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: str = "CREATED"

    @property
    def ended(self) -> bool:
        """Whether it has."""
        return self.state in _ENDED


@dataclass
class Pipeline:
    """A pipeline, of one synced table or of several.

    Attributes:
        policy: That of all its tables.
        creator: Name of who created it.
        storage: The catalog that it keeps its files in, if one was named.
        updates: The newest first, as the events are.
    """

    policy: str
    creator: str
    storage: str | None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    tables: list[SyncedTable] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def active(self) -> Update | None:
        """The update that runs."""
        return next((one for one in self.updates if not one.ended), None)


class Pipelines:
    """All pipelines, and their running.

    Args:
        workspace: Its clock, agenda, settings, faults.
        views: Finds a branch's Postgres.
    """

    def __init__(self, workspace: Workspace, views: Views) -> None:
        self._workspace, self._views, self._settings = workspace, views, workspace.settings
        self.all: dict[str, Pipeline] = {}

    def find(self, identity: str) -> Pipeline:
        """The pipeline of that id."""
        if identity not in self.all:
            raise self._workspace.errors.error("pipeline_not_found", what="pipeline", value=identity)
        return self.all[identity]

    def update(self, pipeline: Pipeline, identity: str) -> Update:
        """The update of that id."""
        for one in pipeline.updates:
            if one.id == identity:
                return one
        raise self._workspace.errors.error("pipeline_not_found", what="update", value=identity)

    def attach(self, table: SyncedTable, pipeline: Pipeline) -> None:
        """Have a pipeline copy a table, beginning now."""
        self.all[pipeline.id] = pipeline
        pipeline.tables.append(table)
        table.pipeline = pipeline
        if pipeline.active is None:
            self.start(pipeline, full_refresh=False, cause="USER_ACTION")

    def detach(self, table: SyncedTable) -> None:
        """End the copying of a table; a pipeline without tables goes."""
        pipeline = table.pipeline
        if pipeline is None or table not in pipeline.tables:
            return
        pipeline.tables.remove(table)
        if not pipeline.tables:
            self.stop(pipeline)
            self.all.pop(pipeline.id, None)

    def start(self, pipeline: Pipeline, *, full_refresh: bool, cause: str) -> Update:
        """Begin an update; one runs at a time."""
        if pipeline.active is not None:
            raise self._workspace.errors.error("active_update", value=pipeline.active.id)
        update = Update(full_refresh, cause, self._workspace.now())
        pipeline.updates.insert(0, update)
        self._enter(pipeline, update, "CREATED")
        for table in pipeline.tables:
            table.failed = False
            if full_refresh:
                # The API does not tell of what was there while all is copied anew.
                table.sync = None
        steps = [*_BEFORE_COPY]
        if full_refresh:
            steps.insert(2, "RESETTING")
        self._go_on(pipeline, update, steps, update.created)
        return update

    def stop(self, pipeline: Pipeline) -> None:
        """Cancel the update that runs."""
        if pipeline.active is not None:
            self._enter(pipeline, pipeline.active, "CANCELED")

    def _go_on(self, pipeline: Pipeline, update: Update, steps: list[str], since: float) -> None:
        agenda = self._workspace.agenda
        # From when the last step was due: the clock may be set ahead of several of them.
        due = since + self._settings.pipeline_seconds / (len(_BEFORE_COPY) + 1 + update.full_refresh)

        def step() -> None:
            if update.ended:
                return
            if steps:
                self._enter(pipeline, update, steps[0])
                self._go_on(pipeline, update, steps[1:], due)
            else:
                agenda.spawn(self._copy(pipeline, update))

        agenda.at(due, step)

    def _enter(self, pipeline: Pipeline, update: Update, state: str, error: str | None = None) -> None:
        update.state = state
        event: dict[str, Any] = {
            "id": str(uuid.uuid4()),
            "timestamp": timestamp(self._workspace.now()),
            "level": "INFO" if error is None else "ERROR",
            "event_type": "update_progress",
            "maturity_level": "STABLE",
            "message": f"Update {update.id[:6]} is {state}.",
            "origin": {"pipeline_id": pipeline.id, "update_id": update.id},
        }
        if error is not None:
            thrown = {"class_name": "org.apache.spark.SparkException", "message": error}
            event["error"] = {"fatal": True, "exceptions": [thrown]}
        pipeline.events.insert(0, event)

    async def _copy(self, pipeline: Pipeline, update: Update) -> None:
        fault = self._workspace.operations.take_fault(UPDATE)
        error = None if fault is None or fault.lands else fault.message
        for table in [*pipeline.tables] if error is None else ():
            try:
                sync = await self._copied(table, pipeline, update)
            except Exception as failed:  # whatever it is, it is what the update's events tell
                error = " ".join(str(failed).split()) or type(failed).__name__
                continue
            if not update.ended:
                table.sync, table.online = sync, True
        self._end(pipeline, update, error or (fault.message if fault is not None else None))

    async def _copied(self, table: SyncedTable, pipeline: Pipeline, update: Update) -> Sync:
        began = self._workspace.now()
        done = await run_in_threadpool(self._work, table, pipeline, update, began)
        return done if done is table.sync else Sync(**{**done.__dict__, "ended": self._workspace.now()})

    def _work(self, table: SyncedTable, pipeline: Pipeline, update: Update, began: float) -> Sync:
        """Copy one table's rows; the same as before where there was nothing to do. Called in a thread."""
        if pipeline.storage in self._workspace.catalogs:
            raise SyncError("UNITY_CATALOG_INITIALIZATION_FAILED: Metastore storage root URL does not exist.")
        source, former = Source(self._workspace.lakehouse, table.spec["source_table_full_name"]), table.sync
        postgres = self._postgres(table)
        columns = source.columns(table.spec.get("type_overrides") or [])
        found = Sync(source.version, source.id, source.commit_time, began, began, 0)
        if former is not None and (former.version, former.source_id) == (source.version, source.id):
            return former
        if table.policy == "SNAPSHOT" or former is None:
            if table.policy != "SNAPSHOT" and not source.has_feed:
                raise SyncError(
                    f"DELTA_MISSING_CHANGE_DATA: The change data feed of '{source.name}' is not enabled."
                )
            rows = copying.replace(postgres, table.target, columns, source.rows(columns))
            return Sync(**{**found.__dict__, "rows": rows})
        if former.source_id != source.id or source.version < former.version:
            raise SyncError(
                "DIFFERENT_DELTA_TABLE_READ_BY_STREAMING_SOURCE: The table was replaced by another one; "
                "run a full refresh."
            )
        if not source.has_data_since(former.version):
            return found if self._settings.maintenance_moves_version else former
        rows = copying.apply(postgres, table.target, columns, source.changes(columns, former.version))
        return Sync(**{**found.__dict__, "rows": rows})

    def _postgres(self, table: SyncedTable) -> Postgres:
        try:
            branch = self._views.branch(table.branch.project.id, table.branch.id)
        except ApiError:
            raise SyncError(f"{table.branch.name} is not there.") from None
        return self._views.postgres(branch)

    def _end(self, pipeline: Pipeline, update: Update, error: str | None) -> None:
        if update.ended:
            return
        for table in pipeline.tables:
            table.failed = error is not None
            table.message = (
                f"Synced table creation succeeded using Delta Live Tables: "
                f"#joblist/pipelines/{pipeline.id}/updates/{update.id}."
                if error is None
                else error
            )
        if error is not None:
            self._enter(pipeline, update, "FAILED", error)
        elif pipeline.policy != "CONTINUOUS":
            self._enter(pipeline, update, "COMPLETED")
        else:
            again: Callable[[], None] = lambda: self._look_again(pipeline, update)  # noqa: E731
            self._workspace.agenda.at(self._workspace.now() + self._settings.continuous_seconds, again)

    def _look_again(self, pipeline: Pipeline, update: Update) -> None:
        if not update.ended and self.all.get(pipeline.id) is pipeline:
            self._workspace.agenda.spawn(self._copy(pipeline, update))

    # Answering.

    def view(self, pipeline: Pipeline) -> dict[str, Any]:
        """GET of one. After an update that has failed its state is IDLE, as after one that has not."""
        return {
            "pipeline_id": pipeline.id,
            "name": f"Synced table pipeline {pipeline.id}",
            "state": "RUNNING" if pipeline.active else "IDLE",
            "creator_user_name": pipeline.creator,
            "run_as_user_name": pipeline.creator,
            "spec": {"id": pipeline.id, "continuous": pipeline.policy == "CONTINUOUS"},
            "latest_updates": [
                {"update_id": one.id, "state": one.state, "creation_time": timestamp(one.created)}
                for one in pipeline.updates[:5]
            ],
        }

    def update_view(self, pipeline: Pipeline, update: Update) -> dict[str, Any]:
        """One update as it is answered."""
        return {
            "pipeline_id": pipeline.id,
            "update_id": update.id,
            "state": update.state,
            "cause": update.cause,
            "full_refresh": update.full_refresh,
            "creation_time": int(update.created * 1000),
        }


def check_fault(fault: OperationFault) -> None:
    """Raise a ValueError about a scripted end that an update of a pipeline cannot have."""
    if fault.kind == UPDATE and fault.never_ends:
        raise ValueError(f"a {UPDATE} ends; set pipeline_seconds to let it take long")
