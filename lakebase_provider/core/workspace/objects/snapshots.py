"""Snapshots of root branches, and the schedules by which they are taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypedDict, get_args

from lakebase_provider.core.config import arguments
from lakebase_provider.core.config.resource_names import Kind
from lakebase_provider.core.errors import ConfigError
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
    moment,
    only_true,
    seconds,
    text,
)
from lakebase_provider.core.workspace.operations import Operation

if TYPE_CHECKING:
    from typing_extensions import Unpack

DayOfWeek = Literal["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"]


@dataclass(frozen=True, kw_only=True)
class Snapshot(Named):
    """A snapshot; it outlives its branch.

    Attributes:
        name: Its full name, ``projects/<project>/snapshots/<snapshot>``.
        uid: Its uid.
        create_time: When it was taken.
        source_branch: Name of the branch that it was taken of.
        expire_time: When it will be deleted; None if it does not expire.
        no_expiry: Whether it does not expire.
        full_size: Bytes that restoring it alone would take.
        diff_size: Bytes that it takes beside the others.
    """

    uid: Annotated[str | None, At("uid", Answer.text)] = None
    create_time: Annotated[datetime | None, At("create_time", Answer.moment)] = None
    source_branch: Annotated[str | None, At("status.source_branch", Answer.text)] = None
    expire_time: Annotated[datetime | None, At("status.expire_time", Answer.moment)] = None
    no_expiry: Annotated[bool, At("status.no_expiry", Answer.flag)] = False
    full_size: Annotated[float | None, At("status.full_size_bytes", Answer.number)] = None
    diff_size: Annotated[float | None, At("status.diff_size_bytes", Answer.number)] = None


class SnapshotOptions(TypedDict, total=False):
    """What describes a new snapshot.

    Attributes:
        source_branch: Name of the root branch to take it of; required.
        source_branch_time: The moment of which it is to be; now by default.
        source_branch_lsn: The position in the branch's log instead of a moment.
        ttl: Seconds until it is deleted.
        expire_time: When it is to be deleted.
        no_expiry: True: it is not deleted by itself.
    """

    source_branch: str
    source_branch_time: datetime
    source_branch_lsn: str
    ttl: float
    expire_time: datetime
    no_expiry: bool


@dataclass(frozen=True)
class Cadence:
    """When snapshots of a branch are taken, in UTC, and how long they are kept.

    Attributes:
        retention: Seconds that each is kept, at least 3600.
        hour: Hour of the day, 0 to 23.
        day_of_week: Day of a weekly cadence; None for another one.
        day_of_month: Day of a monthly cadence, from 1; None for another one. With neither it is daily.
    """

    retention: float
    hour: int
    day_of_week: DayOfWeek | None = None
    day_of_month: int | None = None

    def __post_init__(self) -> None:
        if self.day_of_week is not None and self.day_of_month is not None:
            raise ConfigError("Both 'day_of_week' and 'day_of_month' are given.", remedy="Keep one of them.")
        if self.day_of_week is not None and self.day_of_week not in get_args(DayOfWeek):
            raise ConfigError(
                f"day_of_week is {self.day_of_week!r}.",
                remedy=f"Use one of: {', '.join(get_args(DayOfWeek))}.",
            )

    def to_json(self) -> dict[str, Any]:
        """As the API has it."""
        if self.day_of_week is not None:
            when = {"weekly_schedule": {"day_of_week": self.day_of_week, "hour": self.hour}}
        elif self.day_of_month is not None:
            when = {"monthly_schedule": {"day": self.day_of_month, "hour": self.hour}}
        else:
            when = {"daily_schedule": {"hour": self.hour}}
        return {"retention": seconds("retention", self.retention), **when}

    @classmethod
    def of(cls, answer: Answer) -> Cadence:
        """The cadence that an answer describes."""
        kinds = ("daily_schedule", "weekly_schedule", "monthly_schedule")
        when = answer.object(next((kind for kind in kinds if answer.fields.get(kind) is not None), kinds[0]))
        day = when.number("day")
        return cls(
            retention=answer.duration("retention") or 0.0,
            hour=int(when.number("hour") or 0),
            day_of_week=when.state("day_of_week"),  # type: ignore[arg-type] # checked by the class
            day_of_month=None if day is None else int(day),
        )


class Snapshots(Objects[Snapshot]):
    """Snapshots, as ``client.workspace.snapshots``; with twins for asyncio, such as ``acreate``.

    A snapshot is restored by creating a branch with `source_snapshot`, a new root; nothing is overwritten.
    """

    kind: ClassVar[Kind] = "snapshot"
    shape = Snapshot
    options: ClassVar[Mapping[str, Option]] = {
        "source_branch": Option("spec.source_branch", text, is_name="branch", reads="source_branch"),
        "source_branch_time": Option("spec.source_branch_time", moment, group="position"),
        "source_branch_lsn": Option("spec.source_branch_lsn", text, group="position"),
        "ttl": Option("spec.ttl", seconds, group="expiration"),
        "expire_time": Option("spec.expire_time", moment, group="expiration", reads="expire_time"),
        "no_expiry": Option("spec.no_expiry", only_true, group="expiration", reads="no_expiry"),
    }

    def list(self, project: str | None = None) -> tuple[Snapshot, ...]:
        """All snapshots of a project.

        Args:
            project: Its name; the configuration's by default.

        Raises:
            LakebaseError: The workspace refused or could not be reached.
        """
        return self._list(self._parent(project))

    def create(
        self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **options: Unpack[SnapshotOptions]
    ) -> Snapshot:
        """Take a snapshot of a root branch; returns when the operation is done, and it can be restored.

        Args:
            name: Its name, or its id in the configuration's project.
            timeout: Seconds that it may take, waiting for other operations on the project included.
            options: The fields of :class:`SnapshotOptions`.

        Raises:
            AlreadyExistsError: A snapshot of that name exists.
            LimitError: The project has as many snapshots as it may have.
            OperationFailedError: The workspace could not take it.
            OperationTimeoutError: It was not done in time, and goes on.
            LakebaseError: The workspace refused or could not be reached.
        """
        return self._create(name, options, timeout)

    def begin_create(
        self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **options: Unpack[SnapshotOptions]
    ) -> Operation:
        """:meth:`create`, without waiting for the operation.

        If the workspace's answer is lost, the snapshot is looked up instead, and the operation has the
        snapshot's name.
        """
        return self._begun(name, options, timeout)

    def delete(self, name: str, *, missing_ok: bool = False, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Delete a snapshot.

        Args:
            name: Its name, or its id in the configuration's project.
            missing_ok: True to accept that there is none.
            timeout: Seconds that it may take.

        Raises:
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        self._delete(name, timeout, missing_ok=missing_ok)

    def ensure(
        self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **options: Unpack[SnapshotOptions]
    ) -> Snapshot:
        """Take a snapshot unless there is one of that name, of the same branch.

        Raises:
            AlreadyExistsError: There is one, of another branch or with another expiration.
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        return self._ensure(name, options, timeout)

    def schedule(self, branch: str) -> tuple[Cadence, ...]:
        """When snapshots of a branch are taken; empty if they are not.

        Args:
            branch: Its name, or its id in the configuration's project.

        Raises:
            LakebaseError: The workspace refused or could not be reached.
        """
        name = f"{self.full_name(branch, 'branch')}/snapshot-schedule"
        what = f"the snapshot schedule {name}"
        answer = Answer(self._read(what, name), what)
        return tuple(Cadence.of(one) for one in answer.objects("schedule"))

    def set_schedule(
        self, branch: str, schedule: Sequence[Cadence], *, timeout: float = DEFAULT_TIMEOUT
    ) -> tuple[Cadence, ...]:
        """Say when snapshots of a branch are taken, in place of what was said before.

        Args:
            branch: Its name, or its id in the configuration's project.
            schedule: The cadences; none to take no more. Snapshots that exist stay as they are.
            timeout: Seconds that it may take.

        Raises:
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        name = f"{self.full_name(branch, 'branch')}/snapshot-schedule"
        if not isinstance(schedule, Sequence) or not all(isinstance(one, Cadence) for one in schedule):
            raise arguments.wrong("'schedule'", schedule, "be a list of Cadence", "Give a list, [] for none.")
        deadline = self._deadline(timeout)
        with self._alone(name, deadline):
            operation = self._send(
                "update",
                "PATCH",
                name,
                deadline,
                body={"schedule": [cadence.to_json() for cadence in schedule]},
                query={"update_mask": "schedule"},
                lost=[],
            )
            self._finish(operation, deadline)
        return self.schedule(branch)

    aget = in_thread(Objects.get)
    alist = in_thread(list)
    acreate = in_thread(create)
    adelete = in_thread(delete)
    aensure = in_thread(ensure)
    aschedule = in_thread(schedule)
    aset_schedule = in_thread(set_schedule)
