"""What the log says about a wait: the reason at once, the remedy once, and now and then that it continues."""

from __future__ import annotations

import logging

from lakebase_provider.core.errors import LakebaseError

#: Seconds between two lines about the same wait.
QUIET = 15.0


class WaitingLog:
    """Logs no more about one wait than somebody wants to read.

    Args:
        logger: Where to log.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._kind: type[LakebaseError] | None = None
        self._said_at = 0.0

    def say(self, now: float, error: LakebaseError, line: str, *arguments: object) -> None:
        """Log that an attempt has failed and another will follow, unless that was just logged.

        Args:
            now: When it failed, in seconds since any fixed moment.
            error: Why. A different kind of failure from the last is logged at once, with its remedy.
            line: The message, beginning with the reason, with :mod:`logging`'s placeholders.
            arguments: Their values.
        """
        is_first = self._kind is not type(error)
        if not is_first and now - self._said_at < QUIET:
            return
        self._kind, self._said_at = type(error), now
        self._logger.warning(line, *arguments)
        if is_first:
            # On a line of its own: at the end of a long one it would be cut off where a log viewer ends.
            self._logger.warning("Remedy: %s", error.remedy)

    def is_over(self) -> None:
        """The wait is over: the next one is a new one."""
        self._kind = None
