"""A mint under way, from its waiters' point of view."""

from __future__ import annotations

import logging
from concurrent.futures import Future

from lakebase_provider.core.base.single_flight import Stragglers
from lakebase_provider.core.errors import ControlPlaneTimeoutError, LakebaseError
from lakebase_provider.core.tokens.token import Token

logger = logging.getLogger(__name__)

_NEVER = float("-inf")


class MintFlight:
    """A mint under way: one thread, any number of waiters. The provider's lock guards all but the result.

    Args:
        next_try: When the first attempt begins.
        longest_attempt: Seconds after which an attempt is abandoned.

    Attributes:
        next_try: When the current attempt began or the next one begins, by elapsed time in seconds.
        last_deadline: The latest deadline of a waiter; an attempt that begins later would help nobody.
        last_error: Why the last attempt failed.
        given_up: Whether its attempt took so long that it was abandoned.
        result: The token, or why there is none.
    """

    def __init__(self, next_try: float, longest_attempt: float) -> None:
        self.next_try = next_try
        self.last_deadline = _NEVER
        self.last_error: LakebaseError | None = None
        self.given_up = False
        self._longest_attempt = longest_attempt
        self.result: Future[Token] = Future()
        # Running: an asyncio waiter that is cancelled must not cancel it for the others.
        self.result.set_running_or_notify_cancel()

    @property
    def overdue_at(self) -> float:
        """When the current attempt will be abandoned, by elapsed time in seconds."""
        return self.next_try + self._longest_attempt

    def patience(self, deadline: float, now: float) -> tuple[float, bool]:
        """How many seconds to wait for it, and whether the caller's own deadline is what limits that."""
        overdue_at = self.overdue_at
        return max(0.0, min(deadline, overdue_at) - now), deadline <= overdue_at

    def gave_up(self, now: float, stragglers: Stragglers) -> bool:
        """Whether it hangs, so that the next one may begin: its thread then counts as a straggler.

        Raises:
            ControlPlaneTimeoutError: There are too many stragglers already.
        """
        if not self.given_up and now >= self.overdue_at:
            stragglers.add()
            self.given_up = True
            logger.warning("Minting a token has taken %.0f s; starting again", now - self.next_try)
        return self.given_up

    def explain(self, timeout: float, is_last_chance: bool) -> None:
        """Raise to one waiter why it got no token, unless one has just arrived or another flight may yet."""
        done = self.result.done()
        if not done and not is_last_chance:
            return
        cause = self.result.exception() if done else self.last_error
        if isinstance(cause, LakebaseError):
            # A new object for each caller: tracebacks of many threads must not pile up on one.
            raise cause.again() from cause.__cause__
        if cause is not None:
            raise cause
        if not done:
            raise ControlPlaneTimeoutError(
                f"The workspace returned no token within {timeout:.1f} s."
            ) from None
