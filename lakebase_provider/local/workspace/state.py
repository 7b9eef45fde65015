"""What the local workspace knows while it runs: its resources, its settings, its faults, its log.

One object, :class:`Workspace`, is shared by the control plane and the front end, in one event loop and so
without locks. Projects hold branches, and branches hold endpoints. An endpoint leads to its branch's cluster,
a replica to one of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import re
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lakebase_provider.local.contract.options import BRANCH, ENDPOINT, FAULT_METHODS, FAULT_PATHS, PROJECT
from lakebase_provider.local.contract.records import Counters, Request
from lakebase_provider.local.identity.login_errors import DEFAULT_STYLE
from lakebase_provider.local.identity.principals import Directory
from lakebase_provider.local.identity.tokens import TokenAuthority
from lakebase_provider.local.network.hosts import pooler_at
from lakebase_provider.local.workspace import kinds
from lakebase_provider.local.workspace.operations import Agenda, Operations
from lakebase_provider.local.workspace.settings import Errors, Settings

#: Name of the same database as Lakebase Provisioned knows it.
INSTANCE = "local"
READ_WRITE, READ_ONLY = "ENDPOINT_TYPE_READ_WRITE", "ENDPOINT_TYPE_READ_ONLY"
_LOG_LENGTH = 20_000
#: What the first project is created with: small, and asleep soon.
_FIRST_SETTINGS = {
    "autoscaling_limit_min_cu": 0.5,
    "autoscaling_limit_max_cu": 2,
    "suspend_timeout_duration": "300s",
}


@dataclass
class _Wake:
    """A wake under way: any number of logins wait for its end."""

    done: asyncio.Future[None]
    timer: asyncio.TimerHandle


class Resource:
    """Whatever has a name.

    Args:
        kind: What it is.
        id: Last part of its name.
        parent: In whose path it stands; None for the workspace.
        created: Unix time.

    Attributes:
        spec: Values that it was given, as they are answered.
    """

    def __init__(self, kind: kinds.Kind, id: str, parent: Resource | None, created: float) -> None:
        self.kind, self.id, self.parent = kind, id, parent
        self.uid = f"{kind.uid or ''}{uuid.uuid4()}"
        self.created = self.updated = created
        self.spec: dict[str, Any] = {}
        self.expires_at: float | None = None

    @property
    def name(self) -> str:
        """Its full name."""
        above = f"{self.parent.name}/" if self.parent else ""
        return f"{above}{self.kind.plural}" + ("" if self.kind.single else f"/{self.id}")


class Endpoint(Resource):
    """A compute: it sleeps, wakes, moves, and can be switched off or removed.

    Args:
        id: Last part of its name.
        branch: Whose it is.
        host: Name or address under which clients reach it.
        created: Unix time.
        read_only: True for a replica, which has a cluster of its own.
    """

    def __init__(
        self, id: str, branch: Branch, host: str, created: float, *, read_only: bool = False
    ) -> None:
        super().__init__(kinds.ENDPOINT, id, branch, created)
        self.branch = branch
        self.type = READ_ONLY if read_only else READ_WRITE
        #: Key of the cluster that it leads to.
        self.cluster = self.uid if read_only else branch.uid
        self.first_host = host
        self.host = host
        self.state = "ACTIVE"
        self.disabled = False
        self.removed = False
        self.sessions = 0
        self.last_active = created
        #: Time until which a change that is done still shows as pending.
        self.pending_until = 0.0
        #: Hosts that it has left, as clients name them by SNI → reason with which logins there are refused.
        self.left: dict[str | None, str] = {}
        self._wake: _Wake | None = None

    @property
    def addresses(self) -> list[str]:
        """Where clients reach it by address alone: its host, and its pooler's if that has one of its own."""
        pooler = pooler_at(self.host)
        return [self.host] if pooler is None else [self.host, pooler]

    def pending_state(self, now: float) -> str | None:
        """What it is becoming, or None."""
        return "ACTIVE" if self._wake or now < self.pending_until else None

    def begin_wake(self, workspace: Workspace) -> asyncio.Future[None]:
        """Start to wake, unless that has begun, and return what is done when it has ended."""
        loop = asyncio.get_running_loop()
        if self._wake is None:
            done: asyncio.Future[None] = loop.create_future()
            if self.state != "IDLE":
                done.set_result(None)
                return done
            workspace.counters.wakes += 1
            self._wake = _Wake(done, loop.call_later(workspace.wake_delay, self._end_wake))
        return self._wake.done

    async def wake(self, workspace: Workspace) -> None:
        """Return when the endpoint is active; all connections that wait share one wake."""
        # One impatient client must not stop the wake for the others.
        await asyncio.shield(self.begin_wake(workspace))

    def _end_wake(self) -> None:
        wake, self._wake = self._wake, None
        self.state = "ACTIVE"
        if wake is not None:
            wake.timer.cancel()
            wake.done.set_result(None)

    def sleep(self, wake_delay: float) -> None:
        """Be idle; a wake that is under way begins anew.

        Args:
            wake_delay: Seconds that it takes then.
        """
        self.state = "IDLE"
        if self._wake is not None:
            self._wake.timer.cancel()
            self._wake.timer = asyncio.get_running_loop().call_later(wake_delay, self._end_wake)

    def move(self, host: str, says: str) -> None:
        """Be at another host from now on.

        Args:
            host: The new one.
            says: Reason with which logins at the present one are refused.
        """
        self.left[sni_of(self.host)] = says
        self.host = host
        self.left.pop(sni_of(host), None)

    def reset(self) -> None:
        """Be active, enabled and where it was at first, and end a wake that is under way."""
        self._end_wake()
        self.disabled = self.removed = False
        self.pending_until = 0.0
        self.host = self.first_host
        self.left.clear()


def sni_of(host: str) -> str | None:
    """Return the name that a client sends when it connects to `host`: None for an address."""
    return None if host.replace(".", "").isdigit() or ":" in host else host


class Branch(Resource):
    """A branch and its endpoints, by id.

    Attributes:
        source: The branch that it was copied from; None for a root.
        snapshot: Name of the snapshot that it was copied from.
        source_lsn: Where in its source's log it begins.
        source_time: When that was, Unix time.
        schedule: Of its snapshots.
        role_ids: Postgres name → id, of the roles that did not get it from their name; copied at the fork.
        database_ids: The same for databases.
        passwords: Role → password, of roles that the control plane gave one.
        data_apis: Postgres name of a database → its data API, if it has one.
        usable_at: Unix time before which logins are refused.
    """

    def __init__(self, id: str, project: Project, created: float) -> None:
        super().__init__(kinds.BRANCH, id, project, created)
        self.project = project
        self.state = "READY"
        self.state_changed = created
        self.protected = False
        self.source: Branch | None = None
        self.snapshot: str | None = None
        self.source_lsn: str | None = None
        self.source_time: float | None = None
        self.deleted: float | None = None
        self.purged_at: float | None = None
        #: True while an operation deletes it.
        self.leaving = False
        self.schedule: list[dict[str, Any]] = []
        self.role_ids: dict[str, str] = {}
        self.database_ids: dict[str, str] = {}
        self.passwords: dict[str, str] = {}
        self.data_apis: dict[str, Resource] = {}
        self.usable_at = 0.0
        self.endpoints: dict[str, Endpoint] = {}

    @property
    def default(self) -> bool:
        """Whether it is its project's default branch."""
        return self.project.default_branch == self.id

    @property
    def gone(self) -> bool:
        """Whether it is deleted, for a while or, as the admin API says, in appearance."""
        return self.state == "DELETED"

    @property
    def read_write(self) -> Endpoint | None:
        """Its read-write endpoint."""
        return next((found for found in self.endpoints.values() if found.type == READ_WRITE), None)

    def enter(self, state: str, now: float) -> None:
        """Change the state."""
        self.state, self.state_changed = state, now


class Snapshot(Resource):
    """What was kept of a branch.

    Args:
        id: Last part of its name.
        project: Where it is.
        created: Unix time.
        scheduled: Whether a schedule has it taken.
    """

    def __init__(self, id: str, project: Project, created: float, *, scheduled: bool = False) -> None:
        super().__init__(kinds.SNAPSHOT, id, project, created)
        self.project, self.scheduled = project, scheduled


class Project(Resource):
    """A project, with its branches and snapshots by id."""

    def __init__(self, id: str, created: float) -> None:
        super().__init__(kinds.PROJECT, id, None, created)
        self.default_branch = BRANCH
        self.deleted: float | None = None
        self.purged_at: float | None = None
        self.branches: dict[str, Branch] = {}
        self.snapshots: dict[str, Snapshot] = {}

    @property
    def gone(self) -> bool:
        """Whether it is deleted for a while."""
        return self.deleted is not None

    def children(self, branch: Branch, *, deleted: bool = False) -> list[Branch]:
        """The branches that were copied from this one, with or without those that are deleted."""
        return [
            found
            for found in self.branches.values()
            if found.source is branch and (deleted or not found.gone)
        ]


def require_amount(what: str, amount: Any, *, least: float = 0) -> None:
    """Raise a ValueError about a number that is less than it can be; None stands for no number."""
    if amount is None:
        return
    is_number = isinstance(amount, (int, float)) and not isinstance(amount, bool)
    if not (is_number and least <= amount < float("inf")):
        raise ValueError(f"{what} must be {least:g} or more, not {amount!r}")


@dataclass
class Fault:
    """A scripted misbehaviour of the control plane; with `lost`, the request is carried out all the same."""

    method: str
    path: str
    status: int | None = None
    error_code: str = "TEMPORARILY_UNAVAILABLE"
    message: str = "scripted fault"
    retry_after: float | None = None
    hang: float | None = None
    times: int | None = None
    lost: bool = False

    def __post_init__(self) -> None:
        # One that no request fits would be waited for in vain.
        if self.method not in FAULT_METHODS:
            raise ValueError(
                f"a fault's method must be one of {', '.join(FAULT_METHODS)}, not {self.method!r}"
            )
        plain = re.split(r"[*?\[]", self.path, maxsplit=1)[0]
        if not self.path or not any(
            plain.startswith(known) or known.startswith(plain) for known in FAULT_PATHS
        ):
            raise ValueError(
                f"a fault's path must begin with * or one of {', '.join(FAULT_PATHS)}, not be {self.path!r}"
            )
        if self.status is not None and not (type(self.status) is int and 200 <= self.status <= 599):
            raise ValueError(f"a fault's status must be 200 to 599, not {self.status!r}")
        for what, amount in (("retry_after", self.retry_after), ("hang", self.hang), ("times", self.times)):
            require_amount(f"a fault's {what}", amount, least=1 if what == "times" else 0)

    def matches(self, method: str, path: str) -> bool:
        """Say whether the fault is left for such a request."""
        return self.times != 0 and self.method in ("*", method) and fnmatch.fnmatchcase(path, self.path)


@dataclass
class LoginFault:
    """A scripted refusal of logins.

    Attributes:
        text: Name or text (:func:`lakebase_provider.local.identity.login_errors.scripted`).
        times: How many are left; None for no end.
        before_password: True to refuse before the password is asked for.
    """

    text: str
    times: int | None = None
    before_password: bool = False

    def __post_init__(self) -> None:
        require_amount("a fault's times", self.times, least=1)


class Workspace:
    """The workspace's whole state.

    Args:
        host: Name under which clients reach the first endpoint.
        token_lifetime: Seconds that a database token lives unless the request says less.
        pg_version: Major version of Postgres.
        new_host: Returns a host for one more endpoint; None to have all at the first one's.
    """

    def __init__(
        self,
        *,
        host: str,
        token_lifetime: float,
        pg_version: int,
        new_host: Callable[[], str] | None = None,
    ) -> None:
        self.pg_version = pg_version
        self.workspace_id = "1000000000000001"
        self.default_token_lifetime = token_lifetime
        self.token_lifetime = token_lifetime
        #: Since when (Unix time) the clock is how many seconds ahead, latest last.
        self._skews = [(0.0, 0.0)]
        self.wake_delay = 0.0
        self.wake_mode = "hold"
        self.login_error_style = DEFAULT_STYLE
        self.settings = Settings()
        self.errors = Errors()
        self.agenda = Agenda(self.now)
        self.operations = Operations(self.agenda, self.now, self.settings, self.errors)
        self.directory = Directory()
        self.tokens = TokenAuthority(self.now)
        self.native_passwords: dict[str, str] = {}
        self.counters = Counters()
        self.log: deque[Request] = deque(maxlen=_LOG_LENGTH)
        self._faults: list[Fault] = []
        self._login_faults: list[LoginFault] = []
        self._faults_cleared = asyncio.Event()
        self.new_host = new_host or (lambda: host)
        #: Told of each endpoint that appears (True) or goes (False).
        self.on_endpoint: Callable[[Endpoint, bool], None] = lambda endpoint, appears: None
        #: Told of each endpoint that has had no sessions for its time.
        self.on_idle: Callable[[Endpoint], None] = lambda endpoint: None
        project = Project(PROJECT, self.now())
        branch = project.branches[BRANCH] = Branch(BRANCH, project, self.now())
        endpoint = branch.endpoints[ENDPOINT] = Endpoint(ENDPOINT, branch, host, self.now())
        #: The endpoint that is there from the start, and its branch.
        self.endpoint, self.branch = endpoint, branch
        self.projects = {PROJECT: project}
        self.catalogs: dict[str, Resource] = {}
        #: Synced tables of both APIs, and configurations of Lakehouse sync by their full names.
        self.synced_tables: dict[str, Resource] = {}
        self.cdf_configs: dict[str, Resource] = {}
        #: Folder of the Unity Catalog's Delta tables.
        self.lakehouse = Path("/nowhere")
        self._begin_first_project()

    def _begin_first_project(self) -> None:
        """Give the first project, its branch and its endpoint what they have at the start."""
        project = self.branch.project
        project.default_branch = BRANCH
        project.deleted = project.purged_at = None
        project.spec = {
            "display_name": PROJECT,
            "default_endpoint_settings": {**_FIRST_SETTINGS},
            "enable_pg_native_login": True,
            "history_retention_duration": "604800s",
        }
        self.branch.protected = False
        self.branch.expires_at = self.branch.deleted = self.branch.purged_at = None
        self.branch.schedule = []
        self.branch.data_apis = {}
        # It has a host for reading too, so that what asks for one finds it.
        self.endpoint.spec = {**_FIRST_SETTINGS, "group": {"enable_readable_secondaries": True}}

    @property
    def clock_skew(self) -> float:
        """Seconds that the workspace's clock is ahead."""
        return self._skews[-1][1]

    @clock_skew.setter
    def clock_skew(self, seconds: float) -> None:
        self._skews.append((time.time(), seconds))

    def now(self) -> float:
        """Unix time by the workspace's clock, which the admin API can set wrong."""
        return time.time() + self.clock_skew

    def true_time(self, shown: float) -> float:
        """When the workspace's clock showed this; where it skipped that, the moment when it did so."""
        for since, skew in reversed(self._skews):
            if shown >= since + skew:
                # At the latest when the clock was set anew.
                later = [moment for moment, _ in self._skews if moment > since]
                return min([shown - skew, *later[:1]])
        return shown

    def shown_time(self, true: float) -> float:
        """What the workspace's clock showed then."""
        return true + next(skew for since, skew in reversed(self._skews) if true >= since)

    def endpoints(self) -> Iterator[Endpoint]:
        """All endpoints of all branches, those of deleted ones included."""
        for project in self.projects.values():
            for branch in project.branches.values():
                yield from branch.endpoints.values()

    def endpoint_at(self, host: str) -> Endpoint | None:
        """The endpoint that clients reach at this name or address, or whose pooler it is; None for none."""
        found = (endpoint for endpoint in self.endpoints() if host in endpoint.addresses)
        return next((endpoint for endpoint in found if self.refusal_at(endpoint) != "endpoint_missing"), None)

    def refusal_at(self, endpoint: Endpoint) -> str | None:
        """Why no login can succeed at an endpoint, whatever the password.

        Returns:
            A name in :data:`lakebase_provider.local.identity.login_errors.REFUSALS`, or None.
        """
        branch = endpoint.branch
        gone = branch.leaving or branch.state in ("ARCHIVED", "DELETED")
        if endpoint.removed or branch.project.gone or gone:
            return "endpoint_missing"
        return self.settings.auth_refusal if self.now() < branch.usable_at else None

    def password_of(self, endpoint: Endpoint, role: str) -> str | None:
        """The password with which a role may log in at an endpoint instead of with a token."""
        password = self.native_passwords.get(role)
        if password is None and endpoint.branch.project.spec.get("enable_pg_native_login"):
            password = endpoint.branch.passwords.get(role)
        return password

    def session_began(self, endpoint: Endpoint) -> None:
        """Count one more session at an endpoint."""
        endpoint.sessions += 1
        endpoint.last_active = self.now()

    def session_ended(self, endpoint: Endpoint) -> None:
        """Count one session less; after the last one the endpoint falls asleep in its time."""
        endpoint.sessions -= 1
        endpoint.last_active = self.now()
        self.doze(endpoint)

    def doze(self, endpoint: Endpoint) -> None:
        """Suspend an endpoint when it has had no sessions for as long as its settings say."""
        timeout = endpoint.spec.get("suspend_timeout_duration")
        idle_since = endpoint.last_active
        if timeout is None or endpoint.sessions:
            return

        def suspend() -> None:
            idle = not endpoint.sessions and endpoint.last_active == idle_since and endpoint.state == "ACTIVE"
            exempt = endpoint.branch.default and not self.settings.default_branch_suspends
            if idle and not exempt and endpoint.spec.get("suspend_timeout_duration") == timeout:
                self.on_idle(endpoint)

        self.agenda.at(idle_since + kinds.seconds(timeout), suspend)

    def add_fault(self, fault: Fault) -> None:
        """Script a fault, after those already scripted."""
        self._faults.append(fault)

    def take_fault(self, method: str, path: str) -> Fault | None:
        """Return the first fault that fits the request, counted as used once."""
        for fault in self._faults:
            if fault.matches(method, path):
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    def add_login_fault(self, fault: LoginFault) -> None:
        """Script a refusal of logins, after those already scripted."""
        self._login_faults.append(fault)

    def take_login_fault(self, *, before_password: bool) -> LoginFault | None:
        """Return the first refusal for a login at that point, counted as used once."""
        for fault in self._login_faults:
            if fault.times != 0 and fault.before_password == before_password:
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    async def hang(self, seconds: float) -> None:
        """Wait, but not longer than until the faults are cleared."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._faults_cleared.wait(), seconds)

    def clear_faults(self) -> None:
        """Forget all faults."""
        self._faults.clear()
        self._login_faults.clear()
        self.operations.clear_faults()
        # Whoever hangs in a fault goes on; the next ones get an event of their own.
        self._faults_cleared.set()
        self._faults_cleared = asyncio.Event()

    def reset(self) -> None:
        """Undo every setting of the admin API; principals, roles, data and open sessions stay.

        What was created beside the first project, its branch and its endpoint is removed by
        :meth:`lakebase_provider.local.workspace.changes.Changes.clear` before.
        """
        self.token_lifetime = self.default_token_lifetime
        self.clock_skew = self.wake_delay = 0.0
        self._skews = [(0.0, 0.0)]
        self.wake_mode = "hold"
        self.login_error_style = DEFAULT_STYLE
        self.settings.reset()
        self.errors.reset()
        self.native_passwords.clear()
        self.clear_faults()
        self.log.clear()
        self.counters.reset()
        for project in self.projects.values():
            for branch in project.branches.values():
                branch.state = "READY"
        for endpoint in self.endpoints():
            endpoint.reset()
        self._begin_first_project()
        self.agenda.tick()
