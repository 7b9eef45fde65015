"""A branch that is lent to a run and taken back.

Its id follows from the run's, so that a retry meets its own. The workspace deletes it when its time is up, a
heartbeat moves that while the work lives, and the end of the work purges it, whatever that is.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Generic, Protocol, TypeVar

import psycopg

from lakebase_provider.core.base import process
from lakebase_provider.core.base.clock import Clock, Deadline
from lakebase_provider.core.base.threads import its_end, start_for_caller, to_its_end, unless_gone
from lakebase_provider.core.base.waiting_log import WaitingLog
from lakebase_provider.core.config import LakebaseConfig, arguments
from lakebase_provider.core.config.resource_names import parent_of
from lakebase_provider.core.errors import (
    AlreadyExistsError,
    ControlPlaneError,
    LakebaseError,
    LeaseLostError,
    LimitError,
    NotFoundError,
    ObjectStateError,
    OperationFailedError,
)
from lakebase_provider.core.upkeep.branches.budget import (
    NO_ROOM,
    BranchLimits,
    count_all,
    count_branches,
    wait_until,
)
from lakebase_provider.core.upkeep.branches.lease_options import LeaseOptions, LeasePlan
from lakebase_provider.core.workspace.objects.branches import LONGEST_LIFE, Branch
from lakebase_provider.core.workspace.objects.endpoints import Endpoint
from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects
from lakebase_provider.core.workspace.operations import Operation, in_thread, until
from lakebase_provider.core.workspace.writes import LOST, alone

logger = logging.getLogger(__name__)

#: Seconds between two heartbeats; at most a third of what a sweep takes for the sign of a held lease.
HEARTBEAT = 300.0
_LONGEST_HEARTBEAT = 600.0
#: Seconds within which what an interrupted creation has left is purged, and in which it may come to light.
_UNDO = 60.0
_LATE = 3.0
#: How often a branch is looked for anew that another holder has made in between.
_RACES = 3
#: The name of threads that give a branch back.
RELEASE = "lakebase-branch-release"
#: Seconds that one extension may take.
_EXTENSION = 60.0
#: After these nobody knows whether the branch is made.
_MAY_BE_MADE = (*LOST, OperationFailedError)


class _Client(Protocol):
    def close(self) -> None: ...

    async def aclose(self) -> None: ...


Client = TypeVar("Client", bound=_Client)


@dataclass(frozen=True)
class _Taken:
    """A branch, whether this call has made it, and seconds that the workspace's clock is ahead."""

    branch: Branch
    is_new: bool = False
    ahead: float = 0.0


class BranchLease(Generic[Client]):
    """A branch that is held until :meth:`release`. A forked child has no part in it: there it purges nothing.

    Attributes:
        branch: The branch, as the workspace described it last.
    """

    def __init__(self, taken: _Taken, plan: LeasePlan, leases: Leases[Client], timeout: float) -> None:
        self.branch = taken.branch
        # An expiration by this host's clock may be over already.
        self._ahead = taken.ahead
        self._plan = plan
        self._leases = leases
        self._timeout = timeout
        self._pid = process.number
        self._client: Client | None = None
        self._lock = threading.Lock()
        self._lost: LeaseLostError | None = None
        self._purge_begun = self._is_over = False
        self._heart: threading.Thread | None = None
        self._gone = threading.Event()

    @property
    def name(self) -> str:
        """The branch's full name."""
        return self.branch.name

    @property
    def uid(self) -> str:
        """The branch's uid, which another branch of the same name does not have."""
        return self.branch.uid or ""

    @property
    def config(self) -> LakebaseConfig:
        """The configuration of a client on the branch.

        Raises:
            LeaseLostError: The lease has ended, or the branch is gone, as a heartbeat has found.
        """
        self._require_held()
        return self._leases.config.on_branch(self.name)

    @property
    def client(self) -> Client:
        """A client on the branch, which the end of the lease closes.

        Raises:
            LeaseLostError: The lease has ended, or the branch is gone, as a heartbeat has found.
        """
        config = self.config
        with self._lock:
            if self._client is None:
                self._client = self._leases.client_on(config)
            return self._client

    def extend(self, ttl: float | None = None) -> Branch:
        """Move the moment at which the workspace deletes the branch, never to an earlier one.

        Args:
            ttl: Seconds from now, 30 days at most; the lease's own by default.

        Raises:
            LeaseLostError: The branch is gone, or another one has its name.
            LakebaseError: The workspace refused, or was not done within a minute.
        """
        return self._extend(self._plan.ttl if ttl is None else arguments.timeout(ttl, "ttl"))

    def _extend(self, life: float, *, always: bool = False) -> Branch:
        """As :meth:`extend`; `always` changes the branch in any case, by which a sweep knows it as held."""
        self._require_held()
        branches, clock = self._leases.workspace.branches, self._leases.clock
        now = datetime.fromtimestamp(clock.wall() + self._ahead, timezone.utc)
        due = now + timedelta(seconds=min(life, LONGEST_LIFE))
        self.branch = self._held(branches.find(self.name))
        end = self.branch.expire_time
        if end is not None and end >= due:
            if not always:
                return self.branch
            later, last = end + timedelta(seconds=1), now + timedelta(seconds=LONGEST_LIFE)
            due = later if later <= last else end
        before = clock.wall()
        try:
            self.branch = self._held(branches.update(self.name, expire_time=due, timeout=_EXTENSION))
        except NotFoundError:
            # It may be the operation that is not known any more.
            self.branch = self._held(branches.find(self.name))
        else:
            self._ahead = _ahead(self.branch.update_time, before, clock.wall())
        return self.branch

    def release(self) -> None:
        """Close the client and purge the branch; a second time nothing is done.

        Raises:
            LeaseLostError: The branch was gone before, or another one has its name, which is left alone.
            ObjectStateError: It has become the default branch, or protected, and is left alone.
            LakebaseError: The workspace refused, or was not done in time. The branch goes when it expires.
        """
        if self._pid != process.number or self._is_over:
            return
        self._end_heartbeat()
        try:
            if self._client is not None:
                self._client.close()
        finally:
            self._purge()

    def _purge(self) -> None:
        if self._lost is None:
            begun, self._purge_begun = self._purge_begun, True
            try:
                self._leases.purge(self.name, self.uid, self._timeout)
            except NotFoundError:
                if not begun:
                    self._lost = self._leases.lost(
                        self.branch, self._leases.workspace.branches.find(self.name)
                    )
        self._is_over = True
        if self._lost is not None:
            raise self._lost.again()

    async def arelease(self) -> None:
        """:meth:`release` for asyncio; one that is cancelled ends when the branch is purged."""
        try:
            await self.aclose_client()
        finally:
            await its_end(self.release, RELEASE)

    aextend = in_thread(extend)

    async def aclose_client(self) -> None:
        """Close what the client has opened in the running event loop."""
        if self._client is not None:
            await self._client.aclose()

    def _require_held(self) -> None:
        if self._lost is not None:
            raise self._lost.again()
        if self._is_over:
            raise LeaseLostError(
                f"The lease of {self.name} has ended.", remedy="Use it before its end.", retryable=False
            )

    def _held(self, found: Branch | None) -> Branch:
        """What was found in the branch's place, which is to be the branch."""
        if found is not None and found.uid == self.branch.uid and found.state != "DELETED":
            return found
        self._lost = self._leases.lost(self.branch, found)
        raise self._lost.again()

    # The heartbeat.

    def _start_heartbeat(self, every: float) -> None:
        """Extend the lease every so many seconds, in a thread that ends with the lease or the process."""

        self._heart = start_for_caller(
            unless_gone, lambda: self._beat(every), self._gone, name="lakebase-branch-lease"
        )

    def _beat(self, every: float) -> None:
        clock, waiting, pause = self._leases.clock, WaitingLog(logger), every
        while True:
            clock.sleep(pause)
            try:
                self._extend(self._plan.ttl, always=True)
            except LeaseLostError as error:
                # Told to the holder at the next use.
                logger.error("%s", error)
                return
            except LakebaseError as error:
                pause = every / 10
                line = "The lease of %s is not extended, and will be tried again in %.1f s: %s"
                waiting.say(clock.elapsed(), error, line, self.name, pause, error.message)
            except Exception:
                pause = every / 10
                logger.exception("The lease of %s is not extended, and will be tried again", self.name)
            else:
                pause = every
                waiting.is_over()

    def _end_heartbeat(self) -> None:
        self._gone.set()
        if self._heart is not None:
            self._heart.join()


class Leases(Generic[Client]):
    """How branches are lent and taken back.

    Args:
        config: The client's configuration.
        workspace: The workspace's objects.
        client_on: Makes a client like that one of another configuration.
        wait_ready: Waits until a branch accepts logins.
        clock: Where the time comes from.
    """

    def __init__(
        self,
        config: LakebaseConfig,
        workspace: WorkspaceObjects,
        client_on: Callable[[LakebaseConfig], Client],
        wait_ready: Callable[[str, float], Branch],
        clock: Clock,
    ) -> None:
        self.config = config
        self.workspace = workspace
        self.client_on = client_on
        self.clock = clock
        self._wait_ready = wait_ready

    def take(
        self, name: str, options: LeaseOptions, heartbeat: float | None, timeout: float
    ) -> BranchLease[Client]:
        """Have a branch of that name; see :meth:`.BranchUpkeep.lease`."""
        plan, every = LeasePlan.of(options), _every(heartbeat)
        arguments.timeout(timeout)
        name = self.workspace.branches.full_name(name)
        taken = self._with_room(name, plan, timeout)
        deadline = Deadline(timeout, self.clock)
        lease = BranchLease(taken, plan, self, timeout)
        try:
            # At once: its time counts from its creation.
            if every is not None:
                lease._start_heartbeat(min(every, plan.ttl / 3))
            self._make_small(name, plan, deadline)
            ready = self._wait_ready(name, max(0.001, deadline.remaining()))
            if ready.uid != taken.branch.uid:
                raise self.lost(taken.branch, ready)
            lease.branch = ready
        except BaseException as error:
            lease._gone.set()
            if taken.is_new:
                self._undo(name, plan, taken.branch.uid, error)
            raise
        return lease

    def purge(self, name: str, uid: str, timeout: float) -> None:
        """Purge a leased branch, and no other one.

        Raises:
            NotFoundError: There is none of that name and uid.
            ObjectStateError: It is protected, or the default branch.
            LakebaseError: The workspace refused, or was not done in time.
        """
        _require_purgeable(self.workspace.branches.get(name), uid)
        self.workspace.branches.delete(name, purge=True, uid=uid, timeout=timeout)

    def give_back(self, name: str, uid: str, timeout: float) -> bool:
        """Purge a branch that was taken; see :meth:`.BranchUpkeep.give_back`."""
        name = self.workspace.branches.full_name(name)
        arguments.text("The branch's uid", uid, "Give the uid of the lease.")
        arguments.timeout(timeout)
        try:
            self.purge(name, uid, timeout)
        except NotFoundError:
            found = self.workspace.branches.find(name)
            if found is not None:
                raise self.lost(Branch(name=name, uid=uid), found) from None
            return False
        return True

    def begin_give_back(self, name: str, uid: str | None, timeout: float) -> Operation | None:
        """Begin to purge a branch that was taken; see :meth:`.BranchUpkeep.begin_give_back`."""
        name = self.workspace.branches.full_name(name)
        arguments.timeout(timeout)
        found = self.workspace.branches.find(name)
        if found is None:
            return None
        if uid is not None and found.uid != uid:
            raise self.lost(Branch(name=name, uid=uid), found)
        _require_purgeable(found, found.uid)
        with contextlib.suppress(NotFoundError):
            return self.workspace.branches.begin_delete(name, purge=True, timeout=timeout)
        return None

    def lost(self, branch: Branch, found: Branch | None) -> LeaseLostError:
        """The error about a lease whose branch is gone.

        Args:
            branch: The branch, as it was known last.
            found: What has its name now.
        """
        whose = f"The leased branch {branch.name} ({branch.uid})"
        if found is not None and found.uid != branch.uid:
            return LeaseLostError(
                f"{whose} is gone, and another one has its name: {found.uid}.",
                remedy="It was replaced, as by a retry of the same run: end this one. It is left alone.",
                retryable=False,
            )
        due = "" if branch.expire_time is None else f"; it was to expire at {branch.expire_time}"
        return LeaseLostError(f"{whose} is gone: it expired or was deleted{due}.")

    # Making it.

    def _with_room(self, name: str, plan: LeasePlan, timeout: float) -> _Taken:
        """The branch; if there is no room, that is waited for."""

        def made() -> _Taken:
            try:
                return self._made(name, plan, timeout)
            except (LimitError, OperationFailedError) as failed:
                # The operation, too, may be what says so.
                refused = failed if isinstance(failed, LimitError) else failed.__cause__
                if not isinstance(refused, LimitError):
                    raise
                told = self._with_numbers(refused, parent_of(name), plan.limits)
                raise told from refused.__cause__

        if plan.wait_for_budget is None:
            return made()
        return wait_until(made, f"for {name}", Deadline(plan.wait_for_budget, self.clock), self.clock)

    def _with_numbers(self, error: LimitError, project: str, limits: BranchLimits) -> LimitError:
        """The workspace's refusal as the count's own."""
        if error.retryable:
            return error
        told = ""
        with contextlib.suppress(LakebaseError):
            told = f" {count_all(self.workspace, project, limits).to_text()}"
        return LimitError(f"{error.message}{told}", remedy=NO_ROOM, retryable=True)

    def _made(self, name: str, plan: LeasePlan, timeout: float) -> _Taken:
        deadline, is_sent = Deadline(timeout, self.clock), False

        def create() -> _Taken:
            nonlocal is_sent
            left = max(0.001, deadline.remaining())
            before, is_sent = self.clock.wall(), True
            made = self.workspace.branches.create(name, timeout=left, **plan.branch())
            return _Taken(made, True, _ahead(made.create_time, before, self.clock.wall()))

        try:
            # What is there after the request, and was not before it, is the request's.
            with alone(self.config, parent_of(name), deadline):
                races = 0
                while True:
                    is_sent = False
                    reused = self._replaced(name, plan, deadline)
                    if reused is not None:
                        return _Taken(reused)
                    try:
                        return create()
                    except AlreadyExistsError:
                        # Another process has just made it.
                        races += 1
                        if races == _RACES:
                            raise
        except BaseException as error:
            # Nobody knows whether it is made after these, or an answer that names no operation.
            if is_sent and (
                not isinstance(error, LakebaseError)
                or isinstance(error, _MAY_BE_MADE)
                or type(error) is ControlPlaneError
            ):
                self._undo(name, plan, None, error)
            raise

    def _replaced(self, name: str, plan: LeasePlan, deadline: Deadline) -> Branch | None:
        """A former holder's branch if it is reused; otherwise there is none of its name afterwards."""
        branches, project = self.workspace.branches, parent_of(name)
        # Deleted ones too: they may keep their name, and can be brought back.
        listed = branches.list(project, show_deleted=True)
        former = next((one for one in listed if one.name == name), None)
        if former is not None:
            self._require_lent(former, plan)
            if plan.if_exists == "reuse" and former.state not in ("ARCHIVED", "DELETED"):
                left = max(0.001, deadline.remaining())
                return branches.ensure(name, on_exists="reuse", timeout=left, **plan.branch())
            if plan.if_exists != "recreate":
                raise AlreadyExistsError(
                    f"The branch {name} exists, and is {former.state or 'being made'}.",
                    remedy="Use another run's id, prefix or branch, or if_exists='recreate'.",
                )
            branches.require_creatable(name, **plan.branch())
            # A deleted one cannot be asked for its uid.
            uid = None if former.state == "DELETED" else former.uid
            left = max(0.001, deadline.remaining())
            branches.delete(name, purge=True, uid=uid, missing_ok=True, timeout=left)
        if plan.wait_for_budget is not None:
            found = count_branches(self.workspace, project, plan.limits)
            found.require(roots=0 if plan.snapshot is None else 1)
        return None

    def _require_lent(self, found: Branch, plan: LeasePlan) -> None:
        """Raise an error unless a branch may be a former holder's."""
        came_from = found.source_snapshot or found.source_branch
        if plan.snapshot is not None:
            wanted = self.workspace.snapshots.full_name(plan.snapshot)
        elif plan.source is not None:
            wanted = self.workspace.branches.full_name(plan.source)
        else:
            wanted = self.workspace.projects.get(parent_of(found.name)).default_branch or ""
        is_told, is_deleted = not found.is_being_made, found.state == "DELETED"
        for hindered, why in (
            (found.is_default, "is the project's default branch"),
            (found.is_protected, "is protected"),
            # While it is made, neither may be told yet.
            (is_told and came_from != wanted, f"was made from {came_from}, not from {wanted}"),
            (is_told and found.expire_time is None, "does not expire"),
        ):
            if hindered:
                raise AlreadyExistsError(
                    f"The branch {found.name} {'is deleted,' if is_deleted else 'exists'} and {why}, so no "
                    "lease has left it.",
                    remedy="Use another run's id, prefix or branch."
                    + (" Or bring it back, or purge it." if is_deleted else ""),
                )

    def _make_small(self, name: str, plan: LeasePlan, deadline: Deadline) -> None:
        def primary() -> Endpoint | None:
            listed = self.workspace.endpoints.list(name)
            return next((one for one in listed if one.endpoint_type == "READ_WRITE"), None)

        endpoint = until(primary, f"The creation of the endpoint of {name}", name, deadline, self.clock)
        wanted = plan.size()
        if any(getattr(endpoint, option) != value for option, value in wanted.items()):
            left = max(0.001, deadline.remaining())
            self.workspace.endpoints.update(endpoint.name, timeout=left, **wanted)

    def _undo(self, name: str, plan: LeasePlan, uid: str | None, error: BaseException) -> None:
        """Purge what was made, or may have been, by a call that ends with an error.

        Args:
            name: The branch's name.
            plan: How it was to be made.
            uid: Its uid; None if it is not known whether there is one, and there was none before.
            error: What the call ends with.
        """
        may_come = uid is None and not isinstance(error, OperationFailedError)
        late = Deadline(_LATE if may_come else 0.0, self.clock)

        def purge() -> None:
            while (found := self.workspace.branches.find(name)) is None:
                if late.remaining() <= 0:
                    return
                self.clock.sleep(_LATE / 6)
            if uid is None:
                self._require_lent(found, plan)
            if uid in (None, found.uid):
                self.purge(name, found.uid or "", _UNDO)

        try:
            to_its_end(purge, "lakebase-branch-undo")
        except NotFoundError:
            pass
        except LakebaseError as failed:
            told(error, f"The branch {name} may be left, until it expires or a sweep finds it: {failed}")


def _require_purgeable(found: Branch, uid: str | None) -> None:
    """Raise an error if a branch of that uid has become one that nobody lends."""
    if found.uid == uid and (found.is_default or found.is_protected):
        what = "protected" if found.is_protected else "the default branch"
        raise ObjectStateError(
            f"The leased branch {found.name} is {what} now, and is left alone.",
            remedy="Delete it when it is no longer needed.",
        )


def _ahead(told: datetime | None, before: float, after: float) -> float:
    """Seconds that the workspace's clock is ahead of this host's.

    Args:
        told: The moment of a change, by the workspace.
        before: Unix time before it was asked for, by this host.
        after: Unix time when it was done.
    """
    if told is None or before <= told.timestamp() <= after:
        return 0.0
    # The more of what it can be: an extension may be long, and not short.
    return told.timestamp() - before


def _every(heartbeat: float | None) -> float | None:
    if heartbeat is None:
        return None
    every = arguments.timeout(heartbeat, "heartbeat")
    if every > _LONGEST_HEARTBEAT:
        raise arguments.wrong(
            "'heartbeat'",
            heartbeat,
            f"be at most {_LONGEST_HEARTBEAT:g} s",
            "Give less: a sweep takes a lease that is not extended for long for one that was left behind.",
        )
    return every


def end(lease: BranchLease[Client], error: BaseException) -> None:
    """Release a lease whose work has failed.

    Raises:
        LeaseLostError: The branch was lost, and the error is what the server or the workspace said of that.
    """
    try:
        lease.release()
    except LeaseLostError as lost:
        follows = isinstance(error, (LakebaseError, psycopg.Error))
        if follows and not isinstance(error, LeaseLostError):
            raise lost from error
        told(error, str(lost))
    except LakebaseError as failed:
        told(error, f"The branch {lease.name} was not purged, and goes when it expires: {failed}")
    except Exception as failed:
        told(error, f"The client on {lease.name} was not closed: {failed}")


def told(error: BaseException, text: str) -> None:
    """Log what else went wrong, and say so with an error that is raised anyway."""
    logger.warning("%s", text)
    # Python 3.10 has no notes.
    if hasattr(error, "add_note"):
        error.add_note(text)
