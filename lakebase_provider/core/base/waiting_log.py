"""What a log says of a wait: why, at once; that it goes on, now and then; what helps, once."""

from __future__ import annotations

import logging

from lakebase_provider.core.errors import LakebaseError

#: Seconds between two lines about the same wait.
QUIET = 15.0


class WaitingLog:
    """Says of one wait at most what somebody wants to read.

    Args:
        logger: Where to.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._kind: type[LakebaseError] | None = None
        self._said_at = 0.0

    def say(self, now: float, error: LakebaseError, line: str, *arguments: object) -> None:
        """Log that an attempt has failed and another one will follow, unless that has just been said.

        Args:
            now: When it failed, in seconds since any fixed moment.
            error: Why. What is another kind of failure than the last is said at once, with its remedy.
            line: What to say, the reason first, with placeholders as :mod:`logging` takes them.
            arguments: Their values.
        """
        is_first = self._kind is not type(error)
        if not is_first and now - self._said_at < QUIET:
            return
        self._kind, self._said_at = type(error), now
        self._logger.warning(line, *arguments)
        if is_first:
            # A line of its own: behind a long one it would be beyond the edge of who reads the log.
            self._logger.warning("Remedy: %s", error.remedy)

    def is_over(self) -> None:
        """What was waited for has come: the next wait is another one."""
        self._kind = None
