"""Who mints the password: one small class for each way to get one."""

from __future__ import annotations

import base64
import logging
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from lakebase_provider.core.base.clock import Clock
from lakebase_provider.core.base.secret import Secret
from lakebase_provider.core.config import LakebaseConfig, setting
from lakebase_provider.core.errors import ClockSkewError, ConfigError
from lakebase_provider.core.tokens.cache import Minter
from lakebase_provider.core.tokens.token import Claims, Token
from lakebase_provider.core.workspace.answers import LONGEST_LIFE, Answer, parse_json
from lakebase_provider.core.workspace.workspace import ControlPlane

logger = logging.getLogger(__name__)


#: Seconds by which the clocks may differ without a warning.
_NOTABLE_SKEW = 60.0
#: Maximum lifetime of a token in seconds, by the documentation, unless the token says otherwise.
_LONGEST_LIFE = 3600.0


class AutoscalingOAuth:
    """Mints for a Lakebase Autoscaling endpoint.

    Args:
        control_plane: The workspace.
        endpoint: Name of the endpoint's resource.
        ttl: Requested lifetime of a token in seconds, from 300 to 3600; the workspace's default if None.
        claims: What a token may be used for, in the REST API's form; everything if empty.
    """

    def __init__(
        self, control_plane: ControlPlane, endpoint: str, *, ttl: float | None = None, claims: Claims = ()
    ) -> None:
        self._control_plane = control_plane
        self._endpoint = endpoint
        self._wishes: dict[str, Any] = {"claims": list(claims)} if claims else {}
        if ttl is not None:
            self._wishes["ttl"] = f"{round(ttl)}s"
        self._reader = _AnswerReader("expire_time", ttl or _LONGEST_LIFE)

    def mint(self, clock: Clock) -> Token:
        """A new token, valid for up to 60 minutes.

        Raises:
            ClockSkewError: It is already expired.
            LakebaseError: The workspace returned none.
        """
        before = _Moment.now(clock)
        answer = self._control_plane.endpoint_credential(self._endpoint, **self._wishes)
        return self._reader.token(answer, before, clock)


class ProvisionedOAuth:
    """Mints for a Lakebase Provisioned instance, whose API takes no `ttl`.

    Args:
        control_plane: The workspace.
        instance: Name of the instance.
        claims: What a token may be used for, in the REST API's form; everything if empty.
    """

    def __init__(self, control_plane: ControlPlane, instance: str, *, claims: Claims = ()) -> None:
        self._control_plane = control_plane
        self._instance = instance
        self._wishes: dict[str, Any] = {"claims": list(claims)} if claims else {}
        self._reader = _AnswerReader("expiration_time", _LONGEST_LIFE)

    def mint(self, clock: Clock) -> Token:
        """A new token, valid for up to 60 minutes.

        Raises:
            ClockSkewError: It is already expired.
            LakebaseError: The workspace returned none.
        """
        before = _Moment.now(clock)
        request_id = str(uuid.uuid4())
        answer = self._control_plane.instance_credential(self._instance, request_id, **self._wishes)
        return self._reader.token(answer, before, clock)


class NativePassword:
    """Provides a native Postgres password, which does not expire."""

    def __init__(self, password: Secret) -> None:
        self._password = password

    def mint(self, clock: Clock) -> Token:
        """The password as a token without expiry."""
        return Token(
            self._password.reveal(), expires_at=None, minted_at=clock.wall(), minted_elapsed=clock.elapsed()
        )


def minter_for(config: LakebaseConfig, control_plane: ControlPlane | None, claims: Claims = ()) -> Minter:
    """The minter for the configuration.

    Args:
        config: The configuration.
        control_plane: The workspace; None with a native password.
        claims: What tokens may be used for; everything if empty.

    Raises:
        ConfigError: A setting does not fit the way to mint.
    """
    if config.auth == "password":
        if config.password is None:
            raise ConfigError("Setting 'password' is missing although auth is 'password'.")
        return NativePassword(config.password)
    assert control_plane is not None
    minter: Minter
    if config.endpoint is not None:
        minter = AutoscalingOAuth(control_plane, config.endpoint, ttl=config.credential_ttl, claims=claims)
    else:
        assert config.instance is not None
        if config.credential_ttl is not None:
            raise setting("credential_ttl").error(
                "is set together with 'instance'", remedy="Remove it: Lakebase Provisioned takes no lifetime."
            )
        minter = ProvisionedOAuth(control_plane, config.instance, claims=claims)
    if config.credential_store == "shared":
        from lakebase_provider.core.tokens.shared_store import shared_between_processes

        return shared_between_processes(minter, config, claims)
    return minter


@dataclass(frozen=True)
class _Moment:
    """A reading of both clocks, in seconds."""

    wall: float
    elapsed: float

    @classmethod
    def now(cls, clock: Clock) -> _Moment:
        return cls(clock.wall(), clock.elapsed())


class _AnswerReader:
    """Makes a token from the workspace's answer, and notices if the two clocks disagree.

    Args:
        expiry_field: The answer's field for the token's expiry.
        longest_life: Maximum lifetime in seconds of a token that does not say when it was issued.
    """

    def __init__(self, expiry_field: str, longest_life: float) -> None:
        self._expiry_field = expiry_field
        self._longest_life = longest_life
        self._warned = False

    def token(self, answer: Mapping[str, Any], before: _Moment, clock: Clock) -> Token:
        """The token in an answer to a request made at `before`.

        Its lifetime is counted from before the request, as if it had been issued at once, so it is never too
        long.
        """
        fields = Answer(answer, "a database credential")
        value = fields.token("token")
        expires_at = _expiry(fields, self._expiry_field)
        issued_at = _issued_at(value)
        if issued_at is not None and issued_at >= expires_at:
            issued_at = None
        if issued_at is not None and expires_at - issued_at > LONGEST_LIFE:
            raise fields.error(
                self._expiry_field, f"is more than {LONGEST_LIFE:.0f} s after the token's issue"
            )
        self._warn_of_skew(expires_at, issued_at, before.wall, clock.wall())
        skew = self._skew(expires_at, issued_at, before.wall)
        token = Token(value, expires_at, before.wall, before.elapsed, skew)
        if token.lifetime <= 0:
            raise ClockSkewError(
                f"The workspace's new token expired {-token.lifetime:.0f} s ago by this host's clock, which "
                f"reads {datetime.fromtimestamp(before.wall, timezone.utc):%Y-%m-%d %H:%M:%S} UTC."
            )
        return token

    def _skew(self, expires_at: float, issued_at: float | None, wall: float) -> float:
        """Seconds to add to this host's clock when judging the token."""
        if issued_at is None:
            # A token that would live longer than possible because this host's clock is behind.
            return max(0.0, expires_at - wall - self._longest_life)
        if issued_at >= wall or expires_at - wall < (expires_at - issued_at) / 2:
            return issued_at - wall
        # Issued in this host's past: its clock is ahead, or the workspace returned an earlier token again.
        # Then its remaining life by this host's clock is the shorter one, so it is right in either case; but
        # it is not believed if little or nothing is left, or every token would be renewed at once.
        return 0.0

    def _warn_of_skew(self, expires_at: float, issued_at: float | None, before: float, after: float) -> None:
        if issued_at is None:
            ahead = max(0.0, expires_at - after - self._longest_life)
        else:
            # Issued at some moment in between, so the clocks may agree.
            ahead = issued_at - min(max(issued_at, before), after)
        if abs(ahead) <= _NOTABLE_SKEW:
            self._warned = False
        elif not self._warned:
            self._warned = True
            logger.warning(
                "This host's clock is %.0f s %s the workspace's, according to the new token. Tokens expire "
                "by the workspace's clock.\nRemedy: synchronise this host's clock (NTP).",
                abs(ahead),
                "behind" if ahead > 0 else "ahead of",
            )


def _issued_at(token: str) -> float | None:
    """The claim ``iat`` of a JWT, in seconds since the epoch by its issuer's clock; None without one.

    Verifying the signature is the server's job: a wrong claim costs a mint, and grants nothing.
    """
    try:
        payload = token.split(".")[1]
        issued_at = float(parse_json(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["iat"])
    except (IndexError, KeyError, TypeError, ValueError, OverflowError):
        return None
    return issued_at if math.isfinite(issued_at) else None


def _expiry(fields: Answer, name: str) -> float:
    expires_at = fields.moment(name)
    if expires_at is None:
        raise fields.error(name, "is missing")
    return expires_at.timestamp()
