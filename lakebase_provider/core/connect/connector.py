"""One connection: a token, one deadline, patience with a waking compute, one re-mint, the real cause."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg

from lakebase_provider.core.base import telemetry
from lakebase_provider.core.base.clock import SYSTEM_CLOCK, Clock, Deadline
from lakebase_provider.core.base.plain_text import flaw
from lakebase_provider.core.base.waiting_log import WaitingLog
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.connect.attempts import Attempts
from lakebase_provider.core.connect.cancel import remember
from lakebase_provider.core.connect.connection import AsyncLakebaseConnection, LakebaseConnection
from lakebase_provider.core.connect.network import (
    neutral_parameters,
    refused_parameters,
    resolve,
    tls_parameters,
    warn_of_session_variables,
)
from lakebase_provider.core.connect.target import Target, TargetResolver
from lakebase_provider.core.errors import (
    ConfigError,
    ControlPlaneTimeoutError,
    LakebaseError,
    SessionSettingError,
)
from lakebase_provider.core.errors.client_names import Names
from lakebase_provider.core.errors.server_ends import EndpointGone
from lakebase_provider.core.errors.texts import classify_login
from lakebase_provider.core.errors.tracebacks import without_locals
from lakebase_provider.core.tokens.cache import TokenProvider

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")

#: Seconds for the server's confirmation that it has ended a statement.
_ANSWER_GRACE = 5.0
#: Seconds for name servers to answer if the system's resolver did not.
_NAME_SERVER_TIMEOUT = 5.0
#: Seconds to learn from the workspace why a session was lost.
_LOSS_SECONDS = 3.0
#: Seconds after which the duration of connecting is worth a log line: a compute woke, or a link is bad.
_SLOW = 1.0
#: Settings with which a session starts if the server accepts them. The interval, in milliseconds, ends the
#: statement of a killed task; Postgres < 14, some of its platforms and some poolers refuse it.
_OPTIONAL_SETTINGS = {"client_connection_check_interval": "1000"}
#: What a failed login raises. On Python 3.10, asyncio's timeout is not an OSError.
_DRIVER_ERRORS = (psycopg.Error, OSError, UnicodeError, asyncio.TimeoutError)


@dataclass(frozen=True)
class ConnectStats:
    """Counters of a :class:`Connector`.

    Attributes:
        connections: Physical connections opened.
        failures: Attempts that failed, waking included.
    """

    connections: int
    failures: int


_SETTLED = frozenset(
    {"host", "hostaddr", "port", "dbname", "user", "password", "connect_timeout", "application_name"}
    | {"client_encoding", "options"}
)


class Connector:
    """Opens physical connections; everything that hands out a connection goes through here.

    Only *connecting* is retried, never a statement.

    Args:
        config: The configuration.
        tokens: Where passwords come from.
        targets: Where to connect and as whom.
        names: What its errors call the client.
        clock: Where the time comes from.
    """

    def __init__(
        self,
        config: LakebaseConfig,
        tokens: TokenProvider,
        targets: TargetResolver,
        *,
        names: Names | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._config = config
        self._tokens = tokens
        self._targets = targets
        self._clock = clock
        self._lock = threading.Lock()
        self._connections = 0
        self._failures = 0
        self._optional_settings = _OPTIONAL_SETTINGS
        self.last_error: LakebaseError | None = None
        #: Its users' names for it.
        self.names = Names() if names is None else names

    @property
    def settled(self) -> frozenset[str]:
        """Names of the arguments of ``psycopg.connect`` that the configuration sets."""
        return _SETTLED | tls_parameters(self._config).keys()

    def connect(
        self, timeout: float | None = None, *, waiting: WaitingLog | None = None, **parameters: Any
    ) -> LakebaseConnection:
        """A new physical connection.

        Args:
            timeout: Seconds for token, resolution, connecting and waking together; the configuration's
                `connect_budget` by default.
            waiting: Logs a wait; this call's own by default.
            parameters: Further arguments of ``psycopg.connect``, such as ``autocommit``.

        Raises:
            LakebaseError: It could not be opened, or not in time; the driver's error is its cause.
        """
        attempts = self._attempts(timeout, waiting)
        while True:
            try:
                attempts.token = self._tokens.get(attempts.deadline.remaining())
                location = self._locate(attempts)
                with telemetry.span("connect") as span:
                    span.set(token_seconds_left=self._tokens.seconds_left(attempts.token))
                    connection = self._login(location, attempts, parameters)
            except LakebaseError as error:
                self._clock.sleep(self._pause_after(error, attempts))
            else:
                self._note_success(connection, location, attempts)
                return connection

    async def aconnect(self, timeout: float | None = None, **parameters: Any) -> AsyncLakebaseConnection:
        """A new physical connection for asyncio; the event loop keeps running while it is opened.

        Args:
            timeout: Seconds for token, resolution, connecting and waking together; the configuration's
                `connect_budget` by default.
            parameters: Further arguments of ``psycopg.AsyncConnection.connect``, such as ``autocommit``.

        Raises:
            LakebaseError: It could not be opened, or not in time; the driver's error is its cause.
        """
        attempts = self._attempts(timeout)
        while True:
            try:
                attempts.token = await self._tokens.aget(attempts.deadline.remaining())
                location = await self._alocate(attempts)
                with telemetry.span("connect") as span:
                    span.set(token_seconds_left=self._tokens.seconds_left(attempts.token))
                    connection = await self._alogin(location, attempts, parameters)
            except LakebaseError as error:
                await asyncio.sleep(self._pause_after(error, attempts))
            else:
                self._note_success(connection, location, attempts)
                return connection

    def stats(self) -> ConnectStats:
        """The counters, since this connector was made."""
        return ConnectStats(self._connections, self._failures)

    def _attempts(self, timeout: float | None, waiting: WaitingLog | None = None) -> Attempts:
        seconds = self._config.connect_budget if timeout is None else timeout
        return Attempts(Deadline(seconds, self._clock), self._tokens, self._targets, waiting)

    def _pause_after(self, error: LakebaseError, attempts: Attempts) -> float:
        with self._lock:
            self._failures += 1
        self.names.tell(error)
        self.last_error = error.again()
        if isinstance(error, SessionSettingError) and self._optional_settings:
            # Not worth losing a connection. If a different setting is refused, the next attempt shows it at
            # once.
            logger.info("Continuing without %s: %s", ", ".join(self._optional_settings), error.message)
            self._optional_settings = {}
            return 0.0
        return attempts.pause_after(error)

    def _note_success(
        self,
        connection: LakebaseConnection | AsyncLakebaseConnection,
        location: _Location,
        attempts: Attempts,
    ) -> None:
        with self._lock:
            self._connections += 1
        self.last_error = None
        connection.last_used = time.monotonic()
        remember(connection._holder)
        connection._holder.ask_why_lost = self._why_lost
        if self._config.statement_timeout is not None:
            # The server ends the statement; on a silent link its answer never arrives.
            connection.answer_timeout = self._config.statement_timeout + _ANSWER_GRACE
        seconds = attempts.deadline.seconds - attempts.deadline.remaining()
        # A line for each would fill the log of frequent connects, such as a sensor's.
        level = logging.DEBUG if seconds < _SLOW else logging.INFO
        logger.log(level, "Connected to %s in %.0f ms", location, seconds * 1000)

    def _why_lost(self) -> EndpointGone | None:
        error = self._targets.gone(_LOSS_SECONDS)
        if error is None:
            return None
        gone = EndpointGone(f"The session is lost, as its endpoint is there no more: {error.message}")
        self.names.tell(gone)
        return gone

    def _locate(self, attempts: Attempts) -> _Location:
        """Where to connect, for this attempt only, since an address may move. Blocks."""
        target = self._targets.resolve(attempts.deadline.remaining())
        if attempts.resolver_failed:
            seconds = min(_NAME_SERVER_TIMEOUT, attempts.deadline.remaining())
            return _Location(target, resolve(target.host, target.port, seconds).addresses)
        return _Location(target)

    async def _alocate(self, attempts: Attempts) -> _Location:
        seconds = attempts.deadline.remaining()
        try:
            return await _within(seconds, asyncio.to_thread(self._locate, attempts))
        except asyncio.TimeoutError:
            raise ControlPlaneTimeoutError(
                f"The workspace did not return the database's host within {seconds:.1f} s."
            ) from None

    def _login(
        self, location: _Location, attempts: Attempts, parameters: dict[str, Any]
    ) -> LakebaseConnection:
        try:
            seconds = attempts.deadline.remaining()
            return LakebaseConnection.connect(
                **self._arguments(location, attempts, parameters), within=seconds
            )
        except _DRIVER_ERRORS as error:
            raise _typed(error, location) from without_locals(error)
        except BaseException as error:
            # Such as a task's timeout or cancellation, which may be logged with the frames' variables.
            raise without_locals(error) from error.__cause__

    async def _alogin(
        self, location: _Location, attempts: Attempts, parameters: dict[str, Any]
    ) -> AsyncLakebaseConnection:
        try:
            return await _within(
                attempts.deadline.remaining(),
                AsyncLakebaseConnection.connect(**self._arguments(location, attempts, parameters)),
            )
        except _DRIVER_ERRORS as error:
            raise _typed(error, location) from without_locals(error)
        except BaseException as error:
            raise without_locals(error) from error.__cause__

    def _arguments(
        self, location: _Location, attempts: Attempts, parameters: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Arguments for psycopg's ``connect``: all of libpq's parameters that the environment could set."""
        warn_of_session_variables()
        ours = self._own_arguments(location, attempts)
        assert ours.keys() == self.settled
        refused = refused_parameters(parameters)
        if refused:
            raise ConfigError(
                f"The connection's {', '.join(refused)} cannot be given to connect().",
                remedy="Set it in the configuration, if it is a setting.",
            )
        arguments = {**neutral_parameters(), **parameters, **ours}
        # Checked again, whatever was checked before: a NUL would end libpq's connection string. All at once,
        # as it is done for each connection.
        texts = {name: value for name, value in arguments.items() if isinstance(value, str)}
        if flaw("".join(texts.values())) is not None:
            name, found = next((name, found) for name, value in texts.items() if (found := flaw(value)))
            raise ConfigError(f"The connection's {name} holds {found}; nothing was sent.")
        return arguments

    def _own_arguments(self, location: _Location, attempts: Attempts) -> dict[str, Any]:
        assert attempts.token is not None
        config = self._config
        settings = dict(self._optional_settings)
        for name in ("statement_timeout", "lock_timeout"):
            seconds = getattr(config, name)
            if seconds is not None:
                settings[name] = str(max(1, round(seconds * 1000)))
        return {
            **location.parameters(),
            **tls_parameters(config),
            "password": attempts.token.reveal(),
            # In whole seconds, at least two: more than is left, which is a limit of its own.
            "connect_timeout": math.ceil(attempts.deadline.remaining()) + 2,
            "application_name": config.application_name,
            # Statements as bytes and binary COPY use this encoding: PGCLIENTENCODING must not take effect.
            "client_encoding": "UTF8",
            # Set even if empty: PGOPTIONS of the environment must not take effect.
            "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
        }


@dataclass(frozen=True)
class _Location:
    """A target, and its addresses if the system's resolver does not know them."""

    target: Target
    addresses: tuple[str, ...] = ()

    def __str__(self) -> str:
        return str(self.target)

    def parameters(self) -> dict[str, Any]:
        # The host is kept with the address: the certificate must be for it.
        hosts = [self.target.host] * max(1, len(self.addresses))
        return {
            "host": ",".join(hosts),
            # Set even if empty: PGHOSTADDR of the environment must not take effect.
            "hostaddr": ",".join(self.addresses),
            "port": self.target.port,
            "dbname": self.target.database,
            "user": self.target.user,
        }


def _typed(error: BaseException, location: _Location) -> LakebaseError:
    # asyncio's own timeout has no text.
    return classify_login(str(error) or "connection timeout expired", where=str(location))


async def _within(seconds: float, work: Coroutine[Any, Any, _Result]) -> _Result:
    # Not asyncio.wait_for: before Python 3.12 it swallows a cancellation that coincides with the result, and
    # the canceller keeps waiting.
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        task.add_done_callback(_discard)
        raise
    if not done:
        task.cancel()
        task.add_done_callback(_discard)
        raise asyncio.TimeoutError
    return task.result()


def _discard(task: asyncio.Task[Any]) -> None:
    """Nobody waits for the result any more; a connection that arrives at that moment is closed."""
    if (
        not task.cancelled()
        and task.exception() is None
        and isinstance(task.result(), AsyncLakebaseConnection)
    ):
        task.result().pgconn.finish()
