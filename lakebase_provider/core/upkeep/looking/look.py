"""A look at a database: its health, what an inspection finds, its sessions, its project's branches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Protocol

from lakebase_provider.core.base.clock import SYSTEM_CLOCK, Clock
from lakebase_provider.core.database.sessions.running_sessions import RunningSession, running_sessions
from lakebase_provider.core.errors import ConfigError, LakebaseError
from lakebase_provider.core.errors.redaction import redacted
from lakebase_provider.core.upkeep.branches.lease_options import PREFIX
from lakebase_provider.core.upkeep.branches.sweep import HELD
from lakebase_provider.core.upkeep.health.stages import HealthReport
from lakebase_provider.core.upkeep.inspection.inspection_report import InspectionReport

if TYPE_CHECKING:
    from lakebase_provider.core.config import LakebaseConfig
    from lakebase_provider.core.connect.connection import LakebaseConnection
    from lakebase_provider.core.workspace.objects.branches import Branch
    from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects

#: Seconds that a stage of the health check may take, and a check of the inspection: less than they have
#: elsewhere, for somebody is waiting.
_STAGE, _CHECK = 10.0, 5.0
#: Seconds for a login beside the health check's.
_LOGIN = 10.0


class Client(Protocol):
    """What a look needs of a client."""

    @property
    def config(self) -> LakebaseConfig:
        """Its configuration."""

    @property
    def workspace(self) -> WorkspaceObjects:
        """The workspace's objects."""

    def health(self, *, timeout: float | None) -> HealthReport:
        """The health check."""

    def inspect(self, *, timeout: float) -> InspectionReport:
        """The inspection."""

    def connect(self, timeout: float | None = None, **parameters: Any) -> LakebaseConnection:
        """One connection outside the pool."""


@dataclass(frozen=True)
class SeenBranch:
    """A branch of the database's project.

    Attributes:
        id: Its id.
        state: What the workspace says of it; None if it says nothing.
        age: Seconds since its creation; None if the workspace does not tell.
        expires_in: Seconds until it is deleted; None if it stays.
        source: Id of the branch that it was made from; None for a root.
        is_default: Whether it is the project's default branch.
        is_protected: Whether it can be neither deleted nor reset.
        is_leased: Whether its id and its expiration are those of a lease.
        is_held: Whether a leased one has been changed so lately that somebody holds it.
    """

    id: str
    state: str | None
    age: float | None
    expires_in: float | None
    source: str | None
    is_default: bool
    is_protected: bool
    is_leased: bool
    is_held: bool

    @classmethod
    def of(cls, branch: Branch, now: datetime) -> SeenBranch:
        """What is shown of a branch."""
        leased = branch.expire_time is not None and branch.id.startswith(f"{PREFIX}-")
        changed = branch.update_time
        return cls(
            branch.id,
            branch.state,
            None if branch.create_time is None else (now - branch.create_time).total_seconds(),
            None if branch.expire_time is None else (branch.expire_time - now).total_seconds(),
            None if branch.source_branch is None else branch.source_branch.rpartition("/")[2],
            branch.is_default,
            branch.is_protected,
            leased,
            leased and changed is not None and (now - changed).total_seconds() < HELD,
        )


@dataclass(frozen=True)
class Look:
    """What a look has seen.

    Attributes:
        taken_at: When, in ISO 8601 and UTC.
        health: The health check; None if it could not be made.
        inspection: The inspection; None if the database cannot be reached.
        sessions: Who is connected; None likewise.
        branches: The project's branches; None if the workspace was not asked, or refused.
        errors: Why something is missing, by its name.
    """

    taken_at: str
    health: HealthReport | None = None
    inspection: InspectionReport | None = None
    sessions: tuple[RunningSession, ...] | None = None
    branches: tuple[SeenBranch, ...] | None = None
    errors: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {
            "taken_at": self.taken_at,
            "health": None if self.health is None else self.health.to_dict(),
            "inspection": None if self.inspection is None else self.inspection.to_dict(),
            "sessions": None if self.sessions is None else [one.to_dict() for one in self.sessions],
            "branches": None if self.branches is None else [asdict(one) for one in self.branches],
            "errors": dict(self.errors),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Look:
        """The look that :meth:`to_dict` has made plain.

        Raises:
            ConfigError: It is something else.
        """
        try:
            sessions, branches = plain["sessions"], plain["branches"]
            return cls(
                str(plain["taken_at"]),
                None if plain["health"] is None else HealthReport.from_dict(plain["health"]),
                None if plain["inspection"] is None else InspectionReport.from_dict(plain["inspection"]),
                None if sessions is None else tuple(map(RunningSession.from_dict, sessions)),
                None if branches is None else tuple(SeenBranch(**one) for one in branches),
                {str(name): str(text) for name, text in plain["errors"].items()},
            )
        except (AttributeError, KeyError, TypeError):
            raise ConfigError("This is no look.", remedy="Give what to_dict() has made.") from None

    def moment(self) -> datetime:
        """When it was taken."""
        return datetime.fromisoformat(self.taken_at)


def empty_look(clock: Clock = SYSTEM_CLOCK) -> Look:
    """A look that has seen nothing yet."""
    return Look(_now(clock).isoformat(timespec="milliseconds"))


def failed_look(error: Exception, clock: Clock = SYSTEM_CLOCK) -> Look:
    """The look at a connection of which nothing can be seen, such as one with a setting that is wrong."""
    return replace(empty_look(clock), errors={"connection": told(error)})


def look(client: Client, clock: Clock = SYSTEM_CLOCK) -> Look:
    """Look at a database; whatever fails is told in the result, and does not hide the rest.

    Args:
        client: Its client.
        clock: Where the time comes from.
    """
    errors: dict[str, str] = {}
    found: dict[str, Any] = {}

    @contextlib.contextmanager
    def part(name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a page shows what there is
            errors[name] = told(error)

    def seen(name: str, see: Callable[[], Any]) -> None:
        with part(name):
            found[name] = see()

    now = _now(clock)
    seen("health", lambda: client.health(timeout=_STAGE))
    health: HealthReport | None = found.get("health")
    stages = {} if health is None else {stage.name: stage.status for stage in health.stages}
    if stages.get("query") == "ok":
        seen("sessions", lambda: sessions_of(client))
        seen("inspection", lambda: client.inspect(timeout=_CHECK))
    if any((client.config.endpoint, client.config.project, client.config.branch)):
        seen("branches", lambda: _branches(client, now))
    return Look(now.isoformat(timespec="milliseconds"), **found, errors=errors)


def sessions_of(client: Client) -> tuple[RunningSession, ...]:
    """Who is connected to a client's database.

    Raises:
        LakebaseError: It could not be connected to.
        psycopg.Error: The server refused.
    """
    with client.connect(_LOGIN, autocommit=True) as connection:
        return running_sessions(connection)


def _branches(client: Client, now: datetime) -> tuple[SeenBranch, ...]:
    return tuple(SeenBranch.of(branch, now) for branch in client.workspace.branches.list())


def told(error: Exception) -> str:
    """An error for a page: what happened and what to do, without anything secret."""
    if isinstance(error, LakebaseError):
        return " ".join(str(error).split())
    return " ".join(redacted(f"{type(error).__name__}: {error}").split())


def _now(clock: Clock) -> datetime:
    return datetime.fromtimestamp(clock.wall(), timezone.utc)
