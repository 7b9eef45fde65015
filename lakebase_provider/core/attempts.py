"""What to do after a failed attempt to connect: decisions alone, for a loop of either kind to carry out."""

from __future__ import annotations

import logging
import random

import psycopg

from lakebase_provider.core.backoff import Backoff
from lakebase_provider.core.clock import Deadline
from lakebase_provider.core.errors import (
    DnsError,
    EndpointNotFoundError,
    EndpointWakingError,
    LakebaseError,
    LoginRejectedError,
    TooManyConnectionsError,
)
from lakebase_provider.core.provider import TokenProvider
from lakebase_provider.core.target import TargetResolver
from lakebase_provider.core.token import Token

logger = logging.getLogger(__name__)

#: A compute that has woken is noticed within a second.
_WAKING = Backoff(first=0.25, most=1.0, floor=0.05)
#: Seconds that an attempt needs to be worth beginning.
_LEAST_ATTEMPT = 0.1
#: What passes by itself, within seconds.
_PASSES = (EndpointWakingError, TooManyConnectionsError)
# Seeded by the system: processes that were forked together must not wait in step.
_RNG = random.SystemRandom()


class Attempts:
    """The attempts at one connection. Nothing here blocks.

    Args:
        deadline: The caller's.
        tokens: What is told of a token that a login refused.
        targets: What is told of a host that was not reached.

    Attributes:
        deadline: The caller's.
        token: What the last login was tried with.
        resolver_failed: Whether the system did not resolve the host's name, so that another way is due.
    """

    def __init__(self, deadline: Deadline, tokens: TokenProvider, targets: TargetResolver) -> None:
        self.deadline = deadline
        self.token: Token | None = None
        self.resolver_failed = False
        self._tokens = tokens
        self._targets = targets
        self._reminted = False
        self._resolved_again = False
        self._pauses = 0
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
        pause = _WAKING.seconds(self._pauses, _RNG)
        if not isinstance(error, _PASSES):
            raise error
        if not isinstance(error.__cause__, psycopg.errors.ConnectionTimeout):
            self._said = error
        if pause + _LEAST_ATTEMPT >= self.deadline.remaining():
            # What the server said tells more than that there was no time left to ask it again.
            told = self._said or error
            raise _with_budget(told, self.deadline.seconds) from told.__cause__
        self._pauses += 1
        logger.warning("%s Next attempt in %.2f s.", error.message, pause)
        return pause

    def _may_mint_again(self) -> bool:
        # A native password does not expire: it is as wrong the second time.
        if self._reminted or self.token is None or self.token.expires_at is None:
            return False
        self._reminted = True
        self._tokens.invalidate(self.token.fingerprint)
        return True


def _with_budget(error: LakebaseError, seconds: float) -> LakebaseError:
    copy = error.again()
    copy.message = f"{error.message} (tried for {seconds:.1f} s)"
    return copy
