"""What can go wrong, and what to do about it.

Every failure of a driver, a resolver or the control plane becomes one of these, once, in
:func:`classify_login` or :func:`classify_control_plane`; the original error is its ``__cause__``::

    LakebaseError
    ├── ConfigError                      what the caller wrote cannot work
    │   └── ForkedPoolError              an inherited pool was used in a forked child
    ├── ControlPlaneError                the workspace did not give what was asked
    │   ├── NotAuthenticatedError        it does not know the caller
    │   ├── PermissionDeniedError        it knows the caller and refuses
    │   ├── EndpointNotFoundError        no such endpoint or instance
    │   ├── ControlPlaneThrottledError   429
    │   ├── ControlPlaneUnavailableError 5xx, or not reachable
    │   └── ControlPlaneTimeoutError     no answer within the caller's deadline
    ├── LakebaseConnectionError          the database was not reached
    │   ├── DnsError                     its name does not resolve
    │   ├── TlsError                     it could not prove who it is, or speaks no TLS
    │   ├── EndpointWakingError          the compute is starting, or did not answer
    │   ├── EndpointDisabledError        the endpoint is switched off
    │   ├── LoginRejectedError           it refuses the role or the password
    │   ├── DatabaseMissingError         no such database
    │   ├── SessionSettingError          it refuses a setting that the session starts with
    │   └── TooManyConnectionsError      the server is full
    ├── PoolExhaustedError               no pooled connection became free in time
    ├── ClockSkewError                   this host's clock disagrees with the workspace's
    └── HealthCheckError                 a health report has a failed stage

Patterns come from the public documentation's troubleshooting tables, public issue trackers and the
open-source Neon proxy, from which Lakebase descends. They are data: add a row, do not add a branch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar


class LakebaseError(Exception):
    """Base of every error that this package raises on purpose.

    Args:
        message: What happened, in one line and without secrets.
        remedy: What to do; defaults to the class's own remedy.
        retry_after: Seconds after which a retry may succeed, where the server said so.
        retryable: Whether a retry may succeed, where that depends on more than the kind.

    Attributes:
        code: Stable name of the error's kind, for logs and alerts.
        retryable: True if the same call may succeed later without anybody changing anything.
        remedy: One line that says what to do.
    """

    code: ClassVar[str] = "lakebase"
    retryable: bool = False
    default_remedy: ClassVar[str] = "See the cause below."

    def __init__(
        self,
        message: str,
        *,
        remedy: str | None = None,
        retry_after: float | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        if retryable is not None:
            self.retryable = retryable
        self.message = message
        self.remedy = remedy or self.default_remedy
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.message} [{self.code}] Remedy: {self.remedy}"

    def again(self) -> LakebaseError:
        """A copy to raise in another thread: one exception object must not collect many tracebacks."""
        return _rebuild(type(self), self.message, self.remedy, self.retry_after, self.retryable)

    def __reduce__(self) -> tuple[object, ...]:
        values = (type(self), self.message, self.remedy, self.retry_after, self.retryable)
        return (_rebuild, values)


def _rebuild(
    kind: type[LakebaseError], message: str, remedy: str, retry_after: float | None, retryable: bool
) -> LakebaseError:
    return kind(message, remedy=remedy, retry_after=retry_after, retryable=retryable)


class ConfigError(LakebaseError):
    """A setting is missing, malformed or contradicts another; raised before any network call."""

    code = "config"
    default_remedy = "Correct the setting that the message names."


class ForkedPoolError(ConfigError):
    """A pool opened in a parent process was used in its forked child."""

    code = "forked_pool"
    default_remedy = "Open connections in the process that uses them."


class ControlPlaneError(LakebaseError):
    """The workspace answered with an error that has no class of its own."""

    code = "control_plane"
    default_remedy = "Check the request's settings against the message of the workspace."


class NotAuthenticatedError(ControlPlaneError):
    """The workspace does not accept the credentials."""

    code = "not_authenticated"
    default_remedy = "Check the client id and secret (or the token), and that the secret has not expired."


class PermissionDeniedError(ControlPlaneError):
    """The workspace knows the principal and refuses the request."""

    code = "permission_denied"
    default_remedy = "Grant the principal CAN USE on the Lakebase project, in the workspace's settings."


class EndpointNotFoundError(ControlPlaneError):
    """The project, branch, endpoint or instance does not exist, or the principal cannot see it."""

    code = "endpoint_not_found"
    default_remedy = (
        "Use endpoint = projects/<project>/branches/<branch>/endpoints/<endpoint>, "
        "with ids and not display names."
    )


class ControlPlaneThrottledError(ControlPlaneError):
    """The workspace limits the rate of requests (429)."""

    code = "control_plane_throttled"
    retryable = True
    default_remedy = "Retry later; fewer processes that start at the same second ask less at once."


class ControlPlaneUnavailableError(ControlPlaneError):
    """The workspace failed (5xx) or could not be reached."""

    code = "control_plane_unavailable"
    retryable = True
    default_remedy = "Retry; if it lasts, check the workspace's URL, the network path and the status page."


class ControlPlaneTimeoutError(ControlPlaneError):
    """The workspace did not answer before the caller's deadline."""

    code = "control_plane_timeout"
    retryable = True
    default_remedy = "Retry; if it lasts, check the network path to the workspace, or raise connect_budget."


class LakebaseConnectionError(LakebaseError):
    """The database was not reached, for a reason that has no class of its own."""

    code = "connection"
    retryable = True
    default_remedy = "Retry; if it lasts, run `lakebase doctor` to see which stage fails."


class DnsError(LakebaseConnectionError):
    """The database's host name does not resolve."""

    code = "dns"
    default_remedy = "Check the host; on a private link, check that this machine uses its DNS zone."


class TlsError(LakebaseConnectionError):
    """The server's certificate is not trusted, or TLS is missing."""

    code = "tls"
    retryable = False
    default_remedy = "Check host and sslrootcert; a proxy that rewrites TLS needs its CA in sslrootcert."


class EndpointWakingError(LakebaseConnectionError):
    """The compute is starting after scale to zero, or does not answer yet."""

    code = "endpoint_waking"
    default_remedy = "Retry; raise connect_budget if the compute needs longer to start."


class EndpointDisabledError(LakebaseConnectionError):
    """The endpoint is switched off."""

    code = "endpoint_disabled"
    retryable = False
    default_remedy = "Enable the endpoint in the Lakebase console, or use another one."


class LoginRejectedError(LakebaseConnectionError):
    """The server refuses the role or the password."""

    code = "login_rejected"
    retryable = False
    default_remedy = (
        "Use the service principal's client id as user, and create its role in SQL: "
        "SELECT databricks_create_role('<client id>', 'SERVICE_PRINCIPAL')."
    )


class DatabaseMissingError(LakebaseConnectionError):
    """The server has no database of that name."""

    code = "database_missing"
    retryable = False
    default_remedy = "Check the database's name; Lakebase creates `databricks_postgres`."


class SessionSettingError(LakebaseConnectionError):
    """The server, or a pooler before it, refuses a setting that the session was to start with."""

    code = "session_setting"
    retryable = False
    default_remedy = "Leave the setting that the message names out, or set it by SQL once connected."


class TooManyConnectionsError(LakebaseConnectionError):
    """The endpoint's connection limit is reached."""

    code = "too_many_connections"
    default_remedy = (
        "Retry; lower max_size, run fewer tasks at once (an Airflow or Dagster pool), "
        "or use a larger endpoint."
    )


class PoolExhaustedError(LakebaseError):
    """No connection of the pool became free before the deadline."""

    code = "pool_exhausted"
    retryable = True
    default_remedy = "Hand connections back sooner (use `with`), or raise max_size."


class ClockSkewError(LakebaseError):
    """This host's clock disagrees with the workspace's, so a new token already looks expired."""

    code = "clock_skew"
    default_remedy = "Synchronise this host's clock (NTP)."


class HealthCheckError(LakebaseError):
    """At least one stage of a health report failed."""

    code = "health_check"
    retryable = True
    default_remedy = "Do what the failed stage's remedy says."


@dataclass(frozen=True)
class _Pattern:
    regex: re.Pattern[str]
    kind: type[LakebaseError]
    remedy: str | None = None


def _pattern(regex: str, kind: type[LakebaseError], remedy: str | None = None) -> _Pattern:
    return _Pattern(re.compile(regex, re.IGNORECASE), kind, remedy)


#: Texts of a failed connect. libpq gives no SQLSTATE there, so the text is all there is. First match wins.
LOGIN_PATTERNS: tuple[_Pattern, ...] = (
    _pattern(
        r"not a valid JWT encoding",
        LoginRejectedError,
        "Use a database credential as password, not a workspace token or PAT: auth=oauth mints one.",
    ),
    _pattern(
        r"is blocked by Databricks IP ACL",
        PermissionDeniedError,
        "Add this machine's address to the workspace's IP access list.",
    ),
    _pattern(r"endpoint is disabled", EndpointDisabledError),
    _pattern(r"endpoint cannot be found", EndpointNotFoundError),
    _pattern(r"paused instances|External authorization failed", EndpointWakingError),
    _pattern(
        r"password authentication failed|databricks identity login|JWT token has expired"
        r"|Failed to decode token|role \".*\" (does not exist|is not permitted)",
        LoginRejectedError,
    ),
    _pattern(r"database \".*\" does not exist", DatabaseMissingError),
    _pattern(
        r"(unrecognized configuration|unsupported startup|invalid value for|permission denied to set)"
        r" parameter",
        SessionSettingError,
    ),
    _pattern(r"too many (connections|clients)|remaining connection slots", TooManyConnectionsError),
    _pattern(
        r"connection is insecure|does not support SSL|SSL required",
        TlsError,
        "Lakebase accepts TLS only: use sslmode=verify-full (or require).",
    ),
    _pattern(
        r"certificate verify failed|certificate .*does not match|root certificate file|SSL error",
        TlsError,
    ),
    _pattern(
        r"failed to resolve host|could not translate host name|nodename nor servname"
        r"|name or service not known|label (empty or )?too long",
        DnsError,
    ),
    _pattern(
        r"connection refused|timeout expired|timed out|starting up|shutting down|connection reset"
        r"|recovery mode|not yet accepting connections"
        r"|server closed the connection|network is unreachable|no route to host|unexpected eof",
        EndpointWakingError,
    ),
)

#: Texts of the workspace's error bodies that say more than their status. First match wins.
CONTROL_PLANE_PATTERNS: tuple[_Pattern, ...] = (
    _pattern(
        r"workspace-access entitlement",
        PermissionDeniedError,
        "Enable 'Workspace access' on the service principal (Settings, Identity and access).",
    ),
    _pattern(
        r"Unauthorized network access to workspace",
        PermissionDeniedError,
        "The workspace is private: reach it by its front-end PrivateLink (Service-Direct included).",
    ),
    _pattern(r"field 'endpoint' is required", ConfigError, "Set endpoint (or instance)."),
    # What databricks-sdk makes of a workspace whose discovery fails, unreachable ones included.
    _pattern(r"Invalid URL 'None'", ControlPlaneUnavailableError),
    _pattern(r"invalid_client|Missing client authentication", NotAuthenticatedError),
    _pattern(r"(endpoint|branch|project|instance).*not found", EndpointNotFoundError),
    _pattern(r"endpoint is disabled", EndpointDisabledError),
)

_BY_STATUS: dict[int, type[LakebaseError]] = {
    401: NotAuthenticatedError,
    403: PermissionDeniedError,
    404: EndpointNotFoundError,
    429: ControlPlaneThrottledError,
    500: ControlPlaneUnavailableError,
    502: ControlPlaneUnavailableError,
    503: ControlPlaneUnavailableError,
    504: ControlPlaneUnavailableError,
}


def _first_match(text: str, patterns: tuple[_Pattern, ...]) -> _Pattern | None:
    return next((p for p in patterns if p.regex.search(text)), None)


def classify_login(text: str, *, where: str) -> LakebaseError:
    """Turn the text of a failed connect into an error with a remedy.

    Args:
        text: The driver's message; libpq and psycopg put no password into it.
        where: What was tried, such as ``"user@host:port/database"``.
    """
    line = " ".join(text.split())
    match = _first_match(line, LOGIN_PATTERNS)
    kind: type[LakebaseError] = match.kind if match else LakebaseConnectionError
    return kind(f"Cannot connect to {where}: {line}", remedy=match.remedy if match else None)


def classify_control_plane(
    text: str, *, status: int | None, what: str, retry_after: float | None = None
) -> LakebaseError:
    """Turn an error answer of the workspace into an error with a remedy.

    Args:
        text: The error's code and message as the workspace gave them.
        status: HTTP status, or None where no answer came.
        what: What was asked for, such as ``"a database credential"``.
        retry_after: Seconds of the Retry-After header.
    """
    line = " ".join(text.split())
    match = _first_match(line, CONTROL_PLANE_PATTERNS) if status != 429 else None
    kind: type[LakebaseError]
    if match:
        kind = match.kind
    elif status is None:
        kind = ControlPlaneUnavailableError
    else:
        kind = _BY_STATUS.get(status, ControlPlaneError)
    return kind(
        f"The workspace did not give {what}: {line}",
        remedy=match.remedy if match else None,
        retry_after=retry_after,
    )
