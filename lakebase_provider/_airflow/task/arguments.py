"""Arguments that operators, sensors and triggers share: which connection, and values that are known.

They are checked when the DAG is parsed, so that an author sees at once what is wrong, and without the driver.
The value of a template or another task's output is known only when the task runs, and is checked then.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.sdk import Context

    from lakebase_provider.core.client import LakebaseClient
    from lakebase_provider.core.upkeep.branches.lease_options import LeaseOptions

DEFAULT_CONN_ID = "lakebase_default"
#: What Airflow accepts as the id of a connection.
_CONN_ID = re.compile(r"[\w#!()\-.:/\\]{1,250}")

#: Arguments of the hook that are not settings.
_OF_THE_HOOK = (
    *("schema", "log_sql", "read_only", "enable_log_db_messages", "cursor", "databricks_conn_id"),
    *("insert_statement_format", "replace_statement_format", "escape_word_format", "escape_column_names"),
)


class LakebaseArguments:
    """What all operators and sensors of this package accept and check alike; precedes Airflow's class.

    A subclass sets `conn_id`, a template field, to the result of :func:`conn_id_of`. One whose `branch` says
    on which branch its connection is gives it to `_take_branch`, and makes its hook with `_branch_setting`.
    """

    conn_id: Any  # text, which is annotated in different ways by Airflow's classes
    log: Any
    branch: Any = None
    restore_point: bool = False
    _names_branch = False

    @property
    def lakebase_conn_id(self) -> str:
        """An alias of `conn_id`."""
        conn_id: str = self.conn_id
        return conn_id

    @lakebase_conn_id.setter
    def lakebase_conn_id(self, conn_id: str) -> None:
        self.conn_id = conn_id

    def _take_branch(self, branch: Any) -> None:
        self.branch = branch
        # What a template or another task says is known later. If it is nothing then, that is no reason to
        # work on the connection's own branch, which may be production.
        self._names_branch = branch is not None

    @property
    def _branch_setting(self) -> dict[str, Any]:
        """The hook's setting, whose own check refuses a branch that has become nothing."""
        return {"branch": self.branch} if self._names_branch else {}

    def _note_restore_point(self, context: Context, client: Callable[[], LakebaseClient]) -> None:
        """Note the moment before the task's work, if that is asked for, and push it as ``restore_point``.

        Args:
            context: Of the task that runs.
            client: Returns the client whose branch is changed.
        """
        if self.restore_point:
            point = client().restore_point()
            # Of a try that fails the log alone is left once the next one begins.
            self.log.info("The restore point is %s.", point)
            context["ti"].xcom_push(key="restore_point", value=point.to_dict())

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Like Airflow's, but checks the given values before mapping.

        Raises:
            ConfigError: A value is unknown.
        """
        # What is not given here may be given by expand().
        conn_id_of(kwargs.get("conn_id"), kwargs.get("lakebase_conn_id"), kwargs.get("default_args"))
        cls._check_all(known(kwargs, _template_fields(cls)))
        return super().partial(**kwargs)  # type: ignore[misc] # of the Airflow class that follows

    @classmethod
    def _check_all(cls, given: Mapping[str, Any]) -> None:
        require_branch(given.get("branch"), given.get("hook_params"))
        cls._check_arguments(given)

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        """Raise a ConfigError if the known arguments cannot work."""

    def _check_own_arguments(self, names: Iterable[str], **others: Any) -> None:
        """Check arguments that were set as attributes of the same name, and others."""
        given = {**{name: getattr(self, name) for name in ("branch", *names)}, **others}
        self._check_all(known(given, _template_fields(type(self))))


def conn_id_of(
    conn_id: Any,
    lakebase_conn_id: Any,
    default_args: Mapping[str, Any] | None = None,
    *,
    default: Any = DEFAULT_CONN_ID,
) -> Any:
    """The connection, by either of its two names.

    Args:
        conn_id: The argument of that name, the documented one.
        lakebase_conn_id: The argument of that name.
        default_args: The DAG's and the task's defaults, already filled in by Airflow; the task's own argument
            takes precedence over them, under either name.
        default: Used if neither is given.

    Raises:
        ConfigError: Both are given, and differ; or one is no text, or an empty one.
    """
    for name, value in (("conn_id", conn_id), ("lakebase_conn_id", lakebase_conn_id)):
        if value is not None and not _comes_later(value) and (not isinstance(value, str) or not value):
            from lakebase_provider.core.errors import ConfigError

            raise ConfigError(
                f"{name} is {value!r}."[:200], remedy="Give the id of an Airflow connection, or leave it out."
            )
    given = {"conn_id": conn_id, "lakebase_conn_id": lakebase_conn_id}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) == 2 and conn_id != lakebase_conn_id:
        defaults = default_args or {}
        own = {name: value for name, value in given.items() if defaults.get(name) != value}
        if len(own) != 1:
            from lakebase_provider.core.errors import ConfigError

            raise ConfigError(
                f"Two connections are named: {conn_id!r} by conn_id, and {lakebase_conn_id!r} by "
                "lakebase_conn_id.",
                remedy="Name only one, with conn_id.",
            )
        given = own
    return next(iter(given.values()), default)


def require_conn_id(name: str, operator: Any) -> None:
    """Make sure that an operator's attribute is the id of a connection, or None.

    Somebody may have given a connection's URI instead, with its password: no frame and no error holds it.

    Raises:
        ConfigError: It is none that Airflow would accept.
    """
    if getattr(operator, name) is None or _is_conn_id(getattr(operator, name)):
        return
    from lakebase_provider.core.errors import ConfigError

    raise ConfigError(f"{name} is no id of a connection.", remedy="Give the id of an Airflow connection.")


def _is_conn_id(value: object) -> bool:
    return isinstance(value, str) and _CONN_ID.fullmatch(value) is not None


def without_strangers(lease: Any) -> Any:
    """Options of a lease, of which the values of unknown names are hidden: they may be misplaced secrets."""
    if not isinstance(lease, Mapping):
        return lease
    from lakebase_provider.core.config.field import Unreadable
    from lakebase_provider.core.upkeep.branches.lease_options import LeasePlan

    known_names = LeasePlan.__dataclass_fields__
    return {n: v if n in known_names else Unreadable(type(v).__name__) for n, v in lease.items()}


def known(given: Mapping[str, Any], template_fields: Collection[str]) -> dict[str, Any]:
    """The arguments whose values are known when the DAG is parsed.

    Args:
        given: Arguments by name.
        template_fields: Names of those that Airflow renders; elsewhere, a template is plain text.
    """
    return {
        name: value
        for name, value in given.items()
        if not (_comes_later(value) or (name in template_fields and _is_template(value)))
    }


def require_seconds(given: Mapping[str, Any], *names: str) -> None:
    """Make sure that arguments are numbers of seconds, or None.

    Raises:
        ConfigError: One is not a finite number above 0.
    """
    for name in names:
        value = given.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            from lakebase_provider.core.errors import ConfigError

            raise ConfigError(f"{name} is {value!r}.", remedy=f"Give {name} a number of seconds above 0.")


def require_branch(branch: Any, hook_params: Any = None) -> None:
    """Make sure that an argument names a branch, or is None, and that `hook_params` do not name one too.

    Args:
        branch: The argument.
        hook_params: Settings of the hook, if they are known.

    Raises:
        ConfigError: It is no name and no id, or there are two.
    """
    if branch is None:
        return
    from lakebase_provider.core.config.addresses import ADDRESS
    from lakebase_provider.core.config.resource_names import FORMATS, NameRefusedError, resource_path
    from lakebase_provider.core.errors import ConfigError

    try:
        # An id is in the connection's project, whichever that is.
        full = branch if not isinstance(branch, str) or "/" in branch else f"projects/p/branches/{branch}"
        resource_path("branch", full)
    except (NameRefusedError, TypeError):
        raise ConfigError(
            f"branch is {branch!r}."[:200], remedy=f"Give its id or {FORMATS['branch']}, or leave it out."
        ) from None
    also = [name for name in ADDRESS if isinstance(hook_params, Mapping) and hook_params.get(name)]
    if also:
        raise ConfigError(
            f"Both 'branch' and {also[0]!r} in hook_params are given.", remedy="Keep one of them."
        )


def lease_options(plain: Mapping[str, Any]) -> LeaseOptions:
    """Options of a branch's lease, from what templates and triggers hold of them.

    Args:
        plain: Options by name: a moment may be text, limits may be by name, None is what is not given.

    Raises:
        ConfigError: One is malformed.
    """
    from lakebase_provider.core.errors import ConfigError
    from lakebase_provider.core.upkeep.branches.budget import BranchLimits
    from lakebase_provider.core.upkeep.branches.lease_options import LeasePlan

    options: Any = {name: value for name, value in plain.items() if value is not None}
    at_time, limits = options.get("at_time"), options.get("limits")
    if isinstance(at_time, str):
        options["at_time"] = moment_of("at_time", at_time)
    if isinstance(limits, Mapping):
        names = BranchLimits.__dataclass_fields__
        if not names.keys() >= limits.keys():
            raise ConfigError(
                f"limits are {sorted(map(str, limits))}."[:200], remedy=f"The limits are: {', '.join(names)}."
            )
        options["limits"] = BranchLimits(**limits)
    LeasePlan.of(options)
    return cast("LeaseOptions", options)


def moment_of(name: str, value: Any) -> datetime | None:
    """The moment that an argument is, or that a template has rendered; None for None.

    Raises:
        ConfigError: It is no moment, or has no time zone.
    """
    if value is None:
        return None
    from lakebase_provider.core.errors import ConfigError
    from lakebase_provider.core.workspace.answers import moment

    found = moment(value) if isinstance(value, str) else value
    if getattr(found, "tzinfo", None) is None:
        raise ConfigError(f"{name} is {value!r}."[:200], remedy="Give a time such as 2027-01-31T12:00:00Z.")
    return cast("datetime", found)


def version_of(value: Any) -> int | None:
    """The version of a Delta table that an argument is, or that a template has rendered; None for None.

    Raises:
        ConfigError: It is no whole number: a template may have become ``"None"``.
    """
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    from lakebase_provider.core.errors import ConfigError

    raise ConfigError(f"version is {value!r}."[:200], remedy="Give a version of the Delta table, such as 5.")


def require_synced_table(table: Any) -> None:
    """Make sure that an argument is the name of a synced table, or None.

    Raises:
        ConfigError: It is not.
    """
    from lakebase_provider.core.config.resource_names import UC_TABLE
    from lakebase_provider.core.errors import ConfigError

    if table is not None and not (isinstance(table, str) and UC_TABLE.fullmatch(table)):
        raise ConfigError(
            f"table is {table!r}."[:200], remedy="Give its name in the Unity Catalog: main.sales.orders."
        )


def require_hook_params(params: Any) -> None:
    """Make sure that each of `hook_params` is an argument of the hook, and each setting valid.

    Args:
        params: A mapping, or None.

    Raises:
        ConfigError: It is not a mapping, a name is unknown, or a setting's value is invalid.
    """
    if params is None:
        return
    if not isinstance(params, Mapping):
        from lakebase_provider.core.errors import ConfigError

        raise ConfigError(
            f"hook_params is a {type(params).__name__}.",
            remedy='Give settings by name: {"lock_timeout": 30}.',
        )
    import difflib

    from lakebase_provider.core.config import settings
    from lakebase_provider.core.errors import ConfigError

    rows = {row.name: row for row in settings()}
    for name, value in params.items():
        if name in rows:
            if value is not None and value != "":
                rows[name].parse(rows[name].hidden(value))
        elif name not in _OF_THE_HOOK:
            close = difflib.get_close_matches(str(name), [*rows, *_OF_THE_HOOK], n=1)
            raise ConfigError(
                f"hook_params contain {name!r}, which is not a setting.",
                remedy=f"Did you mean '{close[0]}'?" if close else f"The settings are: {', '.join(rows)}.",
            )


def _template_fields(operator: Any) -> Collection[str]:
    fields: Collection[str] = operator.template_fields
    return fields


def _comes_later(value: Any) -> bool:
    """Whether it is another task's output, which Airflow resolves before the task runs."""
    return hasattr(value, "resolve") and hasattr(value, "iter_references")


def _is_template(value: Any) -> bool:
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, Mapping):
        return any(_is_template(one) or _comes_later(one) for one in value.values())
    if isinstance(value, list | tuple | set):
        return any(_is_template(one) or _comes_later(one) for one in value)
    return False
