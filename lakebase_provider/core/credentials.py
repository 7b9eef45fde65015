"""Who mints the password: one small class for each way of obtaining one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from lakebase_provider.core.clock import Clock
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.control_plane import ControlPlane
from lakebase_provider.core.errors import ClockSkewError, ConfigError, ControlPlaneError
from lakebase_provider.core.provider import Minter
from lakebase_provider.core.secret import Secret
from lakebase_provider.core.token import Token


class AutoscalingOAuth:
    """Mints for a Lakebase Autoscaling endpoint."""

    def __init__(self, control_plane: ControlPlane, endpoint: str) -> None:
        self._control_plane = control_plane
        self._endpoint = endpoint

    def mint(self, clock: Clock) -> Token:
        """A new token, alive for up to 60 minutes."""
        return _token(self._control_plane.endpoint_credential(self._endpoint), "expire_time", clock)


class ProvisionedOAuth:
    """Mints for a Lakebase Provisioned instance."""

    def __init__(self, control_plane: ControlPlane, instance: str) -> None:
        self._control_plane = control_plane
        self._instance = instance

    def mint(self, clock: Clock) -> Token:
        """A new token, alive for up to 60 minutes."""
        answer = self._control_plane.instance_credential(self._instance, str(uuid.uuid4()))
        return _token(answer, "expiration_time", clock)


class NativePassword:
    """Hands out a native Postgres password, which does not expire."""

    def __init__(self, password: Secret) -> None:
        self._password = password

    def mint(self, clock: Clock) -> Token:
        """The password as a token without expiry."""
        return Token(
            self._password.reveal(), expires_at=None, minted_at=clock.wall(), minted_elapsed=clock.elapsed()
        )


def minter_for(config: LakebaseConfig, control_plane: ControlPlane | None) -> Minter:
    """The minter that the configuration asks for."""
    if config.auth == "password":
        if config.password is None:
            raise ConfigError("Setting 'password' is missing although auth is 'password'.")
        return NativePassword(config.password)
    assert control_plane is not None
    if config.endpoint is not None:
        return AutoscalingOAuth(control_plane, config.endpoint)
    assert config.instance is not None
    return ProvisionedOAuth(control_plane, config.instance)


def _token(answer: Mapping[str, Any], expiry_field: str, clock: Clock) -> Token:
    value = answer.get("token")
    if not isinstance(value, str) or not value:
        raise ControlPlaneError("The workspace answered without a token.")
    expires_at = _timestamp(answer.get(expiry_field), expiry_field)
    now = clock.wall()
    if expires_at <= now:
        raise ClockSkewError(
            f"The workspace's new token expired {now - expires_at:.0f} s ago by this host's clock, "
            f"which reads {datetime.fromtimestamp(now, timezone.utc):%Y-%m-%d %H:%M:%S} UTC."
        )
    return Token(value, expires_at=expires_at, minted_at=now, minted_elapsed=clock.elapsed())


def _timestamp(text: object, field: str) -> float:
    try:
        # Python < 3.11 reads neither "Z" nor a fraction of other than 3 or 6 digits.
        if not isinstance(text, str):
            raise ValueError
        head, dot, tail = text.replace("Z", "+00:00").partition(".")
        if dot:
            digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
            tail = digits[:6].ljust(6, "0") + tail[len(digits) :]
        moment = datetime.fromisoformat(head + dot + tail)
    except ValueError:
        raise ControlPlaneError(f"The workspace's answer has no readable '{field}'.") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
