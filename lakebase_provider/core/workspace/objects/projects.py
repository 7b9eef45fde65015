"""Projects: what branches, their history and their limits belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypedDict

from lakebase_provider.core.config.resource_names import Kind
from lakebase_provider.core.workspace.answers import Answer
from lakebase_provider.core.workspace.objects.object_kind import (
    DEFAULT_TIMEOUT,
    At,
    Named,
    Objects,
    Option,
    in_thread,
)
from lakebase_provider.core.workspace.objects.option_values import (
    flag,
    listed,
    mapped,
    number,
    only_true,
    seconds,
    text,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


def _tags(answer: Answer, name: str) -> tuple[tuple[str, str], ...]:
    return tuple((tag.text("key") or "", tag.text("value") or "") for tag in answer.objects(name))


def texts(answer: Answer, name: str) -> tuple[tuple[str, str], ...]:
    """Texts by name, as pairs."""
    told = answer.object(name)
    return tuple((key, told.text(key) or "") for key in sorted(told.fields))


@dataclass(frozen=True, kw_only=True)
class Project(Named):
    """A project.

    Attributes:
        name: Its full name, ``projects/<project>``.
        uid: Its uid.
        create_time: When it was created.
        update_time: When it was last changed.
        delete_time: When it was deleted, while it can be brought back.
        purge_time: When it will be gone for good.
        display_name: What the console calls it.
        owner: Who owns it.
        pg_version: Major version of Postgres.
        default_branch: Name of its default branch.
        history_retention: Seconds of history that can be branched from.
        enable_pg_native_login: Whether native Postgres passwords are accepted.
        default_min_cu: Least size of the endpoint ``primary`` of a new branch, in capacity units.
        default_max_cu: Largest size of it.
        default_suspend_timeout: Seconds after which it is suspended when idle; None for never.
        default_pg_settings: Postgres settings of it.
        budget_policy_id: Whom its cost is attributed to.
        custom_tags: Its tags, as pairs.
        compute_last_active_time: When one of its endpoints was last active.
        branch_size_limit: Bytes that a branch may hold.
        storage_size: Bytes of all its branches' data and history.
    """

    uid: Annotated[str | None, At("uid", Answer.text)] = None
    create_time: Annotated[datetime | None, At("create_time", Answer.moment)] = None
    update_time: Annotated[datetime | None, At("update_time", Answer.moment)] = None
    delete_time: Annotated[datetime | None, At("delete_time", Answer.moment)] = None
    purge_time: Annotated[datetime | None, At("purge_time", Answer.moment)] = None
    display_name: Annotated[str | None, At("status.display_name", Answer.text)] = None
    owner: Annotated[str | None, At("status.owner", Answer.text)] = None
    pg_version: Annotated[float | None, At("status.pg_version", Answer.number)] = None
    default_branch: Annotated[str | None, At("status.default_branch", Answer.text)] = None
    history_retention: Annotated[float | None, At("status.history_retention_duration", Answer.duration)] = (
        None
    )
    enable_pg_native_login: Annotated[bool, At("status.enable_pg_native_login", Answer.flag)] = False
    default_min_cu: Annotated[
        float | None, At("status.default_endpoint_settings.autoscaling_limit_min_cu", Answer.number)
    ] = None
    default_max_cu: Annotated[
        float | None, At("status.default_endpoint_settings.autoscaling_limit_max_cu", Answer.number)
    ] = None
    default_suspend_timeout: Annotated[
        float | None, At("status.default_endpoint_settings.suspend_timeout_duration", Answer.duration)
    ] = None
    default_pg_settings: Annotated[
        tuple[tuple[str, str], ...], At("status.default_endpoint_settings.pg_settings", texts)
    ] = ()
    budget_policy_id: Annotated[str | None, At("status.budget_policy_id", Answer.text)] = None
    custom_tags: Annotated[tuple[tuple[str, str], ...], At("status.custom_tags", _tags)] = ()
    compute_last_active_time: Annotated[
        datetime | None, At("status.compute_last_active_time", Answer.moment)
    ] = None
    branch_size_limit: Annotated[
        float | None, At("status.branch_logical_size_limit_bytes", Answer.number)
    ] = None
    storage_size: Annotated[float | None, At("status.synthetic_storage_size_bytes", Answer.number)] = None

    @property
    def default_no_suspension(self) -> bool:
        """Whether the endpoint of a new branch is never suspended."""
        return self.default_suspend_timeout is None


class ProjectChanges(TypedDict, total=False):
    """What can be changed about a project.

    Attributes:
        display_name: What the console calls it.
        default_branch: Name of its default branch.
        history_retention: Seconds of history that can be branched from, 2 to 35 days.
        enable_pg_native_login: Whether native Postgres passwords are accepted.
        default_min_cu: Least size of the endpoint ``primary`` of a new branch, in capacity units.
        default_max_cu: Largest size of it.
        default_suspend_timeout: Seconds after which it is suspended when idle.
        default_no_suspension: True: it is not suspended.
        default_pg_settings: Postgres settings of it.
        budget_policy_id: Whom its cost is attributed to.
        custom_tags: Its tags, each ``{"key": …, "value": …}``; an empty list clears them.
    """

    display_name: str
    default_branch: str
    history_retention: float
    enable_pg_native_login: bool
    default_min_cu: float
    default_max_cu: float
    default_suspend_timeout: float
    default_no_suspension: bool
    default_pg_settings: Mapping[str, str]
    budget_policy_id: str
    custom_tags: list[Mapping[str, str]]


class ProjectOptions(ProjectChanges, total=False):
    """What describes a new project.

    Attributes:
        pg_version: Major version of Postgres, such as 17.
        initial_is_protected: Whether its first branch is protected.
        initial_min_cu: Least size of that branch's endpoint ``primary``, in capacity units; whatever is not
            given of it is the project's default.
        initial_max_cu: Largest size of it.
        initial_suspend_timeout: Seconds after which it is suspended when idle.
        initial_no_suspension: True: it is not suspended.
        initial_group_min: Least number of its computes.
        initial_group_max: Largest number of them, equal to `initial_group_min`.
        initial_readable_secondaries: Whether those that stand by can be read from.
    """

    pg_version: int
    initial_is_protected: bool
    initial_min_cu: float
    initial_max_cu: float
    initial_suspend_timeout: float
    initial_no_suspension: bool
    initial_group_min: int
    initial_group_max: int
    initial_readable_secondaries: bool


_SETTINGS, _FIRST = "spec.default_endpoint_settings.", "initial_endpoint_spec."


def _changeable(path: str, encode: Any, mask: str | None = None, **more: Any) -> Option:
    return Option(path, encode, mask or path, **more)


class Projects(Objects[Project]):
    """Projects, as ``client.workspace.projects``; with twins for asyncio, such as ``acreate``."""

    kind: ClassVar[Kind] = "project"
    shape = Project
    options: ClassVar[Mapping[str, Option]] = {
        "display_name": _changeable("spec.display_name", text, reads="display_name"),
        "pg_version": Option("spec.pg_version", number, reads="pg_version"),
        "default_branch": _changeable(
            "spec.default_branch", text, creates=False, is_name="branch", reads="default_branch"
        ),
        "history_retention": _changeable(
            "spec.history_retention_duration", seconds, reads="history_retention"
        ),
        "enable_pg_native_login": _changeable(
            "spec.enable_pg_native_login", flag, reads="enable_pg_native_login"
        ),
        "default_min_cu": _changeable(f"{_SETTINGS}autoscaling_limit_min_cu", number, reads="default_min_cu"),
        "default_max_cu": _changeable(f"{_SETTINGS}autoscaling_limit_max_cu", number, reads="default_max_cu"),
        "default_suspend_timeout": _changeable(
            f"{_SETTINGS}suspend_timeout_duration",
            seconds,
            f"{_SETTINGS}suspension",
            reads="default_suspend_timeout",
        ),
        "default_no_suspension": _changeable(
            f"{_SETTINGS}no_suspension", only_true, f"{_SETTINGS}suspension", reads="default_no_suspension"
        ),
        "default_pg_settings": _changeable(f"{_SETTINGS}pg_settings", mapped, reads="default_pg_settings"),
        "budget_policy_id": _changeable("spec.budget_policy_id", text, reads="budget_policy_id"),
        "custom_tags": _changeable("spec.custom_tags", listed, reads="custom_tags"),
        "initial_is_protected": Option("initial_branch_spec.is_protected", flag),
        "initial_min_cu": Option(f"{_FIRST}autoscaling_limit_min_cu", number),
        "initial_max_cu": Option(f"{_FIRST}autoscaling_limit_max_cu", number),
        "initial_suspend_timeout": Option(f"{_FIRST}suspend_timeout_duration", seconds, group="initial"),
        "initial_no_suspension": Option(f"{_FIRST}no_suspension", only_true, group="initial"),
        "initial_group_min": Option(f"{_FIRST}group.min", number),
        "initial_group_max": Option(f"{_FIRST}group.max", number),
        "initial_readable_secondaries": Option(f"{_FIRST}group.enable_readable_secondaries", flag),
    }

    def list(self, *, show_deleted: bool = False) -> tuple[Project, ...]:
        """All projects that the principal can see.

        Args:
            show_deleted: Whether to list those, too, that can still be brought back.

        Raises:
            LakebaseError: The workspace refused or could not be reached.
        """
        return self._list(None, show_deleted=show_deleted or None)

    def create(
        self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **options: Unpack[ProjectOptions]
    ) -> Project:
        """Create a project with a branch ``production``; returns when the operation is done.

        Args:
            name: Its name or id.
            timeout: Seconds that it may take.
            options: The fields of :class:`ProjectOptions`.

        Raises:
            AlreadyExistsError: A project of that name exists, or existed some days ago.
            LimitError: The workspace has as many projects as it may have.
            OperationFailedError: The workspace could not create it.
            OperationTimeoutError: It was not done in time, and goes on.
            LakebaseError: The workspace refused or could not be reached.
        """
        return self._create(name, options, timeout)

    def update(
        self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **changes: Unpack[ProjectChanges]
    ) -> Project:
        """Change a project.

        Args:
            name: Its name or id.
            timeout: Seconds that it may take.
            changes: The fields of :class:`ProjectChanges` that are to change.

        Raises:
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        return self._update(name, changes, timeout)

    def delete(
        self, name: str, *, purge: bool = False, missing_ok: bool = False, timeout: float = DEFAULT_TIMEOUT
    ) -> None:
        """Delete a project with everything in it.

        Args:
            name: Its name or id.
            purge: True to delete it for good; otherwise it keeps its name and can be brought back for 7 days.
            missing_ok: True to accept that there is none.
            timeout: Seconds that it may take.

        Raises:
            ObjectStateError: It has a protected branch.
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        self._delete(name, timeout, missing_ok=missing_ok, purge=purge or None)

    def undelete(self, name: str, *, timeout: float = DEFAULT_TIMEOUT) -> Project:
        """Bring back a project that was deleted and not purged.

        Raises:
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        return self._undelete(name, timeout)

    def ensure(
        self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **options: Unpack[ProjectOptions]
    ) -> Project:
        """Create a project, or change what differs about the one that is there.

        Raises:
            AlreadyExistsError: It is there, and differs in what cannot be changed.
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        return self._ensure(name, options, timeout)

    aget = in_thread(Objects.get)
    alist = in_thread(list)
    acreate = in_thread(create)
    aupdate = in_thread(update)
    adelete = in_thread(delete)
    aundelete = in_thread(undelete)
    aensure = in_thread(ensure)
