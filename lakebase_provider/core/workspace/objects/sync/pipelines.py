"""Pipelines of synced tables: their updates, which copy the rows, and the events that say why one failed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Annotated, Any

from lakebase_provider.core.base.clock import Backoff, Clock, Deadline
from lakebase_provider.core.config import arguments
from lakebase_provider.core.config.resource_names import NameRefusedError, pipeline_path
from lakebase_provider.core.errors import (
    ConfigError,
    ControlPlaneError,
    LakebaseError,
    NotAuthenticatedError,
    NotFoundError,
    OperationFailedError,
    PermissionDeniedError,
)
from lakebase_provider.core.errors.texts import classify_control_plane
from lakebase_provider.core.workspace.answers import Answer, shown
from lakebase_provider.core.workspace.http_limits import at_most
from lakebase_provider.core.workspace.objects.object_kind import DEFAULT_TIMEOUT, At, Named, in_thread
from lakebase_provider.core.workspace.workspace import ControlPlane
from lakebase_provider.core.workspace.writes import LOST, again_while_busy

_ENDED = ("COMPLETED", "FAILED", "CANCELED")
#: Seconds within which a read is repeated.
_READ = 20.0
_AGAIN = Backoff(first=0.5, most=8.0, floor=0.2)
_EVENTS = 25
_RNG = random.SystemRandom()


def _created(answer: Answer, name: str) -> datetime | None:
    """A moment as text or, as some answers have it, in milliseconds."""
    value = answer.fields.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return datetime.fromtimestamp(value / 1000, timezone.utc)
    return answer.moment(name)


@dataclass(frozen=True, kw_only=True)
class PipelineUpdate(Named):
    """One update of a pipeline: it copies the rows of its tables.

    Attributes:
        name: Its full name, ``pipelines/<pipeline>/updates/<update>``.
        update_id: Its id.
        state: ``CREATED``, ``QUEUED``, ``WAITING_FOR_RESOURCES``, ``INITIALIZING``, ``SETTING_UP_TABLES``,
            ``RESETTING``, ``RUNNING``, ``STOPPING``, ``COMPLETED``, ``FAILED``, ``CANCELED``, or what else
            the workspace says.
        cause: What began it.
        full_refresh: Whether it copies all rows anew; False also where the workspace does not say.
        create_time: When it was begun.
    """

    update_id: Annotated[str | None, At("update_id", Answer.text)] = None
    state: Annotated[str | None, At("state", Answer.state)] = None
    cause: Annotated[str | None, At("cause", Answer.text)] = None
    full_refresh: Annotated[bool, At("full_refresh", Answer.flag)] = False
    create_time: Annotated[datetime | None, At("creation_time", _created)] = None

    @property
    def is_active(self) -> bool:
        """Whether it has not ended."""
        return self.state not in _ENDED


@dataclass(frozen=True)
class Pipeline:
    """A pipeline.

    Attributes:
        pipeline_id: Its id.
        state: ``RUNNING``, ``IDLE`` and so on. It is ``IDLE`` after an update that has failed, too: what
            became of an update only the update tells.
        updates: The latest ones, the newest first.
    """

    pipeline_id: str
    state: str | None
    updates: tuple[PipelineUpdate, ...]


@dataclass(frozen=True)
class StartedUpdate:
    """An update that was asked for.

    Attributes:
        pipeline_id: Of which pipeline.
        update_id: Its id.
        adopted: Whether it ran already when it was asked for. It may have begun before the last commit to the
            source, whose rows it does not bring then.
    """

    pipeline_id: str
    update_id: str
    adopted: bool = False

    @property
    def name(self) -> str:
        """Its full name."""
        return _name(self.pipeline_id, self.update_id)


def _name(pipeline_id: str, update_id: str) -> str:
    return f"pipelines/{pipeline_id}/updates/{update_id}"


class Pipelines:
    """Pipelines, as ``client.workspace.pipelines``; with twins for asyncio, such as ``astart``.

    Args:
        control_plane: Sends the requests.
        clock: Where the time comes from.
    """

    def __init__(self, control_plane: ControlPlane, clock: Clock) -> None:
        self._control_plane = control_plane.of_api("pipelines")
        self._clock = clock

    def get(self, pipeline_id: str) -> Pipeline:
        """A pipeline with its latest updates.

        Raises:
            NotFoundError: There is none, or the principal cannot see it.
            LakebaseError: The workspace refused or could not be reached.
        """
        path = _checked(pipeline_id)
        what = f"pipeline {path}"
        answer = Answer(self._read(what, path), what)
        updates = tuple(_update(one, path) for one in answer.objects("latest_updates"))
        return Pipeline(path, answer.state("state"), updates)

    def update(self, pipeline_id: str, update_id: str) -> PipelineUpdate:
        """One update.

        Raises:
            NotFoundError: There is none, or the principal cannot see it.
            LakebaseError: The workspace refused or could not be reached.
        """
        path, what = _name(_checked(pipeline_id), _checked(update_id)), f"update {update_id}"
        answer = Answer(self._read(what, path.removeprefix("pipelines/")), what)
        return _update(answer.object("update"), pipeline_id)

    def updates(self, pipeline_id: str) -> tuple[PipelineUpdate, ...]:
        """The last updates, the newest first; 25 at most.

        Raises:
            NotFoundError: There is no such pipeline, or the principal cannot see it.
            LakebaseError: The workspace refused or could not be reached.
        """
        path, what = _checked(pipeline_id), f"the updates of pipeline {pipeline_id}"
        answer = Answer(self._read(what, f"{path}/updates", max_results=_EVENTS), what)
        return tuple(_update(one, path) for one in answer.objects("updates"))

    def start(
        self,
        pipeline_id: str,
        *,
        full_refresh: bool = False,
        adopt: bool = True,
        timeout: float | Deadline = DEFAULT_TIMEOUT,
    ) -> StartedUpdate:
        """Begin an update, or adopt the one that runs: a pipeline has one at a time.

        Args:
            pipeline_id: The pipeline's id.
            full_refresh: Whether to copy all rows anew; only an update that does so, too, is adopted.
            adopt: False to wait until the one that runs has ended, and begin another.
            timeout: Seconds that it may take.

        Raises:
            NotFoundError: There is no such pipeline, or the principal cannot see it.
            LakebaseError: The workspace refused or could not be reached.
        """
        path = _checked(pipeline_id)
        if not isinstance(timeout, Deadline):
            timeout = Deadline(arguments.timeout(timeout), self._clock)
        # To be told from what is begun by others, if the answer is lost.
        former = {one.update_id for one in self.get(path).updates}
        attempt = unexplained = 0
        while True:
            try:
                return StartedUpdate(path, self._start(path, full_refresh))
            except (NotFoundError, PermissionDeniedError, NotAuthenticatedError):
                raise
            except ControlPlaneError as error:
                # Whatever it says, what runs tells whether that is why.
                active = self._active(path)
                is_ours = isinstance(error, LOST) and active is not None and active.update_id not in former
                if active is not None and active.update_id is not None:
                    unexplained = 0
                    same = self._is_same(path, active, full_refresh=full_refresh)
                    if is_ours or (adopt and same):
                        return StartedUpdate(path, active.update_id, adopted=not is_ours)
                elif not error.retryable:
                    # Once it may be an update that ran when it was asked and has ended since.
                    unexplained += 1
                    if unexplained > 1:
                        raise
                if timeout.remaining() <= 0:
                    raise
            self._clock.sleep(min(_AGAIN.seconds(attempt, _RNG), timeout.remaining()))
            attempt += 1

    def _start(self, path: str, full_refresh: bool) -> str:
        what = f"an update of pipeline {path}"
        answer = self._control_plane.request(
            what, "POST", f"{path}/updates", body={"full_refresh": full_refresh}, verb="begin"
        )
        update_id = Answer(answer, what).text("update_id")
        if update_id is None:
            raise Answer(answer, what).error("update_id", "is missing")
        return _checked(update_id)

    def _active(self, path: str) -> PipelineUpdate | None:
        return next((one for one in self.get(path).updates if one.is_active), None)

    def _is_same(self, path: str, active: PipelineUpdate, *, full_refresh: bool) -> bool:
        if not full_refresh:
            return True
        assert active.update_id is not None
        return self.update(path, active.update_id).full_refresh

    def stop(self, pipeline_id: str) -> None:
        """Cancel the update that runs; nothing happens if none does.

        Raises:
            LakebaseError: The workspace refused or could not be reached.
        """
        path = _checked(pipeline_id)
        self._asked(
            lambda: self._control_plane.request(
                f"pipeline {path}", "POST", f"{path}/stop", body={}, verb="stop"
            )
        )

    def failure(self, update: PipelineUpdate, pipeline_id: str) -> OperationFailedError:
        """Why an update failed, as its pipeline's events tell; to be raised.

        Args:
            update: One that has failed or was cancelled.
            pipeline_id: Its pipeline's id.
        """
        try:
            told = self._told(update, _checked(pipeline_id))
        except LakebaseError as error:
            told = f"its events cannot be read: {error.message}"
        cause = classify_control_plane(told or "", status=400, what=update.name, verb="run")
        why = told or "its events do not say why"
        end = "was cancelled" if update.state == "CANCELED" else f"failed: {why}"
        failed = OperationFailedError(
            f"The update {update.name} {end}.",
            remedy=None if cause.remedy == ControlPlaneError.default_remedy else cause.remedy,
        )
        failed.name = update.name
        return failed

    def _told(self, update: PipelineUpdate, path: str) -> str | None:
        what = f"the events of pipeline {path}"
        wanted = {"filter": "level='ERROR'", "max_results": _EVENTS}
        answer = Answer(self._read(what, f"{path}/events", **wanted), what)
        for event in answer.objects("events"):
            if event.object("origin").text("update_id") != update.update_id:
                continue
            texts = [one.text("message") for one in event.object("error").objects("exceptions")]
            # The last one is where it began.
            found = next((text for text in reversed(texts) if text), None) or event.text("message")
            if found:
                return shown(found).rstrip(".")
        return None

    def _read(self, what: str, path: str, **query: Any) -> Mapping[str, Any]:
        return self._asked(lambda: self._control_plane.request(what, "GET", path, query=query))

    def _asked(self, ask: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        return again_while_busy(ask, Deadline(at_most(_READ), self._clock), self._clock, lost=[])

    aget = in_thread(get)
    aupdate = in_thread(update)
    aupdates = in_thread(updates)
    astart = in_thread(start)
    astop = in_thread(stop)


def _checked(identity: str) -> str:
    arguments.text("The id", identity, "Use the id as the workspace returned it.")
    try:
        return pipeline_path(identity)
    except NameRefusedError as refused:
        raise ConfigError(f"The id {refused.problem}.", remedy=refused.remedy) from None


def _update(answer: Answer, pipeline_id: str) -> PipelineUpdate:
    fields = {**answer.fields, "name": _name(pipeline_id, str(answer.fields.get("update_id")))}
    return PipelineUpdate.of(fields, answer.what)
