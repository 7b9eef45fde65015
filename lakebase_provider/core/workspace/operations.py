"""Long-running operations of the workspace: asked for by name until they end, or a deadline passes.

An operation is known by its *name*, a string by which a trigger, a retry or another process can resume it.
That it is done does not mean that its object can be used: see ``wait_ready`` of the objects.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, TypeVar

from lakebase_provider.core.base.clock import Backoff, Clock, Deadline
from lakebase_provider.core.base.threads import until_gone
from lakebase_provider.core.config import arguments
from lakebase_provider.core.config.resource_names import Kind, NameRefusedError, operation_path, resource_path
from lakebase_provider.core.errors import (
    ConfigError,
    ControlPlaneError,
    LakebaseError,
    OperationFailedError,
    OperationTimeoutError,
)
from lakebase_provider.core.errors.texts import classify_control_plane
from lakebase_provider.core.workspace.answers import Answer, said_in, shown
from lakebase_provider.core.workspace.http_limits import Limit, within
from lakebase_provider.core.workspace.workspace import ControlPlane

_Self = TypeVar("_Self")
_Result = TypeVar("_Result")
_Arguments = ParamSpec("_Arguments")

#: Seconds that an operation may take unless the caller says otherwise. Branches take seconds, projects 25.
DEFAULT_TIMEOUT = 300.0
#: The first answer often comes at once; what takes long is asked for less often.
_POLLS = Backoff(first=0.25, most=8.0, floor=0.1)
#: Seconds that a request may take where the deadline has less left: an answer is worth more than punctuality.
_LEAST_REQUEST = 1.0
#: What operations create that are waited for later, and whose names may be lost.
_CREATED: tuple[Kind, ...] = ("branch", "endpoint", "snapshot")
# Seeded by the system: processes that were forked together must not ask in step.
_RNG = random.SystemRandom()


@dataclass(frozen=True)
class Operation:
    """A long-running operation of the workspace.

    Attributes:
        name: Its name, ``projects/<project>/…/operations/<id>``: a string to keep, and to resume it by with
            ``client.workspace.operation(name)``. If the workspace's answer was lost, the name of the branch,
            endpoint or snapshot that it has created.
    """

    name: str
    _control_plane: ControlPlane = field(repr=False, compare=False)
    _clock: Clock = field(repr=False, compare=False)
    _result: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)

    def result(self) -> Mapping[str, Any] | None:
        """The resource that it has made or changed, in JSON; None while it runs; ``{}`` after a deletion.

        Raises:
            OperationFailedError: It has ended with an error.
            NotFoundError: The workspace knows no such operation.
            LakebaseError: The workspace refused or could not be reached.
        """
        if self._result is not None:
            return self._result
        path = operation_named(self.name)
        what = f"operation {self.name}"
        # No frame of the error's traceback holds the answer, which may repeat a secret.
        found = self._outcome_of(path, what)
        if isinstance(found, OperationFailedError):
            raise found
        return found

    def _outcome_of(self, path: str, what: str) -> Mapping[str, Any] | OperationFailedError | None:
        answer = self._control_plane.request(what, "GET", path)
        Answer(answer, what).require_name(self.name)
        return _outcome(answer, what) if "/operations/" in path else answer

    def wait(self, timeout: float = DEFAULT_TIMEOUT) -> Mapping[str, Any]:
        """The resource that it has made or changed, in JSON; ``{}`` after a deletion.

        Args:
            timeout: Seconds to wait at most.

        Raises:
            OperationFailedError: It ended with an error.
            OperationTimeoutError: It did not end in time; it goes on, and can be waited for again.
            LakebaseError: The workspace refused.
        """
        return until(
            self.result, f"The operation {self.name}", self.name, self._deadline(timeout), self._clock
        )

    async def await_(self, timeout: float = DEFAULT_TIMEOUT) -> Mapping[str, Any]:
        """:meth:`wait` for asyncio; between its requests no thread is held."""
        return await auntil(self.result, f"The operation {self.name}", self.name, self._deadline(timeout))

    def _deadline(self, timeout: float) -> Deadline:
        return Deadline(arguments.timeout(timeout), self._clock)


def operation_named(name: str) -> str:
    """The name of an operation, or of what one has created, in the form for a URL's path.

    Raises:
        ConfigError: It is none.
    """
    remedy = "Use the operation's name as the workspace returned it."
    arguments.text("The operation's name", name, remedy)
    for kind in _CREATED:
        with contextlib.suppress(NameRefusedError):
            return resource_path(kind, name)
    try:
        return operation_path(name)
    except NameRefusedError as refused:
        raise ConfigError(f"The operation's name {refused.problem}.", remedy=refused.remedy) from None


def begun(
    answer: Mapping[str, Any], what: str, asked: str, control_plane: ControlPlane, clock: Clock
) -> Operation:
    """The operation that the workspace has begun, which may be done already.

    Args:
        answer: The operation, in JSON.
        what: What is changed, for errors.
        asked: Name of the object that is changed: the operation is one of its project, or catalog.
        control_plane: Asked for it later.
        clock: Where the time comes from.

    Raises:
        OperationFailedError: It has ended with an error.
        ControlPlaneError: The answer is no operation, or one of another project.
    """
    found, name = _outcome(answer, what), Answer(answer, what).text("name")
    if isinstance(found, OperationFailedError):
        # It may quote a secret, and a traceback may show this frame.
        del answer
        raise found
    del answer
    if name is None:
        raise Answer({}, what).error("name", "is missing: the workspace answered without an operation")
    _require_own(name, what, asked)
    return Operation(name, control_plane, clock, found)


def _require_own(name: str, what: str, asked: str) -> None:
    """That an answer's operation is one, and of the project that was asked: its result is taken for ours."""
    project = "/".join(asked.split("/")[:2])
    try:
        operation_path(name)
        is_own = name.lower().startswith(f"{project.lower()}/")
    except NameRefusedError:
        is_own = False
    if not is_own:
        raise Answer({}, what).error("name", f"is {shown(name)!r}, which is no operation of {project!r}")


def _outcome(operation: Mapping[str, Any], what: str) -> Mapping[str, Any] | OperationFailedError | None:
    """What has become of an operation; None while it runs. The error is returned, and not raised here."""
    answer = Answer(operation, what)
    if not answer.flag("done"):
        return None
    if operation.get("error") is None:
        response = answer.object("response").fields
        return {key: value for key, value in response.items() if key != "@type"}
    told = answer.object("error")
    text = ": ".join(shown(told.fields[p]) for p in ("error_code", "message") if told.fields.get(p))
    text += said_in(told.fields.get("details"))
    # Its kind says more than that something failed.
    cause = classify_control_plane(text, status=400, what=what, verb="finish")
    name = answer.text("name") or ""
    failed = OperationFailedError(
        f"The operation {name} failed: {text or 'the workspace does not say why'}.",
        remedy=None if cause.remedy == ControlPlaneError.default_remedy else cause.remedy,
        retryable=cause.retryable,
    )
    failed.name, failed.__cause__ = name, cause
    return failed


class _Polls:
    """When to ask again. Nothing here blocks."""

    def __init__(
        self, subject: str, name: str, deadline: Deadline, passes: Callable[[LakebaseError], bool]
    ) -> None:
        self._subject = subject
        self._name = name
        self._deadline = deadline
        self._passes = passes
        self._attempt = 0

    def limit(self) -> Limit:
        """How long the next request may take."""
        return Limit(max(_LEAST_REQUEST, self._deadline.remaining()))

    def pause(self, error: LakebaseError | None = None) -> float:
        """Seconds until the next request.

        Args:
            error: Why the last one failed; one that may pass does not end the wait.

        Raises:
            OperationTimeoutError: None is left.
            LakebaseError: The same error, which will not pass.
        """
        if error is not None and not self._passes(error):
            raise error
        left = self._deadline.remaining()
        if left <= 0:
            last = "" if error is None else f" Last, {error.message[:1].lower()}{error.message[1:]}"
            late = OperationTimeoutError(
                f"{self._subject} did not end within {self._deadline.seconds:.1f} s.{last}"
            )
            late.name = self._name
            raise late from error
        pause = _POLLS.seconds(self._attempt, _RNG)
        if error is not None and error.retry_after is not None:
            pause = max(pause, error.retry_after)
        self._attempt += 1
        # The last request is made when the deadline passes.
        return min(pause, left)


def _is_retryable(error: LakebaseError) -> bool:
    return error.retryable


def until(
    ask: Callable[[], _Result | None],
    subject: str,
    name: str,
    deadline: Deadline,
    clock: Clock,
    *,
    passes: Callable[[LakebaseError], bool] = _is_retryable,
) -> _Result:
    """The answer to a question, asked until there is one; errors that may pass are waited out.

    Args:
        ask: The question; None means not yet.
        subject: What is waited for, as a message begins.
        name: What the error of a timeout carries.
        deadline: Until when.
        clock: Where the pauses are made.
        passes: Which errors do not end the wait; those that may pass by themselves.

    Raises:
        OperationTimeoutError: There was none before the deadline.
        LakebaseError: The question failed for good.
    """
    polls = _Polls(subject, name, deadline, passes)
    while True:
        try:
            with within(polls.limit()):
                found = ask()
        except LakebaseError as error:
            pause = polls.pause(error)
        else:
            if found is not None:
                return found
            pause = polls.pause()
        clock.sleep(pause)


async def in_cancellable_thread(work: Callable[[], _Result]) -> _Result:
    """What a function returns, run in a thread, which stops waiting if the caller is cancelled."""
    gone = threading.Event()
    try:
        return await asyncio.to_thread(until_gone, work, gone)
    finally:
        gone.set()


def in_thread(
    method: Callable[Concatenate[_Self, _Arguments], _Result],
) -> Callable[Concatenate[_Self, _Arguments], Coroutine[Any, Any, _Result]]:
    """The same method for asyncio. It runs in a thread, which stops waiting if the caller is cancelled."""

    async def call(self: _Self, /, *arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        return await in_cancellable_thread(lambda: method(self, *arguments, **options))

    functools.update_wrapper(call, method)
    return call


async def auntil(ask: Callable[[], _Result | None], subject: str, name: str, deadline: Deadline) -> _Result:
    """:func:`until` for asyncio: each question is asked in a thread, and none is held in between."""
    polls = _Polls(subject, name, deadline, _is_retryable)

    def ask_in_time() -> _Result | None:
        with within(polls.limit()):
            return ask()

    while True:
        try:
            found = await in_cancellable_thread(ask_in_time)
        except LakebaseError as error:
            pause = polls.pause(error)
        else:
            if found is not None:
                return found
            pause = polls.pause()
        await asyncio.sleep(pause)
