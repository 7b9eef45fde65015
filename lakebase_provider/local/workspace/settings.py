"""What is unknown, contradicted or different between workspaces: settings of the emulator, and its errors.

Neither is hard-wired: :meth:`lakebase_provider.local.parent.admin.Admin.set` changes the settings, and
:meth:`lakebase_provider.local.parent.admin.Admin.set_error` what an error says.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_type_hints

_DAY = 86_400.0


@dataclass
class Settings:
    """Behaviour that tests may change; all times in seconds by the workspace's clock.

    Attributes:
        operation_seconds: How long an operation takes. With 0 it is done when it is asked for.
        pending_seconds: How long an endpoint's `pending_state` outlasts the operation that changed it.
        auth_delay: How long logins at a new branch are refused after its operation is done.
        auth_refusal: Why, a name in `lakebase_provider.local.identity.login_errors.REFUSALS`.
        managers: Who may change anything: names of principals; None for all.
        project_limit: Projects of the workspace.
        branch_limit: Branches of a project, archived ones included.
        unarchived_branch_limit: Branches of a project that are not archived.
        root_branch_limit: Branches of a project without a parent.
        protected_branch_limit: Protected branches of a project.
        compute_limit: Endpoints of a project besides the default branch's.
        snapshot_limit: Snapshots of a project.
        role_limit: Roles of a branch.
        database_limit: Databases of a branch.
        longest_expiration: How far ahead a branch or a snapshot may expire.
        expiration_required: Whether a new branch has to say when it expires, or that it does not.
        expired_is_purged: Whether a branch that expires is gone for good, rather than deleted.
        deleted_id_reserved: Whether a deleted branch or project keeps its id.
        deleted_counts: Whether a deleted branch counts to the limits.
        deleted_readable: Whether GET finds what is deleted; a list does with `show_deleted`.
        deletion_retention: How long what is deleted can be brought back.
        undelete_keeps_expiration: Whether an undeleted branch still expires.
        undelete_keeps_hosts: Whether its endpoints are at the hosts at which they were.
        children_of_deleted_count: Whether a branch whose children are deleted counts as one with children.
        expiration_members_in_mask: Whether `spec.no_expiry`, `spec.ttl` and `spec.expire_time` are masks.
        busy_is_said_first: Whether a running operation is said before what else is wrong with a request,
            such as that what it would create exists.
        future_is_refused: Whether a branch at a time in the future is refused, rather than made of now.
        database_id_required: Whether a new database needs an id.
        snapshots_of_roots_only: Whether snapshots of other branches are refused.
        scheduled_snapshot_id: Id of a snapshot that a schedule has taken, with `{time}` (Unix time) and
            `{branch}`.
        diff_size_part: What part of its full size a snapshot tells as its `diff_size_bytes`.
        default_min_cu: Smallest size of an endpoint in a new project.
        default_max_cu: Largest one.
        default_suspend_timeout: After which idle time such an endpoint is suspended.
        default_branch_suspends: Whether an idle endpoint of a default branch is suspended, too.
        group_auth_method: `auth_method` of a role for a group.
        pipeline_seconds: How long an update of a pipeline takes before it has copied. With 0 it does so at
            once.
        continuous_seconds: How often a CONTINUOUS pipeline looks for changes.
        synced_name_seconds: How long the name of a deleted synced table stays reserved.
        processed_version_is_told: Whether a synced table's status has `last_processed_commit_version`.
        commit_time_is_told: Whether its `delta_commit_time` is the source's, rather than 1970.
        maintenance_moves_version: Whether a TRIGGERED update processes commits without data, such as those
            of OPTIMIZE, as far as its version tells.
        cdf_seconds: How often Lakehouse sync writes what has changed.
        cdf_lsn_follows_server: Whether a quiet table's `committed_lsn` follows the server's log.
    """

    operation_seconds: float = 0.0
    pending_seconds: float = 0.0
    auth_delay: float = 0.0
    auth_refusal: str = "paused"
    managers: list[str] | None = None
    project_limit: int = 1000
    branch_limit: int = 500
    unarchived_branch_limit: int = 10
    root_branch_limit: int = 3
    protected_branch_limit: int = 1
    compute_limit: int = 20
    snapshot_limit: int = 10
    role_limit: int = 500
    database_limit: int = 500
    longest_expiration: float = 30 * _DAY
    expiration_required: bool = True
    expired_is_purged: bool = True
    deleted_id_reserved: bool = True
    deleted_counts: bool = True
    deleted_readable: bool = False
    deletion_retention: float = 7 * _DAY
    undelete_keeps_expiration: bool = False
    undelete_keeps_hosts: bool = True
    children_of_deleted_count: bool = False
    expiration_members_in_mask: bool = False
    busy_is_said_first: bool = False
    future_is_refused: bool = True
    database_id_required: bool = True
    snapshots_of_roots_only: bool = True
    scheduled_snapshot_id: str = "scheduled-{time}"
    diff_size_part: float = 1.0
    default_min_cu: float = 1.0
    default_max_cu: float = 1.0
    default_suspend_timeout: float = _DAY
    default_branch_suspends: bool = False
    group_auth_method: str = "LAKEBASE_OAUTH_V1"
    pipeline_seconds: float = 0.0
    continuous_seconds: float = 15.0
    synced_name_seconds: float = 0.0
    processed_version_is_told: bool = False
    commit_time_is_told: bool = False
    maintenance_moves_version: bool = False
    cdf_seconds: float = 15.0
    cdf_lsn_follows_server: bool = True

    def change(self, name: str, value: Any) -> None:
        """Set one.

        Raises:
            ValueError: There is none of that name, or the value is of another type.
        """
        if name not in _TYPES:
            raise ValueError(f"no such setting: {name}; use one of {', '.join(_TYPES)}")
        wanted = _TYPES[name]
        if isinstance(value, int) and not isinstance(value, bool) and wanted is float:
            value = float(value)
        known = isinstance(value, wanted) if isinstance(wanted, type) else value is None or is_names(value)
        if not known or (isinstance(value, bool) and wanted is not bool):
            raise ValueError(f"setting {name} takes {wanted}, not {value!r}")
        setattr(self, name, value)

    def reset(self) -> None:
        """Be as at first."""
        self.__init__()  # type: ignore[misc]


def is_names(value: Any) -> bool:
    """Say whether this is a list of texts."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_TYPES: dict[str, Any] = {
    name: kind
    for name, kind in get_type_hints(Settings).items()
    if name in {f.name for f in fields(Settings)}
}


@dataclass(frozen=True)
class Answer:
    """What an error says.

    Attributes:
        status: Of HTTP.
        error_code: In the body.
        message: In the body, with `{placeholders}`.
        managed: True to say by details that the parent manages what was refused.
    """

    status: int
    error_code: str
    message: str
    managed: bool = False


def _invalid(message: str) -> Answer:
    return Answer(400, "INVALID_PARAMETER_VALUE", message)


def _bad(message: str, *, managed: bool = False) -> Answer:
    return Answer(400, "BAD_REQUEST", message, managed)


def _exists(message: str) -> Answer:
    return Answer(409, "ALREADY_EXISTS", message)


#: Error → what it says. Texts that nobody has seen on a real workspace are marked so.
ERRORS: dict[str, Answer] = {
    "not_found": Answer(404, "NOT_FOUND", "{what} not found [TraceId: {trace}]"),
    "owner_not_found": Answer(404, "NOT_FOUND", 'role not found; role_id:"{value}" [TraceId: {trace}]'),
    "project_exists": _exists("project with such id already exists in the workspace"),
    "branch_exists": _exists("branch with such id already exists"),
    "endpoint_exists": _exists("endpoint with such id already exists"),
    "read_write_endpoint_exists": _exists("read_write endpoint already exists"),
    "snapshot_exists": _exists("snapshot with such id already exists"),  # unseen
    "catalog_exists": _exists("catalog with such id already exists"),
    "role_exists": _bad("role with that name already exists"),
    "database_exists": _bad("database with that name already exists"),
    "data_api_exists": _exists("data API is already enabled for the database"),  # unseen
    "data_api_empty": _invalid(
        "Field 'data_api' is required and must contain at least one subfield with a non-default value"
    ),
    "database_registered": _exists("database is already registered in a catalog"),  # unseen
    "synced_table_exists": _exists("synced table with such id already exists"),
    "cdf_config_exists": _exists("cdf config with such id already exists"),  # unseen
    "bad_table_id": _invalid(
        "Field 'synced_table_id' must be <catalog>.<schema>.<table>, got '{value}'."
    ),  # unseen
    "bad_cdf_id": _invalid("Invalid cdf_config_id '{value}'. Must match [a-z][a-z0-9_]{{0,62}}"),
    "source_missing": Answer(404, "NOT_FOUND", "TABLE_DOES_NOT_EXIST: Table '{value}' does not exist."),
    "destination_exists": _exists("Destination table {value} already exists"),
    "pipeline_not_found": Answer(
        404, "RESOURCE_DOES_NOT_EXIST", "The specified {what} {value} was not found."
    ),  # unseen
    "active_update": Answer(409, "RESOURCE_CONFLICT", "An active update {value} already exists."),  # unseen
    "update_unimplemented": Answer(
        501, "NOT_IMPLEMENTED", "Update Synced Database Table is not yet implemented."
    ),
    "no_deltalake": Answer(
        501,
        "NOT_IMPLEMENTED",
        "The local Lakebase needs the package deltalake for synced tables and Lakehouse sync: "
        "pip install 'lakebase-provider[delta]'",
    ),
    "required": _invalid("Field '{field}' is required, expected non-default value (not \"\")!"),
    "bad_id": _invalid(
        "Field {field} must match pattern ^[a-z]([a-z0-9-]{{0,61}}[a-z0-9])?$, got '{value}'."
    ),
    "bad_role_id": _invalid(
        "Field 'role_id' must be 4-63 characters, start with a lowercase letter, and contain only lowercase "
        "letters, numbers and hyphens (RFC 1123)."
    ),
    "unknown_path": _invalid("Unknown field path in update_mask: '{field}'"),
    "not_provided": _invalid("Field '{field}' is in update_mask but not provided in request"),
    "immutable": _invalid("Field '{field}' cannot be updated"),  # unseen
    "bad_value": _invalid("Field '{field}' {why}"),  # unseen
    "one_of": _invalid("At most one of {field} can be specified"),  # unseen
    "protected": _bad("cannot delete protected branch"),
    "protected_project": _bad("cannot delete project with protected branch"),  # unseen
    "protected_endpoint": _bad("endpoint cannot be deleted for a protected branch"),
    "protected_expiration": _bad("protected branch cannot have an expiration"),  # unseen
    "read_write_endpoint": _bad(
        "Cannot delete read-write endpoint '{name}'. Read-write endpoints cannot be deleted.", managed=True
    ),
    "root_branch": _bad(
        "Cannot delete root branch '{name}'. Root branches cannot be deleted independently.", managed=True
    ),
    "default_branch": _bad("cannot delete default branch"),  # unseen
    "default_expiration": _bad("default branch cannot have an expiration"),  # unseen
    "has_children": _bad("cannot delete branch that has children: {value}"),  # Neon's
    "children_expiration": _bad("Branches with child branches cannot have an expiration date"),  # unseen
    "expiring_parent": _bad("Branches with an expiration date cannot have child branches"),
    "expiration_required": _invalid("Expiration must be specified when creating a branch"),
    "expiration_too_far": _invalid("expiration time exceeds the maximum expiration time [TraceId: {trace}]"),
    "foreign_source": _invalid("source_branch field must point to the branch from the same Project"),
    "foreign_snapshot": _invalid("source_snapshot field must point to a snapshot from the same Project"),
    "outside_history": _invalid("{field} is outside of the branch's history"),  # unseen
    "not_a_root": _bad("snapshots can be created from root branches only"),  # unseen
    "not_deleted": _bad("{what} is not deleted"),  # unseen
    "no_password": _bad("role has no password"),  # unseen
    "busy": Answer(409, "RESOURCE_CONFLICT", "Another operation on the project is still running"),
    "reconciliation": Answer(409, "RESOURCE_CONFLICT", "endpoint '{name}' is under reconciliation"),
    "limit": Answer(400, "QUOTA_EXCEEDED", "{what} limit exceeded"),  # Neon's, which answers 422
    "not_authorized": Answer(403, "PERMISSION_DENIED", "The user is not authorized to make the request"),
    "operation_failed": Answer(500, "INTERNAL_ERROR", "the operation failed"),
}


class ApiError(Exception):
    """An answer in the control plane's error shape."""

    def __init__(self, answer: Answer, details: list[dict[str, Any]] | None = None) -> None:
        super().__init__(answer.message)
        self.status = answer.status
        self.body: dict[str, Any] = {"error_code": answer.error_code, "message": answer.message}
        if details:
            self.body["details"] = details


def plain_error(status: int, error_code: str, message: str) -> ApiError:
    """An error outside of the table."""
    return ApiError(Answer(status, error_code, message))


@dataclass
class Errors:
    """The errors as they are said at present."""

    _changed: dict[str, Answer] = field(default_factory=dict)

    def change(self, name: str, status: int | None, error_code: str | None, message: str | None) -> None:
        """Let an error say something else; None leaves that part.

        Raises:
            ValueError: There is no such error.
        """
        if name not in ERRORS:
            raise ValueError(f"no such error: {name}; use one of {', '.join(ERRORS)}")
        given = {"status": status, "error_code": error_code, "message": message}
        known = {key: value for key, value in given.items() if value is not None}
        self._changed[name] = replace(self._changed.get(name, ERRORS[name]), **known)  # type: ignore[arg-type]

    def reset(self) -> None:
        """Say everything as at first."""
        self._changed.clear()

    def error(self, error: str, /, **values: Any) -> ApiError:
        """The error of that name, to be raised.

        Args:
            error: A key of :data:`ERRORS`.
            **values: For its placeholders.
        """
        answer = self._changed.get(error, ERRORS[error])
        message = answer.message.format_map({"trace": uuid.uuid4().hex, **values})
        return ApiError(replace(answer, message=message), _managed() if answer.managed else None)


def _managed() -> list[dict[str, Any]]:
    reason = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "domain": "databricks.com",
        "reason": "RESOURCE_CONFLICT",
        "metadata": {"declarative_context": "MANAGED_BY_PARENT"},
    }
    request = {
        "@type": "type.googleapis.com/google.rpc.RequestInfo",
        "request_id": str(uuid.uuid4()),
        "serving_data": "",
    }
    return [reason, request]
