"""What to do after a failed attempt to connect: only decisions, for a sync or async loop to carry out."""

from __future__ import annotations

import logging
import random

import psycopg

from lakebase_provider.core.base.clock import Backoff, Deadline
from lakebase_provider.core.base.waiting_log import WaitingLog
from lakebase_provider.core.connect.target import TargetResolver
from lakebase_provider.core.errors import (
    DnsError,
    EndpointNotFoundError,
    EndpointWakingError,
    LakebaseError,
    LoginRejectedError,
    TooManyConnectionsError,
)
from lakebase_provider.core.tokens.cache import TokenProvider
from lakebase_provider.core.tokens.token import Token

logger = logging.getLogger(__name__)

#: An awake compute is noticed within a second; one that takes long is tried less often.
_WAKING = Backoff(first=0.25, most=1.0, floor=0.05)
_WAKING_LONG = Backoff(first=5.0, most=5.0, floor=2.0)
#: Seconds after which waking counts as long: a compute that takes ten is still noticed within one.
_LONG = 11.0
#: A full server has room once somebody leaves, and many wait: refusing a login is work for it too.
_FULL = Backoff(first=10.0, most=10.0, floor=5.0)
#: Seconds that must be left for an attempt to be worthwhile.
_LEAST_ATTEMPT = 0.1
#: The share of the remaining deadline after which a last attempt is made, if the pause is longer.
_LAST_ATTEMPT_AT = (0.5, 0.8)
#: Errors that pass by themselves within seconds, and how the log describes them.
_PASSES: dict[type[LakebaseError], str] = {
    EndpointWakingError: "The compute is not up yet",
    TooManyConnectionsError: "The server is full",
}
# Seeded by the system: processes that were forked together must not wait in step.
_RNG = random.SystemRandom()


def tell_waits_once() -> None:
    """Keep psycopg's pools from logging each failed attempt that is transient: we log it."""
    # Adding it again has no effect.
    logging.getLogger("psycopg.pool").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    arguments = record.args if isinstance(record.args, tuple) else ()
    return not any(isinstance(argument, tuple(_PASSES)) for argument in arguments)


class Attempts:
    """The attempts at one connection. Nothing here blocks.

    Args:
        deadline: The caller's deadline.
        tokens: Notified of a token that a login refused.
        targets: Notified of a host that was not reached.
        waiting: Logs the wait; its own by default.

    Attributes:
        deadline: The caller's deadline.
        token: The token of the last login.
        resolver_failed: Whether the system could not resolve the host's name, so that another way is next.
    """

    def __init__(
        self,
        deadline: Deadline,
        tokens: TokenProvider,
        targets: TargetResolver,
        waiting: WaitingLog | None = None,
    ) -> None:
        self.deadline = deadline
        self.token: Token | None = None
        self.resolver_failed = False
        self._tokens = tokens
        self._targets = targets
        self._reminted = False
        self._resolved_again = False
        self._pauses = 0
        self._is_last = False
        self._waiting = waiting or WaitingLog(logger)
        self._said: LakebaseError | None = None

    def pause_after(self, error: LakebaseError) -> float:
        """Seconds to wait before the next attempt.

        Args:
            error: Why the last one failed.

        Raises:
            LakebaseError: The same error, because another attempt would not help or would come too late.
        """
        if isinstance(error, LoginRejectedError) and self._may_mint_again():
            return 0.0
        if (
            isinstance(error, (DnsError, EndpointNotFoundError, EndpointWakingError))
            and not self._resolved_again
        ):
            # It may have moved.
            self._resolved_again = True
            if self._targets.forget_host() and isinstance(error, EndpointNotFoundError):
                return 0.0
        if isinstance(error, DnsError) and not self.resolver_failed:
            self.resolver_failed = True
            return 0.0
        if not isinstance(error, tuple(_PASSES)):
            raise error
        if not isinstance(error.__cause__, psycopg.errors.ConnectionTimeout):
            self._said = error
        pause = self._pause(error)
        if pause is None:
            # The server's error says more than that there was no time left to ask it again.
            told = self._said or error
            raise _with_budget(told, self.deadline.seconds) from told.__cause__
        self._pauses += 1
        self._say(error, pause)
        return pause

    def _pause(self, error: LakebaseError) -> float | None:
        """Seconds until the next attempt; None if it would come too late."""
        left = self.deadline.remaining()
        if isinstance(error, TooManyConnectionsError):
            backoff = _FULL
        else:
            backoff = _WAKING if self.deadline.seconds - left < _LONG else _WAKING_LONG
        pause = backoff.seconds(self._pauses, _RNG)
        if pause + _LEAST_ATTEMPT < left:
            return pause
        if self._is_last or left <= 2 * _LEAST_ATTEMPT:
            return None
        # Not yet: until the deadline, room or a waking compute may still come.
        self._is_last = True
        return min(left * _RNG.uniform(*_LAST_ATTEMPT_AT), left - _LEAST_ATTEMPT)

    def _say(self, error: LakebaseError, pause: float) -> None:
        waited = self.deadline.seconds - self.deadline.remaining()
        self._waiting.say(
            self.deadline.now(),
            error,
            "%s: waiting, %.0f s of at most %.0f s; next attempt in %.1f s. %s",
            next(short for passes, short in _PASSES.items() if isinstance(error, passes)),
            waited,
            self.deadline.seconds,
            pause,
            error.message.rpartition("FATAL:")[2].strip(),
        )

    def _may_mint_again(self) -> bool:
        # A native password does not expire: it would be just as wrong the second time.
        if self._reminted or self.token is None or self.token.expires_at is None:
            return False
        self._reminted = True
        self._tokens.invalidate(self.token.fingerprint)
        return True


def _with_budget(error: LakebaseError, seconds: float) -> LakebaseError:
    copy = error.again()
    copy.message = f"{error.message} (tried for {seconds:.1f} s)"
    return copy
