"""Database tokens: minted for the control plane, judged for the front end."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

_ALGORITHM = "ES256"
_ISSUER = "https://lakebase.local"
#: Random bytes in a separate claim: a real token is longer than a kilobyte, and clients must handle that.
_PADDING = 700


class TokenRefusedError(Exception):
    """A password is not a valid token for the role.

    Attributes:
        reason: Key of :data:`lakebase_provider.local.identity.login_errors.REFUSALS`.
        expiry: The token's `exp`, if it could be read.
    """

    def __init__(self, reason: str, expiry: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.expiry = expiry


@dataclass(frozen=True)
class MintedToken:
    """A database token and the Unix time at which it stops opening connections."""

    token: str = field(repr=False)
    expires_at: float


class TokenAuthority:
    """Signs and checks database tokens.

    Args:
        clock: Returns Unix time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._serial = 0
        self._expired_up_to = 0
        self._revoked_up_to = 0

    def mint(self, subject: str, lifetime: float) -> MintedToken:
        """Sign a token.

        Args:
            subject: Name of the principal, hence of the Postgres role.
            lifetime: Seconds until it expires.
        """
        now = self._clock()
        expires_at = now + lifetime
        self._serial += 1
        claims = {
            "iss": _ISSUER,
            "sub": subject,
            "iat": math.floor(now),
            # A lifetime below a second needs the fraction; a plain token looks like a real one.
            "exp": int(expires_at) if lifetime >= 60 else expires_at,
            "serial": self._serial,
            "padding": secrets.token_urlsafe(_PADDING),
        }
        return MintedToken(jwt.encode(claims, self._key, algorithm=_ALGORITHM), float(claims["exp"]))  # type: ignore[arg-type]

    def expire_all(self) -> None:
        """From now on every token minted so far counts as expired."""
        self._expired_up_to = self._serial

    def revoke_all(self) -> None:
        """From now on every token minted so far counts as revoked."""
        self._revoked_up_to = self._serial

    def check(self, token: str, role: str) -> None:
        """Accept a token as this role's password, at this moment.

        Raises:
            TokenRefusedError: It is not, for the reason given.
        """
        try:
            jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise TokenRefusedError("not_a_jwt") from None
        try:
            claims = jwt.decode(
                token,
                self._key.public_key(),
                algorithms=[_ALGORITHM],
                # We check the times, by the clock that the tests can set.
                options={"verify_exp": False, "verify_iat": False},
            )
        except jwt.InvalidTokenError:
            raise TokenRefusedError("bad_signature") from None
        expiry, serial = float(claims["exp"]), int(claims["serial"])
        if claims["sub"] != role:
            raise TokenRefusedError("other_role")
        if serial <= self._revoked_up_to:
            raise TokenRefusedError("revoked")
        if serial <= self._expired_up_to or self._clock() >= expiry:
            raise TokenRefusedError("expired", expiry)
