"""One connection: a token, one deadline, patience with a waking compute, one re-mint, the real cause."""

from __future__ import annotations

import logging
import random
import threading
import time
from dataclasses import dataclass
from typing import Any

import psycopg

from lakebase_provider.core.backoff import Backoff
from lakebase_provider.core.clock import SYSTEM_CLOCK, Clock, Deadline
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.connection import LakebaseConnection
from lakebase_provider.core.errors import (
    DnsError,
    EndpointWakingError,
    LakebaseError,
    LoginRejectedError,
    classify_login,
)
from lakebase_provider.core.network import tls_parameters
from lakebase_provider.core.provider import TokenProvider
from lakebase_provider.core.target import Target, TargetResolver
from lakebase_provider.core.token import Token
from lakebase_provider.core.tracebacks import without_locals

logger = logging.getLogger(__name__)

_WAKING = Backoff(first=0.25, most=3.0, floor=0.05)
#: libpq reads a connect_timeout of 1 as 2 seconds.
_LEAST_CONNECT_TIMEOUT = 2


@dataclass(frozen=True)
class ConnectStats:
    """Counters of a :class:`Connector`.

    Attributes:
        connections: Physical connections opened.
        failures: Attempts that failed, waking included.
    """

    connections: int
    failures: int


class Connector:
    """Opens physical connections; everything that hands out a connection goes through here.

    Only *connecting* is retried, never a statement.

    Args:
        config: The configuration.
        tokens: Where passwords come from.
        targets: Where to connect and as whom.
        clock: Where the time comes from.
    """

    def __init__(
        self,
        config: LakebaseConfig,
        tokens: TokenProvider,
        targets: TargetResolver,
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._config = config
        self._tokens = tokens
        self._targets = targets
        self._clock = clock
        self._rng = random.SystemRandom()
        self._lock = threading.Lock()
        self._connections = 0
        self._failures = 0
        self.last_error: LakebaseError | None = None

    def connect(self, timeout: float | None = None, **parameters: Any) -> LakebaseConnection:
        """A new physical connection.

        Args:
            timeout: Seconds for token, resolution, connecting and waking together; the configuration's
                `connect_budget` by default.
            parameters: Further arguments of ``psycopg.connect``, such as ``autocommit``.

        Raises:
            LakebaseError: It could not be had in time, or never will; the driver's error is its cause.
        """
        deadline = Deadline(self._config.connect_budget if timeout is None else timeout, self._clock)
        attempt = 0
        reminted = resolved_again = False
        while True:
            token = self._tokens.get(deadline.remaining())
            target = self._targets.resolve()
            try:
                connection = self._login(target, token, deadline, parameters)
            except LakebaseError as error:
                with self._lock:
                    self._failures += 1
                self.last_error = error.again()
                if isinstance(error, LoginRejectedError) and self._config.auth == "oauth" and not reminted:
                    reminted = True
                    self._tokens.invalidate(token.fingerprint)
                    continue
                if isinstance(error, (DnsError, EndpointWakingError)) and not resolved_again:
                    resolved_again = True
                    if self._targets.forget_host() and isinstance(error, DnsError):
                        continue
                pause = _WAKING.seconds(attempt, self._rng)
                if not isinstance(error, EndpointWakingError) or pause >= deadline.remaining():
                    raise
                logger.warning("%s Next attempt in %.2f s.", error.message, pause)
                self._clock.sleep(pause)
                attempt += 1
            else:
                with self._lock:
                    self._connections += 1
                self.last_error = None
                connection.last_used = time.monotonic()
                logger.info(
                    "Connected to %s in %.0f ms", target, (deadline.seconds - deadline.remaining()) * 1000
                )
                return connection

    def stats(self) -> ConnectStats:
        """The counters, since this connector was made."""
        return ConnectStats(self._connections, self._failures)

    def _login(
        self, target: Target, token: Token, deadline: Deadline, parameters: dict[str, Any]
    ) -> LakebaseConnection:
        try:
            return LakebaseConnection.connect(
                host=target.host,
                port=target.port,
                dbname=target.database,
                user=target.user,
                password=token.reveal(),
                connect_timeout=max(_LEAST_CONNECT_TIMEOUT, round(deadline.remaining())),
                **self._session_parameters(),
                **parameters,
            )
        except (psycopg.Error, OSError, UnicodeError) as error:
            # The driver's frames hold the password; the cause keeps its text and loses its frames.
            raise classify_login(str(error), where=str(target)) from without_locals(error)

    def _session_parameters(self) -> dict[str, str]:
        config = self._config
        options = []
        for name in ("statement_timeout", "lock_timeout"):
            seconds = getattr(config, name)
            if seconds is not None:
                options.append(f"-c {name}={max(1, round(seconds * 1000))}")
        return {
            **tls_parameters(config),
            "application_name": config.application_name,
            # Given even when empty: PGOPTIONS and PGHOSTADDR of the environment must not take effect.
            "options": " ".join(options),
            "hostaddr": "",
        }
