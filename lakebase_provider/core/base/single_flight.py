"""One request for many callers: whoever asks while it is under way waits for the same answer."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Generic, TypeVar

from lakebase_provider.core.base.clock import SYSTEM_CLOCK, Clock
from lakebase_provider.core.base.threads import start_for_caller
from lakebase_provider.core.errors import (
    ControlPlaneTimeoutError,
    ControlPlaneUnavailableError,
    LakebaseError,
)

_Result = TypeVar("_Result")

#: Seconds after which a question is abandoned and the next caller asks again. More than one needs within the
#: limits of its HTTP request, including the wait for the shared store's lock.
LONGEST_ATTEMPT = 45.0
#: Threads that may still be busy with abandoned questions. A caller that would need one more is refused at
#: once, so that a workspace that never answers ties up no more than these.
MOST_ABANDONED = 3


class Stragglers:
    """Counts the threads busy with abandoned questions. The caller holds a lock meanwhile.

    Args:
        most: How many there may be.
    """

    def __init__(self, most: int = MOST_ABANDONED) -> None:
        self._most = most
        self._count = 0

    @property
    def are_too_many(self) -> bool:
        """Whether no more may be abandoned."""
        return self._count >= self._most

    def add(self) -> None:
        """Count one more.

        Raises:
            ControlPlaneTimeoutError: There are too many.
        """
        if self.are_too_many:
            raise ControlPlaneTimeoutError(
                f"The workspace has not answered {self._count + 1} earlier requests, which are still pending."
            )
        self._count += 1

    def remove(self) -> None:
        """One has ended."""
        self._count -= 1


class _Flight(Generic[_Result]):
    def __init__(self, began: float) -> None:
        self.began = began
        self.given_up = False
        self.result: Future[_Result] = Future()
        self.result.set_running_or_notify_cancel()


class SingleFlight(Generic[_Result]):
    """Asks a question on its own thread, one at a time, for any number of callers.

    A forked child starts without its parent's question.

    Args:
        ask: The question, which may block. It ends with a result or a :class:`.LakebaseError`.
        thread_name: What its threads are called.
        clock: Where the time comes from.
        longest: Seconds after which a question is abandoned.
    """

    def __init__(
        self,
        ask: Callable[[], _Result],
        *,
        thread_name: str,
        clock: Clock = SYSTEM_CLOCK,
        longest: float = LONGEST_ATTEMPT,
    ) -> None:
        self._ask = ask
        self._thread_name = thread_name
        self._clock = clock
        self._longest = longest
        self._reset_process_state()
        _flights.add(self)

    def _reset_process_state(self) -> None:
        self._lock = threading.Lock()
        self._flight: _Flight[_Result] | None = None
        self._stragglers = Stragglers()

    def get(self, timeout: float) -> _Result:
        """The answer.

        Args:
            timeout: Seconds to wait at most.

        Raises:
            FutureTimeoutError: It did not come in time.
            ControlPlaneTimeoutError: Too many earlier questions have not been answered.
            LakebaseError: The question failed with it.
        """
        deadline = self._clock.elapsed() + timeout
        while True:
            flight = self._join()
            now = self._clock.elapsed()
            patience = flight.began + self._longest - now
            left = max(0.0, deadline - now)
            try:
                return flight.result.result(min(left, max(0.0, patience)))
            except FutureTimeoutError:
                if flight.result.done():
                    # In the same moment.
                    return flight.result.result()
                if left <= patience:
                    raise
            except LakebaseError as error:
                # A new object for each caller: tracebacks of many threads must not pile up on one.
                raise error.again() from error.__cause__

    def _join(self) -> _Flight[_Result]:
        with self._lock:
            flight = self._flight
            now = self._clock.elapsed()
            if flight is not None and now - flight.began < self._longest:
                return flight
            if flight is not None:
                self._stragglers.add()
                flight.given_up = True
            flight = self._flight = _Flight(now)
        try:
            start_for_caller(self._fly, flight, name=self._thread_name)
        except RuntimeError as error:
            # The interpreter is shutting down, or the machine has no thread left: nobody must wait for this
            # one.
            self._land(flight, self._stragglers)
            flight.result.set_exception(
                ControlPlaneUnavailableError(f"Cannot start a thread to ask the workspace: {error}.")
            )
        return flight

    def _fly(self, flight: _Flight[_Result]) -> None:
        stragglers = self._stragglers
        try:
            result = self._ask()
        except BaseException as error:
            self._land(flight, stragglers)
            flight.result.set_exception(error)
        else:
            self._land(flight, stragglers)
            flight.result.set_result(result)

    def _land(self, flight: _Flight[_Result], stragglers: Stragglers) -> None:
        with self._lock:
            if flight.given_up:
                stragglers.remove()
            if self._flight is flight:
                self._flight = None


_flights: weakref.WeakSet[SingleFlight[Any]] = weakref.WeakSet()


def _reset_in_child() -> None:
    for flight in _flights:
        flight._reset_process_state()


os.register_at_fork(after_in_child=_reset_in_child)
