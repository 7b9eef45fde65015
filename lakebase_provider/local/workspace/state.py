"""What the local workspace knows while it runs: its resources, its settings, its faults, its log.

One object, :class:`Workspace`, is shared by the control plane and the front end, in one event loop and so
without locks. Projects hold branches, and branches hold endpoints; all endpoints lead to the one Postgres.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from lakebase_provider.local.contract.options import BRANCH, ENDPOINT, PROJECT
from lakebase_provider.local.contract.records import Counters, Request
from lakebase_provider.local.identity.login_errors import DEFAULT_STYLE
from lakebase_provider.local.identity.principals import Directory
from lakebase_provider.local.identity.tokens import TokenAuthority

#: Name of the same database as Lakebase Provisioned knows it.
INSTANCE = "local"
_LOG_LENGTH = 20_000


@dataclass
class _Wake:
    """A wake under way: any number of logins wait for its end."""

    done: asyncio.Future[None]
    timer: asyncio.TimerHandle


class Endpoint:
    """A compute: it sleeps, wakes, moves, and can be switched off or removed.

    Args:
        endpoint_id: Last part of its name.
        host: Name or address under which clients reach it.
        cluster: Key of the cluster that it leads to: its branch's uid, or its own where it is a replica.
    """

    def __init__(self, endpoint_id: str, host: str, cluster: str) -> None:
        self.endpoint_id = endpoint_id
        self.cluster = cluster
        self.uid = f"ep-{uuid.uuid4()}"
        self.first_host = host
        self.host = host
        self.state = "ACTIVE"
        self.disabled = False
        self.removed = False
        #: Hosts that it has left, as clients name them by SNI → reason with which logins there are refused.
        self.left: dict[str | None, str] = {}
        self._wake: _Wake | None = None

    @property
    def pending_state(self) -> str | None:
        """What it is becoming, or None."""
        return "ACTIVE" if self._wake else None

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
        self.host = self.first_host
        self.left.clear()


def sni_of(host: str) -> str | None:
    """Return the name that a client sends when it connects to `host`: None for an address."""
    return None if host.replace(".", "").isdigit() or ":" in host else host


@dataclass
class Branch:
    """A branch and its endpoints, by id."""

    branch_id: str
    default: bool = False
    state: str = "READY"
    uid: str = field(default_factory=lambda: f"br-{uuid.uuid4()}")
    endpoints: dict[str, Endpoint] = field(default_factory=dict)


@dataclass
class Project:
    """A project and its branches, by id."""

    project_id: str
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))
    branches: dict[str, Branch] = field(default_factory=dict)


@dataclass
class Fault:
    """A scripted misbehaviour of the control plane."""

    method: str
    path: str
    status: int | None = None
    error_code: str = "TEMPORARILY_UNAVAILABLE"
    message: str = "scripted fault"
    retry_after: float | None = None
    hang: float | None = None
    times: int | None = None

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


class Workspace:
    """The workspace's whole state.

    Args:
        host: Name under which clients reach the endpoint.
        token_lifetime: Seconds that a database token lives unless the request says less.
        pg_version: Major version of Postgres.
    """

    def __init__(self, *, host: str, token_lifetime: float, pg_version: int) -> None:
        self.pg_version = pg_version
        self.workspace_id = "1000000000000001"
        self.default_token_lifetime = token_lifetime
        self.token_lifetime = token_lifetime
        self.clock_skew = 0.0
        self.wake_delay = 0.0
        self.wake_mode = "hold"
        self.login_error_style = DEFAULT_STYLE
        self.directory = Directory()
        self.tokens = TokenAuthority(self.now)
        self.native_passwords: dict[str, str] = {}
        self.counters = Counters()
        self.log: deque[Request] = deque(maxlen=_LOG_LENGTH)
        self._faults: list[Fault] = []
        self._login_faults: list[LoginFault] = []
        self._faults_cleared = asyncio.Event()
        #: Told of each endpoint that appears (True) or goes (False).
        self.on_endpoint: Callable[[Endpoint, bool], None] = lambda endpoint, appears: None
        branch = Branch(BRANCH, default=True)
        branch.endpoints[ENDPOINT] = Endpoint(ENDPOINT, host, branch.uid)
        self.projects = {PROJECT: Project(PROJECT, branches={BRANCH: branch})}

    def now(self) -> float:
        """Unix time by the workspace's clock, which the admin API can set wrong."""
        return time.time() + self.clock_skew

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint whose state the front end obeys."""
        return self.projects[PROJECT].branches[BRANCH].endpoints[ENDPOINT]

    @property
    def branch(self) -> Branch:
        """That endpoint's branch."""
        return self.projects[PROJECT].branches[BRANCH]

    def endpoints(self) -> Iterator[Endpoint]:
        """All endpoints of all branches."""
        for project in self.projects.values():
            for branch in project.branches.values():
                yield from branch.endpoints.values()

    def endpoint_at(self, host: str) -> Endpoint | None:
        """The endpoint that clients reach at this name or address, if there is one."""
        return next((endpoint for endpoint in self.endpoints() if endpoint.host == host), None)

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
        # Whoever hangs in a fault goes on; the next ones get an event of their own.
        self._faults_cleared.set()
        self._faults_cleared = asyncio.Event()

    def reset(self) -> None:
        """Undo every setting of the admin API; principals, roles, data and open sessions stay."""
        self.token_lifetime = self.default_token_lifetime
        self.clock_skew = self.wake_delay = 0.0
        self.wake_mode = "hold"
        self.login_error_style = DEFAULT_STYLE
        self.native_passwords.clear()
        self.clear_faults()
        self.log.clear()
        self.counters.reset()
        for project in self.projects.values():
            for branch in project.branches.values():
                branch.state = "READY"
        for endpoint in self.endpoints():
            endpoint.reset()
