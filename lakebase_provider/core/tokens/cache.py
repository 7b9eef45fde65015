"""One mint for many callers: the cache of a database token."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Protocol

from lakebase_provider.core.base import telemetry
from lakebase_provider.core.base.clock import SYSTEM_CLOCK, Backoff, Clock
from lakebase_provider.core.base.single_flight import LONGEST_ATTEMPT, Stragglers
from lakebase_provider.core.base.threads import start_for_caller
from lakebase_provider.core.base.waiting_log import WaitingLog
from lakebase_provider.core.errors import (
    ControlPlaneUnavailableError,
    LakebaseError,
    LoginRejectedError,
)
from lakebase_provider.core.errors.tracebacks import without_locals
from lakebase_provider.core.tokens.mint_flight import MintFlight
from lakebase_provider.core.tokens.token import Token, TokenPolicy, TokenState

logger = logging.getLogger(__name__)

_BACKOFF = Backoff(first=1.0, most=60.0, floor=0.05)
#: Seconds for which a permanent refusal is remembered, so that 200 threads do not hammer the workspace.
_REFUSAL_SECONDS = 30.0
#: Maximum Retry-After that is believed, in seconds: one wrong header must not lock a process out for a day.
_MOST_RETRY_AFTER = 600.0
#: Number of refused tokens whose fingerprints are remembered; a workspace may only return the latest again.
_REFUSED_TOKENS = 16
_NEVER = float("-inf")
#: Token, and until when it is fresh by wall clock and elapsed time: all that the common case needs.
_NOTHING_FRESH: tuple[Token | None, float, float] = (None, 0.0, 0.0)


class Minter(Protocol):
    """Who mints (:mod:`lakebase_provider.core.tokens.minters`)."""

    def mint(self, clock: Clock) -> Token:
        """A different token from the last, or a :class:`.LakebaseError`. It may block."""


@dataclass(frozen=True)
class TokenStats:
    """Counters of a :class:`TokenProvider`.

    Attributes:
        mints: Tokens obtained.
        failures: Attempts that failed.
        served: Calls that got a token.
        invalidations: Tokens discarded because a login refused them.
    """

    mints: int
    failures: int
    served: int
    invalidations: int


class TokenProvider:
    """Provides a valid token, and mints as rarely as that allows.

    A fresh token is returned at once. A stale one is too, while a background thread renews it. Without a
    usable token, callers wait, each until its own deadline, for one mint that they share; it runs on its own
    thread, without holding a lock. A valid token is served for as long as renewing it fails.

    A failed mint is retried with exponential backoff and full jitter, not before the server's Retry-After,
    for as long as a caller can still use the outcome. A caller whose deadline ends before the next attempt is
    allowed gets the real cause at once. A permanent refusal is remembered for 30 seconds. A forked child
    keeps only the token.

    An attempt that takes too long is abandoned, and a new one started. Its thread cannot be stopped: its late
    result is dropped, and with more than three such threads callers get the timeout at once.

    Args:
        minter: Who mints.
        policy: When a token is stale or unusable.
        clock: Where the time comes from.
        rng: Source of jitter.
        longest_attempt: Seconds after which an attempt is abandoned.
    """

    def __init__(
        self,
        minter: Minter,
        *,
        policy: TokenPolicy | None = None,
        clock: Clock = SYSTEM_CLOCK,
        rng: random.Random | None = None,
        longest_attempt: float = LONGEST_ATTEMPT,
    ) -> None:
        self._minter = minter
        self._policy = policy or TokenPolicy()
        self._clock = clock
        self._longest_attempt = longest_attempt
        # Seeded by the system: forked and simultaneously started processes must not share their jitter.
        self._rng = rng or random.SystemRandom()
        self._listeners: list[Callable[[Token], None]] = []
        self._token: Token | None = None
        self._fresh = _NOTHING_FRESH
        self._chance = 0.5
        self._refused: deque[str] = deque(maxlen=_REFUSED_TOKENS)
        self._stats = {"mints": 0, "failures": 0, "invalidations": 0}
        self._served = 0
        self._reset_process_state()
        _providers.add(self)

    def _reset_process_state(self) -> None:
        """Drop what a forked child cannot use: a lock that another thread held, a thread's work."""
        self._lock = threading.Lock()
        self._flight: MintFlight | None = None
        self._stragglers = Stragglers()
        self._failure: LakebaseError | None = None
        self._failures_in_a_row = 0
        # Nobody asks the workspace before the first of these; the second applies only to the background.
        self._not_before = _NEVER
        self._renew_not_before = _NEVER
        self._waiting = WaitingLog(logger)

    def on_mint(self, listener: Callable[[Token], None]) -> None:
        """Call `listener` with each new token before anybody gets it, such as to mask it in logs.

        A listener that is added late is called at once with the existing token. If it raises, the token is
        not used.
        """
        with self._lock:
            if listener in self._listeners:
                return
            self._listeners.append(listener)
            token = self._token
        if token is not None:
            listener(token)

    def get(self, timeout: float = 60.0) -> Token:
        """A valid token.

        Args:
            timeout: Seconds to wait at most for a mint.

        Raises:
            ControlPlaneTimeoutError: The workspace did not answer in time.
            LakebaseError: The workspace refused, or would not be asked again before the timeout.
        """
        token, until_wall, until_elapsed = self._fresh
        if token is not None and self._clock.elapsed() < until_elapsed and self._clock.wall() < until_wall:
            self._served += 1
            return token
        deadline = self._clock.elapsed() + timeout
        while (token := self._usable()) is None:
            flight = self._join(deadline)
            if flight is None:
                continue
            seconds, is_last_chance = flight.patience(deadline, self._clock.elapsed())
            try:
                flight.result.result(seconds)
            except (LakebaseError, FutureTimeoutError):
                flight.explain(timeout, is_last_chance)
        return token

    async def aget(self, timeout: float = 60.0) -> Token:
        """:meth:`get` for asyncio: no thread waits, however many callers do."""
        deadline = self._clock.elapsed() + timeout
        while (token := self._usable()) is None:
            flight = self._join(deadline)
            if flight is None:
                continue
            waiter = asyncio.wrap_future(flight.result)
            seconds, is_last_chance = flight.patience(deadline, self._clock.elapsed())
            try:
                await asyncio.wait_for(waiter, seconds)
            except (LakebaseError, asyncio.TimeoutError, FutureTimeoutError):
                flight.explain(timeout, is_last_chance)
        return token

    def seconds_left(self, token: Token) -> float:
        """Seconds of life that `token` has left, by this provider's clock."""
        return token.seconds_left(wall=self._clock.wall(), elapsed=self._clock.elapsed())

    def invalidate(self, fingerprint: str) -> bool:
        """Discard the token with that fingerprint because a login refused it.

        Compare and swap: of many callers whose logins were refused, only the first discards it, and a newer
        token stays. The token is not served again, even if the workspace returns it once more.

        Returns:
            True if it was the current token. A native password stays, since there is no other.
        """
        with self._lock:
            token = self._token
            if token is None or token.fingerprint != fingerprint or token.expires_at is None:
                return False
            self._token = None
            self._fresh = _NOTHING_FRESH
            self._refused.append(fingerprint)
            self._stats["invalidations"] += 1
        logger.warning("Token %s was refused at login; discarding it", fingerprint)
        return True

    def stats(self) -> TokenStats:
        """The counters, since this provider was made."""
        return TokenStats(served=self._served, **self._stats)

    def _usable(self) -> Token | None:
        """The current token unless it is about to expire; a stale one is renewed in the background."""
        token = self._token
        if token is None:
            return None
        state = self._state(token)
        if state == "unusable":
            return None
        if state == "stale":
            self._renew_in_background(token)
        self._served += 1
        return token

    def _state(self, token: Token) -> TokenState:
        return self._policy.state(token, seconds_left=self.seconds_left(token), chance=self._chance)

    def _renew_in_background(self, stale: Token) -> None:
        with self._lock:
            now = self._clock.elapsed()
            flight = self._flight
            if flight is not None and (
                self._stragglers.are_too_many or not flight.gave_up(now, self._stragglers)
            ):
                return
            if self._token is not stale:
                # Another thread is renewing it, or has done so since this thread looked.
                return
            if now < max(self._not_before, self._renew_not_before):
                return
            flight = self._flight = MintFlight(now, self._longest_attempt)
        self._launch(flight)

    def _join(self, deadline: float) -> MintFlight | None:
        """The mint under way, or a new one, with an attempt that starts before `deadline`.

        Returns:
            None if a token has arrived since the caller looked.
        """
        with self._lock:
            if self._token is not None and self._state(self._token) != "unusable":
                return None
            now = self._clock.elapsed()
            flight = self._flight
            if flight is not None and flight.gave_up(now, self._stragglers):
                flight = None
            starting = flight is None
            if flight is None:
                next_try = max(now, self._not_before)
                failure = self._failure
                hopeless = next_try > now and (next_try > deadline or not (failure and failure.retryable))
            else:
                next_try, failure = flight.next_try, flight.last_error
                hopeless = next_try > max(now, deadline)
            if hopeless and failure is not None:
                error = failure.again()
                if failure.retry_after is not None:
                    error.retry_after = next_try - now
                raise error from failure.__cause__
            if flight is None:
                flight = self._flight = MintFlight(next_try, self._longest_attempt)
                if next_try > now:
                    # The reason for the pause is what to report if the deadline passes.
                    flight.last_error = failure
            flight.last_deadline = max(flight.last_deadline, deadline)
        if starting:
            self._launch(flight)
        return flight

    def _launch(self, flight: MintFlight) -> None:
        try:
            start_for_caller(self._fly, flight, self._stragglers, name="lakebase-mint")
        except RuntimeError as error:
            # The interpreter is shutting down, or the machine has no thread left: nobody must wait for this
            # one.
            self._give_up(
                flight, ControlPlaneUnavailableError(f"Cannot start a thread to mint a token: {error}."), 1.0
            )

    def _fly(self, flight: MintFlight, stragglers: Stragglers) -> None:
        try:
            self._attempt(flight)
        finally:
            with self._lock:
                if flight.given_up:
                    stragglers.remove()

    def _attempt(self, flight: MintFlight) -> None:
        while True:
            pause = flight.next_try - self._clock.elapsed()
            if pause > 0:
                self._clock.sleep(pause)
            try:
                with telemetry.span("mint") as span:
                    token = self._minter.mint(self._clock)
                    for listener in tuple(self._listeners):
                        listener(token)
                    span.set(token_seconds_left=self.seconds_left(token))
                    self._land(flight, token)
                return
            except LakebaseError as error:
                # The frames below hold the answer with the token in it.
                if not self._goes_on(flight, without_locals(error)):
                    return
            except BaseException as error:
                # Whatever the error, waiters must not wait for a dead thread.
                self._give_up(flight, without_locals(error), _BACKOFF.first)
                return

    def _land(self, flight: MintFlight, token: Token) -> None:
        with self._lock:
            if flight.given_up:
                # Callers have asked again, and may have another one by now.
                return
            self._check_worth(token)
            self._token = token
            self._chance = self._rng.random()
            self._fresh = (token, *self._policy.fresh_until(token, self._chance))
            self._flight = None
            self._failure = None
            self._failures_in_a_row = 0
            self._not_before = self._renew_not_before = _NEVER
            self._stats["mints"] += 1
        self._waiting.is_over()
        logger.info("Minted token %s, valid for %.0f s", token.fingerprint, token.lifetime)
        flight.result.set_result(token)

    def _check_worth(self, token: Token) -> None:
        """Raise unless the new token is usable. The lock is held: a login may be refusing it right now."""
        if token.fingerprint in self._refused:
            raise LoginRejectedError("The workspace returned the token that a login refused.")
        if token.expires_at is None:
            return
        present = self._token
        if present is not None and present.fingerprint == token.fingerprint:
            # Treating it as new would restart its lifetime.
            raise ControlPlaneUnavailableError("The workspace returned the same token again.")
        if self._state(token) == "unusable":
            # For example, the machine was suspended meanwhile.
            left = self.seconds_left(token)
            raise ControlPlaneUnavailableError(f"The new token arrived with only {left:.0f} s left.")

    def _goes_on(self, flight: MintFlight, error: LakebaseError) -> bool:
        """Record a failed attempt; True if another one, after a pause, would help somebody."""
        with self._lock:
            if flight.given_up:
                return False
            retry_after = min(error.retry_after or 0.0, _MOST_RETRY_AFTER)
            pause = max(retry_after, _BACKOFF.seconds(self._failures_in_a_row, self._rng))
            self._failures_in_a_row += 1
            next_try = self._clock.elapsed() + pause
            flight.last_error = error
            goes_on = error.retryable and next_try <= flight.last_deadline
            if goes_on:
                flight.next_try = next_try
                self._stats["failures"] += 1
        if goes_on:
            self._waiting.say(
                self._clock.elapsed(),
                error,
                "No token yet: %s Next attempt in %.1f s.",
                error.message,
                pause,
            )
        else:
            self._give_up(flight, error, pause if error.retryable else _REFUSAL_SECONDS)
        return goes_on

    def _give_up(self, flight: MintFlight, error: BaseException, pause: float) -> None:
        """End a flight without a token, and wait `pause` seconds before the next one."""
        with self._lock:
            if flight.given_up:
                return
            not_before = self._clock.elapsed() + pause
            self._flight = None
            self._renew_not_before = not_before
            if isinstance(error, LakebaseError):
                # The background's own backoff does not apply to a caller who needs a token now; the server's
                # Retry-After, and an error that such a caller has just got, do.
                needed = flight.last_deadline > _NEVER
                if needed or error.retry_after is not None or not error.retryable:
                    self._failure, self._not_before = error, not_before
            self._stats["failures"] += 1
            still_valid = self._token is not None
        if still_valid:
            logger.warning("Renewing the token failed; still using the present one: %s", error)
        flight.result.set_exception(error)


_providers: weakref.WeakSet[TokenProvider] = weakref.WeakSet()


def _reset_in_child() -> None:
    for provider in _providers:
        provider._reset_process_state()


os.register_at_fork(after_in_child=_reset_in_child)
