"""How many branches, computes and snapshots a project has, and how many it may have.

The workspace refuses one too many, and half of a fan-out fails: so they are counted before.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from lakebase_provider.core.base.clock import Backoff, Clock, Deadline
from lakebase_provider.core.base.waiting_log import WaitingLog
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.config.resource_names import FORMATS
from lakebase_provider.core.errors import ConfigError, LimitError, NotFoundError
from lakebase_provider.core.errors.remedy import Remedy
from lakebase_provider.core.workspace.objects.branches import Branch
from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class BranchLimits:
    """How many a project may have, as the documentation has it; a workspace may allow more or fewer.

    Attributes:
        branches: Branches, archived ones included.
        unarchived: Branches that are not archived, the default one included.
        roots: Branches that were made from no other: the first one, and restored snapshots.
        computes: Endpoints of all branches but the default one.
        snapshots: Snapshots that were taken by hand.
    """

    branches: int = 500
    unarchived: int = 10
    roots: int = 3
    computes: int = 20
    snapshots: int = 10


#: Those of the documentation.
LIMITS = BranchLimits()


@dataclass(frozen=True)
class Usage:
    """How many there are.

    Attributes:
        used: How many there are.
        limit: How many there may be.
    """

    used: int
    limit: int

    @property
    def left(self) -> int:
        """How many more there may be."""
        return max(0, self.limit - self.used)


@dataclass(frozen=True)
class BranchBudget:
    """What a project has, and what it may have.

    Attributes:
        project: The project's name.
        branches: Branches, archived ones included.
        unarchived: Branches that are not archived.
        roots: Branches that were made from no other.
        computes: Endpoints of all branches but the default and archived ones; None if they were not counted.
        snapshots: Snapshots, those of a schedule included, which the limit leaves out; None likewise.
        deleted: Branches that can still be brought back. They are not in the other numbers, but the workspace
            may count them until they are purged.
    """

    project: str
    branches: Usage
    unarchived: Usage
    roots: Usage
    computes: Usage | None = None
    snapshots: Usage | None = None
    deleted: int = 0

    def usages(self) -> dict[str, Usage]:
        """What was counted, by name."""
        found = {
            "branches": self.branches,
            "unarchived branches": self.unarchived,
            "root branches": self.roots,
            "computes": self.computes,
            "snapshots": self.snapshots,
        }
        return {name: usage for name, usage in found.items() if usage is not None}

    def require(
        self, *, branches: int = 1, roots: int = 0, computes: int | None = None, snapshots: int = 0
    ) -> None:
        """Raise an error unless there is room.

        Args:
            branches: For how many more branches.
            roots: How many of those are restored snapshots.
            computes: For how many more endpoints; one for each branch by default.
            snapshots: For how many more snapshots.

        Raises:
            LimitError: There is not; it says all the numbers, and may pass when somebody else is done.
        """
        wanted = {
            "branches": branches,
            "unarchived branches": branches,
            "root branches": roots,
            "computes": branches if computes is None else computes,
            "snapshots": snapshots,
        }
        short = [name for name, usage in self.usages().items() if wanted[name] > usage.left]
        if short:
            raise LimitError(
                f"There is no room for {wanted[short[0]]} more: {', '.join(short)}. {self.to_text()}",
                remedy=NO_ROOM,
                retryable=True,
            )

    def to_text(self) -> str:
        """The numbers, in one line."""
        told = ", ".join(f"{usage.used} of {usage.limit} {name}" for name, usage in self.usages().items())
        deleted = f"; {self.deleted} deleted ones may count until they are purged" if self.deleted else ""
        return f"{self.project} has {told}{deleted}."


#: How long those that wait for room pause between two tries.
_ROOM = Backoff(first=2.0, most=10.0, floor=0.5)
# Seeded by the system: those that wait for the same place must not try in step.
_RNG = random.SystemRandom()


def wait_until(attempt: Callable[[], _Result], what: str, deadline: Deadline, clock: Clock) -> _Result:
    """Try something again and again, until there is room for it.

    Args:
        attempt: What to do; raises a LimitError if there is no room.
        what: What the room is for, for the log.
        deadline: When to give up.
        clock: Where the time comes from.

    Raises:
        LimitError: There was none until then; it says the numbers.
    """
    waiting, failures = WaitingLog(logger), 0
    while True:
        try:
            return attempt()
        except LimitError as error:
            left = deadline.remaining()
            if left <= 0:
                error.message += f" (waited for {deadline.seconds:.1f} s)"
                raise
            waiting.say(deadline.now(), error, "Waiting for room %s: %s", what, error.message)
        clock.sleep(min(_ROOM.seconds(failures, _RNG), left))
        failures += 1


#: What to do where a project is full.
NO_ROOM = Remedy(
    "Run fewer at once, delete what is left (client.branches.sweep), or wait: wait_for_budget.",
    options=("wait_for_budget",),
    otherwise="Run fewer at once, or delete what is left: `lakebase branches sweep`.",
)


def project_named(config: LakebaseConfig, workspace: WorkspaceObjects, project: str | None) -> str:
    """The full name of a project; of the configuration's by default.

    Raises:
        ConfigError: It is no name of a project, or the configuration names none.
    """
    name = project if project is not None else config.project
    if name is None:
        raise ConfigError(
            "The project is not named, and the configuration names none.", remedy=f"Use {FORMATS['project']}."
        )
    return workspace.projects.full_name(name)


def count_branches(workspace: WorkspaceObjects, project: str, limits: BranchLimits) -> BranchBudget:
    """The numbers of branches, by one request.

    Raises:
        LakebaseError: The workspace refused or could not be reached.
    """
    return _counted(workspace, project, limits)[0]


def count_all(workspace: WorkspaceObjects, project: str, limits: BranchLimits) -> BranchBudget:
    """All numbers, by a request for each branch that is not archived.

    Raises:
        LakebaseError: The workspace refused or could not be reached.
    """
    found, awake = _counted(workspace, project, limits)
    computes = sum(_computes(workspace, branch) for branch in awake if not branch.is_default)
    return BranchBudget(
        found.project,
        found.branches,
        found.unarchived,
        found.roots,
        Usage(computes, limits.computes),
        Usage(len(workspace.snapshots.list(found.project)), limits.snapshots),
        found.deleted,
    )


def _counted(
    workspace: WorkspaceObjects, project: str, limits: BranchLimits
) -> tuple[BranchBudget, list[Branch]]:
    every = workspace.branches.list(project, show_deleted=True)
    present = [branch for branch in every if branch.state != "DELETED" and branch.delete_time is None]
    awake = [branch for branch in present if branch.state != "ARCHIVED"]
    budget = BranchBudget(
        project,
        Usage(len(present), limits.branches),
        Usage(len(awake), limits.unarchived),
        Usage(sum(branch.is_root for branch in present), limits.roots),
        deleted=len(every) - len(present),
    )
    return budget, awake


def _computes(workspace: WorkspaceObjects, branch: Branch) -> int:
    try:
        return len(workspace.endpoints.list(branch.name))
    except NotFoundError:
        # Deleted meanwhile.
        return 0
