"""A branch that is lent to a run and taken back.

Its id follows from the run's, so that a retry meets its own. The workspace deletes it when its time is up, a
heartbeat moves that while the work lives, and the end of the work purges it, whatever that is.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import Any, Generic, Protocol, TypedDict, TypeVar

import psycopg

from lakebase_provider.core.base import process
from lakebase_provider.core.base.choices import require_choice
from lakebase_provider.core.base.clock import Backoff, Clock, Deadline
from lakebase_provider.core.base.threads import start_for_caller, to_its_end, unless_gone
from lakebase_provider.core.base.waiting_log import WaitingLog
from lakebase_provider.core.config import LakebaseConfig, arguments
from lakebase_provider.core.config.resource_names import parent_of
from lakebase_provider.core.errors import (
    AlreadyExistsError,
    ConfigError,
    LakebaseError,
    LeaseLostError,
    LimitError,
    NotFoundError,
    ObjectStateError,
    OperationFailedError,
)
from lakebase_provider.core.upkeep.branches.budget import (
    LIMITS,
    NO_ROOM,
    BranchLimits,
    count_all,
    count_branches,
)
from lakebase_provider.core.workspace.objects.branches import Branch, OnExists
from lakebase_provider.core.workspace.objects.endpoints import EndpointChanges
from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects
from lakebase_provider.core.workspace.writes import LOST

logger = logging.getLogger(__name__)

#: What the ids of leased branches begin with.
PREFIX = "run"
#: Seconds between two heartbeats; at most a third of what a sweep takes for the sign of a held lease.
HEARTBEAT = 300.0
_LONGEST_HEARTBEAT = 600.0
#: Seconds within which it is found out what an interrupted creation has left, and that is purged.
_UNDO = 60.0
#: Seconds that one extension may take.
_EXTENSION = 60.0
_LONGEST_ID = 63
_PREFIX = re.compile("[a-z][a-z0-9]{0,19}")
_HASH = 12
_CHOICES = ("recreate", "reuse", "fail")
_ROOM = Backoff(first=2.0, most=10.0, floor=0.5)
# Seeded by the system: those that wait for the same place must not ask in step.
_RNG = random.SystemRandom()
#: After these nobody knows whether the branch is made.
_MAY_BE_MADE = (*LOST, OperationFailedError)


class _Client(Protocol):
    def close(self) -> None: ...

    async def aclose(self) -> None: ...


Client = TypeVar("Client", bound=_Client)


def branch_id_for(run_id: str, prefix: str = PREFIX) -> str:
    """The id of the branch that is lent to a run: the same for the same run, another one for another.

    Args:
        run_id: The run's id, of any form; what of it an id may hold can be read in the result.
        prefix: What the id begins with: up to 20 lower-case letters and digits, a letter first.

    Returns:
        At most 63 lower-case letters, digits and hyphens, such as ``"run-nightly-2027-01-31-4f0c2b6a91de"``.

    Raises:
        ConfigError: The prefix is none, or the run's id is empty.
    """
    run_id = arguments.text("The run's id", run_id, "Give the id of the run, or branch=.")
    prefix = checked_prefix(prefix)
    # Of the run's id alone: what Unicode calls a letter differs among versions of Python.
    words = "-".join(re.findall("[a-z0-9]+", re.sub("[A-Z]", lambda one: one[0].lower(), run_id)))
    room = _LONGEST_ID - len(prefix) - _HASH - 2
    digest = hashlib.sha256(run_id.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH]
    return "-".join(part for part in (prefix, words[:room].rstrip("-"), digest) if part)


def checked_prefix(prefix: str) -> str:
    """A prefix as :func:`branch_id_for` takes it.

    Raises:
        ConfigError: It is something else.
    """
    remedy = "Give up to 20 lower-case letters and digits, a letter first, such as 'run'."
    prefix = arguments.text("'prefix'", prefix, remedy)
    if not _PREFIX.fullmatch(prefix):
        raise ConfigError(f"'prefix' is {prefix!r}.", remedy=remedy)
    return prefix


class LeaseOptions(TypedDict, total=False):
    """What describes a lease.

    Attributes:
        ttl: Seconds after which the workspace deletes the branch unless the lease is extended; 3600 by
            default, at most 30 days.
        source: Name or id of the branch to make it from; the project's default branch by default.
        at_time: The moment up to which it is to have that branch's data.
        at_lsn: The position in that branch's log instead of a moment.
        snapshot: Name or id of a snapshot to restore instead of a branch.
        if_exists: If a former holder has left one: ``"recreate"`` it, with the data that the source has now,
            the default; ``"reuse"`` it with the data that it has; ``"fail"``.
        min_cu: Least size of its endpoint in capacity units; 0.5 by default.
        max_cu: Largest size; the least by default.
        suspend_timeout: Seconds after which its endpoint is suspended when idle; 300 by default.
        wait_for_budget: Seconds to wait for room where the project has as many branches as it may have; None,
            the default, to let the workspace refuse.
        limits: How many it may have, as :class:`BranchLimits`.
    """

    ttl: float
    source: str | None
    at_time: datetime | None
    at_lsn: str | None
    snapshot: str | None
    if_exists: OnExists
    min_cu: float
    max_cu: float | None
    suspend_timeout: float
    wait_for_budget: float | None
    limits: BranchLimits


@dataclass(frozen=True)
class _Plan:
    ttl: float = 3600.0
    source: str | None = None
    at_time: datetime | None = None
    at_lsn: str | None = None
    snapshot: str | None = None
    if_exists: OnExists = "recreate"
    min_cu: float = 0.5
    max_cu: float | None = None
    suspend_timeout: float = 300.0
    wait_for_budget: float | None = None
    limits: BranchLimits = LIMITS

    @classmethod
    def of(cls, options: LeaseOptions) -> _Plan:
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise ConfigError(
                    f"A lease has no option '{name}'.", remedy=f"The options are: {', '.join(known)}."
                )
        plan = cls(**options)
        arguments.timeout(plan.ttl, "ttl")
        if plan.wait_for_budget is not None:
            arguments.timeout(plan.wait_for_budget, "wait_for_budget")
        require_choice("if_exists", plan.if_exists, _CHOICES)
        if not isinstance(plan.limits, BranchLimits):
            raise arguments.wrong("'limits'", plan.limits, "be BranchLimits", "Give BranchLimits(…).")
        return plan

    def branch(self) -> dict[str, Any]:
        """The options of the branch."""
        given = {
            "ttl": self.ttl,
            "source_branch": self.source,
            "source_branch_time": self.at_time,
            "source_branch_lsn": self.at_lsn,
            "source_snapshot": self.snapshot,
        }
        return {name: value for name, value in given.items() if value is not None}

    def size(self) -> EndpointChanges:
        """The size of its endpoint."""
        return {
            "min_cu": self.min_cu,
            "max_cu": self.min_cu if self.max_cu is None else self.max_cu,
            "suspend_timeout": self.suspend_timeout,
        }


class BranchLease(Generic[Client]):
    """A branch that is held until :meth:`release`. A forked child has no part in it: there it purges nothing.

    Attributes:
        branch: The branch, as the workspace described it last.
    """

    def __init__(
        self, branch: Branch, plan: _Plan, leases: Leases[Client], ahead: float, timeout: float
    ) -> None:
        self.branch = branch
        self._ahead = ahead
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
            ttl: Seconds from now; the lease's own by default.

        Raises:
            LeaseLostError: The branch is gone, or another one has its name.
            LakebaseError: The workspace refused, or was not done within a minute.
        """
        life = self._plan.ttl if ttl is None else arguments.timeout(ttl, "ttl")
        self._require_held()
        branches = self._leases.workspace.branches
        until = datetime.fromtimestamp(self._leases.clock.wall() + self._ahead + life, timezone.utc)
        try:
            found = self._held(branches.find(self.name))
            if found.expire_time is None or found.expire_time < until:
                found = self._held(branches.update(self.name, expire_time=until, timeout=_EXTENSION))
        except NotFoundError:
            found = self._held(None)
        self.branch = found
        return found

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
        if self._client is not None:
            self._client.close()
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
                self.extend()
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
        plan, every = _Plan.of(options), _every(heartbeat)
        arguments.timeout(timeout)
        name = self.workspace.branches.full_name(name)
        made, is_new = self._with_room(name, plan, timeout)
        deadline = Deadline(timeout, self.clock)
        # That the workspace's clock is ahead: an expiration by this host's clock may be over already.
        ahead = made.create_time.timestamp() - self.clock.wall() if is_new and made.create_time else 0.0
        try:
            self._make_small(name, plan, deadline)
            ready = self._wait_ready(name, max(0.001, deadline.remaining()))
            if ready.uid != made.uid:
                raise self.lost(made, ready)
            lease = BranchLease(ready, plan, self, ahead, timeout)
            if every is not None:
                lease._start_heartbeat(min(every, plan.ttl / 3))
        except BaseException as error:
            if is_new:
                self._undo(name, made.uid, error)
            raise
        return lease

    def purge(self, name: str, uid: str, timeout: float) -> None:
        """Purge a leased branch, and no other one.

        Raises:
            NotFoundError: There is none of that name and uid.
            ObjectStateError: It is protected, or the default branch.
            LakebaseError: The workspace refused, or was not done in time.
        """
        found = self.workspace.branches.get(name)
        if found.uid == uid and (found.is_default or found.is_protected):
            raise ObjectStateError(
                f"The leased branch {name} is {'protected' if found.is_protected else 'the default branch'} "
                "now, and is left alone.",
                remedy="Delete it when it is no longer needed.",
            )
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

    def _with_room(self, name: str, plan: _Plan, timeout: float) -> tuple[Branch, bool]:
        """The branch, and whether it is new; if there is no room, that is waited for."""
        room = Deadline(plan.wait_for_budget or 0.0, self.clock)
        waiting, attempt = WaitingLog(logger), 0
        while True:
            try:
                return self._made(name, plan, timeout)
            except LimitError as refused:
                error = self._with_numbers(refused, parent_of(name), plan.limits)
                left = room.remaining()
                if left <= 0:
                    if plan.wait_for_budget is not None:
                        error.message += f" (waited for {room.seconds:.1f} s)"
                    raise error from refused.__cause__
                pause = min(_ROOM.seconds(attempt, _RNG), left)
                waiting.say(room.now(), error, "Waiting for room for %s: %s", name, error.message)
            attempt += 1
            self.clock.sleep(pause)

    def _with_numbers(self, error: LimitError, project: str, limits: BranchLimits) -> LimitError:
        """The workspace's refusal as the count's own."""
        if error.retryable:
            return error
        told = ""
        with contextlib.suppress(LakebaseError):
            told = f" {count_all(self.workspace, project, limits).to_text()}"
        return LimitError(f"{error.message}{told}", remedy=NO_ROOM, retryable=True)

    def _made(self, name: str, plan: _Plan, timeout: float) -> tuple[Branch, bool]:
        branches, deadline = self.workspace.branches, Deadline(timeout, self.clock)
        former = branches.find(name)
        if former is not None:
            self._require_lent(former, plan)
            if plan.if_exists == "recreate":
                branches.delete(name, purge=True, uid=former.uid, missing_ok=True, timeout=timeout)
        if plan.wait_for_budget is not None and (former is None or plan.if_exists == "recreate"):
            found = count_branches(self.workspace, parent_of(name), plan.limits)
            found.require(roots=0 if plan.snapshot is None else 1)
        left = max(0.001, deadline.remaining())
        try:
            made = branches.ensure(name, on_exists=plan.if_exists, timeout=left, **plan.branch())
        except BaseException as error:
            # Whatever has the name by then would have been replaced, too.
            may_be_made = not isinstance(error, LakebaseError) or isinstance(error, _MAY_BE_MADE)
            if may_be_made and plan.if_exists == "recreate":
                self._undo(name, None, error)
            raise
        return made, former is None or former.uid != made.uid

    def _require_lent(self, found: Branch, plan: _Plan) -> None:
        """Raise an error unless a branch may be a former holder's."""
        came_from = found.source_snapshot or found.source_branch
        if plan.snapshot is not None:
            wanted = self.workspace.snapshots.full_name(plan.snapshot)
        elif plan.source is not None:
            wanted = self.workspace.branches.full_name(plan.source)
        else:
            wanted = self.workspace.projects.get(parent_of(found.name)).default_branch or ""
        for hindered, why in (
            (found.is_default, "is the project's default branch"),
            (found.is_protected, "is protected"),
            # While it is made, neither may be told yet.
            (found.is_settled and came_from != wanted, f"was made from {came_from}, not from {wanted}"),
            (found.is_settled and found.expire_time is None, "does not expire"),
        ):
            if hindered:
                raise AlreadyExistsError(
                    f"The branch {found.name} exists and {why}, so no lease has left it.",
                    remedy="Use another run's id, prefix or branch.",
                )

    def _make_small(self, name: str, plan: _Plan, deadline: Deadline) -> None:
        for endpoint in self.workspace.endpoints.list(name):
            wanted = plan.size()
            if endpoint.endpoint_type == "READ_WRITE" and any(
                getattr(endpoint, option) != value for option, value in wanted.items()
            ):
                left = max(0.001, deadline.remaining())
                self.workspace.endpoints.update(endpoint.name, timeout=left, **wanted)

    def _undo(self, name: str, uid: str | None, error: BaseException) -> None:
        """Purge what was made, or may have been, by a call that ends with an error."""

        def purge() -> None:
            found = self.workspace.branches.find(name)
            if found is not None and uid in (None, found.uid):
                self.purge(name, found.uid or "", _UNDO)

        try:
            to_its_end(purge, "lakebase-branch-undo")
        except NotFoundError:
            pass
        except LakebaseError as failed:
            told(error, f"The branch {name} may be left, until it expires or a sweep finds it: {failed}")


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


def told(error: BaseException, text: str) -> None:
    """Log what else went wrong, and say so with an error that is raised anyway."""
    logger.warning("%s", text)
    # Python 3.10 has no notes.
    if hasattr(error, "add_note"):
        error.add_note(text)
