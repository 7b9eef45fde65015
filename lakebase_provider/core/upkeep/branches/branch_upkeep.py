"""The way to what a client does with branches: ``client.branches``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from psycopg import sql

from lakebase_provider.core.base.clock import Clock, Deadline
from lakebase_provider.core.base.threads import (
    its_end,
    outcome_of,
    started,
    to_its_end,
    unless_gone,
    unwinding_on_sigterm,
)
from lakebase_provider.core.config import LakebaseConfig, arguments
from lakebase_provider.core.config.resource_names import parent_of
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.database.catalog import TableName, read_table
from lakebase_provider.core.database.refusals import typed_errors
from lakebase_provider.core.errors import ConfigError, LakebaseError, WrongBranchError
from lakebase_provider.core.upkeep.branches.branch_check import require_session_on
from lakebase_provider.core.upkeep.branches.branch_login import login, wait_for_login
from lakebase_provider.core.upkeep.branches.branch_reset import BranchReset, Reset
from lakebase_provider.core.upkeep.branches.budget import (
    LIMITS,
    BranchBudget,
    BranchLimits,
    count_all,
    project_named,
    wait_until,
)
from lakebase_provider.core.upkeep.branches.lease import (
    HEARTBEAT,
    RELEASE,
    BranchLease,
    Client,
    Leases,
    end,
    told,
)
from lakebase_provider.core.upkeep.branches.lease_options import (
    PREFIX,
    LeaseOptions,
    branch_id_for,
    checked_prefix,
)
from lakebase_provider.core.upkeep.branches.sweep import HELD, Rules, SweepReport, sweep
from lakebase_provider.core.workspace.objects.branches import Branch
from lakebase_provider.core.workspace.objects.kept_changes import (
    default_folder,
    put_all_back,
    workspace_key,
)
from lakebase_provider.core.workspace.objects.object_kind import DEFAULT_TIMEOUT, in_thread
from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects
from lakebase_provider.core.workspace.operations import Operation
from lakebase_provider.core.workspace.workspace import ControlPlane

if TYPE_CHECKING:
    from typing_extensions import Unpack

_Result = TypeVar("_Result")


class BranchUpkeep(Generic[Client]):
    """What a client does with branches beyond the workspace's API, which knows no session.

    Each method has a twin for asyncio, such as ``await_ready``, which runs in a thread.

    Args:
        config: The client's configuration.
        control_plane: Sends the requests.
        workspace: The workspace's objects.
        connect: Opens a session as the client does; takes seconds.
        client_on: Makes a client like that one of another configuration.
        clock: Where the time comes from.
    """

    #: Where plans of resets are kept; None for this user's folder. To be set on the class.
    plans_folder: Path | None = None

    def __init__(
        self,
        config: LakebaseConfig,
        control_plane: ControlPlane,
        workspace: WorkspaceObjects,
        connect: Callable[[float | None], LakebaseConnection],
        client_on: Callable[[LakebaseConfig], Client],
        clock: Clock,
    ) -> None:
        self._config = config
        self._control_plane = control_plane
        self._workspace = workspace
        self._connect = connect
        self._client_on = client_on
        self._clock = clock
        self._leases = Leases(config, workspace, client_on, self._ready_within, clock)

    def wait_ready(self, name: str, *, timeout: float = DEFAULT_TIMEOUT) -> Branch:
        """Wait until a branch is ready and a login there succeeds, with a token that is minted for it.

        Logins that are refused because the branch is new are waited out.

        Args:
            name: Its name, or its id in the configuration's project.
            timeout: Seconds to wait at most.

        Raises:
            ObjectStateError: Its state is one from which it does not become ready.
            OperationTimeoutError: It was not ready, or no login succeeded, in time; the last refusal is its
                cause.
            LakebaseError: The workspace or the server refused for good.
        """
        deadline = Deadline(arguments.timeout(timeout), self._clock)
        branch = self._workspace.branches.wait_ready(name, timeout=timeout)
        wait_for_login(self._config.on_branch(branch.name), self._control_plane, deadline, self._clock)
        return branch

    def require(
        self,
        branch: str,
        connection: LakebaseConnection | None = None,
        *,
        default_is_meant: bool = False,
        timeout: float | None = None,
    ) -> Branch:
        """Hold that this client's sessions are on a branch, before anything is written.

        Where the server says which branch it serves, that counts; otherwise the session's host, which must be
        one of those that the branch's endpoints have now.

        Args:
            branch: The branch's uid, which another one of the same name does not have; or its name or id.
            connection: A session to check; one of this client's by default.
            default_is_meant: True to accept the project's default branch, which is production.
            timeout: Seconds to wait for a session; the configuration's `connect_budget` by default.

        Returns:
            The branch.

        Raises:
            WrongBranchError: They are on another branch, or on the default one.
            ConfigError: The configuration names no branch.
            LakebaseError: The workspace or the server refused or could not be reached.
        """
        arguments.text("The branch", branch, "Give its uid, name or id.")
        if connection is not None and not hasattr(connection, "execute"):
            raise arguments.wrong(
                "'connection'", connection, "be a connection", "Give one of this client's, or leave it out."
            )
        found = self._workspace.branches.get(self.own_branch())
        if branch not in (found.uid, found.name, found.id):
            raise WrongBranchError(f"The client is on {found.name} ({found.uid}), not on {branch}.")
        if connection is not None:
            require_session_on(found, connection, self._workspace, default_is_meant=default_is_meant)
        else:
            with self._session(timeout) as own:
                require_session_on(found, own, self._workspace, default_is_meant=default_is_meant)
        return found

    def _session(self, timeout: float | None) -> LakebaseConnection:
        return self._connect(None if timeout is None else arguments.timeout(timeout))

    def own_branch(self) -> str:
        """Full name of the branch that this client's configuration names.

        Raises:
            ConfigError: It names none.
            LakebaseError: It names an endpoint by its uid or host, and the workspace could not be asked.
        """
        if self._config.branch is not None:
            return f"projects/{self._config.project}/branches/{self._config.branch}"
        if self._config.endpoint is None:
            raise ConfigError(
                "The configuration names no branch.", remedy="Set project and branch, or endpoint."
            )
        # It is a uid or a host.
        return parent_of(self._control_plane.endpoint_name(self._config.endpoint, self._config.project))

    def reset(self, name: str, *, timeout: float = DEFAULT_TIMEOUT) -> BranchReset:
        """Give a branch the data that its source has now: it is purged, and created again under its name.

        Its endpoints are sized as before, and it expires when it was to. It has another uid, its endpoints
        have other hosts, and its sessions end; whoever connects by its name finds it. A cancelled ``areset``
        goes on until it is created again. What it has to be again is in a file of this user on this machine
        before it is purged: if this is killed half-way, the next reset of the branch, or :meth:`recover`,
        finishes it.

        Args:
            name: Its name, or its id in the configuration's project.
            timeout: Seconds that all of it may take.

        Raises:
            ObjectStateError: It is protected, a root, the default, or has children; nothing was changed.
            ConfigError: What it has to be again cannot be kept; nothing was changed.
            OperationTimeoutError: It was not done in time.
            LakebaseError: The workspace refused or could not be reached.
        """
        name = self._workspace.branches.full_name(name)
        return self._reset(name, timeout).run(workspace_key(self._config), self._folder())

    def recover(self, *, timeout: float = DEFAULT_TIMEOUT) -> tuple[BranchReset, ...]:
        """Finish the resets on this machine that were killed after they had purged their branch.

        Args:
            timeout: Seconds that each may take.

        Returns:
            What has become of them. One that has expired meanwhile, or that somebody else has created from
            another source, is left alone.

        Raises:
            LakebaseError: The workspace refused or could not be reached, or what was kept is damaged; it
                names the file. The others are finished nevertheless.
        """
        arguments.timeout(timeout)
        return put_all_back(
            workspace_key(self._config),
            self._folder(),
            lambda kept: self._reset(kept.name, timeout).finish(kept),
        )

    def _folder(self) -> Path:
        return self.plans_folder or default_folder("branch-resets")

    def _reset(self, name: str, timeout: float) -> Reset:
        deadline = Deadline(arguments.timeout(timeout), self._clock)
        config = self._config.on_branch(name)

        def connect() -> LakebaseConnection:
            seconds = min(config.connect_budget, deadline.remaining())
            return login(config, self._control_plane, seconds, self._clock)

        def wait_ready() -> Branch:
            # Above 0: that the time is up is an error of what is waited for, and not of an argument.
            return self.wait_ready(name, timeout=max(0.001, deadline.remaining()))

        return Reset(name, self._workspace, connect, deadline, self._clock, wait_ready)

    def warm(
        self, tables: Sequence[str | tuple[str, str] | TableName] = (), *, timeout: float | None = None
    ) -> float:
        """Wake this client's endpoint before a job, and read tables so that they are in its memory.

        A woken compute has its least size and an empty cache; ``client.workspace.endpoints.resized`` gives it
        another size for the job.

        Args:
            tables: Tables to read in full, each ``"table"``, ``"schema.table"`` or (schema, table).
            timeout: Seconds that connecting may take; the configuration's `connect_budget` by default.

        Returns:
            Seconds that it took.

        Raises:
            ConfigError: What is given are no tables.
            TableNotFoundError: One does not exist.
            LakebaseError: No connection could be opened, or a table cannot be read.
        """
        if isinstance(tables, (str, bytes)) or not isinstance(tables, Sequence):
            raise arguments.wrong(
                "'tables'", tables, "be a list", 'Give a list of names, such as ["orders"].'
            )
        began = self._clock.elapsed()
        names = [TableName.parse(table) for table in tables]
        with self._session(timeout) as connection:
            connection.execute("SELECT 1")
            for name in names:
                with typed_errors(f"Reading {name}"):
                    read_table(connection, name)
                    connection.execute(sql.SQL("SELECT count(*) FROM {}").format(name.sql()))
        return self._clock.elapsed() - began

    @contextmanager
    def lease(
        self,
        run_id: str | None = None,
        *,
        branch: str | None = None,
        prefix: str = PREFIX,
        heartbeat: float | None = HEARTBEAT,
        timeout: float = DEFAULT_TIMEOUT,
        **options: Unpack[LeaseOptions],
    ) -> Iterator[BranchLease[Client]]:
        """Lend a branch to a block, and purge it at its end, whatever that is.

        The workspace deletes it after `ttl`, which a heartbeat moves while the block runs; so a killed
        process leaves it for `ttl` at most. Its id follows from the run's (``branch_id_for``), so a retry
        meets the branch that was left, and replaces it. Its endpoint is made small before it is used.
        In the main thread SIGTERM ends the block by SystemExit, unless something handles it otherwise; in
        another one no signal ends it. ``alease`` is the twin for asyncio. Holders that ``"reuse"`` one branch
        at a time share it, and the first to end purges it.

        Args:
            run_id: Id of the run, of any form; give this or `branch`.
            branch: Name or id of the branch instead. :meth:`sweep` finds those whose id begins with `prefix`.
            prefix: What the id that follows from `run_id` begins with.
            heartbeat: Seconds between two extensions, at most 600; a third of `ttl` if that is less. None: it
                is not extended, and `ttl` must exceed the work.
            timeout: Seconds that making the branch may take, waiting for room not counted, and giving it
                back, each.
            options: The fields of :class:`LeaseOptions`.

        Raises:
            LeaseLostError: The branch expired or was deleted under the work, or another holder has replaced
                it. Where the work failed by that, its error is the cause.
            AlreadyExistsError: There is a branch of that name that is no former lease, or `if_exists` is
                ``"fail"``.
            LimitError: There is no room, also after `wait_for_budget` seconds; it says the numbers.
            LakebaseError: The workspace or the server refused, or was not done in time.

        Example:
            >>> with client.branches.lease("nightly/2027-01-31", ttl=3600) as lease:
            ...     lease.client.load(rows, "orders")
        """
        name = self._leased_name(run_id, branch, prefix)
        with unwinding_on_sigterm():
            held = self._leases.take(name, options, heartbeat, timeout)
            try:
                yield held
            except BaseException as error:
                failed = error
                to_its_end(lambda: end(held, failed), RELEASE)
                raise
            to_its_end(held.release, RELEASE)

    @asynccontextmanager
    async def alease(
        self,
        run_id: str | None = None,
        *,
        branch: str | None = None,
        prefix: str = PREFIX,
        heartbeat: float | None = HEARTBEAT,
        timeout: float = DEFAULT_TIMEOUT,
        **options: Unpack[LeaseOptions],
    ) -> AsyncIterator[BranchLease[Client]]:
        """:meth:`lease` for asyncio. One that is cancelled ends when the branch is purged.

        A second cancellation does not wait for that, which goes on.
        """
        name = self._leased_name(run_id, branch, prefix)
        with unwinding_on_sigterm():
            held = await self._taken(name, options, heartbeat, timeout)
            try:
                yield held
            except BaseException as error:
                failed = error
                try:
                    await held.aclose_client()
                except Exception as unclosed:
                    told(error, f"The client on {held.name} was not closed: {unclosed}")
                finally:
                    await its_end(lambda: end(held, failed), RELEASE)
                raise
            await held.arelease()

    async def _taken(
        self, name: str, options: LeaseOptions, heartbeat: float | None, timeout: float
    ) -> BranchLease[Client]:
        """A lease, taken in a thread of its own: those that wait for room must not keep others from work."""
        gone = threading.Event()
        taking = started(
            lambda: unless_gone(lambda: self._leases.take(name, options, heartbeat, timeout), gone),
            "lakebase-branch-take",
        )
        try:
            held = await outcome_of(taking)
        except asyncio.CancelledError as error:
            gone.set()
            cancelled = error

            def undo() -> None:
                with suppress(LakebaseError):
                    late = taking.result()
                    if late is not None:
                        end(late, cancelled)

            await its_end(undo, RELEASE)
            raise
        assert held is not None
        return held

    def take(
        self,
        run_id: str | None = None,
        *,
        branch: str | None = None,
        prefix: str = PREFIX,
        heartbeat: float | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        **options: Unpack[LeaseOptions],
    ) -> BranchLease[Client]:
        """The first half of :meth:`lease`, where another process does the second: keep the name and the uid.

        Args:
            run_id: Id of the run; give this or `branch`.
            branch: Name or id of the branch instead.
            prefix: What the id that follows from `run_id` begins with.
            heartbeat: Seconds between two extensions while this process lives; by default there is none, and
                `ttl` must exceed all of the work.
            timeout: Seconds that it may take; waiting for room is not counted.
            options: The fields of :class:`LeaseOptions`.

        Raises:
            LakebaseError: As by :meth:`lease`. What this call has made is purged then; a branch that it
                reuses is not.
        """
        return self._leases.take(self._leased_name(run_id, branch, prefix), options, heartbeat, timeout)

    async def atake(
        self,
        run_id: str | None = None,
        *,
        branch: str | None = None,
        prefix: str = PREFIX,
        heartbeat: float | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        **options: Unpack[LeaseOptions],
    ) -> BranchLease[Client]:
        """:meth:`take` for asyncio; one that is cancelled leaves no branch."""
        return await self._taken(self._leased_name(run_id, branch, prefix), options, heartbeat, timeout)

    def give_back(self, name: str, *, uid: str, timeout: float = DEFAULT_TIMEOUT) -> bool:
        """The second half of :meth:`lease`: purge the branch of that name and uid.

        Args:
            name: Its name, or its id in the configuration's project.
            uid: Its uid, so that another holder's is left alone.
            timeout: Seconds that it may take.

        Returns:
            Whether there was one; not if an earlier call has purged it, or it expired.

        Raises:
            LeaseLostError: Another branch has its name.
            ObjectStateError: It has become the default branch, or protected, and is left alone.
            LakebaseError: The workspace refused, or was not done in time.
        """
        return self._leases.give_back(name, uid, timeout)

    def begin_give_back(
        self, name: str, *, uid: str | None = None, timeout: float = DEFAULT_TIMEOUT
    ) -> Operation | None:
        """:meth:`give_back`, without waiting for the operation; None if there is no such branch any more.

        Args:
            name: Its name, or its id in the configuration's project.
            uid: Its uid, so that another holder's is left alone; of whichever has the name by default.
            timeout: Seconds to wait for other operations on the project.

        Raises:
            LakebaseError: As by :meth:`give_back`.
        """
        return self._leases.begin_give_back(name, uid, timeout)

    def sweep(
        self,
        project: str | None = None,
        *,
        prefix: str = PREFIX,
        older_than: float = 86_400.0,
        held: float = HELD,
        dry_run: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> SweepReport:
        """Purge the branches that leases left behind: those whose id begins with the prefix, and that expire.

        The default branch, protected branches, those with children, and roots but for restored snapshots are
        kept, and so are those that were changed within `held` seconds, as by a heartbeat. A lease without a
        heartbeat is held as long as it is younger than `older_than`.

        Args:
            project: The project's name; the configuration's by default.
            prefix: What their ids begin with, before a hyphen.
            older_than: Seconds since their creation, at least; more than the longest run without a heartbeat.
            held: Seconds since the last change within which a branch is taken for held, by this host's clock:
                one that is ahead by more takes each lease for idle.
            dry_run: True to delete nothing.
            timeout: Seconds that listing them may take, and each deletion.

        Returns:
            What was found, and what became of it; one that could not be deleted does not stop the others.

        Raises:
            LakebaseError: The branches could not be listed in that time.
        """
        rules = Rules(
            checked_prefix(prefix),
            arguments.seconds("'older_than'", older_than, "Give older_than in seconds, such as 86400."),
            arguments.seconds("'held'", held, "Give held in seconds, such as 1800."),
        )
        named = project_named(self._config, self._workspace, project)
        arguments.timeout(timeout)
        return sweep(named, rules, self._workspace, self._clock, dry_run=dry_run, timeout=timeout)

    def budget(self, project: str | None = None, *, limits: BranchLimits = LIMITS) -> BranchBudget:
        """How many branches, computes and snapshots a project has, and how many it may have.

        Args:
            project: The project's name; the configuration's by default.
            limits: How many it may have; the workspace does not tell.

        Raises:
            LakebaseError: The workspace refused or could not be reached.

        Example:
            >>> client.branches.budget().require(branches=4)
        """
        return count_all(self._workspace, project_named(self._config, self._workspace, project), limits)

    def wait_for_room(
        self,
        project: str | None = None,
        *,
        branches: int = 1,
        roots: int = 0,
        computes: int | None = None,
        snapshots: int = 0,
        limits: BranchLimits = LIMITS,
        timeout: float,
    ) -> BranchBudget:
        """Wait, before a fan-out, until a project has room for all of it.

        Nothing is reserved: others may take the room meanwhile, for which a lease has `wait_for_budget`.

        Args:
            project: The project's name; the configuration's by default.
            branches: For how many more branches.
            roots: How many of those are restored snapshots.
            computes: For how many more endpoints; one for each branch by default.
            snapshots: For how many more snapshots.
            limits: How many it may have; the workspace does not tell.
            timeout: Seconds to wait at most.

        Returns:
            The numbers, with the room that there is.

        Raises:
            LimitError: There was no room in that time; it says the numbers.
            LakebaseError: The workspace refused or could not be reached.

        Example:
            >>> client.branches.wait_for_room(branches=4, timeout=600)
        """
        named = project_named(self._config, self._workspace, project)

        def enough() -> BranchBudget:
            found = count_all(self._workspace, named, limits)
            found.require(branches=branches, roots=roots, computes=computes, snapshots=snapshots)
            return found

        deadline = Deadline(arguments.timeout(timeout), self._clock)
        return wait_until(enough, f"in {named}", deadline, self._clock)

    def _leased_name(self, run_id: str | None, branch: str | None, prefix: str) -> str:
        if (run_id is None) == (branch is None):
            raise ConfigError(
                "A lease needs a run's id or a branch, and not both.", remedy="Give one of run_id and branch."
            )
        return branch if branch is not None else branch_id_for(run_id or "", prefix)

    def _ready_within(self, name: str, seconds: float) -> Branch:
        return self.wait_ready(name, timeout=seconds)

    await_ready = in_thread(wait_ready)
    arequire = in_thread(require)
    areset = in_thread(reset)
    arecover = in_thread(recover)
    awarm = in_thread(warm)
    agive_back = in_thread(give_back)
    abegin_give_back = in_thread(begin_give_back)
    asweep = in_thread(sweep)
    abudget = in_thread(budget)
    await_for_room = in_thread(wait_for_room)
