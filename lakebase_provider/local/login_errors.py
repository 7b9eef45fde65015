"""Texts with which the front end refuses a login.

Field reports disagree on what Lakebase says about an expired token, so its text is a choice of dialects
(:meth:`lakebase_provider.local.admin.Admin.set_login_error_style`), and a client must understand each.
"""

from __future__ import annotations

INVALID_PASSWORD = "28P01"  # noqa: S105 - a SQLSTATE
INVALID_AUTHORIZATION = "28000"
INTERNAL_ERROR = "XX000"

#: Reason for a refusal → (SQLSTATE, text). `{role}` is the role asked for.
REFUSALS: dict[str, tuple[str, str]] = {
    "plaintext": (INVALID_AUTHORIZATION, "connection is insecure (try using sslmode=require)"),
    "no_user": (INVALID_AUTHORIZATION, "no PostgreSQL user name specified in startup packet"),
    "not_a_jwt": (INVALID_PASSWORD, "Provided authentication token is not a valid JWT encoding"),
    "bad_signature": (INVALID_PASSWORD, "password authentication failed for user '{role}'"),
    "other_role": (INVALID_PASSWORD, "password authentication failed for user '{role}'"),
    "revoked": (INVALID_PASSWORD, "password authentication failed for user '{role}'"),
    "role_missing": (INVALID_PASSWORD, "password authentication failed for user '{role}'"),
    "bad_password": (INVALID_PASSWORD, "password authentication failed for user '{role}'"),
    "disabled": (INTERNAL_ERROR, "Control plane request failed: endpoint is disabled"),
    "stopping": ("57P03", "the database system is shutting down"),
}

#: Dialect → text for an expired token. `{exp}` is the token's expiry, Unix time.
EXPIRED_STYLES: dict[str, str] = {
    "documented": "password authentication failed for user '{role}'",
    "identity": "Invalid authorization for databricks identity login",
    "neon": "JWT token has expired (exp={exp:.0f})",
    "provisioned": "Failed to decode token for role '{role}'",
}
DEFAULT_STYLE = "documented"


def refusal(reason: str, *, role: str, style: str, expiry: float = 0.0) -> tuple[str, str]:
    """Return SQLSTATE and text of a refused login.

    Args:
        reason: A key of :data:`REFUSALS`, or `expired`.
        role: The role asked for.
        style: A key of :data:`EXPIRED_STYLES`.
        expiry: The token's expiry, Unix time.
    """
    if reason == "expired":
        return INVALID_PASSWORD, EXPIRED_STYLES[style].format(role=role, exp=expiry)
    code, text = REFUSALS[reason]
    return code, text.format(role=role)
