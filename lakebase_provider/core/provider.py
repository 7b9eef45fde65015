"""One mint for many callers: the cache of a database token."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Protocol

from lakebase_provider.core.backoff import Backoff
from lakebase_provider.core.clock import SYSTEM_CLOCK, Clock
from lakebase_provider.core.errors import ControlPlaneTimeoutError, LakebaseError
from lakebase_provider.core.token import Token, TokenPolicy, TokenState

logger = logging.getLogger(__name__)

_BACKOFF = Backoff(first=1.0, most=60.0, floor=0.05)
#: Seconds for which a refusal that no retry will change is remembered, so that 200 threads do not hammer.
_REFUSAL_SECONDS = 30.0


#: Token, and until when it is fresh by the wall clock and by elapsed time: all that the common case needs.
_NOTHING_FRESH: tuple[Token | None, float, float] = (None, 0.0, 0.0)


class Minter(Protocol):
    """Who mints (:mod:`lakebase_provider.core.credentials`)."""

    def mint(self, clock: Clock) -> Token:
        """A new token, or a :class:`~lakebase_provider.core.errors.LakebaseError`. May block."""


@dataclass(frozen=True)
class TokenStats:
    """Counters of a :class:`TokenProvider`.

    Attributes:
        mints: Tokens obtained.
        failures: Attempts that failed.
        served: Calls that got a token.
        invalidations: Tokens thrown away because a login refused them.
    """

    mints: int
    failures: int
    served: int
    invalidations: int


class _Flight:
    """A mint under way: one thread, any number of waiters."""

    def __init__(self) -> None:
        self.result: Future[Token] = Future()
        self.last_error: LakebaseError | None = None


class TokenProvider:
    """Hands out a token that is alive, and mints as rarely as that allows.

    A fresh token is returned at once. A stale one too, while one background thread renews it. Without a
    usable token callers wait, each until its own deadline, for one mint that they share; it runs on a thread
    of its own and no lock is held while it does. A valid token is served for as long as renewing it fails.

    Args:
        minter: Who mints.
        policy: When a token is stale or unusable.
        clock: Where the time comes from.
        give_up_after: Seconds after which a mint that keeps failing stops trying.
        rng: Source of jitter.
    """

    def __init__(
        self,
        minter: Minter,
        *,
        policy: TokenPolicy | None = None,
        clock: Clock = SYSTEM_CLOCK,
        give_up_after: float = 60.0,
        rng: random.Random | None = None,
    ) -> None:
        self._minter = minter
        self._policy = policy or TokenPolicy()
        self._clock = clock
        self._give_up_after = give_up_after
        # Seeded by the system: forked and simultaneously started processes must not share their jitter.
        self._rng = rng or random.SystemRandom()
        self._listeners: list[Callable[[Token], None]] = []
        self._token: Token | None = None
        self._fresh = _NOTHING_FRESH
        self._chance = 0.5
        self._stats = {"mints": 0, "failures": 0, "invalidations": 0}
        self._served = 0
        self._reset_process_state()

    def _reset_process_state(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._flight: _Flight | None = None
        self._refusal: LakebaseError | None = None
        self._not_before = float("-inf")
        self._background_failures = 0

    def on_mint(self, listener: Callable[[Token], None]) -> None:
        """Have `listener` called with each new token before anybody gets it, such as to mask it in logs.

        A listener that is added late is called at once with the token that is there.
        """
        with self._lock:
            if listener in self._listeners:
                return
            self._listeners.append(listener)
            token = self._token
        if token is not None:
            listener(token)

    def get(self, timeout: float = 60.0) -> Token:
        """A token that is alive.

        Args:
            timeout: Seconds to wait at most for a mint.

        Raises:
            ControlPlaneTimeoutError: The workspace did not answer in time.
            LakebaseError: The workspace refused, or kept failing until the timeout.
        """
        token, until_wall, until_elapsed = self._fresh
        if (
            token is not None
            and self._clock.elapsed() < until_elapsed
            and self._clock.wall() < until_wall
            and self._pid == os.getpid()
        ):
            self._served += 1
            return token
        return self._get_by_state(timeout)

    def _get_by_state(self, timeout: float) -> Token:
        if self._pid != os.getpid():
            # A forked child keeps the immutable token, and drops locks and threads it has no part in.
            self._reset_process_state()
        token = self._token
        if token is not None:
            state = self._state(token)
            if state == "stale":
                self._renew_in_background()
            if state != "unusable":
                self._served += 1
                return token
        token = self._wait(self._start_flight(), timeout)
        self._served += 1
        return token

    async def aget(self, timeout: float = 60.0) -> Token:
        """:meth:`get` without blocking the event loop."""
        return await asyncio.to_thread(self.get, timeout)

    def seconds_left(self, token: Token) -> float:
        """Seconds that `token` has to live, by this provider's clock."""
        return token.seconds_left(wall=self._clock.wall(), elapsed=self._clock.elapsed())

    def _state(self, token: Token) -> TokenState:
        return self._policy.state(token, seconds_left=self.seconds_left(token), chance=self._chance)

    def invalidate(self, fingerprint: str) -> bool:
        """Throw away the token of that fingerprint because a login refused it.

        Compare and swap: of many callers whose logins were refused only the first throws it away, and a
        newer token stays.

        Returns:
            True if it was the current token.
        """
        with self._lock:
            if self._token is None or self._token.fingerprint != fingerprint:
                return False
            self._token = None
            self._fresh = _NOTHING_FRESH
            self._stats["invalidations"] += 1
        logger.warning("Token %s was refused at login and is thrown away", fingerprint)
        return True

    def stats(self) -> TokenStats:
        """The counters, since this provider was made."""
        return TokenStats(served=self._served, **self._stats)

    def _renew_in_background(self) -> None:
        if self._flight is None and self._clock.elapsed() >= self._not_before:
            self._start_flight()

    def _start_flight(self) -> _Flight:
        with self._lock:
            if self._flight is not None:
                return self._flight
            if self._refusal is not None and self._clock.elapsed() < self._not_before:
                # A new object for each caller: tracebacks of many threads must not pile up on one.
                raise self._refusal.again()
            flight = self._flight = _Flight()
            # With a token in hand one attempt is enough: the next caller tries again after the backoff.
            persistent = self._token is None or self._state(self._token) == "unusable"
        thread = threading.Thread(
            target=self._fly, args=(flight, persistent), name="lakebase-mint", daemon=True
        )
        thread.start()
        return flight

    def _fly(self, flight: _Flight, persistent: bool) -> None:
        start = self._clock.elapsed()
        attempt = 0
        while True:
            try:
                token = self._minter.mint(self._clock)
                for listener in tuple(self._listeners):
                    listener(token)
            except LakebaseError as error:
                self._stats["failures"] += 1
                flight.last_error = error
                pause = max(error.retry_after or 0.0, _BACKOFF.seconds(attempt, self._rng))
                waited = self._clock.elapsed() - start
                if not persistent or not error.retryable or waited + pause > self._give_up_after:
                    self._land_failure(flight, error, pause)
                    return
                logger.warning("Minting a token failed, next attempt in %.1f s: %s", pause, error)
                attempt += 1
                self._clock.sleep(pause)
            except BaseException as error:
                # Whatever it was, waiters must not wait for a thread that has died.
                self._land_failure(flight, error, _BACKOFF.first)
                return
            else:
                self._land(flight, token)
                return

    def _land(self, flight: _Flight, token: Token) -> None:
        with self._lock:
            self._token = token
            self._chance = self._rng.random()
            self._fresh = (token, *self._policy.fresh_until(token, self._chance))
            self._flight = None
            self._refusal = None
            self._not_before = float("-inf")
            self._background_failures = 0
            self._stats["mints"] += 1
        logger.info("Minted token %s, which lives for %.0f s", token.fingerprint, token.lifetime)
        flight.result.set_result(token)

    def _land_failure(self, flight: _Flight, error: BaseException, pause: float) -> None:
        refused = isinstance(error, LakebaseError) and not error.retryable
        with self._lock:
            self._flight = None
            self._refusal = error if refused and isinstance(error, LakebaseError) else None
            self._background_failures += 1
            wait = (
                _REFUSAL_SECONDS
                if refused
                else max(pause, _BACKOFF.seconds(self._background_failures, self._rng))
            )
            self._not_before = self._clock.elapsed() + wait
            still_valid = self._token is not None
        if still_valid:
            logger.warning("Renewing the token failed, the present one is used on: %s", error)
        flight.result.set_exception(error)

    def _wait(self, flight: _Flight, timeout: float) -> Token:
        try:
            return flight.result.result(timeout)
        except FutureTimeoutError:
            cause = flight.last_error
            if cause is not None:
                raise cause.again() from cause.__cause__
            raise ControlPlaneTimeoutError(f"The workspace gave no token within {timeout:.1f} s.") from None
        except LakebaseError as error:
            raise error.again() from error.__cause__
