"""Texts with which the front end refuses a login.

Field reports disagree on what Lakebase says about an expired token, so its text is a choice of dialects
(:meth:`.Admin.set_login_error_style`), and a client must understand each. Every
text can be provoked by its name, too (:meth:`lakebase_provider.local.parent.admin.Admin.login_fault`).
"""

from __future__ import annotations

from typing import NamedTuple

INVALID_PASSWORD = "28P01"  # noqa: S105 - a SQLSTATE
INVALID_AUTHORIZATION = "28000"
TOO_MANY_CONNECTIONS = "53300"
CANNOT_CONNECT_NOW = "57P03"
INTERNAL_ERROR = "XX000"


class Refusal(NamedTuple):
    """What an ErrorResponse says."""

    code: str
    text: str
    detail: str = ""


_WRONG_PASSWORD = Refusal(INVALID_PASSWORD, "password authentication failed for user '{role}'")

#: Reason for a refusal → what the client reads. `{role}` is the role asked for.
REFUSALS: dict[str, Refusal] = {
    "plaintext": Refusal(INVALID_AUTHORIZATION, "connection is insecure (try using sslmode=require)"),
    "no_user": Refusal(INVALID_AUTHORIZATION, "no PostgreSQL user name specified in startup packet"),
    "not_a_jwt": Refusal(INVALID_PASSWORD, "Provided authentication token is not a valid JWT encoding"),
    "bad_signature": _WRONG_PASSWORD,
    "other_role": _WRONG_PASSWORD,
    "revoked": _WRONG_PASSWORD,
    "role_missing": _WRONG_PASSWORD,
    "bad_password": _WRONG_PASSWORD,
    # PgBouncer knows no tokens, only the passwords of its own list.
    "pooled": _WRONG_PASSWORD,
    "native_disabled": Refusal(INVALID_AUTHORIZATION, "native postgres login is disabled for this endpoint"),
    "disabled": Refusal(INTERNAL_ERROR, "Control plane request failed: endpoint is disabled"),
    "endpoint_missing": Refusal(INTERNAL_ERROR, "Control plane request failed: endpoint cannot be found"),
    "paused": Refusal(
        INTERNAL_ERROR, "External authorization failed.", "This could be due to paused instances"
    ),
    "ip_acl": Refusal(
        INVALID_AUTHORIZATION,
        "Source IP address: 203.0.113.7 is blocked by Databricks IP ACL for workspace: 1000000000000001",
    ),
    "endpoint_full": Refusal(
        TOO_MANY_CONNECTIONS, "Too many connections to this endpoint. Please try again later."
    ),
    "too_many_clients": Refusal(TOO_MANY_CONNECTIONS, "sorry, too many clients already"),
    "reserved_slots": Refusal(
        TOO_MANY_CONNECTIONS,
        "remaining connection slots are reserved for roles with the SUPERUSER attribute",
    ),
    "starting": Refusal(CANNOT_CONNECT_NOW, "the database system is starting up"),
    "recovering": Refusal(CANNOT_CONNECT_NOW, "the database system is in recovery mode"),
    "stopping": Refusal(CANNOT_CONNECT_NOW, "the database system is shutting down"),
}

#: Dialect → text for an expired token. `{exp}` is the token's expiry, Unix time.
EXPIRED_STYLES: dict[str, str] = {
    "documented": "password authentication failed for user '{role}'",
    "identity": "Invalid authorization for databricks identity login",
    "neon": "JWT token has expired (exp={exp:.0f})",
    "provisioned": "Failed to decode token for role '{role}'",
}
DEFAULT_STYLE = "documented"

#: How logins are answered while the endpoint wakes → reason for refusing them, None to hold them meanwhile.
WAKE_MODES: dict[str, str | None] = {"hold": None, "starting": "starting", "paused": "paused"}

#: What :func:`scripted` knows by name: a reason, or `expired_` and a dialect.
NAMES = (*REFUSALS, *(f"expired_{style}" for style in EXPIRED_STYLES))


def refusal(reason: str, *, role: str, style: str = DEFAULT_STYLE, expiry: float = 0.0) -> Refusal:
    """Return what refuses a login.

    Args:
        reason: A key of :data:`REFUSALS`, or `expired`.
        role: The role asked for.
        style: A key of :data:`EXPIRED_STYLES`.
        expiry: The token's expiry, Unix time.
    """
    if reason == "expired":
        return Refusal(INVALID_PASSWORD, EXPIRED_STYLES[style].format(role=role, exp=expiry))
    found = REFUSALS[reason]
    return found._replace(text=found.text.format(role=role))


def check_script(text: str) -> None:
    """Raise a ValueError for a word that looks like a mistyped name."""
    if text not in NAMES and " " not in text.strip():
        raise ValueError(f"unknown login fault {text!r}: use a whole sentence, or one of {', '.join(NAMES)}")


def scripted(text: str, *, role: str) -> Refusal:
    """Return what a scripted fault says.

    Args:
        text: One of :data:`NAMES`, or the text itself, which may go on after `DETAIL:`.
        role: The role asked for.
    """
    if text in REFUSALS:
        return refusal(text, role=role)
    if text in NAMES:
        return refusal("expired", role=role, style=text.removeprefix("expired_"))
    said, _, detail = text.partition("DETAIL:")
    return Refusal(INTERNAL_ERROR, said.strip(), detail.strip())
