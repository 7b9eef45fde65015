"""Branches: copy-on-write copies of a database, which have data, roles, endpoints and hosts of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypedDict, get_args

from lakebase_provider.core.base.clock import Deadline
from lakebase_provider.core.config.resource_names import Kind, parent_of
from lakebase_provider.core.errors import (
    AlreadyExistsError,
    ConfigError,
    LakebaseError,
    NotFoundError,
    ObjectStateError,
)
from lakebase_provider.core.errors.remedy import Remedy, offered
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
    CLOCKS_DIFFER,
    flag,
    moment,
    only_true,
    require_expiration,
    seconds,
    text,
)
from lakebase_provider.core.workspace.objects.projects import Project
from lakebase_provider.core.workspace.operations import Operation, auntil, begun, until
from lakebase_provider.core.workspace.writes import again_while_busy

if TYPE_CHECKING:
    from typing_extensions import Unpack

#: What to do where a branch of that name exists.
OnExists = Literal["reuse", "recreate", "fail"]

#: States from which a branch does not become ready by itself.
_ENDS = ("DELETED", "ARCHIVED")
#: Seconds that a branch that is reused may live less than was asked: not each use of it must change it.
_SLACK = 60.0
#: Seconds ahead that a branch may expire, less what the clocks may differ.
LONGEST_LIFE = 30 * 86_400 - 60.0


@dataclass(frozen=True, kw_only=True)
class Branch(Named):
    """A branch.

    Attributes:
        name: Its full name, ``projects/<project>/branches/<branch>``.
        uid: Its uid, which another branch of the same name does not have.
        parent: The project's name.
        create_time: When it was created.
        update_time: When it was last changed.
        state: ``READY``, ``INIT``, ``ARCHIVED``, ``IMPORTING``, ``RESETTING``, ``DELETED``, or what else the
            workspace says.
        pending_state: What it is becoming; None if it stays.
        state_change_time: When it came to its state.
        is_default: Whether it is the project's default branch.
        is_protected: Whether it can be neither deleted, reset nor archived.
        logical_size: Bytes of its data.
        source_branch: Name of the branch that it was made from; None for a root.
        source_branch_lsn: The position in that branch's log up to which it has the data.
        source_branch_time: The moment up to which it has that branch's data.
        source_snapshot: Name of the snapshot that it was restored from.
        expire_time: When it will be deleted; None if it does not expire.
        delete_time: When it was deleted, while it can be brought back.
        purge_time: When it will be gone for good.
    """

    uid: Annotated[str | None, At("uid", Answer.text)] = None
    parent: Annotated[str | None, At("parent", Answer.text)] = None
    create_time: Annotated[datetime | None, At("create_time", Answer.moment)] = None
    update_time: Annotated[datetime | None, At("update_time", Answer.moment)] = None
    state: Annotated[str | None, At("status.current_state", Answer.state)] = None
    pending_state: Annotated[str | None, At("status.pending_state", Answer.state)] = None
    state_change_time: Annotated[datetime | None, At("status.state_change_time", Answer.moment)] = None
    is_default: Annotated[bool, At("status.default", Answer.flag)] = False
    is_protected: Annotated[bool, At("status.is_protected", Answer.flag)] = False
    logical_size: Annotated[float | None, At("status.logical_size_bytes", Answer.number)] = None
    source_branch: Annotated[str | None, At("status.source_branch", Answer.text)] = None
    source_branch_lsn: Annotated[str | None, At("status.source_branch_lsn", Answer.text)] = None
    source_branch_time: Annotated[datetime | None, At("status.source_branch_time", Answer.moment)] = None
    source_snapshot: Annotated[str | None, At("status.source_snapshot", Answer.text)] = None
    expire_time: Annotated[datetime | None, At("status.expire_time", Answer.moment)] = None
    delete_time: Annotated[datetime | None, At("status.delete_time", Answer.moment)] = None
    purge_time: Annotated[datetime | None, At("status.purge_time", Answer.moment)] = None

    @property
    def is_root(self) -> bool:
        """Whether it was made from no other branch."""
        return self.source_branch is None

    @property
    def is_settled(self) -> bool:
        """Whether it is ready and stays so."""
        return self.state == "READY" and self.pending_state is None

    @property
    def is_being_made(self) -> bool:
        """Whether its creation goes on, so that not all about it is told yet."""
        return self.state in (None, "INIT")


class BranchChanges(TypedDict, total=False):
    """What can be changed about a branch.

    Attributes:
        is_protected: Whether it can be neither deleted, reset nor archived.
        ttl: Seconds from its *creation* until it is deleted, also in an update;
            to extend it, give expire_time.
        expire_time: When it is to be deleted; at most 30 days ahead.
        no_expiry: True: it is not deleted by itself.
    """

    is_protected: bool
    ttl: float
    expire_time: datetime
    no_expiry: bool


class BranchOptions(BranchChanges, total=False):
    """What describes a new branch.

    Attributes:
        source_branch: Name of the branch to make it from; the project's default branch by default.
        source_branch_time: The moment up to which it is to have that branch's data.
        source_branch_lsn: The position in that branch's log instead of a moment, such as ``"16/B374D848"``.
        source_snapshot: Name of a snapshot to restore instead of a branch; makes a new root.
    """

    source_branch: str
    source_branch_time: datetime
    source_branch_lsn: str
    source_snapshot: str


class Branches(Objects[Branch]):
    """Branches, as ``client.workspace.branches``.

    Most methods have a twin for asyncio: ``acreate``, ``aget`` and so on. Writing needs CAN MANAGE on the
    project.
    """

    kind: ClassVar[Kind] = "branch"
    shape = Branch
    options: ClassVar[Mapping[str, Option]] = {
        "source_branch": Option("spec.source_branch", text, is_name="branch", reads="source_branch"),
        "source_branch_time": Option("spec.source_branch_time", moment, reads="source_branch_time"),
        "source_branch_lsn": Option("spec.source_branch_lsn", text, reads="source_branch_lsn"),
        "source_snapshot": Option("spec.source_snapshot", text, is_name="snapshot", reads="source_snapshot"),
        "is_protected": Option("spec.is_protected", flag, "spec.is_protected", reads="is_protected"),
        "ttl": Option("spec.ttl", seconds, "spec.expiration"),
        "expire_time": Option("spec.expire_time", moment, "spec.expiration", reads="expire_time"),
        "no_expiry": Option("spec.no_expiry", only_true, "spec.expiration"),
    }
    defaults: ClassVar[Mapping[str, Any]] = {"is_protected": False}

    def list(self, project: str | None = None, *, show_deleted: bool = False) -> tuple[Branch, ...]:
        """All branches of a project.

        Args:
            project: Its name; the configuration's by default.
            show_deleted: Whether to list those, too, that can still be brought back.

        Raises:
            LakebaseError: The workspace refused or could not be reached.
        """
        return self._list(self._parent(project), show_deleted=show_deleted or None)

    def create(
        self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **options: Unpack[BranchOptions]
    ) -> Branch:
        """Create a branch; returns when the operation is done, which is before logins succeed.

        It gets an endpoint ``primary`` with the *project's* default settings. One of `ttl`, `expire_time` and
        `no_expiry` must be given; a branch of a run should have a `ttl`, so that it goes even if nobody
        deletes it. If the workspace's answer is lost, the branch is looked up.

        Args:
            name: Its name, or its id in the configuration's project.
            timeout: Seconds that it may take, waiting for other operations on the project included.
            options: The fields of :class:`BranchOptions`.

        Raises:
            AlreadyExistsError: A branch of that name exists.
            LimitError: The project has as many branches as it may have.
            ProjectBusyError: Other operations went on until the deadline.
            OperationFailedError: The workspace could not create it.
            OperationTimeoutError: It was not done in time, and goes on.
            LakebaseError: The workspace refused or could not be reached.
        """
        return self._create(name, self._checked(options), timeout)

    def begin_create(
        self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **options: Unpack[BranchOptions]
    ) -> Operation:
        """:meth:`create`, without waiting for the operation.

        If the workspace's answer is lost, the branch is looked up and waited for instead, and the operation
        has the branch's name.
        """
        return self._begun(name, self._checked(options), timeout)

    def _checked(self, options: BranchOptions) -> dict[str, Any]:
        given = {name: value for name, value in options.items() if value is not None}
        if given.keys().isdisjoint(("ttl", "expire_time", "no_expiry")):
            raise ConfigError(
                "The expiration of the branch is not given.",
                remedy=Remedy(
                    "Give ttl, expire_time or no_expiry=True; a branch for one run needs a ttl.",
                    options=("no_expiry",),
                    otherwise="Give --ttl or --no-expiry; a branch for one run needs a --ttl.",
                ),
            )
        if {"source_branch_time", "source_branch_lsn"} <= given.keys():
            raise ConfigError(
                "Both 'source_branch_time' and 'source_branch_lsn' are given.", remedy="Keep one of them."
            )
        beside = [name for name in given if name.startswith("source_branch")]
        if "source_snapshot" in given and beside:
            raise ConfigError(
                f"Both 'source_snapshot' and '{beside[0]}' are given.", remedy="Keep one of them."
            )
        # Not only when it is sent: a branch may be purged before that.
        self._body(given, creating=True)
        return given

    def update(
        self, name: str, *, timeout: float = DEFAULT_TIMEOUT, **changes: Unpack[BranchChanges]
    ) -> Branch:
        """Change a branch.

        Args:
            name: Its name, or its id in the configuration's project.
            timeout: Seconds that it may take.
            changes: The fields of :class:`BranchChanges` that are to change.

        Raises:
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        return self._update(name, dict(changes), timeout)

    def delete(
        self,
        name: str,
        *,
        purge: bool = False,
        missing_ok: bool = False,
        uid: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """Delete a branch with its endpoints; its snapshots stay.

        Args:
            name: Its name, or its id in the configuration's project.
            purge: True to delete it for good. Otherwise it can be brought back for some days, and may keep
                its name and its place among the project's branches meanwhile: purge what served one run.
            missing_ok: True to accept that there is none.
            uid: Its uid: another branch that has its name by now is left alone. It is compared before each
                request, since the workspace takes none.
            timeout: Seconds that it may take.

        Raises:
            NotFoundError: There is none of that name, or of that uid.
            ObjectStateError: It is protected, a root, the default, or has children.
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        name = self.full_name(name)
        self._remove(name, self._deadline(timeout), purge=purge, missing_ok=missing_ok, uid=uid)

    def _remove(
        self, name: str, deadline: Deadline, *, purge: bool, missing_ok: bool, uid: str | None = None
    ) -> None:
        what, lost = f"branch {name}", list[LakebaseError]()

        def send() -> Mapping[str, Any]:
            if uid is not None:
                found = self.get(name)
                if found.uid != uid:
                    raise NotFoundError(f"The branch {name} is {found.uid} now, not {uid}.")
            query = {"purge": purge or None}
            return self._control_plane.request(what, "DELETE", name, query=query, verb="delete")

        with self._alone(name, deadline):
            try:
                answer = again_while_busy(send, deadline, self._clock, lost)
            except NotFoundError:
                # After a lost answer that is what the lost request has done.
                if missing_ok or lost:
                    return
                raise
            operation = begun(answer, what, name, self._control_plane, self._clock)
            try:
                self._finish(operation, deadline)
            except NotFoundError:
                # That is the operation, which is named after the branch and may go with it.
                until(
                    lambda: self._is_gone(name, uid) or None,
                    f"The deletion of {name}",
                    name,
                    deadline,
                    self._clock,
                )

    def _is_gone(self, name: str, uid: str | None) -> bool:
        found = self.find(name)
        return found is None or found.delete_time is not None or (uid is not None and found.uid != uid)

    def begin_delete(self, name: str, *, purge: bool = False, timeout: float = DEFAULT_TIMEOUT) -> Operation:
        """:meth:`delete`, without waiting for the operation."""
        name = self.full_name(name)
        deadline = self._deadline(timeout)
        with self._alone(name, deadline):
            return self._send("delete", "DELETE", name, deadline, query={"purge": purge or None}, lost=[])

    def undelete(self, name: str, *, timeout: float = DEFAULT_TIMEOUT) -> Branch:
        """Bring back a branch that was deleted and not purged.

        Raises:
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        return self._undelete(name, timeout)

    def ensure(
        self,
        name: str,
        *,
        on_exists: OnExists = "reuse",
        timeout: float = DEFAULT_TIMEOUT,
        **options: Unpack[BranchOptions],
    ) -> Branch:
        """Have a branch of that name, so that a retry finds its own.

        The API's own ``replace_existing`` is never used: it keeps the data that is there.

        Args:
            name: Its name, or its id in the configuration's project; the same each time.
            on_exists: If there is one: ``"reuse"`` it with the data that it has, if its source is the same,
                once whoever creates it has done so, and change protection and expiration if they differ (of a
                `ttl`, at least that much is left afterwards, up to a minute or a tenth);
                ``"recreate"`` purges it and creates it from its source as that is now, unless somebody else
                does so during this call, whose branch is reused; ``"fail"`` raises.
            timeout: Seconds that it may take.
            options: The fields of :class:`BranchOptions`.

        Raises:
            AlreadyExistsError: There is one, and its source is another one, or `on_exists` is ``"fail"``.
            ObjectStateError: It cannot be reused or recreated in its state.
            LakebaseError: The workspace refused, or was not done in time; see :meth:`create`.
        """
        if on_exists not in get_args(OnExists):
            raise ConfigError(
                f"on_exists is {on_exists!r}.", remedy=f"Use one of: {', '.join(get_args(OnExists))}."
            )
        given = self._checked(options)
        name = self.full_name(name)
        deadline = self._deadline(timeout)
        # Before it is waited for others of this process, for what they make is not to be purged.
        former = self.find(name) if on_exists == "recreate" else None
        with self._alone(name, deadline):
            found = self.find(name)
            if found is None:
                try:
                    return self._create(name, given, deadline, is_new=True)
                except AlreadyExistsError:
                    # Another process has just made it, or it is deleted and keeps its name.
                    found = self._even_deleted(name)
                    if found is None:
                        raise
            is_former = found.state == "DELETED" or (former is not None and found.uid == former.uid)
            if on_exists == "recreate" and is_former:
                return self._recreate(found, given, deadline)
            if on_exists == "fail":
                raise AlreadyExistsError(
                    f"The branch {name} exists.",
                    remedy=Remedy(
                        "Use another name, or on_exists='reuse' or 'recreate'.",
                        options=("on_exists",),
                        otherwise="Use another name, or --if-exists reuse or recreate.",
                    ),
                )
            return self._reuse(found, given, deadline)

    def _even_deleted(self, name: str) -> Branch | None:
        return next((one for one in self.list(parent_of(name), show_deleted=True) if one.name == name), None)

    def _recreate(self, found: Branch, given: Mapping[str, Any], deadline: Deadline) -> Branch:
        self.require_disposable(found)
        self._require_creatable(found.name, given)
        # A deleted one cannot be asked for its uid.
        uid = None if found.state == "DELETED" else found.uid
        self._remove(found.name, deadline, missing_ok=True, purge=True, uid=uid)
        try:
            return self._create(found.name, given, deadline, is_new=True)
        except LakebaseError as error:
            other = self.find(found.name) if isinstance(error, AlreadyExistsError) else None
            if other is not None and other.uid != found.uid:
                # Another process was faster.
                return self._reuse(other, given, deadline)
            remedy = Remedy(
                "Call ensure() again, which creates it.",
                options=("ensure",),
                otherwise="Run the same command again, which creates it.",
            )
            raise after_purge(error, found.name, remedy) from error

    def require_creatable(self, name: str, **options: Unpack[BranchOptions]) -> None:
        """Raise an error where a branch could not be created, as far as it can be told without creating it.

        It is asked before one of that name is purged, which may be there.

        Args:
            name: Its name, or its id in the configuration's project.
            options: The fields of :class:`BranchOptions`.

        Raises:
            ConfigError: An option is malformed, excludes another, or is a moment that cannot be.
            NotFoundError: Its source does not exist.
            ObjectStateError: Its source is deleted, or expires.
            LakebaseError: The workspace refused or could not be reached.
        """
        self._require_creatable(self.full_name(name), self._checked(options))

    def _require_creatable(self, name: str, given: Mapping[str, Any]) -> None:
        require_expiration(given, self._clock.wall())
        option: Kind = "snapshot" if "source_snapshot" in given else "branch"
        wanted = given.get(f"source_{option}")
        source = self.full_name(wanted, option) if wanted else self._default_branch(parent_of(name))
        if source == name or parent_of(source) != parent_of(name):
            raise ConfigError(
                f"The source of {name} is {source}.", remedy=f"Name another {option} of the same project."
            )
        if option == "snapshot":
            self._read(f"snapshot {source}", source)
            return
        found = self.get(source)
        for hindered, why in (
            (found.delete_time is not None, "is deleted"),
            (found.expire_time is not None, "expires, so none can be made from it"),
        ):
            if hindered:
                raise ObjectStateError(f"The branch {source} {why}.", remedy="Use another source.")
        at = given.get("source_branch_time")
        if at is not None:
            kept = Project.of(self._read(f"project {parent_of(name)}", parent_of(name)), "project")
            age = self._clock.wall() - at.timestamp()
            if kept.history_retention is not None and age > kept.history_retention + CLOCKS_DIFFER:
                raise ConfigError(
                    f"'source_branch_time' is {age:.0f} s ago, and {kept.history_retention:.0f} s are kept.",
                    remedy="Give a moment that is in the project's history.",
                )

    def require_disposable(self, branch: Branch | str) -> None:
        """Raise an error unless a branch can be deleted and created again.

        Args:
            branch: The branch; or its name, or its id in the configuration's project.

        Raises:
            ObjectStateError: It is protected, a root, the default, or has children.
            LakebaseError: The workspace refused or could not be reached.
        """
        if not isinstance(branch, Branch):
            branch = self.get(branch)
        children = [one.name for one in self.list(branch.parent) if one.source_branch == branch.name]
        for hindered, why, remedy in (
            (branch.is_default, "is the project's default branch", "Use a branch made from it."),
            (branch.is_root, "is a root, which was made from no branch", "Use a branch made from it."),
            (
                branch.is_protected,
                "is protected",
                Remedy(
                    "Update it with is_protected=False first, if that is meant.",
                    options=("is_protected",),
                    otherwise="End its protection in the workspace first, if that is meant.",
                ),
            ),
            (bool(children), f"has children: {', '.join(children)}", "Delete those first."),
        ):
            if hindered:
                raise ObjectStateError(f"The branch {branch.name} {why}.", remedy=remedy)

    def _reuse(self, found: Branch, given: Mapping[str, Any], deadline: Deadline) -> Branch:
        if found.state in _ENDS:
            is_deleted = found.state == "DELETED"
            call = f", or bring it back: client.workspace.branches.undelete({found.name!r})"
            command = f", or bring it back: `lakebase branches undelete {found.name}`"
            raise ObjectStateError(
                f"The branch {found.name} exists, and its state is {found.state}.",
                remedy=Remedy(
                    f"Use on_exists='recreate', or another name{call if is_deleted else ''}.",
                    options=("on_exists",),
                    otherwise=f"Use --if-exists recreate, or another name{command if is_deleted else ''}.",
                ),
            )
        if found.is_being_made:
            found = self._once_made(found.name, deadline)
        different = self._differences(found, given)
        self._require_changeable(found.name, different)
        changes = {option: wanted for option, (_, wanted) in different.items() if option != "ttl"}
        # On its way to another state, its expiration may not be told yet.
        if given.get("ttl") is not None and (found.is_settled or found.expire_time is not None):
            life = min(float(seconds("ttl", given["ttl"])[:-1]), LONGEST_LIFE)
            now = datetime.fromtimestamp(self._clock.wall(), timezone.utc)
            enough = now + timedelta(seconds=life - min(_SLACK, life / 10))
            if found.expire_time is None or found.expire_time < enough:
                # In an update, too, a ttl would count from the creation.
                changes["expire_time"] = now + timedelta(seconds=life)
        return self._update(found.name, changes, deadline) if changes else found

    def _differences(self, found: Branch, given: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        if not {"source_branch", "source_snapshot"} & given.keys():
            given = {**given, "source_branch": self._default_branch(parent_of(found.name))}
        different = super()._differences(found, given)
        if given.get("no_expiry") and found.expire_time is not None:
            different["no_expiry"] = (False, True)
        return different

    def _default_branch(self, project: str) -> str:
        what = f"project {project}"
        told = Answer(self._read(what, project), what)
        name = told.object("status").text("default_branch")
        if name is None:
            raise told.error("status.default_branch", "is missing")
        return name

    def wait_ready(self, name: str, *, timeout: float = DEFAULT_TIMEOUT) -> Branch:
        """Wait until a branch is ``READY`` and on its way to no other state.

        Logins may still be refused for a while: ``client.branches.wait_ready`` waits for them, too.

        Args:
            name: Its name, or its id in the configuration's project.
            timeout: Seconds to wait at most.

        Raises:
            ObjectStateError: Its state is one from which it does not become ready.
            OperationTimeoutError: It was not ready in time.
            LakebaseError: The workspace refused.
        """
        name = self.full_name(name)
        deadline = self._deadline(timeout)
        return until(lambda: self._if_ready(name), f"Waiting for {name}", name, deadline, self._clock)

    async def await_ready(self, name: str, *, timeout: float = DEFAULT_TIMEOUT) -> Branch:
        """:meth:`wait_ready` for asyncio; between its requests no thread is held."""
        name = self.full_name(name)
        deadline = self._deadline(timeout)
        return await auntil(lambda: self._if_ready(name), f"Waiting for {name}", name, deadline)

    def _if_ready(self, name: str) -> Branch | None:
        found = self.get(name)
        if found.pending_state is None and found.state in _ENDS:
            raise ObjectStateError(
                f"The branch {name} is {found.state}, and does not become ready by itself."
            )
        return found if found.is_settled else None

    _if_made = _if_ready

    aget = in_thread(Objects.get)
    alist = in_thread(list)
    acreate = in_thread(create)
    aupdate = in_thread(update)
    adelete = in_thread(delete)
    aundelete = in_thread(undelete)
    aensure = in_thread(ensure)


def after_purge(error: LakebaseError, name: str, remedy: str) -> LakebaseError:
    """The error by which a branch was not created again, which says that the former one is gone."""
    copy = error.again()
    copy.message = f"The branch {name} was purged, and is not created again: {error.message}"
    copy.remedy = offered(remedy)
    return copy


__all__ = ["after_purge", "Branch", "BranchChanges", "BranchOptions", "Branches", "OnExists"]
