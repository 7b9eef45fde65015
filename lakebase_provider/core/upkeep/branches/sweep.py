"""Leased branches that nobody took back: found by what their ids begin with, judged, and purged.

A branch has no place for a mark, so it is known by its id, and by what a lease always has: an expiration. A
lease that is held is known by its heartbeat, which moves the expiration, so that the branch was changed just
now.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from lakebase_provider.core.base.clock import Clock
from lakebase_provider.core.errors import LakebaseError, NotFoundError
from lakebase_provider.core.workspace.http_limits import Limit, within
from lakebase_provider.core.workspace.objects.branches import Branch
from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects

logger = logging.getLogger(__name__)

#: Seconds since its last change within which a branch is taken for held; three heartbeats.
HELD = 1800.0


@dataclass(frozen=True)
class SweptBranch:
    """What a sweep has found, and what became of it.

    Attributes:
        name: The branch's full name.
        uid: Its uid.
        age: Seconds since its creation; None if the workspace does not tell.
        size: Bytes of its data, those that it shares with its source included; None likewise.
        deleted: Whether it was purged; in a dry run, whether it would be.
        reason: Why not; empty if it was.
        failed: Whether the workspace refused to delete it.
    """

    name: str
    uid: str | None
    age: float | None
    size: float | None
    deleted: bool
    reason: str = ""
    failed: bool = False


@dataclass(frozen=True)
class SweepReport:
    """What a sweep has found.

    Attributes:
        project: The project's name.
        prefix: What the ids of the branches begin with.
        dry_run: Whether nothing was deleted in fact.
        branches: All branches of such ids, those that were kept included.
    """

    project: str
    prefix: str
    dry_run: bool
    branches: tuple[SweptBranch, ...]

    @property
    def deleted(self) -> tuple[SweptBranch, ...]:
        """Those that were purged, or would be in a dry run."""
        return tuple(branch for branch in self.branches if branch.deleted)

    @property
    def failed(self) -> tuple[SweptBranch, ...]:
        """Those that the workspace refused to delete."""
        return tuple(branch for branch in self.branches if branch.failed)


@dataclass(frozen=True)
class Rules:
    """Which branches are left behind.

    Attributes:
        prefix: What their ids begin with, up to a hyphen.
        older_than: Seconds since the creation, at least.
        held: Seconds since the last change within which a branch is taken for held, by this host's clock.
    """

    prefix: str
    older_than: float
    held: float

    def match(self, branch: Branch) -> bool:
        """Whether its id is one of a lease."""
        return branch.id.startswith(f"{self.prefix}-")

    def keep(self, branch: Branch, every: Iterable[Branch], now: float) -> str:
        """Why a branch is not deleted; empty if it is.

        Args:
            branch: The branch.
            every: All branches of the project.
            now: Unix time.
        """
        children = [one.id for one in every if one.source_branch == branch.name]
        age, idle = _since(branch.create_time, now), _since(branch.update_time, now)
        for hindered, why in (
            (branch.is_default, "it is the project's default branch"),
            (branch.is_protected, "it is protected"),
            (branch.is_root and branch.source_snapshot is None, "it is a root"),
            (bool(children), f"it has children: {', '.join(children)}"),
            (branch.expire_time is None and branch.is_being_made, "it is being made"),
            (branch.expire_time is None, "it does not expire, so it is no lease"),
            (age is None or idle is None, "the workspace does not tell its age"),
            ((age or 0.0) < self.older_than, f"it is younger than {self.older_than:g} s"),
            ((idle or 0.0) < self.held, f"it was changed {idle or 0.0:.0f} s ago, so it is held"),
        ):
            if hindered:
                return why
        return ""


def sweep(
    project: str, rules: Rules, workspace: WorkspaceObjects, clock: Clock, *, dry_run: bool, timeout: float
) -> SweepReport:
    """Purge what leases left behind in a project.

    Args:
        project: The project's full name.
        rules: Which branches those are.
        workspace: Where they are.
        clock: Where the time comes from.
        dry_run: True to delete nothing.
        timeout: Seconds that listing them may take, and each deletion.

    Raises:
        LakebaseError: The branches could not be listed.
    """
    with within(Limit(timeout)):  # its pages need not end
        every = workspace.branches.list(project)
    found = [
        _judged(branch, rules.keep(branch, every, clock.wall()), clock)
        for branch in every
        if rules.match(branch)
    ]
    if not dry_run:
        found = [_purged(one, rules, workspace, clock, timeout) if one.deleted else one for one in found]
    return SweepReport(project, rules.prefix, dry_run, tuple(found))


def _judged(branch: Branch, reason: str, clock: Clock) -> SweptBranch:
    age = _since(branch.create_time, clock.wall())
    return SweptBranch(branch.name, branch.uid, age, branch.logical_size, not reason, reason)


def _purged(
    one: SweptBranch, rules: Rules, workspace: WorkspaceObjects, clock: Clock, timeout: float
) -> SweptBranch:
    try:
        # Whoever holds it may have said so since it was listed.
        current = workspace.branches.get(one.name)
        reason = rules.keep(current, (), clock.wall())
        if reason:
            return replace(one, deleted=False, reason=reason)
        workspace.branches.delete(one.name, purge=True, uid=one.uid, timeout=timeout)
    except NotFoundError:
        return replace(one, deleted=False, reason="somebody else deleted it")
    except LakebaseError as error:
        logger.warning("The branch %s was not deleted: %s", one.name, error.message)
        return replace(one, deleted=False, reason=error.message, failed=True)
    logger.info("The branch %s (%s) was left behind, and is purged.", one.name, one.uid)
    return one


def _since(moment: datetime | None, now: float) -> float | None:
    return None if moment is None else now - moment.timestamp()
