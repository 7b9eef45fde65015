"""What a lease is asked for: the run whose branch it is, how that is made, and how long it lives."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict

from lakebase_provider.core.base.choices import require_choice
from lakebase_provider.core.config import arguments
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.upkeep.branches.budget import LIMITS, BranchLimits
from lakebase_provider.core.workspace.objects.branches import OnExists
from lakebase_provider.core.workspace.objects.endpoints import EndpointChanges

#: What the ids of leased branches begin with.
PREFIX = "run"
_LONGEST_ID = 63
_PREFIX = re.compile("[a-z][a-z0-9]{0,19}")
_HASH = 12
#: Seconds that a branch with an expiration may live.
_LONGEST_LIFE = 30 * 86_400.0
_CHOICES = ("recreate", "reuse", "fail")


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
class LeasePlan:
    """The options of a lease, checked, each with its default."""

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
    def of(cls, options: LeaseOptions) -> LeasePlan:
        """Those options.

        Raises:
            ConfigError: There is no such option, or its value is none.
        """
        arguments.known_options("A lease", options, cls)
        plan = cls(**options)
        if arguments.timeout(plan.ttl, "ttl") > _LONGEST_LIFE:
            raise arguments.wrong(
                "'ttl'", plan.ttl, "be at most 30 days", "Give ttl in seconds, such as 3600."
            )
        if plan.wait_for_budget is not None:
            arguments.timeout(plan.wait_for_budget, "wait_for_budget")
        require_choice("if_exists", plan.if_exists, _CHOICES)
        of = [name for name in ("snapshot", "at_time", "at_lsn") if getattr(plan, name) is not None]
        of += ["source"] if plan.snapshot is not None and plan.source is not None else []
        if len(of) > 1:
            raise ConfigError(f"Both {of[0]!r} and {of[1]!r} are given.", remedy="Keep one of them.")
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
