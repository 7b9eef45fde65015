"""Long operations: accepted at once, done after a settable time, failed or never ended on demand."""

from __future__ import annotations

import asyncio
import base64
import heapq
import itertools
import math
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import psycopg
from starlette.concurrency import run_in_threadpool

from lakebase_provider.local.workspace.settings import ApiError, Errors, Settings

_EMPTY = {"@type": "type.googleapis.com/google.protobuf.Empty"}
#: Operations that are remembered.
_LONGEST_MEMORY = 10_000


class Agenda:
    """What happens when, by the workspace's clock; belongs to one event loop.

    Args:
        clock: Returns Unix time in seconds; whoever changes it calls :meth:`tick`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def at(self, due: float, action: Callable[[], None]) -> None:
        """Act at that time; an action that is no longer wanted has to notice it itself."""
        if due < math.inf:
            heapq.heappush(self._entries, (due, next(self._order), action))
            self.tick()

    def tick(self) -> None:
        """Do what is due, and be called again for the next."""
        while self._entries and self._entries[0][0] <= self._clock():
            heapq.heappop(self._entries)[2]()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._entries:
            delay = self._entries[0][0] - self._clock()
            # A timer may come a moment early by the other clock.
            self._timer = asyncio.get_running_loop().call_later(max(delay, 0.001), self.tick)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something beside whatever asked for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def settle(self) -> None:
        """Do what is due, and return when that, and what runs beside, is done."""
        self.tick()
        while self._tasks:
            await asyncio.wait(self._tasks)
            self.tick()


@dataclass
class Plan:
    """What an operation does once it is accepted.

    Attributes:
        begin: What shows at once, when the operation is accepted; called in the loop.
        work: Its slow part, called in a thread.
        settle: Lets what was done show; called in the loop.
        undo: Takes back what showed from the start; called in the loop where the operation fails.
        view: The resource to answer with, called in a thread; None for nothing.
    """

    begin: Callable[[], None] = lambda: None
    work: Callable[[], None] | None = None
    settle: Callable[[], None] = lambda: None
    undo: Callable[[], None] = lambda: None
    view: Callable[[], dict[str, Any]] | None = None


@dataclass
class OperationFault:
    """A scripted end of operations.

    Attributes:
        kind: Which: on what kind of resource, or `*`.
        error_code: In the operation's error.
        message: In the operation's error.
        never_ends: True to leave the operation running instead.
        lands: True to do all that it should do, and still say that it failed.
        times: How many operations are left; None for no end.
    """

    kind: str = "*"
    error_code: str = "INTERNAL_ERROR"
    message: str = "the operation failed"
    never_ends: bool = False
    lands: bool = False
    times: int | None = 1


@dataclass
class Operation:
    """One operation; `done` says whether it has ended."""

    name: str
    metadata: dict[str, str]
    lock: str | None
    plan: Plan
    fault: OperationFault | None
    work: asyncio.Task[None] | None = None
    ending: bool = False
    done: bool = False
    error: dict[str, Any] | None = None
    response: dict[str, Any] | None = None

    def view(self) -> dict[str, Any]:
        """GET …/operations/O."""
        answer: dict[str, Any] = {"name": self.name, "done": self.done, "metadata": self.metadata}
        if self.done and self.error is not None:
            answer["error"] = self.error
        elif self.done:
            answer["response"] = self.response or _EMPTY
        return answer


class Operations:
    """All operations, one at a time for each project.

    Args:
        agenda: Ends them.
        clock: Returns the Unix time of the agenda, in seconds.
        settings: How long they take.
        errors: What refuses one while another runs.
    """

    def __init__(
        self, agenda: Agenda, clock: Callable[[], float], settings: Settings, errors: Errors
    ) -> None:
        self._agenda, self._clock, self._settings, self._errors = agenda, clock, settings, errors
        self._all: dict[str, Operation] = {}
        self._running: dict[str, Operation] = {}
        self._faults: list[OperationFault] = []
        #: Called when something has changed for good, before anybody is told that it is done.
        self.on_change: Callable[[], None] = lambda: None

    def find(self, name: str) -> Operation | None:
        """The operation of that name."""
        return self._all.get(name)

    def check_idle(self, lock: str) -> None:
        """Refuse what would overlap with an operation on the same project."""
        if lock in self._running:
            raise self._errors.error("busy")

    def add_fault(self, fault: OperationFault) -> None:
        """Script an end of operations, after those already scripted."""
        self._faults.append(fault)

    def clear_faults(self) -> None:
        """Forget all faults; an operation that was never to end is done."""
        self._faults.clear()
        for operation in [*self._running.values()]:
            if operation.fault is not None and operation.fault.never_ends:
                operation.fault = None
                self._agenda.spawn(self._finish(operation))

    async def end_all(self) -> None:
        """Let whatever runs be done now."""
        self.clear_faults()
        for operation in [*self._running.values()]:
            self._agenda.spawn(self._finish(operation))
        await self._agenda.settle()

    async def run(
        self, owner: str, kind: str, metadata: dict[str, str], lock: str | None, plan: Plan
    ) -> dict[str, Any]:
        """Accept an operation and answer with it, not done yet.

        Args:
            owner: Name of the resource whose operation it is.
            kind: Of that resource.
            metadata: For the answer.
            lock: Name of the project that is busy meanwhile.
            plan: What it does.
        """
        if lock is not None:
            self.check_idle(lock)
        # Such ids need quoting that keeps `/` and `=`; never two slashes in a row, nor one in front.
        identity = "o" + base64.b64encode(os.urandom(20)).decode().replace("//", "/+")
        operation = Operation(f"{owner}/operations/{identity}", metadata, lock, plan, self.take_fault(kind))
        plan.begin()
        self._all[operation.name] = operation
        while len(self._all) > _LONGEST_MEMORY:
            self._all.pop(next(iter(self._all)))
        if lock is not None:
            self._running[lock] = operation
        accepted = operation.view()
        if operation.fault is not None and operation.fault.never_ends:
            return accepted
        operation.work = self._agenda.spawn(self._work(operation))
        if self._settings.operation_seconds:
            due = self._clock() + self._settings.operation_seconds
            self._agenda.at(due, lambda: self._end_later(operation))
        else:
            # Else the first poll would come too early, and the next one a second later. A client that
            # does not wait for the answer must not stop it.
            await asyncio.shield(self._agenda.spawn(self._finish(operation)))
        return accepted

    def take_fault(self, kind: str) -> OperationFault | None:
        """The scripted end for what is of that kind, counted as used once."""
        for fault in self._faults:
            if fault.times != 0 and fault.kind in ("*", kind):
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    def _end_later(self, operation: Operation) -> None:
        self._agenda.spawn(self._finish(operation))

    async def _work(self, operation: Operation) -> None:
        fails = operation.fault is not None and not operation.fault.lands
        if operation.plan.work is not None and not fails:
            await run_in_threadpool(operation.plan.work)

    async def _finish(self, operation: Operation) -> None:
        if operation.ending:
            return
        operation.ending = True
        try:
            await self._end(operation)
        except Exception as error:  # what shows of it failed; the project must not stay busy for that
            operation.error = _told(error)
        finally:
            operation.done = True
            if operation.lock is not None and self._running.get(operation.lock) is operation:
                del self._running[operation.lock]

    async def _end(self, operation: Operation) -> None:
        fault, plan = operation.fault, operation.plan
        try:
            await (operation.work or self._work(operation))
        except Exception as error:
            operation.error = _told(error)
        if operation.error is None and (fault is None or fault.lands):
            plan.settle()
            self.on_change()
            if plan.view is not None:
                operation.response = await run_in_threadpool(plan.view)
        else:
            plan.undo()
        if fault is not None:
            operation.error = {"error_code": fault.error_code, "message": fault.message, "details": []}


def _told(error: Exception) -> dict[str, Any]:
    """The error of an operation whose work failed."""
    if isinstance(error, ApiError):
        return {"details": [], **error.body}
    code = "INTERNAL_ERROR"
    if isinstance(error, ValueError):
        code = "INVALID_PARAMETER_VALUE"
    elif isinstance(error, psycopg.Error):
        code = "BAD_REQUEST"
    return {"error_code": code, "message": " ".join(str(error).split()), "details": []}
