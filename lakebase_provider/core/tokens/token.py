"""A database token, and the pure policy of when to use and when to renew it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any, Literal

from lakebase_provider.core.base.secret import Secret

#: The `claims` of a credential request: permission sets, and the tables that they apply to.
Claims = Sequence[Mapping[str, Any]]
TokenState = Literal["fresh", "stale", "unusable"]


@dataclass(frozen=True, slots=True)
class Token:
    """A password that lives for a limited time. Its value appears in no ``repr``, pickle or serialization.

    Attributes:
        expires_at: When the server stops accepting it at login, in seconds since the epoch by the server's
            clock; None for never.
        minted_at: When minting it began, in seconds since the epoch by this host's clock.
        minted_elapsed: The same moment on the suspend-aware clock, in seconds.
        skew: Seconds by which the server's clock is assumed to be ahead of this host's; negative if behind.
        fingerprint: The first 12 hexadecimal digits of the value's SHA-256: identifies it without showing it.
    """

    value: InitVar[str]
    expires_at: float | None
    minted_at: float
    minted_elapsed: float
    skew: float = 0.0
    fingerprint: str = field(init=False)
    #: Opaque, so that serializing a dataclass's fields reveals nothing.
    _secret: Secret = field(init=False, repr=False)

    def __post_init__(self, value: str) -> None:
        digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        object.__setattr__(self, "fingerprint", digest)
        object.__setattr__(self, "_secret", Secret(value))

    def reveal(self) -> str:
        """The value itself, only for the driver."""
        return self._secret.reveal()

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("A token cannot be pickled: mint one in the process that connects.")

    @property
    def lifetime(self) -> float:
        """Seconds from minting to expiry."""
        return float("inf") if self.expires_at is None else self.expires_at - self.minted_at - self.skew

    def seconds_left(self, *, wall: float, elapsed: float) -> float:
        """Seconds until it expires, by whichever clock says less.

        Two clocks must agree that it is valid: the wall clock may have been set back, and elapsed time alone
        would trust a token that was minted with a wrong clock.
        """
        if self.expires_at is None:
            return float("inf")
        return min(self.expires_at - self.skew - wall, self.lifetime - (elapsed - self.minted_elapsed))


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """When a token is fresh (use it), stale (use it and renew it) or unusable (wait for a new one).

    An early renewal leaves more time in which failing renewals do no harm, a late one mints less. By default
    a token of 60 minutes becomes stale after 46.5 to 49.5: a day then takes at most 31 mints, however often
    somebody connects, and renewals may fail for at least 8.5 minutes before anybody has to wait.

    Attributes:
        min_left: No login uses a token with fewer seconds left. A token that lives for less than four times
            that is unusable in its last quarter instead.
        refresh_at: The share of its life after which a token is stale. A short-lived one is stale earlier, so
            that the time for renewing it is as long as the time in which it is unusable.
        jitter: The share of its life by which that moment varies, earlier or later, so that a fleet does not
            renew in step.
    """

    min_left: float = 120.0
    refresh_at: float = 0.8
    jitter: float = 0.025

    def usable_seconds(self, token: Token) -> float:
        """Seconds of life below which the token is unusable."""
        return min(self.min_left, token.lifetime / 4)

    def stale_seconds(self, token: Token, chance: float) -> float:
        """Seconds of life below which the token is stale.

        Args:
            token: The token.
            chance: A random number from 0 to 1, drawn once for each token.
        """
        if token.expires_at is None:
            return float("-inf")
        usable = self.usable_seconds(token)
        stale = max(token.lifetime * (1 - self.refresh_at), 2 * usable)
        return max(stale + token.lifetime * self.jitter * (1 - 2 * chance), usable)

    def fresh_until(self, token: Token, chance: float) -> tuple[float, float]:
        """Until when the token is fresh: by the wall clock and by elapsed time, both in seconds.

        Args:
            token: The token.
            chance: As for :meth:`stale_seconds`.
        """
        if token.expires_at is None:
            return float("inf"), float("inf")
        fresh = token.lifetime - self.stale_seconds(token, chance)
        return token.minted_at + fresh, token.minted_elapsed + fresh

    def state(self, token: Token, *, seconds_left: float, chance: float) -> TokenState:
        """What the token may be used for with that many seconds left."""
        if token.expires_at is None:
            return "fresh"
        if seconds_left < self.usable_seconds(token):
            return "unusable"
        return "stale" if seconds_left < self.stale_seconds(token, chance) else "fresh"
