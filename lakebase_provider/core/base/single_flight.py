"""One question for many callers: whoever asks while it is being asked waits for the same answer."""

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

#: Seconds after which a question is given up and the next caller asks anew. More than one takes that is held
#: to the limits of core/limits.py, and that waits for the lock of the shared store before.
LONGEST_ATTEMPT = 45.0
#: Threads that may still be at what was given up. Who would need one more is refused at once, so that a
#: workspace that keeps every thread which asks it gets no more than these.
MOST_ABANDONED = 3


class Stragglers:
    """Counts the threads that work on what was given up. Whoever uses it holds a lock meanwhile.

    Args:
        most: How many there may be.
    """

    def __init__(self, most: int = MOST_ABANDONED) -> None:
        self._most = most
        self._count = 0

    @property
    def are_too_many(self) -> bool:
        """Whether nothing further may be given up."""
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
        """One has come to its end."""
        self._count -= 1


class _Flight(Generic[_Result]):
    def __init__(self, began: float) -> None:
        self.began = began
        self.given_up = False
        self.result: Future[_Result] = Future()
        self.result.set_running_or_notify_cancel()


class SingleFlight(Generic[_Result]):
    """Asks a question on a thread of its own, once at a time, for as many callers as there are.

    A forked child begins without what its parent is asking.

    Args:
        ask: The question; it may take its time. It ends with a result or a :class:`.LakebaseError`.
        thread_name: What its threads are called.
        clock: Where the time comes from.
        longest: Seconds after which a question is given up.
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
            LakebaseError: The answer is this.
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
            # The interpreter is ending, or the machine has no thread left: nobody must wait for this one.
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
