"""A day of a pool on a clock that is turned by hand: how often it mints, and how old its tokens get."""

from __future__ import annotations

import heapq
import random
import threading
from dataclasses import dataclass

from lakebase_provider.core.base.clock import Clock
from lakebase_provider.core.tokens.cache import TokenProvider
from lakebase_provider.core.tokens.token import Token, TokenPolicy

DAY = 24 * 3600.0
_TOKEN_LIFE = 3600.0


@dataclass(frozen=True)
class Day:
    """What happened in it.

    Attributes:
        mints: Tokens minted.
        logins: Physical connections opened.
        least_left: Seconds that the oldest token of a login had left to live.
    """

    mints: int
    logins: int
    least_left: float


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def wall(self) -> float:
        return 1_800_000_000.0 + self.now

    def elapsed(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class _Minter:
    def __init__(self) -> None:
        self.calls = 0

    def mint(self, clock: Clock) -> Token:
        self.calls += 1
        wall = clock.wall()
        return Token(f"token-{self.calls}", wall + _TOKEN_LIFE, wall, clock.elapsed())


def simulate_day(
    *,
    connections: int = 10,
    lifetime: float = 2700.0,
    spread: float = 0.05,
    seed: int = 0,
    policy: TokenPolicy | None = None,
) -> Day:
    """Let a pool open its connections anew for 24 hours, through a real TokenProvider.

    Args:
        connections: Connections in the pool; all are opened at the start.
        lifetime: Seconds that a connection lives.
        spread: Part of that by which each one's life varies, longer or shorter.
        seed: Of everything random.
        policy: When tokens are renewed.
    """
    rng = random.Random(seed)  # noqa: S311 # a simulation, to be repeated
    clock, minter = _Clock(), _Minter()
    tokens = TokenProvider(minter, clock=clock, policy=policy, rng=rng)
    due = [0.0] * connections
    logins, least_left = 0, float("inf")
    while due[0] < DAY:
        clock.now = heapq.heappop(due)
        logins += 1
        least_left = min(least_left, tokens.seconds_left(tokens.get()))
        _let_renewal_land()
        heapq.heappush(due, clock.now + lifetime * (1 + rng.uniform(-spread, spread)))
    return Day(minter.calls, logins, least_left)


def _let_renewal_land() -> None:
    # It takes milliseconds, during which the simulated clock must stand still.
    for thread in threading.enumerate():
        if thread.name == "lakebase-mint":
            thread.join()
