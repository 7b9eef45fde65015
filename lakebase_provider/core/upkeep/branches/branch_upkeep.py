"""The way to what a client does with branches: ``client.branches``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from psycopg import sql

from lakebase_provider.core.base.clock import Clock, Deadline
from lakebase_provider.core.config import LakebaseConfig, arguments
from lakebase_provider.core.config.resource_names import parent_of
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.database.catalog import TableName, read_table
from lakebase_provider.core.database.refusals import typed_errors
from lakebase_provider.core.errors import ConfigError, WrongBranchError
from lakebase_provider.core.upkeep.branches.branch_check import require_session_on
from lakebase_provider.core.upkeep.branches.branch_login import login, wait_for_login
from lakebase_provider.core.upkeep.branches.branch_reset import BranchReset, Reset
from lakebase_provider.core.workspace.objects.branches import Branch
from lakebase_provider.core.workspace.objects.kept_changes import (
    default_folder,
    left_behind,
    workspace_key,
)
from lakebase_provider.core.workspace.objects.object_kind import DEFAULT_TIMEOUT, in_thread
from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects
from lakebase_provider.core.workspace.workspace import ControlPlane


class BranchUpkeep:
    """What a client does with branches beyond the workspace's API, which knows no session.

    Each method has a twin for asyncio, such as ``await_ready``, which runs in a thread.

    Args:
        config: The client's configuration.
        control_plane: Sends the requests.
        workspace: The workspace's objects.
        connect: Opens a session as the client does; takes seconds.
        clock: Where the time comes from.
    """

    #: Where plans of resets are kept; None for this user's folder.
    plans_folder: Path | None = None

    def __init__(
        self,
        config: LakebaseConfig,
        control_plane: ControlPlane,
        workspace: WorkspaceObjects,
        connect: Callable[[float | None], LakebaseConnection],
        clock: Clock,
    ) -> None:
        self._config = config
        self._control_plane = control_plane
        self._workspace = workspace
        self._connect = connect
        self._clock = clock

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
        found = self._workspace.branches.get(self._own_branch())
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

    def _own_branch(self) -> str:
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
            LakebaseError: The workspace refused or could not be reached.
        """
        left = left_behind(workspace_key(self._config), self._folder())
        done = (self._reset(kept.name, timeout).finish(kept) for kept, _ in left)
        return tuple(one for one in done if one is not None)

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

    await_ready = in_thread(wait_ready)
    arequire = in_thread(require)
    areset = in_thread(reset)
    arecover = in_thread(recover)
    awarm = in_thread(warm)
