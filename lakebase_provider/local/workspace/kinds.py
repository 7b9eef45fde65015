"""THE table of what the control plane keeps: fields, ids, masks and verbs of each kind of resource.

Routes, checks and updates are made from it; what only one kind does is in :mod:`.changes`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from lakebase_provider.local.contract.lakehouse import UC_TABLE
from lakebase_provider.local.workspace.settings import Errors, Settings, is_names

#: Says why a value is none, or None where it is one.
Check = Callable[[Any], str | None]

_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_ROLE_ID = re.compile(r"[a-z][a-z0-9-]{2,61}[a-z0-9]")
_CDF_ID = re.compile(r"[a-z][a-z0-9_]{0,62}")
_DURATION = re.compile(r"(\d+(?:\.\d{1,9})?)s")
_LONGEST = 315_576_000_000
_ANY = float("inf")
_LSN = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")


def seconds(duration: Any) -> float:
    """Read a Duration as in `"300s"`.

    Raises:
        ValueError: It is none.
    """
    match = _DURATION.fullmatch(duration) if isinstance(duration, str) else None
    # Protobuf's have an end, after 10,000 years.
    if match is None or float(match[1]) > _LONGEST:
        raise ValueError("must be a duration")
    return float(match[1])


def flag(query: Mapping[str, str], name: str, errors: Errors) -> bool:
    """A flag of a request's query, which is off where it is not given.

    Raises:
        ApiError: It is neither `true` nor `false`.
    """
    value = query.get(name, "false")
    if value not in ("true", "false"):
        raise errors.error("bad_value", field=name, why="must be true or false")
    return value == "true"


def duration(of_seconds: float) -> str:
    """Write a Duration."""
    return f"{_plain(of_seconds)}s"


def _plain(number: float) -> str:
    """A number as people write it, to the nanosecond, and never as 3.024e+06."""
    return f"{number:.9f}".rstrip("0").rstrip(".")


def unix_time(timestamp: Any) -> float:
    """Read a Timestamp, RFC 3339.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(timestamp, str):
        raise ValueError("must be a timestamp")
    # Python 3.10 reads neither a Z nor nine digits of a fraction.
    plain = re.sub(r"(\.\d{6})\d+", r"\1", timestamp.replace("Z", "+00:00"))
    plain = re.sub(r"\.(\d{1,6})", lambda match: f".{match[1]:0<6}", plain)
    try:
        moment = datetime.fromisoformat(plain)
        if moment.tzinfo is not None:
            return moment.timestamp()
    except (ValueError, OverflowError):
        pass
    raise ValueError("must be a timestamp")


def timestamp(of_unix_time: float) -> str:
    """Write a Timestamp."""
    moment = datetime.fromtimestamp(of_unix_time, timezone.utc)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _read(reader: Callable[[Any], float], least: float = 0, most: float = _ANY) -> Check:
    def check(value: Any) -> str | None:
        try:
            found = reader(value)
        except ValueError as error:
            return str(error)
        if least <= found <= most:
            return None
        return (
            f"must be between {_plain(least)} and {_plain(most)}" if most < _ANY else "must not be negative"
        )

    return check


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("must be a number")
    return value


def _is(kind: type, what: str) -> Check:
    return lambda value: None if isinstance(value, kind) else f"must be {what}"


def _one_of(*words: str) -> Check:
    return lambda value: None if value in words else f"must be one of {', '.join(words)}"


def _matches(pattern: re.Pattern[str], what: str) -> Check:
    return lambda value: None if isinstance(value, str) and pattern.fullmatch(value) else f"must be {what}"


_FLAG = _is(bool, "true or false")
#: Postgres keeps no NUL.
_TEXT: Check = lambda value: (  # noqa: E731
    None if isinstance(value, str) and "\0" not in value else "must be a text"
)
#: Of a longer name Postgres keeps the beginning, by which nobody finds it again (NAMEDATALEN).
_POSTGRES_NAME: Check = lambda value: (  # noqa: E731
    _TEXT(value)
    or (None if len(value.encode("utf-8", "surrogatepass")) <= 63 else "must have at most 63 bytes in UTF-8")
)
#: Members of a oneof that say that there is none: to say the contrary, another member is sent.
_TRUE: Check = lambda value: None if value is True else "must be true"  # noqa: E731
_CU = _read(_number, 0.5, 112)
_SUSPEND = _read(seconds, 60, 604_800)
_PG_SETTINGS: Check = lambda value: (  # noqa: E731
    None
    if isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
    else "must hold texts"
)
_EXPIRATION: dict[str, Check] = {
    "spec.expire_time": _read(unix_time),
    "spec.ttl": _read(seconds),
    "spec.no_expiry": _TRUE,
}
_GROUP: dict[str, Check] = {
    "group.min": _read(_number, 1, 4),
    "group.max": _read(_number, 1, 4),
    "group.enable_readable_secondaries": _FLAG,
}


def _size(prefix: str) -> dict[str, Check]:
    return {
        f"{prefix}.autoscaling_limit_min_cu": _CU,
        f"{prefix}.autoscaling_limit_max_cu": _CU,
        f"{prefix}.suspend_timeout_duration": _SUSPEND,
        f"{prefix}.no_suspension": _TRUE,
    }


_SUSPENSION = ("suspend_timeout_duration", "no_suspension")
#: Name in a mask → the fields of a body that it stands for; at most one of them may be there.
GROUPS = {"expiration": ("expire_time", "ttl", "no_expiry"), "suspension": _SUSPENSION}


@dataclass(frozen=True)
class Kind:
    """One kind of resource.

    Attributes:
        name: In the singular, as in `branch_id` and in "branch id not found".
        plural: In paths and in the answer to a list.
        parent: Kind in whose path it stands; None for the workspace.
        fields: Path in the body → check of its value.
        required: Paths that a new one must have.
        one_of: Fields of which one at most may be sent.
        masks: What `update_mask` may name; none where it has no update.
        immutable: What a body may hold, but no mask.
        id_required: Whether a new one needs an id.
        single: Whether its parent has one at most, which has no id.
        verbs: create, list, replace (an existing one), purge, undelete.
        uid: How its uids begin; None where it has none.
    """

    name: str
    plural: str
    parent: str | None
    fields: Mapping[str, Check]
    required: tuple[str, ...] = ()
    one_of: tuple[tuple[str, ...], ...] = ()
    masks: frozenset[str] = frozenset()
    immutable: frozenset[str] = frozenset()
    id_required: bool = True
    single: bool = False
    verbs: frozenset[str] = field(default_factory=frozenset)
    uid: str | None = None

    @property
    def metadata(self) -> dict[str, str]:
        """What an operation says about itself: only on what kind it works."""
        word = "".join(part.capitalize() for part in self.name.split("_"))
        return {"@type": f"type.googleapis.com/databricks.postgres.v1.{word}OperationMetadata"}

    def check_id(self, identity: str, errors: Errors) -> None:
        """Refuse an id that is none."""
        if self.name == "role":
            if not _ROLE_ID.fullmatch(identity):
                raise errors.error("bad_role_id")
        elif self.name == "synced_table":
            if not UC_TABLE.fullmatch(identity):
                raise errors.error("bad_table_id", value=identity)
        elif self.name == "cdf_config":
            if not _CDF_ID.fullmatch(identity):
                raise errors.error("bad_cdf_id", value=identity)
        elif self.name != "catalog" and not _ID.fullmatch(identity):  # Whose ids are the Unity Catalog's.
            raise errors.error("bad_id", field=f"{self.name}_id", value=identity)

    def check(self, body: dict[str, Any], errors: Errors, *, new: bool) -> None:
        """Refuse a body whose values are none, or, where it is `new`, lacks some."""
        self._check_shape(body, errors)
        for path in self.required if new else ():
            if get(body, path) in (None, ""):
                raise errors.error("required", field=path)
        for path, check in self.fields.items():
            value = get(body, path)
            if value is not None and (why := check(value)):
                raise errors.error("bad_value", field=path, why=why)
        for several in self.one_of:
            if sum(get(body, path) is not None for path in several) > 1:
                raise errors.error("one_of", field=", ".join(several))

    def changes(self, mask: str, body: dict[str, Any], settings: Settings, errors: Errors) -> dict[str, Any]:
        """What an update changes: the masked part of its body, all paths known and all values there."""
        if not mask:
            raise errors.error("required", field="update_mask")
        self._check_shape(body, errors)
        paths = [path.strip() for path in mask.split(",")]
        for path in paths:
            if path in self.immutable:
                raise errors.error("immutable", field=path)
            if path not in self.masks and not (self._is_member(path) and settings.expiration_members_in_mask):
                raise errors.error("unknown_path", field=path)
        for path in paths:
            self._check_provided(path, body, errors)
        changed: dict[str, Any] = {}
        for path in paths:
            for name in self.fields:
                if path == "*" or name == path or name.startswith(f"{path}.") or name in _members(path):
                    value = get(body, name)
                    if value is not None and name not in self.immutable:
                        put(changed, name, value)
        return changed

    def _check_shape(self, body: dict[str, Any], errors: Errors) -> None:
        """Refuse a plain value where the table has further fields."""
        for path in self.fields:
            while "." in path:
                path = path.rpartition(".")[0]
                if not isinstance(get(body, path) if get(body, path) is not None else {}, dict):
                    raise errors.error("bad_value", field=path, why="must be an object")

    def _is_member(self, path: str) -> bool:
        return any(path in _members(mask) for mask in self.masks)

    def _check_provided(self, path: str, body: dict[str, Any], errors: Errors) -> None:
        parent, dot, _ = path.rpartition(".")
        if dot and isinstance(get(body, parent), dict):
            members = _members(path) or (path,)
            if all(get(body, member) is None for member in members):
                raise errors.error("not_provided", field=path)
        if path == "spec.default_endpoint_settings" and isinstance(get(body, path), dict):
            self._check_provided(f"{path}.suspension", body, errors)


def _members(path: str) -> tuple[str, ...]:
    parent, _, last = path.rpartition(".")
    return tuple(f"{parent}.{member}" for member in GROUPS.get(last, ()))


def get(body: Any, path: str) -> Any:
    """The value at a path, None where there is none."""
    for name in path.split("."):
        body = body.get(name) if isinstance(body, dict) else None
    return body


def put(body: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a path."""
    *above, last = path.split(".")
    for name in above:
        body = body.setdefault(name, {})
    body[last] = value


def merge(into: dict[str, Any], changed: dict[str, Any]) -> None:
    """Take over what changed; what is left out stays, and a map of settings is replaced as a whole."""
    for name, value in changed.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict) and name != "pg_settings":
            merge(into[name], value)
        else:
            into[name] = value


def _masks(text: str, prefix: str = "spec") -> frozenset[str]:
    return frozenset(name if name in ("spec", "*") else f"{prefix}.{name}" for name in text.split())


def _paths(*names: str) -> tuple[str, ...]:
    return tuple(f"spec.{name}" for name in names)


_DEFAULTS = "spec.default_endpoint_settings"
_TAGS: Check = lambda value: (  # noqa: E731
    None if isinstance(value, list) and all(isinstance(tag, dict) for tag in value) else "must be tags"
)
_ATTRIBUTES = ("createdb", "createrole", "bypassrls")
_LIST, _ALL = frozenset({"create", "list"}), frozenset({"create", "list", "replace"})

PROJECT = Kind(
    "project",
    "projects",
    None,
    {
        "spec.budget_policy_id": _TEXT,
        "spec.custom_tags": _TAGS,
        "spec.default_branch": _TEXT,
        "spec.display_name": _TEXT,
        "spec.enable_pg_native_login": _FLAG,
        "spec.history_retention_duration": _read(seconds, 172_800, 3_024_000),
        "spec.pg_version": _read(_number, 16, 18),
        **_size(_DEFAULTS),
        f"{_DEFAULTS}.pg_settings": _PG_SETTINGS,
        "initial_branch_spec.is_protected": _FLAG,
        **_size("initial_endpoint_spec"),
        **{f"initial_endpoint_spec.{name}": check for name, check in _GROUP.items()},
    },
    one_of=(
        tuple(f"{_DEFAULTS}.{name}" for name in _SUSPENSION),
        tuple(f"initial_endpoint_spec.{name}" for name in _SUSPENSION),
    ),
    masks=_masks(
        "spec budget_policy_id custom_tags default_branch display_name enable_pg_native_login "
        "history_retention_duration default_endpoint_settings"
    )
    | _masks("autoscaling_limit_max_cu autoscaling_limit_min_cu pg_settings suspension", _DEFAULTS)
    | {"initial_branch_spec", "initial_endpoint_spec"},
    verbs=_LIST | {"purge", "undelete"},
    uid="",
)
BRANCH = Kind(
    "branch",
    "branches",
    "project",
    {
        **_EXPIRATION,
        "spec.is_protected": _FLAG,
        "spec.source_branch": _TEXT,
        "spec.source_branch_lsn": _matches(_LSN, "an LSN"),
        "spec.source_branch_time": _read(unix_time),
        "spec.source_snapshot": _TEXT,
    },
    one_of=(
        _paths(*GROUPS["expiration"]),
        _paths("source_branch_lsn", "source_branch_time", "source_snapshot"),
        _paths("source_branch", "source_snapshot"),
    ),
    masks=_masks("spec is_protected expiration"),
    verbs=_ALL | {"purge", "undelete"},
    uid="br-",
)
ENDPOINT = Kind(
    "endpoint",
    "endpoints",
    "branch",
    {
        "spec.endpoint_type": _one_of("ENDPOINT_TYPE_READ_WRITE", "ENDPOINT_TYPE_READ_ONLY"),
        "spec.disabled": _FLAG,
        "spec.settings.pg_settings": _PG_SETTINGS,
        **_size("spec"),
        **{f"spec.{name}": check for name, check in _GROUP.items()},
    },
    required=("spec.endpoint_type",),
    one_of=(_paths(*_SUSPENSION),),
    masks=_masks(
        "spec autoscaling_limit_max_cu autoscaling_limit_min_cu disabled group "
        "group.enable_readable_secondaries group.max group.min settings.pg_settings suspension"
    ),
    verbs=_ALL,
    uid="ep-",
)
ROLE = Kind(
    "role",
    "roles",
    "branch",
    {
        "spec.postgres_role": _POSTGRES_NAME,
        "spec.identity_type": _one_of("USER", "SERVICE_PRINCIPAL", "GROUP"),
        "spec.auth_method": _one_of("LAKEBASE_OAUTH_V1", "PG_PASSWORD_SCRAM_SHA_256", "NO_LOGIN"),
        "spec.membership_roles": lambda value: (
            None if is_names(value) and {*value} <= {"DATABRICKS_SUPERUSER"} else "must be known roles"
        ),
        **{f"spec.attributes.{name}": _FLAG for name in _ATTRIBUTES},
    },
    required=("spec.postgres_role",),
    masks=_masks("spec * membership_roles") | _masks(" ".join(_ATTRIBUTES), "spec.attributes"),
    immutable=frozenset(_paths("postgres_role", "identity_type", "auth_method")),
    id_required=False,
    verbs=_ALL,
)
DATABASE = Kind(
    "database",
    "databases",
    "branch",
    {"spec.postgres_database": _POSTGRES_NAME, "spec.role": _TEXT},
    masks=_masks("spec postgres_database role"),
    verbs=_ALL,
)
SNAPSHOT = Kind(
    "snapshot",
    "snapshots",
    "project",
    {
        **_EXPIRATION,
        "spec.source_branch": _TEXT,
        "spec.source_branch_lsn": _matches(_LSN, "an LSN"),
        "spec.source_branch_time": _read(unix_time),
    },
    required=("spec.source_branch",),
    one_of=(_paths(*GROUPS["expiration"]), _paths("source_branch_lsn", "source_branch_time")),
    verbs=_LIST,
    uid="snap-",
)
CATALOG = Kind(
    "catalog",
    "catalogs",
    None,
    {
        "spec.branch": _TEXT,
        "spec.postgres_database": _POSTGRES_NAME,
        "spec.create_database_if_missing": _FLAG,
    },
    required=("spec.branch", "spec.postgres_database"),
    verbs=frozenset({"create"}),
    uid="",
)
_COLUMN_NAMES: Check = lambda value: (  # noqa: E731
    None if is_names(value) and value else "must be names of columns"
)
_OBJECTS: Check = lambda value: (  # noqa: E731
    None if isinstance(value, list) and all(isinstance(one, dict) for one in value) else "must be objects"
)
_UC_NAME = _matches(UC_TABLE, "the name of a table: <catalog>.<schema>.<table>")
#: What both APIs of synced tables take.
SYNC_FIELDS: dict[str, Check] = {
    "spec.source_table_full_name": _UC_NAME,
    "spec.primary_key_columns": _COLUMN_NAMES,
    "spec.scheduling_policy": _one_of("SNAPSHOT", "TRIGGERED", "CONTINUOUS"),
    "spec.timeseries_key": _TEXT,
    "spec.create_database_objects_if_missing": _FLAG,
    "spec.existing_pipeline_id": _TEXT,
    "spec.new_pipeline_spec.storage_catalog": _TEXT,
    "spec.new_pipeline_spec.storage_schema": _TEXT,
    "spec.new_pipeline_spec.budget_policy_id": _TEXT,
    "spec.accelerated_sync": _FLAG,
    "spec.type_overrides": _OBJECTS,
}
_SYNC_REQUIRED = _paths("source_table_full_name", "primary_key_columns", "scheduling_policy")
_SYNC_ONE_OF = (_paths("existing_pipeline_id", "new_pipeline_spec"),)
SYNCED_TABLE = Kind(
    "synced_table",
    "synced_tables",
    None,
    {
        **SYNC_FIELDS,
        "spec.branch": _TEXT,
        "spec.postgres_database": _POSTGRES_NAME,
        "spec.extra_columns": _OBJECTS,
        "spec.new_pipeline_spec.pipeline_channel": _one_of("CURRENT", "PREVIEW"),
    },
    required=_SYNC_REQUIRED,
    one_of=_SYNC_ONE_OF,
    verbs=frozenset({"create"}),
    uid="",
)
#: The same in the older API, whose bodies name an instance; it has routes of its own.
DATABASE_TABLE = Kind(
    "synced_table",
    "synced_tables",
    None,
    {
        **SYNC_FIELDS,
        "name": _UC_NAME,
        "database_instance_name": _TEXT,
        "logical_database_name": _POSTGRES_NAME,
    },
    required=_SYNC_REQUIRED,
    one_of=_SYNC_ONE_OF,
)
CDF_CONFIG = Kind(
    "cdf_config",
    "cdf-configs",
    "database",
    {"catalog": _TEXT, "schema": _TEXT, "postgres_schema": _POSTGRES_NAME},
    required=("catalog", "schema", "postgres_schema"),
    id_required=False,
    verbs=_LIST,
    uid="",
)
#: One of each branch, there from the start: it can be read and updated.
SCHEDULE = Kind(
    "snapshot_schedule",
    "snapshot-schedule",
    "branch",
    {"schedule": lambda value: _why_no_schedule(value)},
    masks=frozenset({"schedule"}),
    single=True,
)
#: PostgREST at a database: what it is set to, and nobody who answers.
DATA_API = Kind(
    "data_api",
    "data-api",
    "database",
    {
        **{
            f"spec.{name}": lambda value: None if is_names(value) else "must be texts"
            for name in ("db_schemas", "db_extra_search_path", "server_cors_allowed_origins")
        },
        **{f"spec.{name}": _FLAG for name in ("db_aggregates_enabled", "server_timing_enabled")},
        "spec.db_max_rows": _read(_number, 1),
        "spec.jwt_cache_max_lifetime": _read(seconds),
        "spec.jwt_role_claim_key": _TEXT,
        "spec.openapi_mode": _TEXT,
    },
    masks=frozenset({"spec"}),
    id_required=False,
    single=True,
    verbs=frozenset({"create"}),
)

_ALL_KINDS = (
    PROJECT,
    BRANCH,
    ENDPOINT,
    ROLE,
    DATABASE,
    SNAPSHOT,
    CATALOG,
    SCHEDULE,
    DATA_API,
    SYNCED_TABLE,
    CDF_CONFIG,
)
KINDS = {kind.name: kind for kind in _ALL_KINDS}

DAYS = ("MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY")
#: Name of a cadence → its fields.
CADENCES: dict[str, dict[str, Check]] = {
    "daily_schedule": {"hour": _read(_number, 0, 23)},
    "weekly_schedule": {"day_of_week": _one_of(*DAYS), "hour": _read(_number, 0, 23)},
    "monthly_schedule": {"day": _read(_number, 1, 31), "hour": _read(_number, 0, 23)},
}


def _why_no_schedule(value: Any) -> str | None:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        return "must be a list of cadences"
    # A snapshot's end is a timestamp, whose last year is 9999.
    retention = _read(seconds, 3600, 100 * 31_536_000)
    for entry in value:
        cadences = [name for name in CADENCES if isinstance(entry.get(name), dict)]
        if len(cadences) != 1:
            return "must have one cadence in each entry"
        for name, check in CADENCES[cadences[0]].items():
            # Midnight is protobuf's default, which some clients leave out.
            if why := check(entry[cadences[0]].get(name, 0 if name == "hour" else None)):
                return f"has a cadence whose {name} {why}"
        if why := retention(entry.get("retention")):
            return f"has a cadence whose retention {why}"
    return None
