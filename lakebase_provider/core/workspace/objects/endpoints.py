"""Endpoints: the computes of branches, which serve at a host, sleep when idle and come in sizes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypedDict

from lakebase_provider.core.base.clock import Deadline
from lakebase_provider.core.config import arguments
from lakebase_provider.core.config.resource_names import Kind, parent_of
from lakebase_provider.core.errors import AlreadyExistsError, EndpointDisabledError, LakebaseError
from lakebase_provider.core.workspace.answers import Answer
from lakebase_provider.core.workspace.objects.kept_changes import (
    Kept,
    default_folder,
    put_all_back,
    workspace_key,
)
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
    mapped,
    number,
    only_true,
    seconds,
)
from lakebase_provider.core.workspace.objects.projects import texts
from lakebase_provider.core.workspace.operations import Operation, auntil, until

if TYPE_CHECKING:
    from typing_extensions import Unpack

logger = logging.getLogger(__name__)

EndpointType = Literal["READ_WRITE", "READ_ONLY"]

_TYPE = "ENDPOINT_TYPE_"
#: States in which it serves; a suspended one wakes when somebody connects.
_SERVING = ("ACTIVE", "IDLE", "DEGRADED")


def _kind(answer: Answer, name: str) -> str | None:
    found = answer.state(name)
    return None if found is None else found.removeprefix(_TYPE)


def _type(name: str, value: Any) -> str:
    return f"{_TYPE}{str(value).removeprefix(_TYPE)}"


@dataclass(frozen=True, kw_only=True)
class Endpoint(Named):
    """An endpoint.

    Attributes:
        name: Its full name, ``projects/<project>/branches/<branch>/endpoints/<endpoint>``.
        uid: Its uid, with which its host's name begins.
        parent: The branch's name.
        create_time: When it was created.
        update_time: When it was last changed.
        endpoint_type: ``READ_WRITE``, ``READ_ONLY``, or what else the workspace says.
        state: ``ACTIVE``, ``IDLE`` (suspended), ``INIT``, ``DEGRADED``, or what else the workspace says.
        pending_state: What it is becoming; None if it stays.
        disabled: Whether it is switched off: no connection wakes it.
        min_cu: Least size in capacity units.
        max_cu: Largest size.
        suspend_timeout: Seconds after which it is suspended when idle; None for never.
        last_active_time: When it was last active.
        group_min: Least number of computes.
        group_max: Largest number of computes; more than one is high availability.
        readable_secondaries: Whether those that stand by can be read from.
        pg_settings: Postgres settings, as pairs.
        host: Its host; None until it has one.
        read_only_host: The host of its secondaries.
        pooled_host: The host of its pooler, which accepts native passwords only.
        read_only_pooled_host: The host of the secondaries' pooler.
    """

    uid: Annotated[str | None, At("uid", Answer.text)] = None
    parent: Annotated[str | None, At("parent", Answer.text)] = None
    create_time: Annotated[datetime | None, At("create_time", Answer.moment)] = None
    update_time: Annotated[datetime | None, At("update_time", Answer.moment)] = None
    endpoint_type: Annotated[str | None, At("status.endpoint_type", _kind)] = None
    state: Annotated[str | None, At("status.current_state", Answer.state)] = None
    pending_state: Annotated[str | None, At("status.pending_state", Answer.state)] = None
    disabled: Annotated[bool, At("status.disabled", Answer.flag)] = False
    min_cu: Annotated[float | None, At("status.autoscaling_limit_min_cu", Answer.number)] = None
    max_cu: Annotated[float | None, At("status.autoscaling_limit_max_cu", Answer.number)] = None
    suspend_timeout: Annotated[float | None, At("status.suspend_timeout_duration", Answer.duration)] = None
    last_active_time: Annotated[datetime | None, At("status.last_active_time", Answer.moment)] = None
    group_min: Annotated[float | None, At("status.group.min", Answer.number)] = None
    group_max: Annotated[float | None, At("status.group.max", Answer.number)] = None
    readable_secondaries: Annotated[bool, At("status.group.enable_readable_secondaries", Answer.flag)] = False
    pg_settings: Annotated[tuple[tuple[str, str], ...], At("status.settings.pg_settings", texts)] = ()
    host: Annotated[str | None, At("status.hosts.host", Answer.text)] = None
    read_only_host: Annotated[str | None, At("status.hosts.read_only_host", Answer.text)] = None
    pooled_host: Annotated[str | None, At("status.hosts.read_write_pooled_host", Answer.text)] = None
    read_only_pooled_host: Annotated[str | None, At("status.hosts.read_only_pooled_host", Answer.text)] = None

    @property
    def is_settled(self) -> bool:
        """Whether it serves, or sleeps until somebody connects, and stays so."""
        return self.state in _SERVING and self.pending_state is None

    @property
    def is_being_made(self) -> bool:
        """Whether its creation goes on, so that not all about it is told yet."""
        return self.state in (None, "INIT")

    @property
    def no_suspension(self) -> bool:
        """Whether it is never suspended."""
        return self.suspend_timeout is None

    def settings(self) -> EndpointChanges:
        """What was chosen about it, to be given to another endpoint or to put it back."""
        found: EndpointChanges = {"disabled": self.disabled}
        if self.min_cu is not None:
            found["min_cu"] = self.min_cu
        if self.max_cu is not None:
            found["max_cu"] = self.max_cu
        if self.suspend_timeout is None:
            found["no_suspension"] = True
        else:
            found["suspend_timeout"] = self.suspend_timeout
        if self.pg_settings:
            found["pg_settings"] = dict(self.pg_settings)
        if self.group_min is not None and self.group_max is not None and self.group_max > 1:
            found["group_min"], found["group_max"] = int(self.group_min), int(self.group_max)
            found["readable_secondaries"] = self.readable_secondaries
        return found


class EndpointChanges(TypedDict, total=False):
    """What can be changed about an endpoint.

    Attributes:
        min_cu: Least size in capacity units, from 0.5.
        max_cu: Largest size, at most 16 more.
        suspend_timeout: Seconds after which it is suspended when idle, from 60 to 604800.
        no_suspension: True: it is not suspended.
        disabled: True to suspend it until it is enabled again; no connection wakes it.
        group_min: Least number of computes.
        group_max: Largest number of computes, 1 to 4; equal to `group_min`.
        readable_secondaries: Whether those that stand by can be read from.
        pg_settings: Postgres settings.
    """

    min_cu: float
    max_cu: float
    suspend_timeout: float
    no_suspension: bool
    disabled: bool
    group_min: int
    group_max: int
    readable_secondaries: bool
    pg_settings: Mapping[str, str]


class EndpointOptions(EndpointChanges, total=False):
    """What describes a new endpoint.

    Attributes:
        endpoint_type: ``"READ_ONLY"`` for a read replica, the default. A branch has one ``"READ_WRITE"``
            endpoint, which comes with it.
    """

    endpoint_type: EndpointType


def _changeable(path: str, encode: Any, mask: str | None = None, reads: str | None = None) -> Option:
    return Option(path, encode, mask or path, reads=reads)


class Endpoints(Objects[Endpoint]):
    """Endpoints, as ``client.workspace.endpoints``.

    Most methods have a twin for asyncio: ``acreate``, ``aget`` and so on. Writing needs CAN MANAGE on the
    project.
    """

    kind: ClassVar[Kind] = "endpoint"
    shape = Endpoint
    options: ClassVar[Mapping[str, Option]] = {
        "endpoint_type": Option("spec.endpoint_type", _type, reads="endpoint_type"),
        "min_cu": _changeable("spec.autoscaling_limit_min_cu", number, reads="min_cu"),
        "max_cu": _changeable("spec.autoscaling_limit_max_cu", number, reads="max_cu"),
        "suspend_timeout": _changeable(
            "spec.suspend_timeout_duration", seconds, "spec.suspension", "suspend_timeout"
        ),
        "no_suspension": _changeable("spec.no_suspension", only_true, "spec.suspension", "no_suspension"),
        "disabled": _changeable("spec.disabled", flag, reads="disabled"),
        "group_min": _changeable("spec.group.min", number, reads="group_min"),
        "group_max": _changeable("spec.group.max", number, reads="group_max"),
        "readable_secondaries": _changeable(
            "spec.group.enable_readable_secondaries", flag, reads="readable_secondaries"
        ),
        "pg_settings": _changeable("spec.settings.pg_settings", mapped, reads="pg_settings"),
    }

    #: Where earlier sizes are kept; None for this user's folder.
    sizes_folder: Path | None = None

    def list(self, branch: str | None = None) -> tuple[Endpoint, ...]:
        """All endpoints of a branch.

        Args:
            branch: Its name; the configuration's by default.

        Raises:
            LakebaseError: The workspace refused or could not be reached.
        """
        return self._list(self._parent(branch))

    def locate(self, text: str) -> Endpoint:
        """The endpoint of that name, uid or host.

        Args:
            text: Its full name, its id in the configuration's branch; or its uid or one of its hosts, of any
                branch of the configuration's project.

        Raises:
            EndpointNotFoundError: There is none that the principal can see.
            LakebaseError: The workspace refused or could not be reached.
        """
        known = self._config
        arguments.text("The endpoint", text, "Give its name, its uid, or one of its hosts.")
        if "/" not in text and (text.startswith("ep-") or "." in text):
            known_as = text
            text = self._asked(lambda: self._control_plane.endpoint_name(known_as, known.project))
        return self.get(text)

    def create(
        self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **options: Unpack[EndpointOptions]
    ) -> Endpoint:
        """Create an endpoint, a read replica by default; returns when the operation is done.

        Args:
            name: Its name, or its id in the configuration's branch.
            timeout: Seconds that it may take, waiting for other operations on the project included.
            options: The fields of :class:`EndpointOptions`.

        Raises:
            AlreadyExistsError: An endpoint of that name exists, or the branch has a read-write one.
            LimitError: The project has as many computes as it may have.
            OperationFailedError: The workspace could not create it.
            OperationTimeoutError: It was not done in time, and goes on.
            LakebaseError: The workspace refused or could not be reached.
        """
        return self._create(name, {"endpoint_type": "READ_ONLY", **options}, timeout)

    def begin_create(
        self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **options: Unpack[EndpointOptions]
    ) -> Operation:
        """:meth:`create`, without waiting for the operation.

        If the workspace's answer is lost, the endpoint is looked up and waited for instead, and the operation
        has the endpoint's name.
        """
        return self._begun(name, {"endpoint_type": "READ_ONLY", **options}, timeout)

    def update(
        self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **changes: Unpack[EndpointChanges]
    ) -> Endpoint:
        """Change an endpoint. Another range of sizes may drop its connections for a moment.

        Args:
            name: Its name, or its id in the configuration's branch.
            timeout: Seconds that it may take.
            changes: The fields of :class:`EndpointChanges` that are to change.

        Raises:
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        return self._change(name, dict(changes), timeout)

    def _change(self, name: str, changes: Mapping[str, Any], timeout: float | Deadline) -> Endpoint:
        # The API requires it in each body.
        found = self.get(name)
        return self._update(
            name, changes, timeout, endpoint_type=_type("", found.endpoint_type or "READ_WRITE")
        )

    def delete(self, name: str, *, missing_ok: bool = False, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Delete a read replica.

        Args:
            name: Its name, or its id in the configuration's branch.
            missing_ok: True to accept that there is none.
            timeout: Seconds that it may take; the workspace may still be at its last change.

        Raises:
            ManagedByParentError: It is the read-write endpoint, which goes with its branch.
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        self._delete(name, timeout, missing_ok=missing_ok)

    def ensure(
        self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **options: Unpack[EndpointOptions]
    ) -> Endpoint:
        """Create an endpoint, or change what differs about the one that is there.

        Raises:
            AlreadyExistsError: It is there, and of another type; or a ``"READ_WRITE"`` one is wanted, and
                the branch has it under another id.
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        return self._ensure(name, {"endpoint_type": "READ_ONLY", **options}, timeout)

    def _of_another_id(self, name: str, given: Mapping[str, Any]) -> Endpoint | None:
        if given["endpoint_type"] == "READ_WRITE":
            for one in self.list(parent_of(name)):
                if one.endpoint_type == "READ_WRITE":
                    raise AlreadyExistsError(
                        f"The branch's read-write endpoint is {one.name}, and it has no second.",
                        remedy=f'Use {one.name}, or "READ_ONLY" as endpoint_type.',
                    )
        return None

    def _differences(self, found: Endpoint, given: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        different = super()._differences(found, given)
        if given.get("no_suspension") and found.suspend_timeout is not None:
            different["no_suspension"] = (False, True)
        settings = given.get("pg_settings")
        if settings is not None and dict(settings) != dict(found.pg_settings):
            different["pg_settings"] = (dict(found.pg_settings), settings)
        return different

    def suspend(self, name: str, *, timeout: float = DEFAULT_TIMEOUT) -> Endpoint:
        """Switch an endpoint off: its sessions end, and no connection wakes it until :meth:`enable`.

        Raises:
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        return self._change(name, {"disabled": True}, timeout)

    def enable(self, name: str, *, timeout: float = DEFAULT_TIMEOUT) -> Endpoint:
        """Undo :meth:`suspend`; the next connection wakes it.

        Raises:
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        return self._change(name, {"disabled": False}, timeout)

    def wait_ready(self, name: str, *, timeout: float = DEFAULT_TIMEOUT) -> Endpoint:
        """Wait until an endpoint serves, or sleeps until somebody connects, and stays so.

        Args:
            name: Its name, or its id in the configuration's branch.
            timeout: Seconds to wait at most.

        Raises:
            EndpointDisabledError: It is switched off.
            OperationTimeoutError: It was not ready in time.
            LakebaseError: The workspace refused.
        """
        name = self.full_name(name)
        deadline = self._deadline(timeout)
        return until(lambda: self._if_ready(name), f"Waiting for {name}", name, deadline, self._clock)

    async def await_ready(self, name: str, *, timeout: float = DEFAULT_TIMEOUT) -> Endpoint:
        """:meth:`wait_ready` for asyncio; between its requests no thread is held."""
        name = self.full_name(name)
        deadline = self._deadline(timeout)
        return await auntil(lambda: self._if_ready(name), f"Waiting for {name}", name, deadline)

    def _if_ready(self, name: str) -> Endpoint | None:
        found = self.get(name)
        if found.disabled and found.pending_state is None:
            raise EndpointDisabledError(f"The endpoint {name} is disabled.")
        return found if found.is_settled else None

    @contextmanager
    def resized(
        self,
        name: str,
        *,
        min_cu: float | None = None,
        max_cu: float | None = None,
        suspend_timeout: float | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Iterator[Endpoint]:
        """Give an endpoint another size for a while, and put the earlier one back afterwards.

        The earlier values are in a file of this user on this machine before anything is changed. After a
        kill, the next use of :meth:`resized` for the endpoint, or :meth:`put_sizes_back`, finds them there.
        Where several blocks of this user's processes on this machine overlap, the size is that of the block
        that began last, and the last that ends puts back what was before the first. Of blocks of other users
        or machines nothing is known here: what such a one chose counts as the earlier size.

        Args:
            name: Its name, or its id in the configuration's branch.
            min_cu: Least size in capacity units.
            max_cu: Largest size.
            suspend_timeout: Seconds after which it is suspended when idle.
            timeout: Seconds that each of the two changes may take.

        Raises:
            ConfigError: The earlier values cannot be kept; nothing was changed.
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`. Where the block
                itself raises, its error is raised, with a note if the earlier values could not be put back.
        """
        name = self.full_name(name)
        found = self.get(name)
        wanted = {"min_cu": min_cu, "max_cu": max_cu, "suspend_timeout": suspend_timeout}
        changes = {option: value for option, value in wanted.items() if value is not None}
        # Before anything is kept that nobody would put back.
        self._deadline(timeout)
        self._body(changes, creating=False)
        kept = Kept(workspace_key(self._config), name, found.uid or "", self._folder())
        # No other block of this process ends between what is read here and what is kept.
        with self._alone(name, self._deadline(timeout)):
            kept.enter(lambda: _size(self.get(name)))
        try:
            self._change(name, changes, timeout)
            yield self.wait_ready(name, timeout=timeout)
        except BaseException as error:
            try:
                self._leave(kept, name, timeout)
            except LakebaseError as failed:
                told = f"{failed.message} {failed.remedy}"
                logger.warning("%s", told)
                # Python 3.10 has no notes.
                if hasattr(error, "add_note"):
                    error.add_note(told)
            raise
        self._leave(kept, name, timeout)

    def _leave(self, kept: Kept, name: str, timeout: float) -> None:
        deadline = self._deadline(timeout)
        try:
            # A block that begins meanwhile does so on the earlier size, which is then put back.
            with self._alone(name, deadline):
                earlier = kept.leave()
                if earlier is not None:
                    self._change(name, earlier, deadline)
                    kept.forget()
        except LakebaseError as error:
            kept.stop(is_done=False)
            copy = error.again()
            copy.message = f"The earlier size of {name} was not put back: {error.message}"
            copy.remedy = (
                "Run 'lakebase endpoints put-sizes-back' on this machine, or call "
                "client.workspace.endpoints.put_sizes_back()."
            )
            raise copy from error

    def put_sizes_back(self, *, timeout: float = DEFAULT_TIMEOUT) -> tuple[str, ...]:
        """Undo what blocks of :meth:`resized` left behind that were killed on this machine.

        Args:
            timeout: Seconds that each change may take.

        Returns:
            The names of the endpoints.

        Raises:
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`. The others are
                put back nevertheless.
        """

        def put_back(kept: Kept) -> str | None:
            # A block may have begun meanwhile, and puts it back itself.
            deadline = self._deadline(timeout)
            with self._alone(kept.name, deadline):
                earlier = kept.take()
                if earlier is None:
                    return None
                is_done = False
                try:
                    found = self.find(kept.name)
                    # Another one may have its name by now.
                    is_mine = found is not None and found.uid == kept.uid
                    if is_mine:
                        self._change(kept.name, earlier, deadline)
                    is_done = True
                finally:
                    kept.stop(is_done=is_done)
                return kept.name if is_mine else None

        return put_all_back(workspace_key(self._config), self._folder(), put_back)

    def _folder(self) -> Path:
        return self.sizes_folder or default_folder("endpoint-sizes")

    aget = in_thread(Objects.get)
    alist = in_thread(list)
    alocate = in_thread(locate)
    acreate = in_thread(create)
    aupdate = in_thread(update)
    adelete = in_thread(delete)
    aensure = in_thread(ensure)
    asuspend = in_thread(suspend)
    aenable = in_thread(enable)


def _size(endpoint: Endpoint) -> dict[str, Any]:
    names = ("min_cu", "max_cu", "suspend_timeout", "no_suspension")
    return {name: value for name, value in endpoint.settings().items() if name in names}
