"""Which error a text of the driver or of the workspace means.

Patterns come from the public documentation's troubleshooting tables, public issue trackers and the
open-source Neon proxy, from which Lakebase descends. They are data: add a row, do not add a branch.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from lakebase_provider.core.errors import (
    AlreadyExistsError,
    ConfigError,
    ControlPlaneError,
    ControlPlaneThrottledError,
    ControlPlaneUnavailableError,
    DatabaseMissingError,
    DnsError,
    EndpointDisabledError,
    EndpointNotFoundError,
    EndpointWakingError,
    LakebaseConnectionError,
    LakebaseError,
    LimitError,
    LoginRejectedError,
    ManagedByParentError,
    NotAuthenticatedError,
    NotFoundError,
    ObjectStateError,
    PermissionDeniedError,
    ProjectBusyError,
    SessionSettingError,
    TlsError,
    TooManyConnectionsError,
)
from lakebase_provider.core.errors.redaction import redacted
from lakebase_provider.core.errors.remedy import Remedy


class _Pattern(NamedTuple):
    regex: str
    kind: type[LakebaseError]
    remedy: str | None = None


#: Texts of a failed connect. libpq gives no SQLSTATE there, so the text is all there is. First match wins.
LOGIN_PATTERNS: tuple[_Pattern, ...] = (
    _Pattern(
        r"not a valid JWT encoding",
        LoginRejectedError,
        "Use a database credential as password, not a workspace token or PAT: auth=oauth mints one.",
    ),
    _Pattern(
        r"is blocked by Databricks IP ACL",
        PermissionDeniedError,
        "Add this machine's address to the workspace's IP access list.",
    ),
    _Pattern(
        r"native postgres login is disabled",
        LoginRejectedError,
        "Log in with a token (auth=oauth), or let the project accept passwords: enable_pg_native_login.",
    ),
    _Pattern(r"endpoint is disabled", EndpointDisabledError),
    _Pattern(r"endpoint cannot be found", EndpointNotFoundError),
    _Pattern(r"paused instances|External authorization failed", EndpointWakingError),
    _Pattern(
        r"password authentication failed|databricks identity login|JWT token has expired"
        r"|Failed to decode token|role \".*\" (does not exist|is not permitted)",
        LoginRejectedError,
    ),
    _Pattern(r"database \".*\" does not exist", DatabaseMissingError),
    _Pattern(
        r"invalid value for parameter \"(TimeZone|DateStyle|geqo)\"",
        SessionSettingError,
        "Correct or unset PGTZ, PGDATESTYLE and PGGEQO where this runs, or the role's setting (ALTER ROLE).",
    ),
    _Pattern(
        r"(unrecognized configuration|unsupported startup|invalid value for|permission denied to set)"
        r" parameter",
        SessionSettingError,
    ),
    _Pattern(r"too many (connections|clients)|remaining connection slots", TooManyConnectionsError),
    _Pattern(
        r"connection is insecure|does not support SSL|SSL required",
        TlsError,
        "Lakebase accepts TLS only: use sslmode=verify-full (or require).",
    ),
    _Pattern(
        r"certificate verify failed|certificate .*does not match|root certificate file|SSL error",
        TlsError,
    ),
    _Pattern(
        r"definition of service|service file",
        ConfigError,
        "Unset PGSERVICE where this runs: libpq looks it up first, though none of it would take effect.",
    ),
    _Pattern(
        r"failed to resolve host|could not translate host name|nodename nor servname"
        r"|name or service not known|label (empty or )?too long",
        DnsError,
    ),
    _Pattern(
        r"connection refused|timeout expired|timed out|starting up|shutting down|connection reset"
        r"|recovery mode|not yet accepting connections"
        r"|server closed the connection|network is unreachable|no route to host|unexpected eof",
        EndpointWakingError,
    ),
)

#: The detail of an error body by which the workspace says that the object goes with its parent.
MANAGED_BY_PARENT = "MANAGED_BY_PARENT"
_COUNTED = "(branch|project|endpoint|compute|snapshot|role|database)"
#: A number of objects, not a rate, whatever the status says.
_LIMITS = _Pattern(
    rf"{_COUNTED}\w* (count )?limit|(maximum|limit of the) number of (\w+ ){{0,2}}{_COUNTED}"
    rf"|limit of \d+ (\w+ )?{_COUNTED}|QUOTA_EXCEEDED|RESOURCE_LIMIT_EXCEEDED",
    LimitError,
)
_MANAGE = (
    "Grant the principal CAN MANAGE on the Lakebase project: CAN USE is enough to connect, not for this."
)

#: Texts of the workspace's error bodies that say more than their status. First match wins.
CONTROL_PLANE_PATTERNS: tuple[_Pattern, ...] = (
    _Pattern(
        r"workspace-access entitlement",
        PermissionDeniedError,
        "Enable 'Workspace access' on the service principal (Settings, Identity and access).",
    ),
    _Pattern(
        r"Unauthorized network access to workspace",
        PermissionDeniedError,
        "The workspace is private: reach it through its front-end PrivateLink (Service-Direct included).",
    ),
    _Pattern(r"field 'endpoint' is required", ConfigError, "Set endpoint (or instance)."),
    # databricks-sdk says this if a workspace's discovery fails, also if it is unreachable.
    _Pattern(r"Invalid URL 'None'", ControlPlaneUnavailableError),
    _Pattern(r"invalid_client|Missing client authentication", NotAuthenticatedError),
    _Pattern(MANAGED_BY_PARENT, ManagedByParentError),
    _LIMITS,
    _Pattern(r"Another operation on the project is still running|reconciliation", ProjectBusyError),
    _Pattern(
        r"Destination table .* already exists",
        AlreadyExistsError,
        Remedy(
            "A table of that name is in Postgres, as a deleted synced table leaves one: drop it, or use "
            "another name. client.synced_tables.delete() drops both.",
            options=("client",),
            otherwise="A table of that name is in Postgres, as a deleted synced table leaves one: drop it, "
            "or use another name.",
        ),
    ),
    _Pattern(
        r"PRIMARY_KEY_CONSTRAINT_VIOLATION",
        ControlPlaneError,
        "Remove the rows whose key occurs twice from the source, or declare the synced table with a time "
        "series key.",
    ),
    _Pattern(
        r"TABLE_DOES_NOT_EXIST",
        NotFoundError,
        "Create the source table first, named <catalog>.<schema>.<table>; the principal must see it.",
    ),
    _Pattern(
        r"DIFFERENT_DELTA_TABLE_READ_BY_STREAMING_SOURCE",
        ControlPlaneError,
        Remedy(
            "The source is another table by now: refresh the synced table with full_refresh=True.",
            options=("full_refresh",),
            otherwise="The source is another table by now: sync it with --full-refresh.",
        ),
    ),
    _Pattern(
        r"DELTA_MISSING_CHANGE_DATA|change data (feed|was not recorded)",
        ControlPlaneError,
        Remedy(
            "Enable the source's change data feed (delta.enableChangeDataFeed), or use SNAPSHOT; then "
            "refresh the synced table with full_refresh=True.",
            options=("full_refresh",),
            otherwise="Enable the source's change data feed (delta.enableChangeDataFeed), or use SNAPSHOT; "
            "then sync it with --full-refresh.",
        ),
    ),
    _Pattern(
        r"Metastore storage root URL does not exist",
        ControlPlaneError,
        "Let the pipeline store its files in a schema of a standard catalog, not in one of Lakebase.",
    ),
    # A role or a database that exists is a 400.
    _Pattern(r"ALREADY_EXISTS|already exists", AlreadyExistsError),
    _Pattern(
        r"expiration date cannot have child branches",
        ObjectStateError,
        "Use the branch that it was made from: none can be made from one that expires. A change may be tried "
        "on it at once, since it goes by itself.",
    ),
    _Pattern(
        r"(protected|root|default) branch|has children|child branches|INVALID_STATE(_TRANSITION)?\b",
        ObjectStateError,
    ),
    _Pattern(
        r"EXTERNAL USE SCHEMA|external (data )?access",
        PermissionDeniedError,
        "Grant the principal SELECT on the table and EXTERNAL USE SCHEMA on its schema; the metastore has to "
        "allow external data access, too.",
    ),
    _Pattern(
        r"(role|database|snapshot|catalog|synced table|cdf (config|status)|operation)( id)? not found"
        r"|(pipeline|update) \S{1,64} was not found|table '[^']{1,300}' does not exist",
        NotFoundError,
    ),
    _Pattern(
        r"project( id)? not found",
        EndpointNotFoundError,
        "Check the project where it is named, with ids and not display names; the principal needs access to "
        "it.",
    ),
    _Pattern(
        r"branch( id)? not found",
        EndpointNotFoundError,
        "Check the branch where it is named, with ids and not display names. It may have expired, or been "
        "deleted: `lakebase branches list` shows those that are there.",
    ),
    _Pattern(r"(endpoint|branch|project|instance).*not found", EndpointNotFoundError),
    _Pattern(
        r"exceeds the maximum expiration",
        ControlPlaneError,
        Remedy(
            "Give a shorter ttl or an earlier expire_time: at most 30 days ahead.",
            options=("ttl", "expire_time"),
            otherwise="Give a shorter --ttl: at most 30d.",
        ),
    ),
    _Pattern(
        r"lsn.{0,40}(outside of|not in) the branch's history",
        ControlPlaneError,
        "Give a position that the source itself has reached, and that is within the history that its project "
        "keeps, 2 to 35 days: `lakebase restore-point` prints one, and SELECT pg_current_wal_lsn().",
    ),
    _Pattern(
        r"(outside of|not in) the branch's history",
        ControlPlaneError,
        "Give a moment after the source was created, not in the future, and within the history that its "
        "project keeps, 2 to 35 days.",
    ),
    _Pattern(r"endpoint is disabled", EndpointDisabledError),
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
    # Compiled only now, and cached by the module `re`: most processes never see such an error.
    return next((p for p in patterns if re.search(p.regex, text, re.IGNORECASE)), None)


def classify_login(text: str, *, where: str) -> LakebaseError:
    """Turn the text of a failed connect into an error with a remedy.

    Args:
        text: The driver's message; libpq and psycopg put no password into it.
        where: What was tried, such as ``"user@host:port/database"``.
    """
    line = " ".join(redacted(text).split())
    match = _first_match(line, LOGIN_PATTERNS)
    kind: type[LakebaseError] = match.kind if match else LakebaseConnectionError
    return kind(f"Cannot connect to {where}: {line}", remedy=match.remedy if match else None)


def classify_control_plane(
    text: str, *, status: int | None, what: str, retry_after: float | None = None, verb: str = "return"
) -> LakebaseError:
    """Turn an error answer of the workspace into an error with a remedy.

    Args:
        text: The error's code and message as the workspace gave them.
        status: HTTP status, or None if no answer came.
        what: What was requested, such as ``"a database credential"``.
        retry_after: Seconds of the Retry-After header.
        verb: What the workspace was to do with it; anything but ``"return"`` needs CAN MANAGE.
    """
    line = " ".join(redacted(text).split())
    match = _first_match(line, (_LIMITS,) if status == 429 else CONTROL_PLANE_PATTERNS)
    kind: type[LakebaseError]
    if match:
        kind = match.kind
    elif status is None:
        kind = ControlPlaneUnavailableError
    else:
        kind = _BY_STATUS.get(status, ControlPlaneError)
    remedy = match.remedy if match else None
    if kind is PermissionDeniedError and remedy is None and verb != "return":
        remedy = _MANAGE
    return kind(f"The workspace did not {verb} {what}: {line}", remedy=remedy, retry_after=retry_after)
