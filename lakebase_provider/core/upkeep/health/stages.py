"""Is the database reachable, and if not, which step fails and what helps: the staged check."""

from __future__ import annotations

import logging
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import certifi
import psycopg

from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.connect.connector import Connector
from lakebase_provider.core.connect.network import resolve
from lakebase_provider.core.connect.target import Target, TargetResolver
from lakebase_provider.core.errors import (
    ConfigError,
    HealthCheckError,
    LakebaseError,
    TlsError,
)
from lakebase_provider.core.errors.redaction import redacted
from lakebase_provider.core.errors.texts import classify_login
from lakebase_provider.core.errors.tracebacks import without_locals
from lakebase_provider.core.tokens.cache import TokenProvider
from lakebase_provider.core.upkeep.health.stage_names import STAGES, with_foundations

logger = logging.getLogger(__name__)

Status = Literal["ok", "failed", "skipped"]

#: Each figure with the stage that measures it. A native password has no `token_seconds`.
FIGURES: dict[str, str] = {
    "token_seconds": "credential",  # seconds of life that the token has left
    "connect_ms": "login",  # milliseconds to connect to an awake compute
    "wake_seconds": "login",  # seconds that the compute took to wake; 0 below half a second
    "connections": "query",  # sessions of all databases on the server
    "max_connections": "query",  # sessions that the server allows
}

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
#: Seconds. A faster login did not wait for the compute, or not long enough to matter.
_WAKE_SUSPECTED = 0.5
#: Seconds to learn from the workspace whether a host that is set is another endpoint's.
_COMPARE_SECONDS = 5.0
#: pg_stat_activity hides other roles' sessions from a role; this counts them without a privilege.
_WHO_AND_HOW_MANY = """
    SELECT current_user, current_database(),
        (SELECT sum(numbackends)::int FROM pg_catalog.pg_stat_database WHERE datid <> 0),
        current_setting('max_connections')::int
"""


@dataclass(frozen=True)
class StageResult:
    """What one stage found.

    Attributes:
        name: One of ``STAGES``.
        status: ``ok``, ``failed``, or ``skipped`` because an earlier stage failed.
        ms: How long it took, in milliseconds.
        detail: What was found, in one line.
        remedy: What to do; empty unless it failed.
        code: The error's code; empty unless it failed.
        retryable: Whether it may succeed later by itself; False unless it failed.
        figures: What it measured, by the names of ``FIGURES``.
    """

    name: str
    status: Status
    ms: float = 0.0
    detail: str = ""
    remedy: str = ""
    code: str = ""
    retryable: bool = False
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class HealthReport:
    """What the staged check found."""

    stages: tuple[StageResult, ...]

    @property
    def ok(self) -> bool:
        """True if every requested stage succeeded."""
        return all(stage.status == "ok" for stage in self.stages)

    @property
    def first_failure(self) -> StageResult | None:
        """The stage to look at first."""
        return next((stage for stage in self.stages if stage.status == "failed"), None)

    def stage(self, name: str) -> StageResult:
        """The result of the stage of that name."""
        return next(stage for stage in self.stages if stage.name == name)

    @property
    def figures(self) -> dict[str, float]:
        """What the successful stages measured, by the names of ``FIGURES``."""
        return {name: value for stage in self.stages for name, value in stage.figures.items()}

    def raise_for_failure(self) -> None:
        """Raise :class:`~lakebase_provider.core.errors.HealthCheckError` unless the report is ok."""
        failed = self.first_failure
        if failed is not None:
            raise HealthCheckError(
                f"Health check stage '{failed.name}' failed ({failed.code}): {failed.detail}",
                remedy=failed.remedy,
                retryable=failed.retryable,
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON or XCom."""
        return {
            "ok": self.ok,
            "figures": {name: round(value, 2) for name, value in self.figures.items()},
            "stages": [
                {
                    "name": s.name,
                    "status": s.status,
                    "ms": round(s.ms, 2),
                    "detail": s.detail,
                    "remedy": s.remedy,
                    "code": s.code,
                }
                for s in self.stages
            ],
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> HealthReport:
        """The report that :meth:`to_dict` has made plain; it does not tell whether an error passes by itself.

        Raises:
            ConfigError: It is something else.
        """
        try:
            figures = plain["figures"]
            stages = (
                StageResult(
                    **stage,
                    figures={name: figures[name] for name in figures if FIGURES[name] == stage["name"]},
                )
                for stage in plain["stages"]
            )
            return cls(tuple(stages))
        except (KeyError, TypeError):
            raise ConfigError(
                "This is no report of a health check.", remedy="Give what to_dict() has made."
            ) from None

    def to_text(self) -> str:
        """A table with a line for each stage, and a remedy under each that failed."""
        lines = [f"{'stage':<11}{'status':<9}{'ms':>9}  detail"]
        for s in self.stages:
            lines.append(f"{s.name:<11}{s.status:<9}{s.ms:>9.1f}  {s.detail}")
            if s.remedy:
                lines.append(f"{'':<31}remedy: {s.remedy}")
        return "\n".join(lines)

    def summary(self) -> str:
        """One line, where a table would lose its shape: what failed, its remedy, and what passed."""
        well = ", ".join(f"{s.name} {s.ms:.0f} ms" for s in self.stages if s.status == "ok")
        failed = self.first_failure
        if failed is None:
            return f"All is well: {well}."
        told = f"Stage {failed.name} failed: {failed.detail.rstrip('.')}. Remedy: {failed.remedy}"
        return f"{told} Passed: {well or 'nothing'}."


class HealthCheck:
    """Runs the stages, each with its own timeout, without a pool.

    Args:
        config: TLS settings and budget.
        tokens: Where the credential comes from.
        targets: Where the database is.
        connector: Opens the one physical connection.
    """

    def __init__(
        self, config: LakebaseConfig, tokens: TokenProvider, targets: TargetResolver, connector: Connector
    ) -> None:
        self._config = config
        self._tokens = tokens
        self._targets = targets
        self._connector = connector
        self._target: Target | None = None
        self._addresses: tuple[str, ...] = ()
        self._socket: socket.socket | None = None
        self._connection: LakebaseConnection | None = None
        self._figures: dict[str, float] = {}

    def run(self, checks: Iterable[str] | None = None, *, timeout: float | None = None) -> HealthReport:
        """Run the requested stages and those that they depend on.

        Args:
            checks: Names of stages; all by default.
            timeout: Timeout of each stage in seconds; the configuration's `connect_budget` by default.

        Raises:
            ConfigError: A stage is unknown.
        """
        seconds = self._config.connect_budget if timeout is None else timeout
        wanted = with_foundations(STAGES if checks is None else checks)
        results: dict[str, StageResult] = {}
        try:
            for name in (stage for stage in STAGES if stage in wanted):
                if all(results[needed].status == "ok" for needed in STAGES[name]):
                    results[name] = self._run_stage(name, seconds)
                else:
                    results[name] = StageResult(name, "skipped")
        finally:
            if self._socket is not None:
                self._socket.close()
            if self._connection is not None:
                self._connection.close()
        return HealthReport(tuple(results.values()))

    def _run_stage(self, name: str, seconds: float) -> StageResult:
        stage: Callable[[float], str] = getattr(self, f"_{name}")
        self._figures = {}
        start = time.perf_counter()
        try:
            detail = stage(seconds)
        except Exception as error:  # whatever it is, the caller asked for a report
            ms = (time.perf_counter() - start) * 1000
            known = error if isinstance(error, LakebaseError) else self._classify(error, name)
            self._connector.names.tell(known)
            logger.warning("Health check stage %s failed after %.0f ms: %s", name, ms, known)
            return StageResult(name, "failed", ms, known.message, known.remedy, known.code, known.retryable)
        ms = (time.perf_counter() - start) * 1000
        logger.info("Health check stage %s ok in %.0f ms: %s", name, ms, detail)
        return StageResult(name, "ok", ms, detail, figures=self._figures)

    def _classify(self, error: BaseException, name: str) -> LakebaseError:
        text = redacted(str(without_locals(error)))
        if not isinstance(error, (psycopg.Error, OSError, UnicodeError)):
            return LakebaseError(
                f"Stage {name} failed unexpectedly: {type(error).__name__}: {' '.join(text.split())}",
                remedy="Check the settings and the versions of psycopg and databricks-sdk.",
            )
        if name in ("query", "write"):
            return LakebaseError(
                f"Stage {name}: {' '.join(text.split())}",
                remedy="Grant the role what it needs: CONNECT and, for write, TEMPORARY on the database.",
            )
        return classify_login(text, where=str(self._target))

    def _resolve(self, seconds: float) -> str:
        self._target = self._targets.resolve(seconds)
        self._targets.require_own_host(min(seconds, _COMPARE_SECONDS))
        return str(self._target)

    def _credential(self, seconds: float) -> str:
        token = self._tokens.get(seconds)
        if token.expires_at is None:
            return "native password"
        left = self._figures["token_seconds"] = self._tokens.seconds_left(token)
        return f"token {token.fingerprint}, {left:.0f} s left"

    def _dns(self, seconds: float) -> str:
        target = self._known_target()
        found = resolve(target.host, target.port, seconds)
        self._addresses = found.addresses
        by = "" if found.resolver == "system" else " (through name servers; the system's resolver fails)"
        return ", ".join(found.addresses) + by

    def _tcp(self, seconds: float) -> str:
        target = self._known_target()
        for position, address in enumerate(self._addresses):
            try:
                self._socket = socket.create_connection((address, target.port), timeout=seconds)
                break
            except OSError:
                if position + 1 == len(self._addresses):
                    raise
        assert self._socket is not None
        return "port {1} of {0}".format(*self._socket.getpeername()[:2])

    def _tls(self, seconds: float) -> str:
        assert self._socket is not None
        self._socket.settimeout(seconds)
        self._socket.sendall(_SSL_REQUEST)
        if self._socket.recv(1) != b"S":
            raise TlsError(
                "The server does not offer TLS.", remedy="Check that host and port are Lakebase's."
            )
        with _tls_context(self._config).wrap_socket(
            self._socket, server_hostname=self._known_target().host
        ) as encrypted:
            cipher = encrypted.cipher()
            detail = f"{encrypted.version()}, {cipher[0] if cipher else 'no cipher'}"
        if self._config.sslmode == "require":
            detail += "; certificate not verified (sslmode=require)"
        return detail

    def _login(self, seconds: float) -> str:
        failures = self._connector.stats().failures
        start = time.perf_counter()
        self._connection = self._connector.connect(seconds, autocommit=True)
        took = time.perf_counter() - start
        detail = f"server {_version(self._connection)}"
        # A waking compute refuses logins or holds them; a second connect distinguishes waking from a slow
        # network.
        if self._connector.stats().failures == failures and took < _WAKE_SUSPECTED:
            self._figures.update(connect_ms=took * 1000, wake_seconds=0.0)
            return detail
        start = time.perf_counter()
        self._connector.connect(seconds).close()
        awake = time.perf_counter() - start
        self._figures.update(connect_ms=awake * 1000, wake_seconds=max(0.0, took - awake))
        return f"{detail}; {max(0.0, took - awake):.1f} s longer than the next one"

    def _query(self, seconds: float) -> str:
        user, database, sessions, limit = self._rows(_WHO_AND_HOW_MANY)
        self._figures.update(connections=float(sessions), max_connections=float(limit))
        return f"{user} in {database}; {sessions} of {limit} connections"

    def _write(self, seconds: float) -> str:
        assert self._connection is not None
        with self._connection.transaction(force_rollback=True):
            self._rows("CREATE TEMPORARY TABLE lakebase_health (ok bool) ON COMMIT DROP")
            self._rows("INSERT INTO lakebase_health VALUES (true)")
            read_only = self._rows("SHOW transaction_read_only")[0]
        return f"temporary table written and rolled back (transaction_read_only={read_only})"

    def _rows(self, sql: str) -> tuple[Any, ...]:
        assert self._connection is not None
        cursor = self._connection.execute(sql.encode())
        return (cursor.fetchone() or ()) if cursor.description else ()

    def _known_target(self) -> Target:
        assert self._target is not None
        return self._target


def _tls_context(config: LakebaseConfig) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=config.sslrootcert or certifi.where())
    context.check_hostname = config.sslmode == "verify-full"
    if config.sslmode == "require":
        context.verify_mode = ssl.CERT_NONE
    return context


def _version(connection: LakebaseConnection) -> str:
    major, minor = divmod(connection.info.server_version, 10000)
    return f"{major}.{minor}"
