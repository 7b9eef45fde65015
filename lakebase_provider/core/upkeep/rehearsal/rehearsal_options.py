"""How a change is rehearsed, and what follows."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from lakebase_provider.core.base.choices import require_choice
from lakebase_provider.core.config import arguments
from lakebase_provider.core.database.catalog import TableName
from lakebase_provider.core.database.rows.row_diff import MOST_EXAMPLES
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.upkeep.branches.lease_options import LeaseOptions, LeasePlan
from lakebase_provider.core.upkeep.migrations.runs import RunOptions
from lakebase_provider.core.upkeep.rehearsal.rehearsal_checks import Check

#: What follows a rehearsal that went well.
Then = Literal["stop", "run"]
_CHECKSUM = re.compile("[0-9a-f]{64}")
#: Tables by name; or with the columns by which their rows are compared, None for the primary key.
Tables = Sequence[str | tuple[str, str] | TableName] | Mapping[str, Sequence[str] | None]


class RehearsalOptions(TypedDict, total=False):
    """How a change is rehearsed.

    Attributes:
        checks: What must be true afterwards: queries whose values must all be true; or dicts with ``sql`` or
            ``table``, and ``min_rows``, ``max_rows`` or both, and perhaps a ``name``.
        tables: Tables whose rows are compared before and after; a dict gives the columns that tell rows
            apart, where it is not the primary key (None).
        then: ``"stop"``, the default; ``"run"`` to run the same on the parent if it succeeded and all checks
            passed.
        approved: ``checksum`` of an earlier report that somebody has approved: only the same statements are
            rehearsed, and run. A function's are compared as they are executed, without their parameters,
            before its commit. None, the default, to run whatever is given.
        examples: How many rows of each kind are shown in a table's differences, 5 by default, at most 100; 0
            shows no values.
        run_id: Id of the run, from which the branch's follows, so that a retry meets its own; by default each
            rehearsal has another one.
        lock_timeout: Seconds that a statement waits for a lock; 5 by default.
        statement_timeout: Seconds that a statement may take; the configuration's by default.
        attempts: How many times a transaction is tried that gets no lock, or is undone for another one; 5 by
            default.
        timeout: Seconds that the work may take on the branch, and again on the parent; 3600 by default.
        lease: Options of the branch's lease, such as ``{"max_cu": 4}``; see :class:`LeaseOptions`.
    """

    checks: Sequence[str | Mapping[str, Any]]
    tables: Tables
    then: Then
    approved: str | None
    examples: int
    run_id: str | None
    lock_timeout: float
    statement_timeout: float | None
    attempts: int
    timeout: float
    lease: LeaseOptions


@dataclass(frozen=True)
class RehearsalPlan:
    """The options of a rehearsal, checked, each with its default."""

    checks: Sequence[Any] = ()
    tables: Tables = ()
    then: Then = "stop"
    approved: str | None = None
    examples: int = 5
    run_id: str | None = None
    lock_timeout: float = 5.0
    statement_timeout: float | None = None
    attempts: int = 5
    timeout: float = 3600.0
    lease: LeaseOptions | None = None

    @classmethod
    def of(cls, options: RehearsalOptions) -> RehearsalPlan:
        """Those options.

        Raises:
            ConfigError: There is no such option, or its value is none.
        """
        arguments.known_options("A rehearsal", options, cls)
        plan = cls(**options)
        if isinstance(plan.checks, (str, Mapping)):
            raise arguments.wrong("'checks'", plan.checks, "be a list", "Give a list of checks.")
        plan.compared()
        plan.checked()
        require_choice("then", plan.then, ("stop", "run"))
        if plan.approved is not None and not _CHECKSUM.fullmatch(str(plan.approved)):
            raise arguments.wrong(
                "'approved'", plan.approved, "be a checksum", "Give the checksum of the report."
            )
        plan.run_options()
        arguments.timeout(plan.timeout)
        arguments.count("'examples'", plan.examples, most=MOST_EXAMPLES)
        lease = plan.lease or {}
        LeasePlan.of(lease)
        for name in ("source", "at_time", "at_lsn", "snapshot"):
            if name in lease:
                raise ConfigError(
                    f"The lease of a rehearsal is given {name!r}.",
                    remedy="Leave it out: a rehearsal is on a branch of the client's own, as it is now.",
                )
        return plan

    def checked(self) -> tuple[Check, ...]:
        """The checks."""
        return tuple(Check.of(check) for check in self.checks)

    def compared(self) -> dict[TableName, tuple[str, ...]]:
        """The tables that are compared, with their keys; none for the primary key."""
        if isinstance(self.tables, (str, bytes)) or not isinstance(self.tables, (Mapping, Sequence)):
            raise arguments.wrong(
                "'tables'", self.tables, "be a list or a dict", 'Give a list of names, such as ["orders"].'
            )
        if isinstance(self.tables, Mapping):
            return {TableName.parse(name): tuple(keys or ()) for name, keys in self.tables.items()}
        return {TableName.parse(name): () for name in self.tables}

    def run_options(self) -> RunOptions:
        """The limits of the statements."""
        limit = self.statement_timeout
        return RunOptions(
            arguments.timeout(self.lock_timeout, "lock_timeout"),
            None if limit is None else arguments.timeout(limit, "statement_timeout"),
            arguments.count("'attempts'", self.attempts, least=1),
        )

    def run_name(self) -> str:
        """The id of the run."""
        return self.run_id or f"rehearsal-{uuid.uuid4()}"
