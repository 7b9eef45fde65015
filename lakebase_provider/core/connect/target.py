"""Where to connect and as whom: what the configuration leaves out, resolved and remembered."""

from __future__ import annotations

import logging
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass

from lakebase_provider.core.base import telemetry
from lakebase_provider.core.base.clock import SYSTEM_CLOCK, Clock
from lakebase_provider.core.base.single_flight import LONGEST_ATTEMPT, SingleFlight
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.errors import (
    ConfigError,
    ControlPlaneTimeoutError,
    EndpointDisabledError,
    EndpointNotFoundError,
    EndpointWakingError,
    LakebaseError,
    WrongBranchError,
)
from lakebase_provider.core.workspace.answers import Answer
from lakebase_provider.core.workspace.http_limits import Limit, within
from lakebase_provider.core.workspace.workspace import ControlPlane

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """A database to connect to, and the role to connect as."""

    host: str
    port: int
    database: str
    user: str

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}/{self.database}"


class TargetResolver:
    """Asks the workspace for the host and the user if the configuration leaves them out.

    Callers share one question, and each waits until its own deadline. The workspace's answer is validated
    like the settings that it replaces: a host to which no password may be sent is an error.

    Args:
        config: The configuration.
        control_plane: None if nothing needs to be asked (a native password with host and user).
        clock: Where the time comes from.
        longest: Seconds after which a question is abandoned, and the next caller asks again.
    """

    def __init__(
        self,
        config: LakebaseConfig,
        control_plane: ControlPlane | None,
        *,
        clock: Clock = SYSTEM_CLOCK,
        longest: float = LONGEST_ATTEMPT,
    ) -> None:
        self._config = config
        self._control_plane = control_plane
        self._question = SingleFlight(
            self._resolve, thread_name="lakebase-resolve", clock=clock, longest=longest
        )
        self._host: str | None = config.host
        self._user: str | None = config.user or config.client_id or config.azure_client_id

    def resolve(self, timeout: float) -> Target:
        """The target; asks the workspace at most once for each missing part.

        Args:
            timeout: Seconds to wait at most for the workspace.

        Raises:
            ControlPlaneTimeoutError: The workspace did not answer in time.
            LakebaseError: The workspace refused or was not reached.
        """
        if self._host is not None and self._user is not None:
            return Target(self._host, self._config.port, self._config.database, self._user)
        with telemetry.span("resolve"):
            return self._ask_in_time(timeout)

    def _ask_in_time(self, timeout: float) -> Target:
        try:
            # On its own thread, so that each caller keeps its deadline whatever the workspace does.
            return self._question.get(timeout)
        except FutureTimeoutError:
            raise ControlPlaneTimeoutError(
                f"The workspace did not return the database's host within {timeout:.1f} s."
            ) from None

    def _resolve(self) -> Target:
        host = self._host = self._host or self._ask_host()
        user = self._user = self._user or self._required_control_plane("user").current_user_name()
        return Target(host, self._config.port, self._config.database, user)

    def forget_host(self) -> bool:
        """Ask again next time, after a failed connect: an endpoint can move.

        Returns:
            False if the host was set explicitly and stays.
        """
        if self._config.host is not None:
            return False
        self._host = None
        return True

    def require_own_host(self, seconds: float) -> None:
        """Raise an error if a host that was set beside an endpoint is known to be another endpoint's.

        A host that the workspace does not know is believed: it may be an alias or a proxy. So it is where the
        workspace does not say.

        Args:
            seconds: How long it may take.

        Raises:
            WrongBranchError: The host is another endpoint's.
        """
        plane, endpoint, host = self._control_plane, self._config.endpoint, self._config.host
        if plane is None or endpoint is None or host is None:
            return
        try:
            with within(Limit(seconds)):
                answer = Answer(plane.endpoint(endpoint), f"endpoint {endpoint}")
                hosts = answer.object("status").object("hosts")
                own = sorted(filter(None, (hosts.text(name) for name in hosts.fields)))
                if host.lower() in map(str.lower, own):
                    return
                other = plane.endpoint_name(host, self._config.project)
        except LakebaseError:
            return
        name = answer.text("name") or endpoint
        if other != name:
            raise WrongBranchError(
                f"The host {host} is that of {other}, but the endpoint is {name}.",
                remedy="Set one of the two (PGHOST, ENDPOINT_NAME), and the other is looked up. The "
                f"endpoint's host is {own[0] if own else 'not known yet'}.",
            )

    def gone(self, seconds: float) -> EndpointNotFoundError | None:
        """The workspace's error if it says that the endpoint is there no more.

        Args:
            seconds: How long it may take.
        """
        if self._control_plane is None or self._config.endpoint is None:
            return None
        try:
            with within(Limit(seconds)):
                self._control_plane.endpoint(self._config.endpoint)
        except EndpointNotFoundError as error:
            return error
        except LakebaseError:
            # What is not known need not be said: the session is lost all the same.
            return None
        return None

    def _required_control_plane(self, missing: str) -> ControlPlane:
        if self._control_plane is None:
            raise ConfigError(
                f"Setting '{missing}' is missing, and no workspace is configured to look it up."
            )
        return self._control_plane

    def _ask_host(self) -> str:
        control_plane = self._required_control_plane("host")
        read_only = self._config.access == "read_only"
        if self._config.endpoint is not None:
            name = f"Endpoint {self._config.endpoint}"
            host, state = self._ask_endpoint(control_plane, self._config.endpoint, read_only)
        else:
            name = f"Instance {self._config.instance}"
            host, state = self._ask_instance(control_plane, self._config.instance or "", read_only)
        if not host and read_only and state in ("ACTIVE", "IDLE", "DEGRADED", "AVAILABLE"):
            raise EndpointNotFoundError(
                f"{name} has no read-only host.",
                remedy="Enable readable secondaries on it, or use access=read_write.",
            )
        if not host:
            raise EndpointWakingError(f"{name} has no host yet (state {state}).")
        logger.info("%s is at %s (state %s)", name, host, state)
        return host

    @staticmethod
    def _ask_endpoint(
        control_plane: ControlPlane, endpoint: str, read_only: bool
    ) -> tuple[str | None, str | None]:
        answer = Answer(control_plane.endpoint(endpoint), f"endpoint {endpoint}")
        status = answer.object("status")
        if status.flag("disabled"):
            raise EndpointDisabledError(f"Endpoint {endpoint} is disabled.")
        host = status.object("hosts").host("read_only_host" if read_only else "host")
        return host, status.state("current_state")

    @staticmethod
    def _ask_instance(
        control_plane: ControlPlane, instance: str, read_only: bool
    ) -> tuple[str | None, str | None]:
        answer = Answer(control_plane.instance(instance), f"instance {instance}")
        return answer.host("read_only_dns" if read_only else "read_write_dns"), answer.state("state")
