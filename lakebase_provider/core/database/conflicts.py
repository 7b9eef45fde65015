"""Runs a whole transaction again when it was undone by another one, or got no lock."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import TypeVar

import psycopg

from lakebase_provider.core.base.clock import SYSTEM_CLOCK, Backoff, Clock, Deadline
from lakebase_provider.core.errors import LockTimeoutError, TransactionConflictError
from lakebase_provider.core.errors.sqlstates import meaning

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")

_BACKOFF = Backoff(first=0.1, most=2.0, floor=0.005)
#: Between two attempts to get a lock: what holds it is often done within seconds, and who queues for one
#: holds up all.
_LOCK_BACKOFF = Backoff(first=2.0, most=60.0, floor=0.5)
# Seeded by the system: transactions that collided must not wait in step.
_RNG = random.SystemRandom()


def again_on_conflict(
    work: Callable[[], _Result],
    *,
    attempts: int = 5,
    clock: Clock = SYSTEM_CLOCK,
    rng: random.Random = _RNG,
) -> _Result:
    """Run a whole transaction, and run it again if the server undid it because of another one.

    Nothing else is retried: after a lost connection nobody knows what was committed.

    Args:
        work: Begins a transaction, does everything and commits; whatever else it does must be safe to repeat.
        attempts: How many times it is run at most.
        clock: Where the time comes from.
        rng: Draws the pauses: at most 0.1 s after the first conflict, 2 s after later ones.

    Raises:
        TransactionConflictError: Each attempt was undone; the last one's error is its cause.
        IdleInTransactionError: The server ended the session because it sat idle too long.
    """
    for attempt in range(attempts):
        try:
            return work()
        except psycopg.Error as error:
            if not meaning(error.sqlstate).is_conflict:
                raise
            if attempt + 1 >= attempts:
                told = f"undone {attempts} times by other transactions: {_first_line(error)}"
                raise TransactionConflictError(f"The transaction was {told}") from error
            pause = _BACKOFF.seconds(attempt, rng)
            logger.warning("Running the transaction again in %.2f s: %s", pause, _first_line(error))
            clock.sleep(pause)
    raise AssertionError("attempts must be at least 1")


def again_without_lock(
    work: Callable[[], _Result], attempts: int, deadline: Deadline, clock: Clock
) -> _Result:
    """Run a transaction, and again if it got no lock or was undone for another one.

    Args:
        work: All of the transaction.
        attempts: How many times it is run at most.
        deadline: No attempt begins after it.
        clock: Where the time comes from.

    Raises:
        LockTimeoutError: A lock was not acquired in any of them.
        TransactionConflictError: Each was undone.
    """
    for attempt in range(1, attempts + 1):
        try:
            return work()
        except (LockTimeoutError, TransactionConflictError) as error:
            pause = _LOCK_BACKOFF.seconds(attempt - 1, _RNG)
            if attempt == attempts or pause >= deadline.remaining():
                copy = error.again()
                copy.message = f"{error.message} Attempts: {attempt}."
                raise copy from error.__cause__
            line = "Attempt %d of %d; the next one in %.1f s. %s"
            logger.warning(line, attempt, attempts, pause, error.message)
            clock.sleep(pause)
    raise AssertionError("attempts must be at least 1")


def _first_line(error: psycopg.Error) -> str:
    return str(error).partition("\n")[0]
